"""Split brain on real packets: members that do not hear each other, and what hosts do when it is over."""

from __future__ import annotations

import json

import pytest
from harness import sharing_lab, time_passes, until
from splits import SERVERS, hear, heard, hosts_point_to, point_hosts_to, split, texts

from fwnode.cluster.announcing import ANNOUNCE_AFTER_S


@pytest.mark.parametrize("order", [("fw2", "fw1"), ("fw1", "fw2")])
def test_hosts_find_the_winner_of_a_split_brain_whoever_hears_first(pair, order):
    pair.serve(1521)
    talks = [pair.talk(1521, SERVERS[n % 2]) for n in range(6)]
    assert [talk.ask() for talk in talks] == ["hello"] * 6
    split(pair, "fw1", "fw2")
    pair.wait_for_state("fw2", "Active")
    point_hosts_to(pair, "fw2")
    hear(pair, order[0])
    until(lambda: heard(pair, order[0]), f"{order[0]} has heard the other")
    hear(pair, order[1])
    pair.wait_for_state("fw2", "Standby")
    assert pair.status("fw1")["state"] == "Active"
    until(lambda: hosts_point_to(pair, "fw1"), "the hosts have fw1's MAC", 5.0)
    assert [talk.ask("still?") for talk in talks] == ["still?"] * 6
    for address in SERVERS:
        assert "3 received" in pair.exec("client", "ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", address).stdout


def test_hosts_find_the_winner_when_it_goes_on_hearing_nothing(pair):
    """One way stays cut: fw1 never learns that fw2 was active, nor that it is not any more."""
    split(pair, "fw1", "fw2")
    pair.wait_for_state("fw2", "Active")
    until(lambda: "Lost" in json.dumps(pair.ask("fw1", "stat")["members"]), "fw1 hears nothing")
    point_hosts_to(pair, "fw2")
    hear(pair, "fw2")
    pair.wait_for_state("fw2", "Standby")
    until(lambda: hosts_point_to(pair, "fw1"), "the hosts have fw1's MAC", 5.0)


@pytest.mark.parametrize("order", [("fw2", "fw1"), ("fw1", "fw2")])
def test_in_unicast_mode_hosts_find_the_pivot_after_a_split_brain(order, tmp_path):
    with sharing_lab("load-sharing-unicast", 2, tmp_path) as lab:
        split(lab, "fw1", "fw2")
        for member in ("fw1", "fw2"):
            until(lambda m=member: [x["load"] for x in lab.ask(m, "stat")["members"]].count(100), f"{member} is alone")
        point_hosts_to(lab, "fw2")
        for member in order:
            hear(lab, member)
            until(lambda m=member: 0 < lab.ask(m, "stat")["members"][0]["load"] < 100, f"{member} shares again")
        until(lambda: hosts_point_to(lab, "fw1"), "the hosts have the pivot's MAC", 5.0)
        for address in SERVERS:
            done = lab.exec("client", "ping", "-n", "-c", "8", "-i", "0.2", "-W", "2", address)
            assert "8 received" in done.stdout, done.stdout


def test_both_members_tell_of_a_split_brain_and_agree_on_the_failovers(pair):
    udp = pair.udp()
    udp.open(5)
    until(lambda: pair.status("fw1")["connections"] == pair.status("fw2")["connections"] >= 5, "both know all")
    time_passes(pair, 0.5)  # heartbeats have said so
    split(pair, "fw1", "fw2")
    pair.wait_for_state("fw2", "Active")
    for member, other in (("fw1", "fw2"), ("fw2", "fw1")):
        until(lambda m=member, o=other: pair.ask(m, "stat")["split_brains"]["possible"] == [o], f"{member} warns")
        assert texts(pair, member, f"possible split brain: {other} is silent")
        assert f"{other} is silent, and may be active, too" in pair.fwctl(member, "stat").stdout
    time_passes(pair, ANNOUNCE_AFTER_S[-1] + 0.5)  # nobody announces the addresses any more
    point_hosts_to(pair, "fw2")
    udp.open(7)
    until(lambda: pair.status("fw2")["created"] == 7, "fw2 accepts them")
    time_passes(pair, 1.0)  # a shorter split brain is none; and heartbeats have said so
    hear(pair, "fw2")
    hear(pair, "fw1")
    pair.wait_for_state("fw2", "Standby")
    for member, other in (("fw1", "fw2"), ("fw2", "fw1")):
        [told] = until(lambda m=member: texts(pair, m, "split brain is over"), f"{member} tells of it")
        assert f"this member and {other} were both active for" in told
        found = pair.ask(member, "stat")["split_brains"]
        assert (found["count"], found["present"], found["possible"]) == (1, [], [])
        last = found["last"]
        assert last["known"] >= 5 and last["seconds"] > 0.4
        assert (last["accepted"], last["accepted_there"]) == ((0, 7) if member == "fw1" else (7, 0))
        assert pair.status(member)["split_brains"]["count"] == 1
        assert "Split brains:                  1, the last one with" in pair.fwctl(member, "stat").stdout
    until(lambda: {pair.ask(m, "stat")["failovers"] for m in ("fw1", "fw2")} == {1}, "one count")


def test_members_of_two_releases_show_one_failover_count(pair):
    pair.do("upgrade", "member=fw2", "release=R80.10")
    pair.do("stop", "member=fw1")
    pair.wait_for_state("fw2", "Active")
    pair.do("start", "member=fw1")
    pair.wait_for_state("fw1", "Active")
    pair.wait_for_state("fw2", "Ready")
    until(lambda: {pair.ask(m, "stat")["failovers"] for m in ("fw1", "fw2")} == {2}, "one count")
