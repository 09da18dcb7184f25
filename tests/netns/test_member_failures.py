"""What fails beneath a member must not end it, on real packets."""

from __future__ import annotations

import json

import pytest
from harness import UpLab, sharing_lab, until

SERVERS = ("198.51.100.100", "2001:db8:2::100")


def pings(lab: UpLab, address: str) -> bool:
    return "2 received" in lab.exec("client", "ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", address).stdout


def down_and_up(lab: UpLab, member: str, device: str) -> None:
    lab.exec(member, "ip", "link", "set", device, "down", check=True)
    until(lambda: not all(i["up"] for i in lab.ask(member, "stat")["interfaces"]), f"{member} misses {device}")
    lab.exec(member, "ip", "link", "set", device, "up", check=True)
    until(lambda: all(i["up"] for i in lab.ask(member, "stat")["interfaces"]), f"{member} has {device} again")


@pytest.mark.parametrize("mode", ["load-sharing-unicast", "load-sharing-multicast"])
def test_in_load_sharing_a_member_outlives_its_interfaces(mode, tmp_path):
    with sharing_lab(mode, 2, tmp_path) as lab:
        for member in ("fw1", "fw2"):
            for device in ("lan", "wan", "sync"):
                down_and_up(lab, member, device)
        for member in ("fw1", "fw2"):
            lab.wait_for_state(member, "Active")
        until(lambda: all(m["load"] > 0 for m in lab.ask("fw1", "stat")["members"]), "all have a share")
        for address in SERVERS:
            until(lambda a=address: pings(lab, a), f"{address} is reached")
        if mode == "load-sharing-unicast":
            rules = lab.exec("fw1", "ip", "-j", "-6", "rule", "show", check=True).stdout
            marked = [rule for rule in json.loads(rules) if "fwmark" in rule]
            assert len(marked) == 2
            for rule in marked:
                shown = lab.exec("fw1", "ip", "-6", "route", "show", "table", rule["table"], check=True).stdout
                assert "default via 2001:db8:" in shown


def test_both_families_pass_after_each_member_has_lost_and_regained_its_interfaces(pair):
    for member, other in (("fw2", "fw1"), ("fw1", "fw2")):
        for device in ("lan", "wan"):
            down_and_up(pair, member, device)
        pair.fwctl(other, "down")
        pair.wait_for_state(member, "Active")
        for address in SERVERS:
            until(lambda a=address: pings(pair, a), f"{address} is reached through {member}")
        pair.fwctl(other, "up")
        pair.wait_for_state(other, "Standby")


def test_routes_that_cannot_be_made_are_told_once_and_made_when_they_can(tmp_path):
    """Somebody takes a member's IPv6 address away, as the kernel does with an interface that goes down."""
    with sharing_lab("load-sharing-unicast", 2, tmp_path) as lab:
        own = next(a["local"] for a in json.loads(lab.exec("fw1", "ip", "-j", "-6", "addr", "show", "dev", "lan",
                   "scope", "global", check=True).stdout)[0]["addr_info"])  # fmt: skip
        lab.exec("fw1", "ip", "-6", "addr", "del", f"{own}/64", "dev", "lan", check=True)
        down_and_up(lab, "fw1", "lan")
        until(lambda: any(lab.status("fw1")["failures"].values()), "the failure was counted")
        until(lambda: sum(lab.status("fw1")["failures"].values()) > 2, "it was tried again")
        said = [e["text"] for e in lab.ask("fw1", "events") if e["kind"] == "failure"]
        assert len(said) == 1 and "ip -6 route" in said[0], said
        assert lab.status("fw1")["state"] == "Active"
        lab.exec("fw1", "ip", "-6", "addr", "add", f"{own}/64", "dev", "lan", "nodad", check=True)
        show = ("ip", "-6", "route", "show", "table", "9001")
        until(lambda: "default via" in lab.exec("fw1", *show).stdout, "the route was made")
