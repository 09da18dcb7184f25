"""The commands that run nothing, and the errors that come before a lab starts."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from labs.exit_codes import ExitCode
from labs.procedure import catalog
from labs.procedure import cli as commands


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    commands.register(app)
    return app


def test_list_names_every_lab(app: typer.Typer) -> None:
    text = CliRunner().invoke(app, ["list"]).output
    assert all(name in text for name in catalog.names())


def test_show_prints_the_guide(app: typer.Typer) -> None:
    text = CliRunner().invoke(app, ["show", "upgrade-careless"]).output
    assert "What to try next" in text


def test_check(app: typer.Typer, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["check", "upgrade-careless"]).exit_code == ExitCode.HELD
    bad = tmp_path / "bad.yaml"
    bad.write_text("title: 1\nsteps: [{dance: 1}]\n")
    result = CliRunner().invoke(app, ["check", str(bad)])
    assert result.exit_code == ExitCode.USAGE
    assert "steps[0].dance: unknown step" in result.output
    assert "shows: is missing" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["upgrade-careless", "--json", "/nowhere/x"],
        ["upgrade-careless", "--junit", "/nowhere/x"],
        ["upgrade-careless", "--evidence", "/proc/nowhere"],
    ],
)
def test_errors_before_the_lab_starts(
    app: typer.Typer, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_run(*_: object) -> tuple[int, str]:
        raise AssertionError("the lab was started")

    monkeypatch.setattr(commands, "run_for_result", must_not_run)
    assert CliRunner().invoke(app, ["run", *arguments]).exit_code == ExitCode.USAGE


def test_a_run_that_was_interrupted(app: typer.Typer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "run_for_result", lambda *_: (int(ExitCode.INTERRUPTED), ""))
    new, old = tmp_path / "new.json", tmp_path / "old.xml"
    old.write_text("of the last run")
    arguments = ["run", "upgrade-careless", "--json", str(new), "--junit", str(old)]
    assert CliRunner().invoke(app, arguments).exit_code == ExitCode.INTERRUPTED
    assert not new.exists()
    assert old.read_text() == "of the last run"
