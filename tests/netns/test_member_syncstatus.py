"""What members say of their synchronisation while the sync network loses packets, all of them or large ones alone."""

from __future__ import annotations

import pytest
from harness import UpLab, sharing_lab, until

WITHIN_S = 15.0
"""The dead timer and some heartbeats, on a busy machine."""
TIMED_OUT = "Off - Connection to remote member timed-out"
NEITHER = f"{TIMED_OUT}: Unable to send / Unable to receive"
FAULTS = {
    "the network": ([], "sync", NEITHER, NEITHER),
    "towards fw2": (["way=in"], "fw2-sync", f"{TIMED_OUT}: Unable to send / Able to receive",
                    f"{TIMED_OUT}: Able to send / Unable to receive"),
    "from fw2": (["way=out"], "fw2-sync", f"{TIMED_OUT}: Able to send / Unable to receive",
                 f"{TIMED_OUT}: Unable to send / Able to receive"),
}  # fmt: skip


def status(lab: UpLab, member: str) -> str:
    return str(lab.control(member)["sync"]["status"])


def both(lab: UpLab) -> tuple[str, str]:
    return status(lab, "fw1"), status(lab, "fw2")


def wait_for(lab: UpLab, first: str, second: str) -> None:
    until(lambda: both(lab) == (first, second), f"fw1 says {first!r}, fw2 says {second!r}", WITHIN_S)


def risks(lab: UpLab, member: str) -> list[str]:
    return [e["text"] for e in lab.events(member) if e["text"].startswith("State synchronization is in risk")]


@pytest.mark.parametrize("traffic", [True, False], ids=["traffic", "silence"])
@pytest.mark.parametrize("fault", list(FAULTS))
def test_who_is_cut_off_from_sync_says_so_and_so_does_the_other(pair: UpLab, fault: str, traffic: bool) -> None:
    """Also the standby, which is Down for its dead interface, and without any traffic."""
    arguments, link, first, second = FAULTS[fault]
    wait_for(pair, "OK", "OK")
    opener = pair.udp() if traffic else None
    pair.do("cut", f"link={link}", *arguments)
    if opener is not None:
        opener.open(20)
        until(lambda: pair.control("fw1")["connections"] == 20, "fw1 has them")
    wait_for(pair, first, second)
    for member, told in (("fw1", first), ("fw2", second)):
        able = told.removeprefix(f"{TIMED_OUT}: ")
        assert any(f"{able} sync packets" in line for line in risks(pair, member))
        assert f"Sync status: {told}" in pair.fwctl(member, "syncstat").stdout
        assert told in pair.fwctl(member, "stat").stdout
        assert f"Status: {able} sync packets" in pair.fwctl(member, "pstat").stdout
    if opener is not None:
        opener.open(20)
        until(lambda: pair.control("fw1")["connections"] == 40, "fw1 has more of them")
        assert pair.control("fw2")["connections"] == 0 or fault == "from fw2"
        assert both(pair) == (first, second), "as long as it lasts"
    pair.do("restore", f"link={link}")
    wait_for(pair, "OK", "OK")
    if opener is not None:
        until(lambda: pair.control("fw2")["connections"] == 40, "fw2 has all of them")
    for member in ("fw1", "fw2"):
        assert any("sync packets again" in e["text"] for e in pair.events(member))


def mtu(lab: UpLab, member: str, size: int) -> None:
    lab.exec(member, "ip", "link", "set", "sync", "mtu", str(size), check=True)


@pytest.mark.parametrize("members", [("fw2",), ("fw1",), ("fw1", "fw2")], ids=" and ".join)
@pytest.mark.parametrize("size", [1280, 700])
def test_updates_pass_a_sync_network_that_loses_large_datagrams(
    pair: UpLab, members: tuple[str, ...], size: int
) -> None:
    """300 connections on a path whose MTU is smaller at one end, or at both."""
    wait_for(pair, "OK", "OK")
    for member in members:
        mtu(pair, member, size)
    pair.udp().open(300)
    until(lambda: pair.control("fw1")["connections"] == 300, "fw1 has them")
    until(lambda: pair.control("fw2")["connections"] == 300, "fw2 learns of all of them", WITHIN_S)
    until(lambda: both(pair) == ("OK", "OK"), "both say so")
    assert pair.control("fw2")["counters"]["lost_updates"] == 0
    if members == ("fw2",):
        assert any("updates are sent in fragments" in e["text"] for e in pair.events("fw1"))
        assert pair.control("fw1")["counters"]["peak_fragments"] > 1
    pair.do("stop", "member=fw1")
    pair.wait_for_state("fw2", "Active")
    assert pair.control("fw2")["connections"] == 300


def test_who_gets_no_update_at_all_is_behind_at_both_ends_until_it_has_them(pair: UpLab) -> None:
    """Everything longer than a heartbeat is lost: both are heard, and nothing arrives."""
    wait_for(pair, "OK", "OK")
    rule = ["INPUT", "-i", "sync", "-m", "length", "--length", "330:65535", "-j", "DROP"]
    pair.exec("fw2", "iptables", "-w", "-t", "raw", "-A", "PREROUTING", *rule[1:], check=True)
    pair.udp().open(300)
    until(lambda: pair.control("fw1")["connections"] == 300, "fw1 has them")
    wait_for(pair, f"{TIMED_OUT}: updates are not acknowledged", f"{TIMED_OUT}: updates do not arrive")
    [ours], [theirs] = risks(pair, "fw1"), risks(pair, "fw2")
    assert "fw2 has acknowledged nothing for 2.5 s" in ours and "updates of fw1 do not arrive" in theirs
    pair.exec("fw2", "iptables", "-w", "-t", "raw", "-D", "PREROUTING", *rule[1:], check=True)
    seen = until(lambda: (both(pair) == ("OK", "OK")) and pair.control("fw2")["connections"], "both are well again")
    assert seen == 300, "not before fw2 has all of them"


def test_a_full_sync_passes_a_sync_network_that_loses_large_segments(pair: UpLab) -> None:
    """What lies between the members bears less than their interfaces, and no ICMP tells them."""
    wait_for(pair, "OK", "OK")
    pair.udp().open(2000)
    until(lambda: pair.control("fw1")["connections"] == 2000, "fw1 has them")
    pair.do("stop", "member=fw2")
    # Segments as they would be on a wire: a veth pair passes 64 KiB ones whole, whatever its MTU.
    pair.exec("fw1", "ip", "link", "set", "sync", "gso_max_segs", "1", check=True)
    rule = ["-i", "sync", "-m", "length", "--length", "1281:65535", "-j", "DROP"]
    pair.exec("fw2", "iptables", "-w", "-t", "raw", "-A", "PREROUTING", *rule, check=True)
    pair.do("start", "member=fw2")
    pair.wait_for_state("fw2", "Standby")
    answer = pair.control("fw2")
    assert (answer["full_sync"]["state"], answer["connections"]) == ("done", 2000)
    dropped = pair.exec("fw2", "iptables", "-w", "-t", "raw", "-L", "PREROUTING", "-vxn").stdout
    assert any(int(line.split()[0]) for line in dropped.splitlines() if "1281:65535" in line), "large segments came"


def test_of_three_members_the_one_that_is_cut_off_is_named(tmp_path) -> None:
    with sharing_lab("load-sharing-multicast", 3, tmp_path) as lab:
        until(lambda: all(status(lab, f"fw{n}") == "OK" for n in (1, 2, 3)), "all are well")
        lab.do("cut", "link=fw3-sync", "way=in")
        until(lambda: status(lab, "fw1") == f"{TIMED_OUT}: Unable to send / Able to receive (fw3)", "fw1 says so")
        until(lambda: f"{TIMED_OUT}: Able to send / Unable to receive" in status(lab, "fw3"), "fw3 says so")
        assert lab.control("fw1")["sync"]["peers"]["fw2"]["status"] == "OK"
        lab.do("restore", "link=fw3-sync")
        until(lambda: all(status(lab, f"fw{n}") == "OK" for n in (1, 2, 3)), "all are well again")
