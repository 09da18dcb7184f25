"""Claims B1 to B12, of the ClusterXL guide on blocking new connections under load: one test a claim.

A test's name begins with its claim; its first line says the claim. Those that a lab shows read the lab's document.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import Opener, UpLab, captured, command, sharing_lab, until, wan_macs
from scapy.layers.inet import UDP

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


def update_numbers(packets: list[Any]) -> set[int]:
    """The numbers of fw1's updates among these packets."""
    envelopes = [codec.decode(bytes(packet[UDP].payload), cluster=1) for packet in packets]
    return {e.message.sequence for e in envelopes if e.sender == 1 and isinstance(e.message, Delta)}


def forwarders(lab: UpLab, file: Path) -> set[str]:
    """Which members forward 60 new connections to the server, by the source MAC of their packets."""
    opener = lab.udp()
    with captured(lab, "wan", file, "udp dst port 9000") as packets:
        opener.open(60)
        until(lambda: all(opener.arrived(opener.newest - n) for n in range(60)), "all have arrived")
    by = wan_macs(lab)
    return {by[packet.src] for packet in packets}


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


def test_b2_more_members_cost_performance_because_of_delta_sync(run_lab):
    """B2: in load sharing, more than 4 members cost performance: measured with 2 to 5 on sync links of one speed."""
    loads = run_lab("more-members")["workloads"]
    assert loads["five"]["arrived"] < loads["three"]["arrived"] < loads["two"]["arrived"]


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


def test_b6_load_is_a_queue_that_fills_beyond_the_threshold(patient_pair):
    """B6: with another threshold of the sync transmit queue, another number of updates is load."""
    pair = patient_pair
    pair.fwctl("fw1", "ctl", "set", "int", "fw_sync_block_new_conns", "0")
    pair.fwctl("fw1", "ctl", "set", "int", "fw_sync_buffer_threshold", "10")  # of 512: 52, rounded up
    opener = pair.udp()
    pair.do("pause", "fw2")
    fill(pair, opener, 52)
    assert not pair.control("fw1")["blocking"]["blocking"]
    opener.open()
    until(lambda: pair.control("fw1")["blocking"]["blocking"], "53 are load")
    pair.fwctl("fw1", "ctl", "set", "int", "fw_sync_buffer_threshold", "20")
    assert not pair.control("fw1")["blocking"]["blocking"]
    pair.do("resume", "fw2")


def test_b7_410_unacknowledged_are_allowed_and_411_are_not(patient_pair, tmp_path):
    """B7: more than 410 consecutive packets sent without an ACK on any one of them, and new connections are dropped."""
    pair = patient_pair
    pair.fwctl("fw1", "ctl", "set", "int", "fw_sync_block_new_conns", "0")
    opener = pair.udp()
    with captured(pair, "sync", tmp_path / "sync.pcap", "udp port 8116") as packets:
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
    assert update_numbers(packets) == set(range(1, 412)), "what went over the wire, counted there"
    assert not opener.arrived(opener.newest)
    log = [event["text"] for event in pair.ask("fw1", "events") if event["kind"] == "log"]
    assert any(line.startswith("State synchronization is in risk") for line in log)  # B4
    entry = pair.ask("fw1", "drops")["entries"][-1]
    assert (entry["reason"], entry["text"]) == ("SYNC_LOAD", "a new connection, while sync is under load")
    # B11: only new connections are blocked.
    before = pair.control("fw1")["packets"]["accepted"]
    opener.again(10_000, 5)
    until(lambda: pair.control("fw1")["packets"]["accepted"] >= before + 5, "established connections go on")
    assert pair.control("fw1")["drops"]["SYNC_LOAD"] == 3
    pair.do("resume", "fw2")
    until(lambda: not pair.control("fw1")["blocking"]["blocking"], "blocking ends with the ACKs")
    opener.open()
    until(lambda: opener.arrived(opener.newest), "new connections pass again")
    assert "The tables are equal." in pair.fwctl("fw1", "sync", "compare").stdout


def test_b12_in_load_sharing_all_forward_in_high_availability_one(pair, tmp_path):
    """B12: in load sharing all members process traffic in parallel; in high availability one is active."""
    assert forwarders(pair, tmp_path / "ha.pcap") == {"fw1"}
    assert pair.status("fw2")["state"] == "Standby"
    with sharing_lab("load-sharing-multicast", 3, tmp_path) as lab:
        assert forwarders(lab, tmp_path / "ls.pcap") == {"fw1", "fw2", "fw3"}


def seen_in(document: dict[str, Any]) -> dict[str, Any]:
    """What each expectation of a lab saw, by its words."""
    return {entry["text"]: entry["seen"] for entry in document["expectations"]}


def test_b3_new_connections_are_the_main_source_of_delta_sync_traffic(run_lab):
    """B3: and a high rate of them puts delta sync at risk: records by kind under load, and what was lost."""
    document = run_lab("sync-under-load")
    records = document["members"]["fw1"]["records"]["sent"]
    assert records["SET"] > 0.9 * sum(records.values())
    seen = seen_in(document)
    assert seen["fw1 has lost updates of fw2"] > 0
    assert seen["the members do not agree any more"] > 0


def test_b4_the_log_says_that_state_synchronization_is_in_risk(run_lab):
    """B4: both sides say so when a retransmission request is rejected."""
    members = run_lab("sync-link-cut")["members"]
    for name, side in (("fw1", "sent"), ("fw2", "received")):
        line = f"State synchronization is in risk - {side} 'Reject notification'"
        assert any(said.startswith(line) for said in members[name]["log"]), name
    assert members["fw1"]["counters"]["sent_rejects"] > 0
    assert members["fw2"]["counters"]["received_rejects"] > 0


def test_b8_in_high_availability_blocking_costs_users_and_solves_nothing(run_lab):
    """B8: blocking is meant for load sharing; in high availability it is possible."""
    document = run_lab("sync-under-load-ha")
    loads, members = document["workloads"], document["members"]
    assert loads["users_open"]["hung"] == 0 < loads["users_blocked"]["hung"]
    assert loads["database"]["survived"] == loads["database"]["sessions"], "with blocking and without"
    assert members["fw2"]["packets"]["accepted"] < members["fw1"]["packets"]["accepted"] / 5, "copies that serve nobody"


def test_b9_each_flag_lets_its_kind_pass_and_no_other(run_lab):
    """B9: ICMP 1, TCP 2, UDP 4, TCP data 8, UDP data 16; default 24: each alone, the default, and the sum."""
    passed = {entry["text"]: entry["held"] for entry in run_lab("allowed-protocols")["expectations"]}
    for text in ("24: TCP does not pass", "1: pings pass", "2: TCP passes", "4: UDP passes", "8: FTP data passes",
                 "16: UDP does not pass", "20: TFTP passes", "31: TCP passes"):  # fmt: skip
        assert passed[text], text
    assert all(passed.values())


def test_b10_data_connections_pass_if_their_control_connection_does(run_lab):
    """B10: FTP data under blocking, over a control connection that was established before."""
    seen = seen_in(run_lab("allowed-protocols"))
    assert (seen["24: FTP data passes"], seen["24: TCP does not pass"]) == (1, 0)
    assert seen["20: TFTP passes"] == 1, "the request allowed as UDP, its answer as UDP data"


@pytest.mark.parametrize("lab", ["sync-under-load", "allowed-protocols"])
def test_b11_only_new_connections_are_blocked(run_lab, lab):
    """B11: established sessions go on, in both modes."""
    document = run_lab(lab)
    database = document["workloads"]["database"]
    assert database["survived"] == database["sessions"] > 0
    assert sum(counts.get("SYNC_LOAD", 0) for counts in document["drops"].values()) > 0
