"""Claims B1 to B12, of the ClusterXL guide on blocking new connections under load: one test a claim.

A test's name begins with its claim; its first line says the claim. Those that a lab shows read the lab's document.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Opener, UpLab, command, until

from syncproto import codec
from syncproto.message import Delta

pytestmark = pytest.mark.timeout(400)  # the first claim of a lab waits for the whole lab


def unacknowledged(pair: UpLab) -> int:
    return int(pair.control("fw1")["counters"]["unacknowledged"])


def fill(pair: UpLab, opener: Opener, wanted: int) -> None:
    """New connections until exactly so many updates are without an ACK; fw2 is paused."""
    while (before := unacknowledged(pair)) < wanted:
        opener.open(300 if before < wanted - 30 else 1)  # 300 are about ten updates of one tick
        until(lambda before=before: unacknowledged(pair) > before, "the next tick's updates are on their way")
    assert unacknowledged(pair) == wanted


@contextmanager
def updates_on_the_wire(pair: UpLab, file: Path) -> Iterator[set[int]]:
    """The numbers of fw1's updates that are seen on the sync network, once the block has ended."""
    from scapy.all import UDP, rdpcap

    line = [sys.executable, "-m", "labs.cli", "capture", "--lab", pair.name, "sync", "-w", str(file), "udp port 8116"]
    process = subprocess.Popen(line, stderr=subprocess.PIPE)
    until(lambda: file.exists() and file.stat().st_size >= 24, "the capture has begun")
    seen: set[int] = set()
    try:
        yield seen
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    for packet in rdpcap(str(file)):
        envelope = codec.decode(bytes(packet[UDP].payload), cluster=1)
        if envelope.sender == 1 and isinstance(envelope.message, Delta):
            seen.add(envelope.message.sequence)


@pytest.fixture
def patient_pair(pair: UpLab) -> UpLab:
    """A pair that does not take a paused member for a dead one at once."""
    for member in ("fw1", "fw2"):
        pair.fwctl(member, "ctl", "set", "int", "fwha_dead_timeout_ms", "60000")
    return pair


def test_b1_up_to_five_members(tmp_path):
    """B1: up to 5 members in a ClusterXL cluster; a sixth is refused with the limit."""
    done = command("labs.cli", "up", "--name", "six", "--members", "6")
    assert done.returncode == 2
    assert "6 members: the limit of a cluster is 5" in done.stderr


def test_b5_zero_enables_blocking_and_minus_one_disables_it(pair):
    """B5: -1 is the default, also written 0xFFFFFFFF; anything else is refused."""
    name = "fw_sync_block_new_conns"
    assert pair.fwctl("fw1", "ctl", "get", "int", name).stdout == f"{name} = -1\n"
    assert "no (fw_sync_block_new_conns is -1)" in pair.fwctl("fw1", "syncstat").stdout
    for text, value in (("0", "0"), ("0xFFFFFFFF", "-1"), ("0", "0"), ("-1", "-1")):
        assert pair.fwctl("fw1", "ctl", "set", "int", name, text).stdout == f"{name} = {value}\n"
        assert pair.control("fw1")["blocking"]["enabled"] is (value == "0")
    refused = pair.fwctl("fw1", "ctl", "set", "int", name, "1", check=False)
    assert (refused.returncode, "legal is -1 or 0" in refused.stderr) == (2, True)


def test_b7_410_unacknowledged_are_allowed_and_411_are_not(patient_pair, tmp_path):
    """B7: more than 410 consecutive packets sent without an ACK on any one of them, and new connections are dropped."""
    pair = patient_pair
    pair.fwctl("fw1", "ctl", "set", "int", "fw_sync_block_new_conns", "0")
    opener = pair.udp()
    with updates_on_the_wire(pair, tmp_path / "sync.pcap") as seen:
        pair.do("pause", "fw2")
        fill(pair, opener, 410)
        assert not pair.control("fw1")["blocking"]["blocking"]
        opener.open()  # at 410: allowed. It becomes the 411th update
        until(lambda: unacknowledged(pair) == 411, "the 411th update is sent")
        until(lambda: opener.arrived(opener.newest), "it has passed")
        opener.open(3)  # at 411: dropped
        until(lambda: pair.control("fw1")["drops"]["SYNC_LOAD"] == 3, "three new connections are dropped")
        blocking = pair.control("fw1")["blocking"]
        assert (blocking["blocking"], blocking["scenarios"]) == (True, 1)
        assert unacknowledged(pair) == 411
    assert seen == set(range(1, 412)), "what went over the wire, counted there"
    assert not opener.arrived(opener.newest)
    log = [event["text"] for event in pair.ask("fw1", "events") if event["kind"] == "log"]
    assert any(line.startswith("State synchronization is in risk") for line in log)  # B4
    entry = pair.ask("fw1", "drops")["entries"][-1]
    assert (entry["reason"], entry["text"]) == ("SYNC_LOAD", "a new connection, while sync is under load")
    # B11: only new connections are blocked.
    before = pair.control("fw1")["packets"]["accepted"]
    opener.again(10_000, 5)
    until(lambda: pair.control("fw1")["packets"]["accepted"] == before + 5, "established connections go on")
    pair.do("resume", "fw2")
    until(lambda: not pair.control("fw1")["blocking"]["blocking"], "blocking ends with the ACKs")
    opener.open()
    until(lambda: opener.arrived(opener.newest), "new connections pass again")
    assert "The tables are equal." in pair.fwctl("fw1", "sync", "compare").stdout
