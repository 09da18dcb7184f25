"""Two members, real packets: who answers for the virtual address, and what becomes of connections at a failover."""

from __future__ import annotations

import json
import time
from contextlib import closing

import pytest
from harness import until

from fwnode.control.client import Control, run_directory


def mac(pair, node: str, interface: str = "lan") -> str:
    return json.loads(pair.exec(node, "ip", "-j", "link", "show", interface, check=True).stdout)[0]["address"]


def neighbour(pair, address: str) -> str:
    """The client's idea of who has an address, asked for afresh."""
    pair.exec("client", "ip", "neigh", "flush", "dev", "lan")
    pair.exec("client", "ping", "-n", "-c", "1", "-W", "2", address)
    found = json.loads(pair.exec("client", "ip", "-j", "neigh", "show", address).stdout or "[]")
    return found[0].get("lladdr", "") if found else ""


@pytest.mark.parametrize("fault", ["kill", "stop", "down"])
def test_a_session_goes_on_through_a_failover(pair, fault):
    pair.serve(1521)
    talk = pair.talk(1521)
    assert talk.ask() == "hello"
    until(lambda: pair.status("fw2")["connections"] == 1, "fw2 knows the connection")
    pair.do(fault, "member=fw1")
    assert talk.ask("still there") == "still there"
    pair.wait_for_state("fw2", "Active")
    assert pair.status("fw2")["drops"]["OUT_OF_STATE"] == 0


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8:1::1"])
def test_a_dead_member_does_not_answer_for_the_virtual_address(pair, address):
    assert neighbour(pair, address) == mac(pair, "fw1")
    pair.do("kill", "member=fw1")
    pair.wait_for_state("fw2", "Active")
    # fw1's kernel still runs and still has the address on lo; a host whose entry expired must find fw2.
    assert neighbour(pair, address) == mac(pair, "fw2")


def test_the_new_active_member_announces_itself(pair):
    pair.exec("client", "ping", "-n", "-c", "1", "192.0.2.1", check=True)
    pair.do("stop", "member=fw1")
    pair.wait_for_state("fw2", "Active")
    found = until(
        lambda: [
            n
            for n in json.loads(pair.exec("client", "ip", "-j", "neigh", "show", "192.0.2.1").stdout or "[]")
            if n.get("lladdr") == mac(pair, "fw2")
        ],
        "the client's entry was changed by gratuitous ARP",
    )
    assert found


def test_a_member_that_is_not_running_is_closed(pair):
    for member in ("fw1", "fw2"):
        pair.do("kill", f"member={member}")
    assert pair.exec("client", "ping", "-n", "-c", "1", "-W", "1", "198.51.100.100").returncode != 0


def test_a_power_cut_is_noticed_by_silence(pair):
    began = time.monotonic()
    pair.do("power_cut", "member=fw1")
    pair.wait_for_state("fw2", "Active")
    took = time.monotonic() - began
    reason = pair.ask("fw2", "stat")["reason"]
    assert reason == "member fw1 was lost"
    assert "silent for 2.5 s" in pair.fwctl("fw2", "events").stdout
    assert took > 2.0  # not by a refusal: nothing answers any more
    pair.do("power_on", "member=fw1")
    pair.wait_for_state("fw1", "Standby")  # maintain current active


def test_a_cut_interface_moves_the_traffic(pair):
    pair.do("cut", "link=fw1-wan")
    pair.wait_for_state("fw2", "Active")
    pair.wait_for_state("fw1", "Down")
    assert "interface wan is down" in pair.fwctl("fw1", "stat").stdout
    assert pair.exec("client", "ping", "-n", "-c", "1", "-W", "2", "198.51.100.100").returncode == 0
    pair.do("restore", "link=fw1-wan")
    pair.wait_for_state("fw1", "Standby")


def test_a_cut_sync_network_leaves_one_down_and_one_active_attention(pair):
    pair.do("cut", "link=sync")
    pair.wait_for_state("fw1", "Active Attention")
    pair.wait_for_state("fw2", "Down")
    pair.do("restore", "link=sync")
    pair.wait_for_state("fw1", "Active")
    pair.wait_for_state("fw2", "Standby")


def test_down_does_not_stop_sync_and_up_does_not_fail_back(pair):
    pair.serve(1521)
    pair.fwctl("fw1", "down")
    pair.wait_for_state("fw2", "Active")
    talk = pair.talk(1521)
    assert talk.ask() == "hello"
    until(lambda: pair.status("fw1")["connections"] == 1, "the member that is down goes on hearing of connections")
    pair.fwctl("fw1", "up")
    pair.wait_for_state("fw1", "Standby")
    assert pair.status("fw1")["synced_full"] == 0


def test_an_old_member_that_boots_again_takes_the_cluster_from_the_new_one(pair):
    pair.do("upgrade", "member=fw2", "release=R80.10")
    assert pair.status("fw2")["state"] == "Ready"
    assert pair.status("fw1")["state"] == "Active"
    assert pair.status("fw2")["sync"]["status"] == "Off - Release version mismatch"
    assert "LOST" in pair.fwctl("fw1", "stat").stdout
    pair.do("stop", "member=fw1")
    pair.wait_for_state("fw2", "Active")
    pair.do("start", "member=fw1")
    pair.wait_for_state("fw1", "Active")
    pair.wait_for_state("fw2", "Ready")


def test_a_member_can_be_stopped_and_started_by_fwctl(pair):
    for _ in range(3):
        assert pair.fwctl("fw2", "stop").stdout.strip() == "fw2 has stopped"
        assert pair.fwctl("fw2", "status", check=False).returncode == 2
        assert pair.fwctl("fw2", "start").stdout.strip() == "fw2 is Standby"


def test_a_member_that_is_still_ending_is_started_when_it_has_ended(pair):
    """What stops a member sees its control socket go before its process ends."""
    with closing(Control(run_directory(pair.name) / "fw2.sock")) as control:
        control.ask("stop")
        control.wait_for_end()
    assert pair.fwctl("fw2", "start").stdout.strip() == "fw2 is Standby"


def test_a_joining_member_takes_the_whole_table(pair):
    pair.serve(1521)
    talks = [pair.talk(1521) for _ in range(5)]
    assert [t.ask() for t in talks] == ["hello"] * 5
    pair.do("kill", "member=fw2")
    pair.do("start", "member=fw2")
    status = pair.status("fw2")
    assert (status["full_sync"]["state"], status["full_sync"]["records"], status["connections"]) == ("done", 5, 5)
