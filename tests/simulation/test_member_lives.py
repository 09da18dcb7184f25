"""A member's lives in the simulated world, and what the network sees of them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import simulated_cluster
from simulated_cluster import CLIENT, SERVER, SimulatedCluster, chancy_run
from simulated_wires import udp

from fwnode.datapath import queue
from fwnode.firewall.verdict import DropReason
from labs.simulation.ip_packets import ICMP, ip_packet, packed, payload_of
from labs.simulation.member_life import PACKET_S, QUEUE_LENGTH_MAX, MemberLife
from labs.simulation.member_machine import MemberMachine

DEAD_TIMER_S, HEARTBEAT_S = 2.5, 0.1


def life(machine: MemberMachine) -> MemberLife:
    assert machine.life is not None
    return machine.life


def test_a_pair_comes_up_and_forwards_and_knows_the_same() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    assert cluster.states() == ["Active", "Standby"]
    cluster.stream(1.0)
    assert [int.from_bytes(data) for _, data in cluster.arrived] == list(range(100))
    assert [cluster.status(name)["connections"] for name in ("fw1", "fw2")] == [1, 1]


def test_after_a_power_cut_the_other_takes_over_when_the_dead_timer_is_over() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    cut = cluster.world.now + 1.0
    cluster.world.at(cut, lambda _: (cluster.faults.power("fw1", on=False), cluster.member("fw1").power_off()))
    cluster.stream(6.0)
    began, lasted = cluster.gap()
    assert cut - 0.02 <= began <= cut
    assert DEAD_TIMER_S - HEARTBEAT_S <= lasted <= DEAD_TIMER_S + 0.05
    assert cluster.states() == ["-", "Active"]


def test_a_killed_process_is_missed_by_its_peer_within_some_heartbeats() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    killed = cluster.world.now + 1.0
    cluster.world.at(killed, lambda _: cluster.member("fw1").kill())
    cluster.stream(6.0)
    began, lasted = cluster.gap()
    assert killed - 0.02 <= began <= killed
    assert HEARTBEAT_S < lasted < 4 * HEARTBEAT_S  # its machine says that nobody listens
    assert cluster.states() == ["-", "Active"]


def test_a_machine_whose_process_is_gone_forwards_nothing() -> None:
    cluster = SimulatedCluster()
    cluster.start("fw1")
    cluster.run(2.0)
    cluster.send(0)
    cluster.run(0.5)
    assert len(cluster.arrived) == 1
    cluster.member("fw1").kill()
    cluster.stream(1.0)
    assert len(cluster.arrived) == 1


def test_a_graceful_stop_costs_almost_nothing() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    ended: list[bool] = []
    cluster.member("fw1").on_end.append(lambda: ended.append(True))
    cluster.world.at(cluster.world.now + 1.0, lambda _: life(cluster.member("fw1")).request("stop"))
    cluster.stream(5.0)
    assert ended == [True]
    assert cluster.gap()[1] < 2 * HEARTBEAT_S
    assert cluster.states() == ["-", "Active"]


def test_a_member_that_comes_back_takes_the_whole_table() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    for port in range(2_000, 5_000):
        cluster.world.at(cluster.world.now + port / 10_000, lambda port: cluster.send(1, port), port)
    cluster.run(1.0)
    cluster.member("fw1").kill()
    cluster.run(2.0)
    cluster.start("fw1")
    cluster.run(3.0)
    assert cluster.status("fw1")["synced_full"] == 3_001 == cluster.status("fw2")["connections"]
    assert cluster.states() == ["Standby", "Active"]


@pytest.mark.parametrize("fault", ["block", "policy"])
def test_full_sync_passes_the_firewalls_and_fails_where_they_do_not_let_it_through(fault: str) -> None:
    policy = {
        "name": "closed",
        "networks": {"inside": "192.0.2.0/24"},
        "rules": [{"name": "out", "source": "inside", "action": "accept"}],
        "implied_rules": {"control_connections": False},
    }
    cluster = SimulatedCluster(policy=policy if fault == "policy" else {})
    if fault == "block":
        cluster.faults.block(("fw1", "fw2"), "tcp", 256)
    cluster.start("fw1")
    cluster.run(2.0)
    cluster.start("fw2")
    cluster.until(lambda: cluster.status("fw2")["full_sync"]["state"] == "failed", 160.0)
    cluster.run(1.0)
    assert cluster.states() == ["Active", "Standby"]


def test_what_waits_for_a_process_that_is_paused_shortly_goes_on() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    start = cluster.world.now
    cluster.world.at(start + 0.995, lambda _: cluster.member("fw1").pause())
    cluster.world.at(start + 1.995, lambda _: cluster.member("fw1").resume())
    cluster.stream(3.0)
    cluster.run(0.1)
    assert [int.from_bytes(data) for _, data in cluster.arrived] == list(range(300))
    assert cluster.gap()[1] == pytest.approx(1.0, abs=0.02)
    assert cluster.states() == ["Active", "Standby"]


def test_what_waits_for_a_process_that_is_paused_too_long_goes_nowhere() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    cluster.member("fw1").pause()
    for number in range(QUEUE_LENGTH_MAX + 100):
        cluster.world.at(cluster.world.now + number * 1e-5, cluster.send, number)
    cluster.run(10.0)
    arrived = len(cluster.arrived)
    assert cluster.states()[1] == "Active"
    drops = dict(life(cluster.member("fw1")).member.firewall.counters.drops)
    cluster.member("fw1").resume()
    cluster.run(5.0)
    machine = cluster.member("fw1")
    assert life(machine).figures().lost_queue == 100, "the queue holds no more than a real one"
    after = life(machine).member.firewall.counters.drops
    assert after[DropReason.NOT_ACTIVE] - drops[DropReason.NOT_ACTIVE] >= QUEUE_LENGTH_MAX - 50
    assert len(cluster.arrived) == arrived
    assert cluster.states() == ["Standby", "Active"]


def test_a_member_that_gets_more_than_it_can_decide_loses_packets_and_stays_active() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    for number in range(50_000):
        cluster.world.at(cluster.world.now + number * 2e-6, cluster.send, number)
    cluster.run(1.0)
    figures = life(cluster.member("fw1")).figures()
    assert figures.lost_queue > 0 and len(cluster.arrived) == 50_000 - figures.lost_queue
    numbers = [int.from_bytes(data) for _, data in cluster.arrived]
    assert numbers == sorted(numbers)
    assert cluster.arrived[-1][0] - cluster.arrived[0][0] == pytest.approx(len(numbers) * PACKET_S, rel=0.1)
    assert cluster.states() == ["Active", "Standby"]
    assert not [what for _, who, what in cluster.world.events if who == "fw2" and "Lost" in what]


def test_the_queue_is_as_long_as_the_real_one() -> None:
    assert QUEUE_LENGTH_MAX == queue.QUEUE_LENGTH_MAX


def test_the_client_learns_who_answers_for_its_router() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    router = packed("192.0.2.1")
    entry = cluster.client.neighbours.entry(cluster.client.interfaces["lan"], router)
    assert entry.mac == cluster.network.links["fw1-lan"].mac
    cluster.member("fw1").kill()
    cluster.run(2.0)
    assert entry.mac == cluster.network.links["fw2-lan"].mac


@pytest.mark.parametrize("mode", ["load-sharing-multicast", "load-sharing-unicast"])
def test_load_sharing_spreads_connections_over_all_members(mode: str) -> None:
    cluster = SimulatedCluster(mode=mode, members=3)
    cluster.up()
    assert cluster.states() == ["Active"] * 3
    before = [cluster.member(name).forwarded for name in cluster.topology.members]
    for port in range(3_000):
        cluster.world.at(cluster.world.now + port * 1e-3, lambda port: cluster.send(port, 1024 + port), port)
    cluster.run(4.0)
    assert sorted(int.from_bytes(data) for _, data in cluster.arrived) == list(range(3_000)), "each, and once"
    shares = [cluster.member(n).forwarded - b for n, b in zip(cluster.topology.members, before, strict=True)]
    assert sum(shares) == 3_000 and all(800 < share < 1_200 for share in shares), shares


@pytest.mark.parametrize("mode", ["load-sharing-multicast", "load-sharing-unicast"])
def test_load_sharing_goes_on_without_a_member_that_dies(mode: str) -> None:
    cluster = SimulatedCluster(mode=mode, members=3)
    cluster.up()
    cluster.member("fw1").kill()
    cluster.run(2.0)
    cluster.arrived.clear()
    for port in range(300):
        cluster.world.at(cluster.world.now + port * 1e-3, lambda port: cluster.send(port, 1024 + port), port)
    cluster.run(1.0)
    assert sorted(int.from_bytes(data) for _, data in cluster.arrived) == list(range(300))


def test_flush_and_ack_holds_a_packet_until_the_peers_have_its_change() -> None:
    cluster = SimulatedCluster(mode="load-sharing-multicast", parameters={"fwlab_sync_flush_and_ack": 1})
    cluster.up()
    cluster.faults.delay("fw1-sync", 0.05)
    for port in range(20):
        cluster.send(port, 3_000 + port)
    cluster.run(0.04)
    assert cluster.arrived == []
    cluster.run(0.2)
    assert len(cluster.arrived) == 20


def test_the_virtual_address_answers_an_echo_while_a_member_is_active() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    replies: list[bytes] = []
    cluster.client.register(ICMP, replies.append)
    echo = bytes((8, 0, 0, 0, 0, 1, 0, 2))
    cluster.client.send_ip(ip_packet(CLIENT, packed("192.0.2.1"), ICMP, echo))
    cluster.run(0.1)
    assert [payload_of(packet)[0] for packet in replies] == [0]
    cluster.member("fw1").kill()
    cluster.client.send_ip(ip_packet(CLIENT, packed("192.0.2.1"), ICMP, echo))
    cluster.run(0.05)
    assert len(replies) == 1


def test_a_packet_without_hops_left_is_told_back() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    errors: list[bytes] = []
    cluster.client.register(ICMP, errors.append)
    packet = udp(CLIENT, SERVER, b"x")
    cluster.client.send_ip(packet[:8] + b"\1" + packet[9:])
    cluster.run(0.1)
    assert [payload_of(error)[0] for error in errors] == [11] and cluster.arrived == []


def test_members_on_clocks_that_are_off_and_drift_agree_all_the_same() -> None:
    cluster = SimulatedCluster()
    cluster.member("fw1").offset_s, cluster.member("fw2").drift = 1_000_000.0, 1.001
    cluster.up()
    cluster.stream(5.0)
    cluster.member("fw1").kill()
    cluster.run(5.0)
    cluster.arrived.clear()
    cluster.stream(1.0)
    assert len(cluster.arrived) == 100
    assert cluster.states() == ["-", "Active"]


def test_ipv6_passes_as_ipv4_does() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    client, server = packed("2001:db8:1::100"), packed("2001:db8:2::100")
    for number in range(10):
        cluster.client.send_ip(udp(client, server, number.to_bytes(4)))
        cluster.run(0.01)
    assert len(cluster.arrived) == 10
    cluster.member("fw1").kill()
    cluster.run(2.0)
    cluster.client.send_ip(udp(client, server, b"six"))
    cluster.run(0.1)
    assert [data for _, data in cluster.arrived][10:] == [b"six"]


def test_a_member_that_hears_nobody_is_active_too_and_gives_way_when_it_hears_again() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    for network in ("lan", "wan", "sync"):
        cluster.faults.cut(f"fw2-{network}", "in")
    cluster.run(5.0)
    assert cluster.states() == ["Active", "Active"]
    for network in ("lan", "wan", "sync"):
        cluster.faults.restore(f"fw2-{network}")
    cluster.run(3.0)
    cluster.arrived.clear()
    cluster.stream(1.0)
    assert cluster.states() == ["Active", "Standby"]
    assert len(cluster.arrived) == 100, "the client has learned where its router is"
    assert [cluster.status(name)["split_brains"]["count"] for name in ("fw1", "fw2")] == [1, 1]


def test_a_cut_client_side_makes_the_other_member_active() -> None:
    cluster = SimulatedCluster()
    cluster.up()
    cluster.faults.cut("fw1-lan")
    cluster.stream(3.0)
    assert cluster.states() == ["Down", "Active"]
    assert len(cluster.arrived) > 250


def test_the_same_seed_gives_the_same_log_byte_for_byte_in_any_process() -> None:
    program = Path(simulated_cluster.__file__)
    others = [
        subprocess.Popen(
            [sys.executable, str(program), "7"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
        )
        for hash_seed in ("1", "4711")
    ]
    here = chancy_run(7)
    assert len(here) > 100_000
    assert [hashlib.sha256(other.communicate()[0]).digest() for other in others] == [hashlib.sha256(here).digest()] * 2
    assert chancy_run(8) != here
