"""Rule bases of 1,000 to 100,000 rules: with `up --policy`, and installed while packets pass."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from network_ground import fwlab, unique_name, wait_until

from fwnode.policy_file import RULES_MAX
from labs.network import discovery, supervisor
from labs.python import python_command

HEARTBEATS_S = 1.0
"""Ten heartbeats, and ten sync ticks."""
LAST = "  - {name: pings, service: icmp, action: accept}\n"


def rule_base(path: Path, rules: int) -> Path:
    """The last rule alone accepts anything that the tests send."""
    many = "".join(f"  - {{name: rule {n}, source: inside, destination: 10.{n >> 16}.{n >> 8 & 255}.{n & 255}, "
                   f"service: [http, https], action: accept, track: log}}\n" for n in range(rules - 1))
    path.write_text(f"name: of {rules}\nnetworks: {{inside: [192.0.2.0/24]}}\nrules:\n{many}{LAST}")
    return path


@pytest.fixture
def name() -> Iterator[str]:
    name = unique_name()
    yield name
    found = discovery.find(name)
    if found:
        supervisor.stop(found)


def pings(lab: str) -> bool:
    ping = ["ping", "-n", "-c", "1", "-W", "5", "198.51.100.100"]
    return fwlab("exec", "--lab", lab, "client", "--", *ping, check=False).returncode == 0


def fwctl(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = python_command("fwnode.control", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize("rules", [1_000, 100_000])
def test_up_with_a_large_rule_base(name: str, rules: int, tmp_path: Path) -> None:
    fwlab("up", "--name", name, "--policy", str(rule_base(tmp_path / "rules.yaml", rules)))
    assert pings(name)


def test_installing_a_large_rule_base_while_packets_pass(name: str, tmp_path: Path) -> None:
    """The active member goes on forwarding, heartbeats included: nobody takes over."""
    fwlab("up", "--name", name, "--policy", str(rule_base(tmp_path / "rules.yaml", 2)))
    for rules in (40_000, 100_000):
        file = rule_base(tmp_path / "rules.yaml", rules)
        done = fwctl("--lab", name, "fw1", "policy", "install", str(file))
        assert (done.returncode, done.stderr) == (0, "")
        assert f"policy of {rules} installed on fw1: {rules} rules" in done.stdout
        assert pings(name)
    fwlab("do", "--lab", name, "policy", "member=fw2", f"policy={file}")
    status = json.loads(fwctl("--lab", name, "fw2", "status", "--json").stdout)
    assert (status["policy"], status["state"]) == ("of 100000", "Standby")
    assert json.loads(fwctl("--lab", name, "fw1", "stat", "--json").stdout)["failovers"] == 0


def test_what_no_message_carries_is_refused_and_the_member_lives(name: str, tmp_path: Path) -> None:
    """A policy's name goes out with every heartbeat, a service's with every record."""
    fwlab("up", "--name", name)
    file = tmp_path / "rules.yaml"
    for text, words in {
        f"name: {'n' * 200}\nrules: []\n": "name: 'nnn",
        f"name: p\nservices: {{{'s' * 65}: {{protocol: tcp, port: 80}}}}\nrules: []\n": "services.sss",
        f"name: p\nservices: {{s: {{protocol: tcp, session_timeout: {'9' * 400}s}}}}\nrules: []\n": "s.session_timeout",
    }.items():
        file.write_text(text)
        done = fwctl("--lab", name, "fw1", "policy", "install", str(file))
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    before = json.loads(fwctl("--lab", name, "fw1", "status", "--json").stdout)
    wait_until(lambda: json.loads(fwctl("--lab", name, "fw1", "status", "--json").stdout)["uptime_s"]
               > before["uptime_s"] + HEARTBEATS_S, "the member has sent heartbeats since")
    assert json.loads(fwctl("--lab", name, "fw2", "stat", "--json").stdout)["failovers"] == 0


def test_more_rules_than_the_bound_are_refused_with_it(name: str, tmp_path: Path) -> None:
    file = rule_base(tmp_path / "rules.yaml", RULES_MAX + 1)
    done = fwlab("up", "--name", name, "--policy", str(file), check=False)
    assert done.returncode == 2
    assert f"{file}: rules: is " in done.stderr and "write at most 100,000 of them" in done.stderr
