"""Rule bases of 1,000 to 100,000 rules: with `up --policy`, and installed while packets pass."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from network_ground import fwlab, unique_name

from labs.network import discovery, supervisor

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


@pytest.mark.parametrize("rules", [1_000, 100_000])
def test_up_with_a_large_rule_base(name: str, rules: int, tmp_path: Path) -> None:
    fwlab("up", "--name", name, "--policy", str(rule_base(tmp_path / "rules.yaml", rules)))
    assert pings(name)
