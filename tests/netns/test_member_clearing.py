"""The administrator clears the connections table: what an out-of-state storm has left, or all of it."""

from __future__ import annotations

import sys

import pytest
from harness import command, until

STORM = 3_000
OTHERS = 5
ACKS = f"""
import socket, struct, time
ends = socket.inet_aton("192.0.2.100") + socket.inet_aton("198.51.100.100")
link = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for number in range({STORM}):
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + ends
    ack = struct.pack("!HHIIBBHHH", 10_000 + number, 80, 1, 1, 5 << 4, 0x10, 100, 0, 0)  # no checksum: nobody answers
    link.sendto(ip + ack, ("198.51.100.100", 0))
    if number % 100 == 0:
        time.sleep(0.005)
"""


def learned(pair, member: str) -> tuple[int, int]:
    """How many connections, and how many of them learned."""
    data = pair.control(member, "tab", summary=True)
    return data["values"], data["learned"]


@pytest.fixture
def stormed(pair):
    """Connections as they should be, then a storm while learning is on, which reaches the limit."""
    pair.serve(80)
    pair.talks = [pair.talk(80) for _ in range(OTHERS)]
    assert [talk.ask() for talk in pair.talks] == ["hello"] * OTHERS
    for member in ("fw1", "fw2"):
        pair.fwctl(member, "ctl", "set", "int", "connections_limit", str(STORM))
    pair.fwctl("fw1", "ctl", "set", "int", "fw_allow_out_of_state_tcp", "1")
    pair.exec("client", sys.executable, "-c", ACKS, check=True)
    until(lambda: learned(pair, "fw1")[0] == STORM, "the table is full")
    pair.fwctl("fw1", "ctl", "set", "int", "fw_allow_out_of_state_tcp", "0")
    until(lambda: learned(pair, "fw2")[0] == STORM, "and so is the peer's")
    return pair


def test_what_a_storm_has_left_is_counted_and_cleared_at_both_members(stormed):
    *_, words = stormed.fwctl("fw1", "tab", "-t", "connections", "-s").stdout.splitlines()
    number = int(words.removeprefix("learned from packets out of state: "))
    assert number >= STORM - OTHERS - 2, "all but the applications' and the neighbours'"
    assert stormed.status("fw1")["learned"] == number
    assert stormed.talk(80).ask(patience_s=3) == "silence", "there is no room for a new connection"
    said = stormed.fwctl("fw1", "tab", "-t", "connections", "-x", "--learned", "-y").stdout
    assert said.startswith(f"fw1: {number} learned connections cleared, ")
    assert learned(stormed, "fw1")[1] == 0
    until(lambda: learned(stormed, "fw2")[1] == 0, "the peer has heard of it")
    assert stormed.talk(80).ask() == "hello"
    assert [talk.ask() for talk in stormed.talks] == ["hello"] * OTHERS, "the others were left alone"


def test_all_connections_are_cleared_at_the_standby_and_do_not_come_back(stormed):
    assert stormed.fwctl("fw2", "tab", "-t", "local", "-x", "-y", check=False).returncode == 2
    stormed.fwctl("fw2", "tab", "-t", "connections", "-x", "-y")
    for member in ("fw1", "fw2"):
        until(lambda member=member: learned(stormed, member)[0] < OTHERS, f"{member} has forgotten them")
    assert stormed.talks[0].ask(patience_s=3) == "silence", "what has no entry is out of state"
    assert stormed.talk(80).ask() == "hello"
    until(lambda: learned(stormed, "fw2") == learned(stormed, "fw1"), "both know the same again")
    assert "cleared by command" in stormed.fwctl("fw2", "events").stdout


def test_it_asks_first(pair):
    pair.exec("client", "ping", "-n", "-c", "1", "198.51.100.100", check=True)
    done = command("fwnode.control", "--lab", pair.name, "fw1", "tab", "-t", "connections", "-x", input="n\n")
    assert done.returncode == 1 and "Go on?" in done.stdout + done.stderr
    assert learned(pair, "fw1")[0] == 1
