"""The control socket under attack: packets go on, who asks properly is answered, and the memory stays what it was."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
from harness import UpLab, until

from fwnode.control.client import run_directory

SERVER = "198.51.100.100"
PINGS = 150
MEMORY_GROWTH_MAX_KB = 100_000


def callers(path: Path, count: int, data: bytes) -> list[socket.socket]:
    """Connections that send this, as far as the kernel takes it, and read nothing."""
    made = []
    for _ in range(count):
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        caller.settimeout(0.01)
        try:
            caller.connect(str(path))
            caller.sendall(data)
        except OSError:
            pass  # full, or turned away: it attacks no less
        made.append(caller)
    return made


def line(command: str, **arguments: object) -> bytes:
    return json.dumps({"command": command, "arguments": arguments}).encode() + b"\n"


ATTACKS = {
    "newlines": (1, b"\n" * (64 << 10)),
    "pipelined tables": (1, line("tab", unlimited=True) * 1_300),
    "many callers with many requests": (300, line("status") * 3_000),
    "followers that never read": (1_000, line("log", follow=True)),
    "connections": (5_000, b""),
}


def memory_kb(pair: UpLab) -> int:
    shown = pair.exec("fw1", "sh", "-c", "cat /proc/$(pgrep -f 'fw1.yaml' | head -1)/status").stdout
    found = re.search(r"VmRSS:\s+(\d+)", shown)
    assert found, shown
    return int(found[1])


@pytest.mark.parametrize("attack", ATTACKS)
def test_packets_go_on_while_the_control_socket_is_attacked(pair: UpLab, attack: str) -> None:
    opener = pair.udp()
    opener.open(2_000)
    until(lambda: pair.status("fw1")["connections"] >= 1_500, "fw1 has a table")
    before = memory_kb(pair)
    count, data = ATTACKS[attack]
    ping = pair.background("client", "ping", "-n", "-i", "0.02", "-c", str(PINGS), "-W", "5", SERVER)
    assert ping.stdout is not None
    assert "bytes of data" in ping.stdout.readline()
    path = run_directory(pair.name) / "fw1.sock"
    attackers = callers(path, count, data)
    said = ping.stdout.read()
    assert f"{PINGS} packets transmitted, {PINGS} received" in said, said
    assert memory_kb(pair) - before < MEMORY_GROWTH_MAX_KB
    for caller in attackers:
        caller.close()
    status = pair.status("fw1")
    assert (status["state"], pair.status("fw2")["state"]) == ("Active", "Standby")
    assert not [e for e in pair.ask("fw1", "events") if "Active ->" in e["text"]]


def test_a_policy_that_was_installed_by_hand_outlives_restarts_of_the_member(pair: UpLab, tmp_path: Path) -> None:
    assert pair.status("fw2")["policy_origin"] == "from the configuration"
    policy = {"name": "by-hand", "rules": [{"action": "accept"}]}
    assert "kept for the next start" in pair.install("fw2", tmp_path, policy)
    pair.fwctl("fw2", "stop")
    until(lambda: pair.do("start", "member=fw2", check=False).returncode == 0, "fw2 has stopped, and starts")
    assert pair.status("fw2")["policy"] == "by-hand"
    assert "Policy:                        by-hand, installed by hand from" in pair.fwctl("fw2", "stat").stdout
    assert "policy by-hand is loaded, installed by hand from" in pair.fwctl("fw2", "events").stdout
    pair.do("kill", "member=fw2")
    pair.exec("fw2", "sh", "-c", "echo junk > /run/fwpair/fw2.policy", check=True)
    pair.do("start", "member=fw2")
    assert pair.status("fw2")["policy"] == "standard"
    assert "cannot be loaded any more" in pair.fwctl("fw2", "events").stdout
