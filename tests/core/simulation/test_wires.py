"""Links and switches: what passes, when, and what is lost."""

from __future__ import annotations

import pytest
from simulated_wires import A, B, C, Segment, udp

from labs.network.errors import LabError
from labs.network.topology import load_topology
from labs.simulation.ip_packets import packed
from labs.simulation.loop import World
from labs.simulation.simulated_faults import SimulatedFaults
from labs.simulation.simulated_network import build
from labs.simulation.wires import WIRE_S, Bucket, Switch


def acquainted() -> Segment:
    """Everybody knows everybody's MAC."""
    segment = Segment()
    for one in "abc":
        for other in (A, B, C):
            segment.send(one, other, b"hello")
    segment.run(1.0)
    for got in segment.got.values():
        got.clear()
    return segment


def test_a_packet_arrives_after_the_wire_and_once() -> None:
    segment = acquainted()
    start = segment.world.now
    segment.send("a", B, b"data")
    segment.run(1.0)
    assert segment.got == {"a": [], "b": [(start + WIRE_S, b"data")], "c": []}


def test_both_families_reach_their_host() -> None:
    segment = Segment()
    segment.send("a", "2001:db8::2", b"six")
    segment.send("a", B, b"four")
    segment.run(1.0)
    assert sorted(data for _, data in segment.got["b"]) == [b"four", b"six"]


def test_a_limited_link_sends_at_its_rate_and_drops_what_its_queue_cannot_hold() -> None:
    segment = acquainted()
    segment.link("b").limit(1_000_000)
    start = segment.world.now
    for number in range(1_000):
        segment.send("a", B, number.to_bytes(2) + bytes(970))  # 1,014 bytes on the wire
    segment.run(10.0)
    times = [when for when, _ in segment.got["b"]]
    numbers = [int.from_bytes(data[:2]) for _, data in segment.got["b"]]
    assert numbers == list(range(len(numbers))), "in order"
    burst, queued = 5_000 / 1_014, (0.150 * 125_000 + 5_000) / 1_014
    assert len(numbers) == pytest.approx(burst + queued, abs=3)
    assert times[-1] - start == pytest.approx((len(numbers) * 1_014 - 5_000) / 125_000, abs=0.01)
    assert segment.link("b").lost == 1_000 - len(numbers)


def test_a_limit_is_a_limit_over_a_long_time() -> None:
    bucket = Bucket(8_000_000)
    passed = [leaves for number in range(3_000) if (leaves := bucket.leaves_at(1_000, number * 0.0005)) is not None]
    assert len(passed) * 1_000 / passed[-1] == pytest.approx(1_000_000, rel=0.05)
    assert passed == sorted(passed)


@pytest.mark.parametrize(("way", "forth", "back"), [("in", True, False), ("out", False, True), ("both", False, False)])
def test_a_cut_stops_the_ways_it_says_and_no_other(way: str, forth: bool, back: bool) -> None:
    segment = acquainted()
    link = segment.link("a")
    if way == "both":
        link.set_up(False)
    else:
        (link.inward if way == "in" else link.outward).cut = True
        link.changed()
    segment.send("a", B, b"forth")
    segment.send("b", A, b"back")
    segment.send("b", C, b"aside")
    segment.run(1.0)
    assert (bool(segment.got["b"]), bool(segment.got["a"]), bool(segment.got["c"])) == (forth, back, True)


def test_loss_takes_its_share_each_way() -> None:
    segment = acquainted()
    link = segment.link("b")
    link.inward.loss = 0.2
    link.changed()
    for _ in range(5_000):
        segment.send("a", B, b"x")
        segment.send("b", A, b"x")
    segment.run(1.0)
    assert len(segment.got["b"]) == pytest.approx(4_000, abs=150)
    assert len(segment.got["a"]) == 5_000


def test_a_delay_keeps_the_order_and_lets_go_at_its_end() -> None:
    segment = acquainted()
    link, start = segment.link("b"), segment.world.now
    link.inward.delay_s = 0.5
    link.changed()
    for number in range(3):
        segment.send("a", B, bytes((number,)))
    segment.run(0.1)
    assert segment.got["b"] == []
    link.inward.delay_s = 0.0
    link.changed()
    link.let_go()
    segment.run(1.0)
    assert [(round(when - start, 6), data) for when, data in segment.got["b"]] == [
        (0.1, b"\0"),
        (0.1, b"\1"),
        (0.1, b"\2"),
    ]


def test_duplication_jitter_and_reordering_do_what_they_say() -> None:
    segment = acquainted()
    link = segment.link("b")
    link.inward.duplication, link.inward.jitter_s = 0.5, 0.01
    link.changed()
    for number in range(1_000):
        segment.send("a", B, number.to_bytes(2))
    segment.run(1.0)
    numbers = [data for _, data in segment.got["b"]]
    assert len(numbers) == pytest.approx(1_500, abs=60)
    assert len(set(numbers)) == 1_000
    assert numbers != sorted(numbers)


def test_what_a_link_that_goes_down_holds_is_lost() -> None:
    segment = acquainted()
    link = segment.link("b")
    link.limit(1_000_000)
    for _ in range(20):
        segment.send("a", B, bytes(1_000))
    segment.run(0.001)
    passed = len(segment.got["b"])
    link.set_up(False)
    segment.run(1.0)
    assert 0 < passed == len(segment.got["b"]) < 20


def test_multicast_reaches_everybody_else() -> None:
    segment = acquainted()
    link = segment.link("a")
    before = {name: segment.hosts[name].addresses for name in "bc"}
    for name in "bc":
        before[name].add(packed("224.0.0.9"))
    link.send((b"\x01\x00\x5e\0\0\x09", link.mac, 0, udp(packed(A), packed("224.0.0.9"), b"all")), segment.world.now)
    segment.run(1.0)
    assert [len(segment.got[name]) for name in "abc"] == [0, 1, 1]


def test_a_topology_becomes_a_network_with_the_names_of_a_real_lab() -> None:
    topology = load_topology("pair")
    network = build(topology, World())
    assert sorted(network.links) == sorted(topology.links())
    assert network.machines["fw1"].addresses >= {packed("192.0.2.11"), packed("203.0.113.1"), packed("2001:db8:2::11")}
    assert isinstance(network.switches["lan"], Switch)


def test_faults_have_the_names_of_a_real_lab() -> None:
    network = build(load_topology("pair"), World())
    faults = SimulatedFaults(network)
    faults.cut("sync")
    faults.cut("fw1-lan", "in")
    faults.lose("fw2-sync", 0.1)
    faults.limit("fw1-sync", 1_000_000)
    faults.block(("fw1", "fw2"), "tcp", 256)
    assert not network.links["fw2-sync"].up and network.links["fw1-lan"].up
    assert faults.active() == ["cut in fw1-lan", "limit fw1-sync to 1mbit", "lose fw2-sync",
                               "block tcp/256 between fw1 and fw2"]  # fmt: skip
    for undo in (faults.restore, faults.unlose, faults.unlimit):
        for link in ("sync", "fw1-lan"):
            undo(link)
    faults.unblock(("fw2", "fw1"), "tcp", 256)
    assert faults.active() == [] and network.links["fw2-sync"].up
    with pytest.raises(LabError, match="no link or switch"):
        faults.cut("fw3-lan")
    with pytest.raises(LabError, match="has no way in"):
        faults.cut("lan", "in")


def test_a_machine_without_power_stays_dark_when_its_link_is_restored() -> None:
    network = build(load_topology("pair"), World())
    faults = SimulatedFaults(network)
    faults.cut("fw1-sync")
    faults.power("fw1", on=False)
    faults.restore("fw1-sync")
    assert not network.links["fw1-sync"].up
    faults.power("fw1", on=True)
    assert network.links["fw1-sync"].up
