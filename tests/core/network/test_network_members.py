"""Member configurations, steps and doctor's judgement: pure, no namespaces."""

import io
import re
import shlex
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from fwnode.configuration import MemberConfig
from fwnode.files import load_yaml
from labs.exit_codes import ExitCode
from labs.network.discovery import check_name
from labs.network.doctor import PROBES, Finding, FindingState, exit_code, print_table, required_complaint
from labs.network.errors import LabError
from labs.network.lab import Lab
from labs.network.members import MemberSettings, configuration_text, member_configuration
from labs.network.probe import OPTIONAL, REQUIRED
from labs.network.topology import load_topology
from labs.procedure.asked import STEPS, step_arguments


def test_configuration_is_what_a_member_reads():
    pair = load_topology("pair")
    data = member_configuration(pair, "fw2", MemberSettings(release="R80.10", parameters={}), rate=60.0, epoch=1000.5)
    assert yaml.safe_load(configuration_text(data)) == data
    config = MemberConfig.model_validate(data)
    assert (config.member, config.release, config.control) == ("fw2", "R80.10", "/run/fwpair/fw2.sock")
    assert [(i.name, i.sync, len(i.virtual), list(i.members)) for i in config.cluster.interfaces] == [
        ("lan", False, 2, ["fw1", "fw2"]), ("wan", False, 2, ["fw1", "fw2"]), ("sync", True, 0, ["fw1", "fw2"])]
    assert data["clock"] == {"rate": 60.0, "epoch": 1000.5}
    assert data["policy"]["rules"][0]["source"] == "lan"


def test_configuration_without_aliases(tmp_path):
    shared = ["fw1"]
    file = tmp_path / "fw1.yaml"
    file.write_text(configuration_text({"a": shared, "b": shared}))
    assert load_yaml(file) == {"a": ["fw1"], "b": ["fw1"]}


def test_configuration_for_another_machine():
    data = member_configuration(load_topology("pair"), "fw1", MemberSettings(), interface_names={"sync": "eth3"})
    assert [(i["name"], i.get("device")) for i in data["cluster"]["interfaces"]] == [
        ("lan", None), ("wan", None), ("sync", "eth3")]
    MemberConfig.model_validate(data)


def test_settings_of_strangers_are_refused():
    with pytest.raises(LabError, match="members: fw9 not in topology pair; it has fw1, fw2"):
        Lab(load_topology("pair"), {"fw9": MemberSettings()})


@pytest.mark.parametrize(("step", "value", "expected"), [
    ("kill", "fw1", {"member": "fw1"}),
    ("upgrade", {"member": "fw1", "release": "R80.10"}, {"member": "fw1", "release": "R80.10"}),
    ("cut", {"link": "sync"}, {"link": "sync"}),
])
def test_step_arguments(step, value, expected):
    assert step_arguments(step, value) == expected


@pytest.mark.parametrize(("step", "value", "problem"), [
    ("explode", {}, "there is no step explode; steps: start, stop"),
    ("kill", {}, "kill: member is missing; it takes member=…"),
    ("upgrade", {"release": "x", "wen": "now"}, "upgrade: unknown key wen; member is missing"),
])
def test_step_arguments_refused(step, value, problem):
    with pytest.raises(LabError, match=re.escape(problem)):
        step_arguments(step, value)
    assert step in STEPS or step == "explode"


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 41, "x/y", "x\0"])
def test_lab_names(name):
    with pytest.raises(LabError, match="cannot name a lab"):
        check_name(name)


@pytest.mark.parametrize(("states", "code"), [
    ([FindingState.OK, FindingState.NOTE], ExitCode.HELD),
    ([FindingState.OK, FindingState.LACKING], ExitCode.WARNINGS),
    ([FindingState.LACKING, FindingState.MISSING], ExitCode.CANNOT_RUN),
])
def test_doctors_exit_code(states, code):
    assert exit_code([Finding("x", state) for state in states]) == code


def test_doctor_explains_every_probe():
    assert set(PROBES) == set(REQUIRED) | set(OPTIONAL)
    assert {name for name, entry in PROBES.items() if entry.failed == FindingState.MISSING} == set(REQUIRED)
    lacking = {name for name, entry in PROBES.items() if entry.failed == FindingState.LACKING}
    assert lacking == {"tbf", "statistic match"} < set(OPTIONAL), "a step cannot be taken without these"
    for name in REQUIRED:
        assert "to mend it:\n  sudo " in required_complaint({name: "it said no"})


@pytest.mark.parametrize("width", [20, 80, 200])
def test_a_remedy_can_be_copied_whatever_the_width(width):
    """Each stands on a line of its own, whole, and is a command or a comment to a shell."""
    command = "sudo update-alternatives --set iptables /usr/sbin/iptables-legacy && sudo modprobe xt_NFQUEUE  # [if] so"
    out = io.StringIO()
    print_table([Finding("NFQUEUE (iptables)", FindingState.MISSING, "it is needed", f"sudo first\n{command}")],
                Console(file=out, width=width))
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert lines[lines.index("to mend NFQUEUE (iptables):") + 1:][:2] == ["sudo first", command]


def test_every_remedy_is_something_for_a_shell():
    for entry in PROBES.values():
        for line in entry.mend.splitlines():
            assert line.startswith(("sudo ", "#")), line


def test_the_command_for_sudo_is_one_that_sudo_finds():
    from labs.network import doctor

    line = doctor._user_namespace_mend().splitlines()[-1]
    assert Path(shlex.split(line)[1]).is_absolute()
