"""Claims A1 to A20, of the field report on cluster upgrades without dropped connections: one test a claim.

A test's name begins with its claim; its first line says the claim. Those that a lab shows read the lab's document.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from harness import UpLab, until

from labs.python import python_command

SERVER = "198.51.100.100"

pytestmark = pytest.mark.timeout(400)  # the first claim of a lab waits for the whole lab


def workload(document, name):
    return document["workloads"][name]


def only_from_inside(pair: UpLab, tmp_path: Path, **properties) -> None:
    """On both members: the client may open TCP 1521 and ping; nothing else is accepted."""
    rules = [{"source": "inside", "service": ["oracle", "echo-request", "udp"], "action": "accept"}]
    policy = {"name": "claims", "networks": {"inside": ["192.0.2.0/24"]}, "rules": rules, **properties}
    for member in ("fw1", "fw2"):
        pair.install(member, tmp_path, policy)


def test_a1_a_stateful_firewall_lets_replies_and_related_traffic_pass(pair, tmp_path):
    """A1: it records connections so that replies and related traffic pass: no rule names them."""
    only_from_inside(pair, tmp_path)
    pair.serve(1521)
    assert pair.talk(1521).ask("a reply") == "a reply"
    assert "ConnectionRefusedError" in pair.ask_udp(SERVER, 9)  # nobody listens there: an ICMP error says so
    assert pair.exec("server", "ping", "-n", "-c", "1", "-W", "1", "192.0.2.100").returncode != 0  # not a reply


def test_a2_a_new_active_member_knows_the_connections_in_flight(run_lab):
    """A2: members synchronise state so that a new active member knows the connections in flight."""
    document = run_lab("failover-synced")
    for load in document["workloads"].values():
        assert load["survived"] == load["sessions"] > 0
    assert all(counts.get("OUT_OF_STATE", 0) == 0 for counts in document["drops"].values())


def test_a3_without_the_state_all_open_sessions_are_dropped(run_lab):
    """A3: without that state, all open sessions are dropped; what is not a SYN is dropped, new connections work."""
    document = run_lab("upgrade-careless")
    assert workload(document, "database")["survived"] == 0
    assert document["drops"]["fw2"]["OUT_OF_STATE"] >= 200
    assert workload(document, "new")["finished"] == workload(document, "new")["sessions"] > 0


def test_a4_the_drop_is_silent_and_applications_find_out_late(run_lab):
    """A4: applications think that their connections are still open, and take long to find out."""
    database = workload(run_lab("upgrade-careless"), "database")
    assert (database["hung"], database["reset"], database["refused"]) == (database["sessions"], 0, 0)


def test_a5_sync_has_dedicated_interfaces(pair, tmp_path):
    """A5: sync traffic appears on the sync network and nowhere else."""
    from scapy.all import TCP, UDP, rdpcap

    from syncproto import codec
    from syncproto.message import Heartbeat

    captures = {switch: tmp_path / f"{switch}.pcap" for switch in ("lan", "wan", "sync")}
    running = []
    for switch, file in captures.items():
        line = python_command("labs.cli", "capture", "--lab", pair.name, switch, "-w", str(file))
        running.append(subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    for file in captures.values():
        until(lambda file=file: file.exists() and file.stat().st_size >= 24, f"{file.name} is being written")
    pair.serve(1521)
    talk = pair.talk(1521)
    assert talk.ask() == "hello"
    pair.do("kill", "member=fw2")
    pair.do("start", "member=fw2")  # a full sync
    until(lambda: pair.status("fw2")["connections"] == 1, "fw2 has the connection")
    for process in running:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    kinds: dict[str, set[str]] = {}
    for switch, file in captures.items():
        kinds[switch] = set()
        for packet in rdpcap(str(file)):
            if UDP in packet and packet[UDP].dport == 8116:
                message = codec.decode(bytes(packet[UDP].payload), cluster=1).message
                kinds[switch].add("heartbeat" if isinstance(message, Heartbeat) else "delta sync")
            elif TCP in packet and 256 in (packet[TCP].dport, packet[TCP].sport):
                kinds[switch].add("full sync")
    assert kinds == {"lan": {"heartbeat"}, "wan": {"heartbeat"}, "sync": {"heartbeat", "delta sync", "full sync"}}


def test_a6_the_complete_table_at_start_and_only_deltas_after(run_lab):
    """A6: at start a member takes the complete table; after that only new connections and state changes."""
    members = run_lab("failover-synced")["members"]
    restarted = members["fw2"]
    assert restarted["synced_full"] == restarted["connections"] > 0
    assert members["fw1"]["synced_full"] == 0
    assert members["fw1"]["synced_delta"] > 0


def test_a7_a_policy_without_fw1_stops_full_sync_but_not_delta_sync(run_lab):
    """A7: the members end with 10,000 and 5,000 connections."""
    seen = {e["text"]: e["seen"] for e in run_lab("full-sync-blocked")["expectations"]}
    assert seen["fw1 knows exactly 10,000 connections"] == 10_000
    assert seen["fw2 knows exactly 5,000 connections"] == 5_000
    assert run_lab("full-sync-blocked")["members"]["fw2"]["synced_full"] == 0


def test_a8_they_become_equal_only_as_applications_reconnect(run_lab):
    """A8: the counts converge as old connections end and are opened again."""
    members = run_lab("full-sync-blocked")["members"]
    assert members["fw1"]["connections"] == members["fw2"]["connections"] == 10_000
    assert members["fw2"]["synced_full"] == 0


def test_a9_members_of_different_versions_do_not_synchronise(run_lab):
    """A9: the reason is shown, and no record crosses."""
    document = run_lab("upgrade-careless")
    assert document["members"]["fw2"]["synced_full"] == document["members"]["fw2"]["synced_delta"] == 0
    assert any(e["seen"] == "Off - Release version mismatch" for e in document["expectations"])


def test_a10_hotfixes_usually_synchronise_not_always(run_lab):
    """A10: both cases exist among the releases, and a lab shows both."""
    assert run_lab("upgrade-hotfix")["verdict"] == "pass"


def test_a11_promoting_the_upgraded_member_drops_all_connections(run_lab):
    """A11: survivors: 0."""
    document = run_lab("upgrade-careless")
    assert workload(document, "database")["survived"] == 0
    assert document["members"]["fw2"]["state"] == "Active"


def test_a12_the_special_patch_carries_over_new_connections_only(run_lab):
    """A12: short-lived ones are carried over, long-running ones are not."""
    document = run_lab("upgrade-new-connections-patch")
    assert document["verdict"] == "pass"
    assert document["members"]["fw2"]["synced_full"] == 0
    assert document["members"]["fw2"]["synced_delta"] > 0


def test_a13_out_of_state_traffic_is_dropped_by_default(pair):
    """A13: with its reason: First packet isn't SYN."""
    pair.exec("client", "nmap", "-n", "-Pn", "-sA", "-p", "1521", "--max-retries", "0", SERVER)
    entry = pair.ask("fw1", "drops")["entries"][-1]
    assert entry["reason"] == "OUT_OF_STATE"
    assert entry["text"] == "TCP packet out of state: First packet isn't SYN; tcp_flags: ACK"


def test_a14_allowed_out_of_state_traffic_is_still_checked_by_the_policy(pair, tmp_path):
    """A14: an ACK that the rule base allows passes; one that it does not is dropped by policy."""
    only_from_inside(pair, tmp_path)
    pair.fwctl("fw1", "ctl", "set", "int", "fw_allow_out_of_state_tcp", "1")
    scan = pair.exec("client", "nmap", "-n", "-Pn", "-sA", "--reason", "-p", "1521,1522", "--max-retries", "0", SERVER)
    assert "1521/tcp unfiltered" in scan.stdout
    assert "1522/tcp filtered" in scan.stdout
    drops = pair.status("fw1")["drops"]
    assert (drops["OUT_OF_STATE"], drops["POLICY"]) == (0, 1)


def fail_over_without_state(pair: UpLab) -> None:
    """fw2 becomes active knowing nothing: it starts while it may not talk to fw1, which then stops."""
    pair.do("stop", "member=fw2")
    pair.do("upgrade", "member=fw2", "release=R80.10")
    pair.fwctl("fw2", "ctl", "set", "int", "fw_allow_out_of_state_tcp", "1")
    pair.do("stop", "member=fw1")
    pair.wait_for_state("fw2", "Active")


def test_a15_such_connections_are_learned(pair):
    """A15: they appear in the table, marked as learned."""
    pair.serve(1521)
    talk = pair.talk(1521)
    assert talk.ask() == "hello"
    fail_over_without_state(pair)
    assert talk.ask("learned?") == "learned?"
    rows = pair.ask("fw2", "tab")["rows"]
    assert [row["learned"] for row in rows] == [True]
    assert pair.status("fw2")["learned"] == 1


def test_a16_learned_connections_continue_when_enforcement_returns(pair):
    """A16: and what was not learned in time does not."""
    pair.serve(1521)
    talk, silent = pair.talk(1521), pair.talk(1521)
    assert talk.ask() == silent.ask() == "hello"
    fail_over_without_state(pair)
    assert talk.ask("learned?") == "learned?"
    pair.fwctl("fw2", "ctl", "set", "int", "fw_allow_out_of_state_tcp", "0")
    assert talk.ask("still there") == "still there"
    assert silent.ask("too late", patience_s=2) == "silence"


def test_a17_the_five_step_procedure_saves_what_spoke(run_lab):
    """A17: upgrade the passive member, allow out of state on it, promote it, run for 24 h, enforce again."""
    document = run_lab("upgrade-out-of-state")
    assert workload(document, "database")["survived"] == workload(document, "database")["sessions"] == 200


def test_a18_what_was_silent_in_the_window_is_dropped_and_only_that(run_lab):
    """A18: the idle ones are lost, and only they."""
    document = run_lab("upgrade-out-of-state")
    assert workload(document, "idle")["hung"] == workload(document, "idle")["sessions"] == 20
    assert workload(document, "database")["hung"] == 0


def test_a19_out_of_state_for_ever_is_a_router_with_access_lists(pair):
    """A19: an ACK scan sees through the firewall."""
    scan = ("nmap", "-n", "-Pn", "-sA", "-p", "1-20", "--max-retries", "0", SERVER)
    assert "unfiltered" not in pair.exec("client", *scan).stdout
    pair.fwctl("fw1", "ctl", "set", "int", "fw_allow_out_of_state_tcp", "1")
    assert pair.exec("client", *scan).stdout.count(" unfiltered ") == 20


def test_a20_some_applications_are_silent_for_months_and_expect_to_go_on(run_lab):
    """A20: they open a connection, send nothing, and then expect it to work: the idle workload hangs, unreset."""
    idle = workload(run_lab("upgrade-out-of-state"), "idle")
    assert (idle["hung"], idle["reset"]) == (20, 0)
