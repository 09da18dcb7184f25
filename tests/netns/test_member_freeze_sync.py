"""Members that do not run for a while during a full sync, or while packets wait for an ACK of their changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Opener, UpLab, captured, sharing_lab, until, wan_macs
from joins import CONNECTIONS, SLOW, becomes, fill, starting, told, under_way

NEW = 20
"""Connections that are opened while a member is frozen."""


class Seen:
    """Who forwarded the UDP datagrams of a test, by their source port."""

    def __init__(self, by: dict[int, list[str]]) -> None:
        self.by = by

    def twice(self, ports: range) -> list[int]:
        return [port for port in ports if len(self.by.get(port, ())) > 1]

    def members(self, ports: range) -> Counter[str]:
        return Counter(member for port in ports for member in self.by.get(port, ()))


@contextmanager
def forwarded(lab: UpLab, file: Path, port: int) -> Iterator[Seen]:
    """Who forwards datagrams to this port meanwhile; filled at the end."""
    from scapy.all import UDP

    macs, seen = wan_macs(lab), Seen({})
    with captured(lab, "wan", file, f"udp dst port {port}") as packets:
        yield seen
    for packet in packets:
        if packet.src in macs:
            seen.by.setdefault(packet[UDP].sport, []).append(macs[packet.src])


def lost(lab: UpLab, member: str, number: int) -> bool:
    """Whether the member takes the one with this number for lost."""
    return bool(lab.ask(member, "stat")["members"][number - 1]["state"] == "Lost")


def equal(lab: UpLab) -> bool:
    return "The tables are equal" in lab.fwctl("sync", "compare", check=False).stdout


def opened(opener: Opener, count: int = NEW) -> range:
    first = opener.next
    opener.open(count)
    return range(first, opener.next)


def arrive(opener: Opener, ports: range, who: str) -> None:
    until(lambda: all(opener.arrived(port) for port in ports), f"{who} forwards new connections")


@pytest.mark.timeout(240)
def test_the_source_freezes_while_the_other_member_joins(pair, tmp_path):
    """The joiner goes on with a part, and says so; the source stands by when it wakes, and hears what is new."""
    pair.do("stop", "member=fw2")
    fill(pair, "fw1")
    udp = pair.udp(9001)
    arrive(udp, opened(udp, 1), "fw1")
    pair.do("limit", "link=sync", SLOW)
    with forwarded(pair, tmp_path / "wan.pcap", 9001) as seen:
        with starting(pair, "fw2"):
            under_way(pair, "fw2")
            pair.do("pause", "member=fw1")
            waiting = opened(udp)
            status = becomes(pair, "fw2", "Active")
            pair.do("resume", "member=fw1")
        pair.wait_for_state("fw1", "Standby")
        until(lambda: pair.status("fw1")["drops"]["NOT_ACTIVE"] >= NEW, "what waited was dropped")
        new = opened(udp)
        arrive(udp, new, "fw2")
    full = status["full_sync"]
    assert full["state"] == "failed" and 0 < full["records"] < CONNECTIONS
    assert full["missing"] == full["expected"] - full["records"]
    assert f"{full['missing']:,} connections of fw1 are missing" in pair.fwctl("fw2", "stat").stdout
    assert "Off - Full-sync failure" in pair.fwctl("fw2", "stat").stdout
    assert "did not run for" in pair.fwctl("fw1", "events").stdout
    assert not any(udp.arrived(port) for port in waiting)
    assert seen.members(new) == {"fw2": NEW} and not seen.members(waiting)
    until(lambda: pair.status("fw1")["connections"] >= CONNECTIONS + NEW, "fw1 hears of what fw2 opens")


@pytest.mark.timeout(240)
def test_the_joiner_freezes_while_it_joins(pair, tmp_path):
    """It takes the table anew when it wakes, with what began meanwhile, and stands by; the source works on."""
    pair.do("stop", "member=fw2")
    fill(pair, "fw1")
    udp = pair.udp(9001)
    pair.do("limit", "link=sync", SLOW)
    with forwarded(pair, tmp_path / "wan.pcap", 9001) as seen:
        with starting(pair, "fw2"):
            under_way(pair, "fw2")
            pair.do("pause", "member=fw2")
            meanwhile = opened(udp)
            arrive(udp, meanwhile, "fw1")
            until(lambda: lost(pair, "fw1", 2), "fw1 takes fw2 for lost")
            pair.do("resume", "member=fw2")
            new = opened(udp)
            status = becomes(pair, "fw2", "Standby")
        arrive(udp, new, "fw1")
    assert status["full_sync"]["state"] == "done" and status["full_sync"]["records"] >= CONNECTIONS + NEW
    assert "missing" not in pair.fwctl("fw2", "stat").stdout
    assert any("it could not be heard while this member did not run" in text for text in told(pair, "fw2"))
    assert pair.status("fw1")["state"] == "Active" and pair.ask("fw1", "stat")["failovers"] == 0
    ports = range(meanwhile[0], new[-1] + 1)
    assert seen.members(ports) == {"fw1": 2 * NEW} and seen.twice(ports) == []
    until(lambda: equal(pair), "both have the same table")


def pending(lab, member: str) -> int:
    """Packets that wait there for the peer's acknowledgement."""
    return lab.control(member)["holding"]["pending"]


def test_packets_that_a_frozen_member_held_are_refused_when_it_wakes(tmp_path):
    """Flush and ack: fw1's new connections wait for an ACK that does not come, and fw1 freezes with them."""
    with sharing_lab("load-sharing-multicast", 2, tmp_path) as lab:
        for member in ("fw1", "fw2"):
            lab.fwctl(member, "ctl", "set", "int", "fwlab_sync_flush_and_ack", "1")
        udp = lab.udp(9001)
        deaf = ("-t", "raw", "PREROUTING", "-i", "sync", "-p", "udp", "--dport", "8116", "-j", "DROP")
        lab.exec("fw2", "iptables", "-w", *deaf[:2], "-I", *deaf[2:], check=True)
        with forwarded(lab, tmp_path / "wan.pcap", 9001) as seen:
            ports = opened(udp)
            until(lambda: pending(lab, "fw1") + pending(lab, "fw2") == NEW, "all wait")
            held = pending(lab, "fw1")
            assert held
            lab.do("pause", "member=fw1")
            until(lambda: lab.ask("fw2", "stat")["members"][0]["load"] == 0, "fw2 has the share of fw1")
            lab.exec("fw2", "iptables", "-w", *deaf[:2], "-D", *deaf[2:], check=True)
            first = {port for port in ports if udp.arrived(port)}
            lab.do("resume", "member=fw1")
            until(lambda: lab.ask("fw1", "stat")["members"][0]["load"] > 0, "fw1 has its share again")
            figures = lab.control("fw1")["holding"]
            assert (figures["pending"], figures["held"], figures["released"]) == (0, held, 0)
            assert len(first) == NEW - held and {port for port in ports if udp.arrived(port)} == first
            again = [port for port in ports if port not in first]
            for port in again:
                udp.again(port)
            until(lambda: all(udp.arrived(port) for port in again), "who sends again is served")
        assert seen.twice(ports) == [], "nobody's packet went on twice"
        assert "did not run for" in lab.fwctl("fw1", "events").stdout
