"""The administrator clears the connections table: what an out-of-state storm has left, or all of it."""

from __future__ import annotations

import re
import sys

import pytest
from harness import command, until

STORM = 3_000
MANY = 20_000
OTHERS = 5
PINGS = 10
PORTS = 50_000
ACKS = f"""
import itertools, socket, struct, sys, time
count, rounds = map(int, sys.argv[1:])
ends = socket.inet_aton("192.0.2.100") + socket.inet_aton("198.51.100.100")
link = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for _ in range(rounds) if rounds else itertools.count():
    for number in range(count):
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + ends
        source, destination = 10_000 + number % {PORTS}, 80 + number // {PORTS}
        ack = struct.pack("!HHIIBBHHH", source, destination, 1, 1, 5 << 4, 0x10, 100, 0, 0)  # no checksum: no answer
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
    pair.exec("client", sys.executable, "-c", ACKS, str(STORM), "1", check=True)
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


def test_many_are_cleared_while_the_storm_goes_on(pair):
    """Nobody waits for it: pings and sessions pass. What the storm sends when learning is off does not come back."""
    pair.serve(8080)
    talk = pair.talk(8080)
    assert talk.ask() == "hello"
    pair.fwctl("fw1", "ctl", "set", "int", "fw_allow_out_of_state_tcp", "1")
    pair.background("client", sys.executable, "-c", ACKS, str(MANY), "0")
    until(lambda: all(learned(pair, m)[1] == MANY for m in ("fw1", "fw2")), "both know what was learned", 60)
    ping = pair.background("client", "ping", "-n", "-i", "0.05", "-W", "5", "198.51.100.100")
    pair.fwctl("fw1", "ctl", "set", "int", "fw_allow_out_of_state_tcp", "0")
    said = pair.fwctl("fw1", "tab", "-t", "connections", "-x", "--learned", "-y").stdout
    assert said.startswith(f"fw1: {MANY} learned connections cleared, ")
    assert talk.ask("meanwhile") == "meanwhile"
    until(lambda: learned(pair, "fw2")[1] == 0, "the peer has heard of it", 60)
    dropped = pair.control("fw1")["drops"]["OUT_OF_STATE"]
    until(lambda: pair.control("fw1")["drops"]["OUT_OF_STATE"] >= dropped + MANY, "the storm goes on in vain", 60)
    assert [learned(pair, member)[1] for member in ("fw1", "fw2")] == [0, 0]
    assert talk.ask("still?") == "still?"
    ping.terminate()
    assert ping.stdout is not None
    answered = [int(number) for number in re.findall(r"icmp_seq=(\d+)", ping.stdout.read())]
    assert answered == list(range(1, len(answered) + 1)) and len(answered) > PINGS, "no ping was lost meanwhile"


def test_it_asks_first(pair):
    pair.exec("client", "ping", "-n", "-c", "1", "198.51.100.100", check=True)
    done = command("fwnode.control", "--lab", pair.name, "fw1", "tab", "-t", "connections", "-x", input="n\n")
    assert done.returncode == 1 and "Go on?" in done.stdout + done.stderr
    assert learned(pair, "fw1")[0] == 1
