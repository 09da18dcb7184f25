"""`fwlab run` where its output or its results cannot be written: what was computed is kept or said."""

import json
import os
import subprocess

import pytest

from labs.exit_codes import ExitCode
from labs.python import python_command

LAB = {
    "title": "One member and nothing else",
    "shows": "what is said of it",
    "members": {"fw1": {"release": "R77.30"}, "fw2": {"release": "R77.30"}},
    "policy": {"name": "open", "rules": [{"action": "accept"}]},
    "steps": [{"note": "a line — with · characters", "start": "fw1"}],
}
SIMULATED = ("--simulate",)
HELD, BROKEN = ({"that": "members.fw1.connections", "is": number} for number in (0, 7))


@pytest.fixture
def run(tmp_path):
    """`fwlab run … --json result` of a shell that redirects it; what the shell says, and the verdict kept."""
    def go(shell, *arguments, world=(), expect=HELD, **environment):
        lab, result = tmp_path / "lab.yaml", tmp_path / "result"
        lab.write_text(json.dumps({**LAB, "expect": [expect]}))
        line = python_command("labs.cli", "run", str(lab), *world, *(arguments or ("--json", str(result))))
        line = ["bash", "-c", f"set -o pipefail; {shell}", "bash", *line]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=240,
                              env={**os.environ, **environment})
        assert "Traceback" not in done.stderr
        return done, json.loads(result.read_text())["verdict"] if result.exists() else None

    return go


@pytest.mark.parametrize("shell", ['"$@" >&-', '"$@" | head -1', '"$@" 2>&1 | true', '"$@" >&- 2>&- <&-'])
@pytest.mark.parametrize(("world", "expect", "code", "verdict"), [
    ((), BROKEN, 1, "fail"), (SIMULATED, HELD, 0, "pass")], ids=["real", "simulated"])
def test_a_reader_that_leaves_changes_nothing(run, shell, world, expect, code, verdict):
    done, kept = run(shell, world=world, expect=expect)
    assert (done.returncode, kept) == (code, verdict)


def test_a_terminal_that_lacks_characters(run):
    done, kept = run('"$@"', world=SIMULATED, PYTHONIOENCODING="ascii")
    assert (done.returncode, kept) == (0, "pass")
    assert "a line ? with ? characters" in done.stdout


def test_standard_output_on_a_full_disk(run):
    done, kept = run('"$@" > /dev/full')
    assert (done.returncode, kept) == (ExitCode.NOT_WRITTEN, "pass")
    assert "standard output cannot be written: No space left on device" in done.stderr
    assert "PASS: " in done.stderr, "what was found is said where it can be"


@pytest.mark.parametrize(("option", "world"), [("--json", ()), ("--junit", SIMULATED)])
def test_a_result_on_a_full_disk(run, option, world):
    done, _ = run('"$@"', option, "/dev/full", world=world)
    assert done.returncode == ExitCode.NOT_WRITTEN
    assert "fwlab: /dev/full: cannot be written: No space left on device" in done.stderr
    assert "PASS: " in done.stdout


def test_the_document_on_standard_output(run):
    done, _ = run('"$@"', "--json", "-", expect=BROKEN)
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (1, "fail")
    assert "start fw1" in done.stderr and "FAIL: " in done.stderr
