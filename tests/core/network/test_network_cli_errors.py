"""`fwlab` refuses what is wrong before it starts anything: one message, the right exit code, no traceback."""

import importlib.metadata
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from fwnode.configuration import MemberConfig
from labs import cli
from labs import fwlab as command_line
from labs.exit_codes import ExitCode
from labs.network import background
from labs.words import lab_first


@pytest.fixture(autouse=True)
def _nothing_starts(monkeypatch):
    def refuse(*_):
        raise AssertionError("a lab was started")
    monkeypatch.setattr(background, "start_detached", refuse)


def fwlab(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["fwlab", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, capsys.readouterr()


@pytest.mark.parametrize(("arguments", "problem"), [
    (["up", "--members", "6"], "--members: members: 6 members: the limit of a cluster is 5"),
    (["up", "nosuch"], "there is no topology 'nosuch'; built in: pair"),
    (["up", "--release", "fw3=R80.10"], "--release fw3=R80.10: expected one of fw1, fw2"),
    (["up", "--release", "R1"], "release 'R1' is unknown; known are: "),
    (["up", "--policy", "/nonexistent/p.yaml"], "/nonexistent/p.yaml: cannot be read: No such file"),
    (["up", "--name", ""], "'' cannot name a lab"),
    (["down", ""], "'' cannot name a lab"),
    (["run", "upgrade-careless", "--name", ""], "'' cannot name a lab"),
    (["up", "--rate", "fast"], "Invalid value for '--rate'"),
    (["up", "--rate", "nan"], "--rate: nan is no rate of lab time; write 0.001 to 100,000 seconds a second"),
    (["up", "--rate", "inf"], "--rate: inf is no rate of lab time"),
    (["up", "--rate", "1e300"], "--rate: 1e+300 is no rate of lab time"),
    (["up", "--policy", "/dev/zero"], "/dev/zero: is no regular file"),
    (["capture", "lan", "-w", "-", "--seconds", "nan"], "--seconds: nan is no time to wait; write 0 to 315,360,000"),
    (["capture", "lan", "-w", "-", "--seconds", "1e300"], "--seconds: 1e+300 is no time to wait"),
    (["check", "/etc"], "is neither a lab of the catalog nor a file"),
    (["check", "x" * 300], "is neither a lab of the catalog nor a file"),
    (["check", "a\0b"], "is neither a lab of the catalog nor a file"),
    (["config", "fw3"], "there is no member fw3; there are fw1, fw2"),
    (["config", "client"], "there is no member client"),
    (["config", "fw1", "--interface", "dmz=eth1"], "--interface dmz=eth1: expected one of lan, wan, sync"),
    (["exec", "--lab", "no such", "client", "--", "true"], "'no such' cannot name a lab"),
    (["do", "explode"], "there is no step explode; steps: "),
    (["do", "kil", "fw1"], "there is no step kil; did you mean kill?"),
    (["rnu", "x"], "Did you mean 'run'?"),
    (["run", "upgrade-carelss"], "did you mean upgrade-careless?"),
    (["do", "kill", "--lab", "no such", "fw1"], "'no such' cannot name a lab"),
    (["do", "kill", "fw1", "--lab=no such"], "'no such' cannot name a lab"),
    (["exec", "client", "--lab", "no such", "--", "true"], "'no such' cannot name a lab"),
    (["exec", "client", "--lab=no such", "true", "--lab", "x"], "'no such' cannot name a lab"),
    (["nonsense"], "No such command 'nonsense'"),
])
def test_refused(monkeypatch, capsys, arguments, problem):
    code, said = fwlab(monkeypatch, capsys, *arguments)
    assert code == ExitCode.USAGE
    assert problem in said.err
    assert "Traceback" not in said.err


def test_every_problem_of_a_policy_by_its_own_name(monkeypatch, capsys, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("name: p\nrulez: []\n")
    code, said = fwlab(monkeypatch, capsys, "up", "--policy", str(file))
    assert code == ExitCode.USAGE
    assert f"{file}: rules: is missing" in said.err
    assert f"{file}: rulez: unknown key" in said.err


def test_config(monkeypatch, capsys):
    arguments = ["config", "fw2", "--interface", "lan=eth1", "--release", "R80.10"]
    code, said = fwlab(monkeypatch, capsys, *arguments)
    assert code == 0
    config = MemberConfig.model_validate(yaml.safe_load(said.out))
    assert (config.member, config.release) == ("fw2", "R80.10")
    assert [interface.kernel_name for interface in config.cluster.interfaces] == ["eth1", "wan", "sync"]


def test_network_script_is_a_script(monkeypatch, capsys):
    code, said = fwlab(monkeypatch, capsys, "config", "client", "--network", "--interface", "lan=eth1")
    assert code == 0
    assert "ip -6 address replace 2001:db8:1::100/64 dev eth1 nodad\n" in said.out
    assert "ip -4 route replace 198.51.100.0/24 via 192.0.2.1\n" in said.out
    assert subprocess.run(["sh", "-n"], input=said.out, text=True, check=False).returncode == 0


def test_help_has_the_exit_codes():
    shown = CliRunner().invoke(command_line.app, ["--help"]).output
    assert "130 interrupted" in " ".join(shown.split())


BROKEN = [
    ("title: a\ntitle: b\n", "line 2, column 1: the key 'title' is written twice"),
    ("name: 2026-01-01\n", "name: '2026-01-01' is a date to YAML"),
    ("a: !!set {b}\n", "a: tags ('!!set') are not read"),
    ("rules: .nan\n", "rules: '.nan' is no finite number"),
    ("a: " + "9" * 20_000, "is a number of 20,000 digits"),
    ("b: " + "[" * 1200, "is nested too deeply"),
    ("a: \x1b[2J\n", "the control character"),
]


@pytest.mark.parametrize(("text", "problem"), BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("arguments", [
    ["check"], ["run"], ["show"], ["up", "--policy"], ["up", "--releases"], ["up"], ["config", "fw1", "--policy"],
    ["config", "fw1", "--topology"],
], ids=" ".join)
def test_a_broken_file_is_told_by_every_command(monkeypatch, capsys, tmp_path, arguments, text, problem):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    code, said = fwlab(monkeypatch, capsys, *arguments, str(file))
    assert code == ExitCode.USAGE
    assert str(file) in said.err
    assert problem in said.err
    assert "Traceback" not in said.err
    assert "\x1b" not in said.err


def test_version(monkeypatch, capsys):
    code, said = fwlab(monkeypatch, capsys, "--version")
    assert (code, said.out) == (0, f"fwlab {importlib.metadata.version('fwpair-lab')}\n")


@pytest.mark.parametrize("words", [["exec", "client", "--", "x", "--lab", "y"], ["exec", "client", "x", "--lab", "y"],
                                   ["exec"], [], ["run", "--lab", "x"]])
def test_the_words_of_a_program_are_left_alone(words):
    assert lab_first(words) == words
