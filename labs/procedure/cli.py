"""The commands of labs: `fwlab run`, `list`, `show`, `check`. The composition root gives them their app."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from fwnode.files import FileError
from labs.exit_codes import ExitCode
from labs.network.errors import LabError
from labs.network.supervisor import run_for_result
from labs.procedure import catalog
from labs.procedure.model import LabFile, load
from labs.report import junit, terminal

LabName = Annotated[str, typer.Argument(metavar="LAB", help="A lab of the catalog, a lab file, or its folder.")]
VERDICTS = {"pass": ExitCode.HELD, "warn": ExitCode.WARNINGS, "fail": ExitCode.FAILED}


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("run")(run_lab)
    app.command("list")(list_labs)
    app.command("show")(show_lab)
    app.command("check")(check_file)


def run_lab(
    lab: LabName,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="The run's document.")] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="A JUnit report.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="The running lab's name; else that of the file.")] = None,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", metavar="DIR", help="A folder for the document and the logs.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="At the end the lab stays until you press Enter.")] = False,
) -> None:
    """Play a lab and tell what happened."""
    file = _load(lab)
    for path in (json_file, junit_file):
        _must_be_writable(path)
    if evidence is not None:
        _must_be_folder(evidence)
    document = _play(file, file.name if name is None else name, evidence, keep)
    terminal.report(document)
    text = json.dumps(document, indent=2) + "\n"
    _write(json_file, text)
    _write(junit_file, junit.render(document))
    _write(evidence / "document.json" if evidence else None, text)
    raise typer.Exit(VERDICTS[document["verdict"]])


def list_labs() -> None:
    """The labs of the catalog."""
    terminal.catalog([_load(name) for name in catalog.names()])


def show_lab(lab: LabName) -> None:
    """What a lab does, and its guide."""
    file = _load(lab)
    guide = file.path.parent / catalog.GUIDE
    terminal.show(file, guide.read_text(encoding="utf-8") if guide.is_file() else "", catalog.claims())


def check_file(file: Annotated[str, typer.Argument(metavar="FILE", help="A lab file.")]) -> None:
    """Validate a lab file; runs nothing."""
    checked = _load(file)
    steps, expectations = len(checked.steps), len(checked.expect)
    typer.echo(f"{checked.path}: in order; {steps} steps, {expectations} expectations at the end")


def _play(file: LabFile, name: str, evidence: Path | None, keep: bool) -> dict[str, Any]:
    kept = str(evidence.resolve()) if evidence else ""
    argv = [str(file.path.resolve()), kept, "keep" if keep else ""]
    try:
        code, text = run_for_result(name, "labs.procedure.inside:main", argv)
    except LabError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        code, text = int(ExitCode.INTERRUPTED), ""
    if code != ExitCode.HELD or not text:
        raise typer.Exit(code or ExitCode.FAILED)
    document: dict[str, Any] = json.loads(text)
    return document


def _load(lab: str) -> LabFile:
    try:
        return load(catalog.find(lab))
    except FileError as error:
        _fail(str(error), ExitCode.USAGE)


def _must_be_writable(path: Path | None) -> None:
    """Before the lab starts: a result that cannot be kept is known a minute earlier. Leaves no empty file behind."""
    if path is None:
        return
    try:
        is_new = not (path.exists() or path.is_symlink())
        with path.open("a", encoding="utf-8"):
            pass
        if is_new:
            path.unlink()
    except OSError as error:
        _fail(f"{path}: cannot be written: {error.strerror}; name another file", ExitCode.USAGE)


def _must_be_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _fail(f"{path}: cannot be made: {error.strerror}; name another folder", ExitCode.USAGE)


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.write_text(text, encoding="utf-8")


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
