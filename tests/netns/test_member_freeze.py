"""Members that do not run for a while, on real packets: what waited for them must not go on where others took over."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness import Talk, UpLab, captured, sharing_lab, until, wan_macs

FLOWS = 10


def mac(lab: UpLab, node: str) -> str:
    return str(json.loads(lab.exec(node, "ip", "-j", "link", "show", "lan", check=True).stdout)[0]["address"])


def make_active(lab: UpLab, member: str, other: str) -> None:
    lab.fwctl(other, "down")
    lab.wait_for_state(member, "Active")
    lab.fwctl(other, "up")
    lab.wait_for_state(other, "Standby")


def answers(talk: Talk) -> bool:
    """Whether the connection works; the first answer may be that of what was asked before."""
    return talk.ask("y") in ("x", "y", "xy")


def told(lab: UpLab, member: str) -> int:
    """New connections that this member has told others of."""
    return int(lab.status(member)["records"]["sent"].get("SET", 0))


@pytest.mark.parametrize("starved", [False, True])
def test_a_frozen_member_forwards_nothing_of_what_waited_for_it(pair, tmp_path, starved):
    make_active(pair, "fw2", "fw1")
    pair.serve(1521)
    talks = [pair.talk(1521) for _ in range(FLOWS)]
    assert [talk.ask() for talk in talks] == ["hello"] * FLOWS
    udp = pair.udp()
    udp.open()
    until(lambda: udp.arrived(udp.newest) and pair.status("fw1")["connections"] > FLOWS, "fw1 knows all connections")
    before, told_before = pair.status("fw2"), told(pair, "fw2")
    macs = wan_macs(pair)
    with captured(pair, "wan", tmp_path / "wan.pcap", "tcp port 1521 or udp port 9000") as packets:
        stop(pair, "fw2", starved)
        waiting = [talk.ask("x", patience_s=0.01) for talk in talks]
        first = udp.next
        udp.open(FLOWS)
        pair.wait_for_state("fw1", "Active")
        assert waiting == ["silence"] * FLOWS
        go_on(pair, "fw2", starved)
        pair.wait_for_state("fw2", "Standby")
        until(lambda: pair.status("fw2")["drops"].get("NOT_ACTIVE", 0) >= 2 * FLOWS, "what waited was dropped")
    after = pair.status("fw2")
    assert [p for p in packets if macs.get(p.src) == "fw2"] == []
    assert not any(udp.arrived(port) for port in range(first, first + FLOWS))
    assert (after["created"], told(pair, "fw2")) == (before["created"], told_before)
    assert "did not run for" in pair.fwctl("fw2", "events").stdout
    assert all(answers(talk) for talk in talks), "the sessions go on through fw1"


def pid(lab: UpLab, member: str) -> str:
    return lab.exec(member, "pgrep", "-f", f"fwnode.node.*{member}", check=True).stdout.split()[0]


def stop(lab: UpLab, member: str, by_signal: bool) -> None:
    if by_signal:
        lab.exec(member, "kill", "-STOP", pid(lab, member), check=True)
    else:
        lab.do("pause", f"member={member}")


def go_on(lab: UpLab, member: str, by_signal: bool) -> None:
    if by_signal:
        lab.exec(member, "kill", "-CONT", pid(lab, member), check=True)
    else:
        lab.do("resume", f"member={member}")


def test_a_pause_that_nobody_could_notice_changes_nothing(pair):
    for member in ("fw1", "fw2"):
        pair.fwctl(member, "ctl", "set", "int", "fwha_dead_timeout_ms", "30000")
    pair.serve(1521)
    talk = pair.talk(1521)
    assert talk.ask() == "hello"
    pair.do("pause", "member=fw1")
    assert talk.ask("x", patience_s=0.3) == "silence"
    pair.do("resume", "member=fw1")
    assert answers(talk)
    assert pair.status("fw1")["state"] == "Active"
    assert "did not run for" not in json.dumps(pair.ask("fw1", "events"))


@pytest.mark.parametrize("waits", [3.0, 8.0])
def test_a_member_alone_goes_on_when_it_has_listened(pair, waits):
    pair.serve(1521)
    talk = pair.talk(1521)
    assert talk.ask() == "hello"
    pair.do("kill", "member=fw2")
    until(lambda: pair.ask("fw1", "stat")["members"][1]["state"] == "Lost", "fw1 is alone")
    pair.do("pause", "member=fw1")
    assert talk.ask("x", patience_s=waits) == "silence"
    pair.do("resume", "member=fw1")
    pair.wait_for_state("fw1", "Active")
    assert answers(talk)


def test_a_standby_that_was_frozen_does_not_take_over(pair):
    pair.do("pause", "member=fw2")
    until(lambda: pair.ask("fw1", "stat")["members"][1]["state"] == "Lost", "fw1 misses fw2")
    pair.do("resume", "member=fw2")
    until(lambda: "did not run for" in pair.fwctl("fw2", "events").stdout, "fw2 has noticed")
    pair.wait_for_state("fw2", "Standby")
    said = [e["state"] for e in pair.ask("fw2", "events") if e["kind"] == "state"]
    assert said[-2:] == ["Initializing", "Standby"]
    assert pair.status("fw1")["state"] == "Active" and pair.ask("fw1", "stat")["failovers"] == 0


@pytest.mark.parametrize("mode", ["load-sharing-multicast", "load-sharing-unicast"])
def test_in_load_sharing_a_frozen_member_takes_its_share_again_only_when_it_has_listened(mode, tmp_path):
    with sharing_lab(mode, 2, tmp_path) as lab:
        lab.serve(1521)
        talks = [lab.talk(1521) for _ in range(16)]
        assert [talk.ask() for talk in talks] == ["hello"] * 16
        udp = lab.udp()
        udp.open()
        until(lambda: lab.status("fw1")["connections"] == lab.status("fw2")["connections"] == 17, "both know all")
        created, macs = lab.status("fw1")["created"], wan_macs(lab)
        lab.do("pause", "member=fw1")
        first = udp.next
        udp.open(FLOWS)
        until(lambda: lab.ask("fw2", "stat")["members"][0]["load"] == 0, "fw2 has the share of fw1")
        with captured(lab, "wan", tmp_path / "wan.pcap", "udp dst port 9000") as packets:
            lab.do("resume", "member=fw1")
            until(lambda: lab.ask("fw1", "stat")["members"][0]["load"] > 0, "fw1 has its share again")
        assert [p for p in packets if macs.get(p.src) == "fw1"] == []
        assert lab.status("fw1")["created"] == created
        assert [talk.ask("still?") for talk in talks] == ["still?"] * 16
        assert first < udp.next


def test_a_frozen_member_does_not_answer_when_it_wakes_who_asked_for_the_address(pair, tmp_path):
    macs = {mac(pair, member): member for member in ("fw1", "fw2")}
    pair.exec("client", "ip", "neigh", "flush", "dev", "lan")
    pair.do("pause", "member=fw1")
    with captured(pair, "lan", tmp_path / "lan.pcap", "arp or icmp6") as packets:
        for address in ("192.0.2.1", "2001:db8:1::1"):
            pair.exec("client", "ping", "-n", "-c", "1", "-W", "1", address)
        pair.wait_for_state("fw2", "Active")
        pair.do("resume", "member=fw1")
        pair.wait_for_state("fw1", "Standby")
    claims = [p for p in packets if macs.get(p.src) == "fw1" and claimed(p)]
    assert claims == [], [p.summary() for p in claims]
    assert any(macs.get(p.src) == "fw2" and claimed(p) for p in packets)


def claimed(packet: Any) -> bool:
    """Whether the sender says that it has a virtual address."""
    from scapy.all import ARP, ICMPv6ND_NA

    if ARP in packet:
        return packet[ARP].psrc == "192.0.2.1"
    return ICMPv6ND_NA in packet and packet[ICMPv6ND_NA].tgt == "2001:db8:1::1"
