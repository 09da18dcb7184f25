"""Commands whose output cannot be written: they end with the right exit code, and never with a traceback."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from labs.exit_codes import ExitCode
from labs.network.errors import LabError
from labs.python import python_command
from labs.results import Results

COMMANDS = [("config", "fw1"), ("show", "upgrade-careless"), ("--help",)]
"""One that prints, one that uses rich, and the parser's own."""


def fwlab(*arguments, shell="exec \"$@\"", **environment):
    """`fwlab` as a shell starts it, with a redirection or a pipe behind it."""
    line = ["bash", "-c", f"set -o pipefail; {shell}", "bash", *python_command("labs.cli", *arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=240,
                          env={**os.environ, **environment})


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(("shell", "code"), [
    ('"$@" > /dev/full', ExitCode.NOT_WRITTEN), ('"$@" | head -c 1', ExitCode.HELD),
    ('"$@" < /dev/null >&- 2>&- <&-', ExitCode.HELD)])
def test_output_that_cannot_be_written(arguments, shell, code):
    done = fwlab(*arguments, shell=shell)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert ("standard output cannot be written: No space left on device" in done.stderr) is ("/full" in shell)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_terminal_that_lacks_characters(arguments):
    done = fwlab(*arguments, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii() and done.stdout


@pytest.mark.parametrize("columns", ["0", "1"])
def test_a_width_that_no_terminal_has(columns):
    assert fwlab("list", COLUMNS=columns).stdout == fwlab("list").stdout != ""
    assert fwlab("ps", COLUMNS=columns).stdout.strip() != ""


def test_an_error_is_not_an_expectation_that_failed(monkeypatch, tmp_path):
    """An internal error has a code of its own, in the program and in the one inside the lab."""
    program = "import labs.fwlab, labs.cli; labs.fwlab.discovery.running = None; labs.cli.main()"
    done = subprocess.run([sys.executable, "-P", "-c", program, "ps"], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.INTERNAL
    assert "this is an error of fwlab itself" in done.stderr


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    """A limit of file sizes stands in for a disk that is full."""
    file, new = tmp_path / "old.json", tmp_path / "new.json"
    file.write_text("of the last run")
    program = (f"from labs.results import Results; from pathlib import Path; files = {str(file)!r}, {str(new)!r}\n"
               "results = Results(*map(Path, files))\n"
               "for file in files: results.write(Path(file), 'x' * 100_000)\n"
               "raise SystemExit(results.code(0))")
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)))
    assert done.returncode == ExitCode.NOT_WRITTEN
    assert done.stderr.splitlines() == [f"fwlab: {path}: cannot be written: File too large" for path in (file, new)]
    assert (file.read_text(), list(tmp_path.iterdir())) == ("of the last run", [file])


def test_a_file_keeps_its_mode(tmp_path):
    file = tmp_path / "x"
    file.touch(0o600)
    Results(file).write(file, "result")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("result", 0o600)


def test_only_one_result_goes_to_standard_output():
    with pytest.raises(LabError, match="only one result"):
        Results(Path("-"), Path("-"))


def test_standard_output_is_the_result_and_nothing_else():
    program = ("from fwnode import output; output.prepare()\n"
               "import json, os; from labs.results import Results; from pathlib import Path\n"
               "results = Results(Path('-'), None)\n"
               "print('a word'); os.system('echo of another process'); results.write(Path('-'), json.dumps({'a': 1}))\n"
               "raise SystemExit(output.finish('test', results.code(0)))")
    line = [sys.executable, "-P", "-c", program]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"a": 1})
    assert sorted(done.stderr.splitlines()) == ["a word", "of another process"]
    closed = subprocess.run(["sh", "-c", "exec \"$@\" >&-", "sh", *line], capture_output=True, text=True, check=False)
    assert "standard output is closed" in closed.stderr


@pytest.mark.parametrize("loads", ["fwnode.configuration", "labs.network.doctor", "labs.report.terminal"])
def test_an_interrupt_while_the_commands_load_is_quiet(loads):
    """The signal comes when the module is looked for: the moment is exact."""
    program = ("import os, signal, sys\n"
               "class Finder:\n"
               "    def find_spec(name, path=None, target=None):\n"
               f"        if name == {loads!r}: os.kill(os.getpid(), signal.SIGINT)\n"
               "sys.meta_path.insert(0, Finder)\n"
               "from labs.cli import main; main()")
    done = subprocess.run([sys.executable, "-c", program, "list"], capture_output=True, text=True, check=False,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.INTERRUPTED, "", "")
