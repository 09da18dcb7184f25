"""The commands of labs: `fwlab run`, `list`, `show`, `check`. The composition root gives them their app."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from fwnode import output
from fwnode.files import FileError
from labs.exit_codes import ExitCode
from labs.network.errors import LabError
from labs.network.supervisor import run_for_result
from labs.procedure import catalog, worlds
from labs.procedure.model import LabFile
from labs.procedure.moments import SEED_MAX
from labs.procedure.settings import KeyProblem, Settings, load_set, parse
from labs.report import junit, terminal
from labs.report.sentence import sentence
from labs.results import Results

LabArgument = Annotated[str, typer.Argument(metavar="LAB", help="A lab of the catalog, a lab file, or its folder.")]
SEED_DRAWN_MAX = 10**6
"""A run on real packets that is given no seed draws one below this."""
SEED_SIMULATED = 1
"""Of a simulated run that is given no seed: it is the same run every time."""
VERDICTS = {"pass": ExitCode.HELD, "warn": ExitCode.WARNINGS, "fail": ExitCode.FAILED}


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("run")(run_lab)
    app.command("list")(list_labs)
    app.command("show")(show_lab)
    app.command("check")(check_file)


def run_lab(
    lab: LabArgument,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="The run's document; - is standard output.")
    ] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="A JUnit report; or -.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="The running lab's name; else that of the file.")] = None,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", metavar="DIR", help="A folder for the document and the logs.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="At the end the lab stays until you press Enter.")] = False,
    simulated: Annotated[
        bool, typer.Option("--simulate", help="In a simulated world, in virtual time: no namespaces, no root.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=SEED_MAX, help="What the moments of steps with spans come from, "
                                 "and all chance of a simulated world: the same seed, the same run.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value for a key of the lab file, such as "
                     "members.fw2.release=R80.10 or steps.3.wait=10s; several times for several."),
    ] = None,
) -> None:  # fmt: skip
    """Play a lab and tell what happened."""
    if keep and simulated:
        _fail("--keep is for real packets: a simulated world ends with its run; leave out one of the two",
              ExitCode.USAGE)
    chosen = _settings(settings or [])
    file = _load(lab, name, chosen)
    try:
        results = Results(json_file, junit_file)
    except LabError as error:
        _fail(str(error), error.exit_code)
    if evidence is not None:
        _must_be_folder(evidence)
    if simulated:
        document, code = _simulate(file, SEED_SIMULATED if seed is None else seed, evidence)
    else:
        asked = {"seed": secrets.randbelow(SEED_DRAWN_MAX) if seed is None else seed, "settings": chosen}
        document, code = _play(file, file.name if name is None else name, evidence, keep, asked)
    text = json.dumps(document, indent=2) + "\n"
    results.write(json_file, text)
    results.write(junit_file, junit.render(document))
    results.write(evidence / "document.json" if evidence else None, text)
    terminal.report(document)
    if output.lost():
        typer.echo(f"{sentence(document)}\n{document['verdict'].upper()}: {document['lab']}", err=True)
    raise typer.Exit(results.code(code or VERDICTS[document["verdict"]]))


def list_labs() -> None:
    """The labs of the catalog."""
    terminal.catalog([_load(name) for name in catalog.names()])


def show_lab(lab: LabArgument) -> None:
    """What a lab does, and its guide."""
    file = _load(lab)
    guide = file.path.parent / catalog.GUIDE
    terminal.show(file, guide.read_text(encoding="utf-8") if guide.is_file() else "", catalog.claims())


def check_file(file: Annotated[str, typer.Argument(metavar="FILE", help="A lab file.")]) -> None:
    """Validate a lab file; runs nothing."""
    checked = _load(file)
    steps, expectations = len(checked.steps), len(checked.expect)
    typer.echo(f"{checked.path}: in order; {steps} steps, {expectations} expectations at the end")
    for world in worlds.WORLDS:
        for line in worlds.lacking(checked, world):
            typer.echo(f"{checked.path}: {line}")


def _play(file: LabFile, name: str, evidence: Path | None, keep: bool,
          asked: dict[str, Any]) -> tuple[dict[str, Any], int]:  # fmt: skip
    """The run's document; and an exit code where something went wrong besides, after the document was there."""
    kept = str(evidence.resolve()) if evidence else ""
    argv = [str(file.path.resolve()), kept, "keep" if keep else "", json.dumps(asked)]
    try:
        code, text = run_for_result(name, "labs.procedure.inside:main", argv)
    except LabError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        code, text = int(ExitCode.INTERRUPTED), ""
    if not text:
        raise typer.Exit(code or ExitCode.INTERNAL)
    return json.loads(text), code


def _simulate(file: LabFile, seed: int, evidence: Path | None) -> tuple[dict[str, Any], int]:
    from labs.simulation.run import Simulation

    _must_work(file, "simulated")
    live = terminal.Live()
    live.title(file, seed)
    simulation = Simulation(file, seed, live.tell)
    try:
        document, code = simulation.run()
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if evidence is not None:
        try:
            (evidence / "world.log").write_bytes(simulation.world.log())
        except OSError as error:
            typer.echo(f"fwlab: {error.filename}: cannot be written: {error.strerror}", err=True)
            code = code or ExitCode.NOT_WRITTEN
    return document, code


def _must_work(file: LabFile, world: str) -> None:
    if lacking := worlds.lacking(file, world):
        _fail("\n".join(f"{file.path}: {line}" for line in lacking), ExitCode.USAGE)


def _load(lab: str, name: str | None = None, settings: Settings | None = None) -> LabFile:
    try:
        return load_set(catalog.find(lab), settings or {}, name)
    except FileError as error:
        _fail(str(error), ExitCode.USAGE)


def _settings(given: list[str]) -> dict[str, Any]:
    """Each key with the one value that it is given."""
    settings: dict[str, Any] = {}
    try:
        for text in given:
            key, values = parse(text)
            if len(values) > 1:
                raise KeyProblem(f"{key}: has {len(values)} values; give one, or put a list into brackets")
            settings[key] = values[0]
    except KeyProblem as problem:
        _fail(f"--set {problem}", ExitCode.USAGE)
    return settings


def _must_be_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _fail(f"{path}: cannot be made: {error.strerror}; name another folder", ExitCode.USAGE)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
