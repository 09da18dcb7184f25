"""Neighbour entries: asked for, announced, kept, given up; and what a kernel answers by itself."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest
from simulated_wires import A, B, C, Segment, udp

from labs.simulation.ip_packets import ICMP, ends, ip_packet, packed, payload_of
from labs.simulation.machine import Machine
from labs.simulation.wires import BROADCAST, NEIGHBOUR, WIRE_S, Interface, Neighbourly


def announce(interface: Interface, address: str) -> None:
    """Gratuitous ARP, or an unsolicited advertisement."""
    own = packed(address)
    message = Neighbourly(True, interface.mac, own, own, to_all=True)
    interface.send((BROADCAST, interface.mac, NEIGHBOUR, message), interface.world.now)


def errors_at(host: Machine) -> list[tuple[int, int]]:
    got: list[tuple[int, int]] = []
    host.register(ICMP, lambda packet: got.append((payload_of(packet)[0], payload_of(packet)[1])))
    return got


def test_the_first_packet_waits_for_the_answer() -> None:
    segment = Segment()
    start = segment.world.now
    segment.send("a", B, b"one")
    segment.send("a", B, b"two")
    segment.run(1.0)
    assert [data for _, data in segment.got["b"]] == [b"one", b"two"]
    assert [when - start for when, _ in segment.got["b"]] == pytest.approx([3 * WIRE_S, 3 * WIRE_S])


def test_nobody_there_is_told_after_three_questions_a_second_apart() -> None:
    segment = Segment()
    errors = errors_at(segment.hosts["a"])
    segment.send("a", "192.0.2.77", b"?")
    segment.run(2.9)
    assert errors == []
    segment.run(0.2)
    assert errors == [(3, 1)]


def test_an_announcement_moves_an_entry_at_once_and_makes_none() -> None:
    segment = Segment()
    segment.send("a", B, b"before")
    segment.run(0.1)
    segment.hosts["c"].addresses.add(packed(B))
    announce(segment.link("c"), B)
    segment.run(0.1)
    segment.send("a", B, b"after")
    segment.run(0.1)
    assert [data for _, data in segment.got["b"]] == [b"before"]
    assert [data for _, data in segment.got["c"]] == [b"after"]
    announce(segment.link("c"), "192.0.2.99")
    segment.run(0.1)
    assert not any("63" in known.split()[0][-2:] for known in segment.hosts["a"].neighbours.known())


def test_without_an_announcement_the_entry_stays_until_its_machine_is_asked_in_vain() -> None:
    segment = Segment()
    segment.send("a", B, b"before")
    segment.run(0.1)
    segment.link("b").set_up(False)
    segment.hosts["c"].addresses.add(packed(B))
    segment.link("c").addresses.append(packed(B))
    segment.send("a", B, b"lost")
    segment.run(50.0)  # longer than an entry is good for
    segment.send("a", B, b"used again")
    segment.run(5.0 + 2.9)
    assert segment.got["c"] == []
    segment.run(0.2)
    segment.send("a", B, b"found")
    segment.run(0.1)
    assert [data for _, data in segment.got["c"]] == [b"found"]


def test_what_the_transport_confirms_is_not_asked_for() -> None:
    segment = Segment()
    segment.send("a", B, b"x")
    segment.run(0.1)
    segment.link("b").set_up(False)
    for _ in range(100):
        segment.hosts["a"].confirm(packed(B))
        segment.send("a", B, b"x")
        segment.run(1.0)
    assert segment.hosts["a"].neighbours.known()


def test_a_lost_carrier_empties_the_entries() -> None:
    segment = Segment()
    segment.send("a", B, b"x")
    segment.run(0.1)
    segment.link("a").set_up(False)
    assert segment.hosts["a"].neighbours.known() == {}


def test_nobody_listens_is_said_for_udp_and_reset_for_tcp() -> None:
    segment = Segment()
    host = Machine(segment.world, "d")
    host.plug(segment.switch, "lan", "d-lan", b"\x02\0\0\0\0\x09", [ip_interface("192.0.2.9/24")])
    errors = errors_at(segment.hosts["a"])
    resets: list[bytes] = []
    segment.hosts["a"].register(6, resets.append)
    segment.send("a", "192.0.2.9", b"x")
    syn = bytes((4, 0, 0, 80)) + bytes(8) + bytes((0x50, 2)) + bytes(6)
    segment.hosts["a"].send_ip(ip_packet(packed(A), packed("192.0.2.9"), 6, syn))
    segment.run(0.1)
    assert errors == [(3, 3)]
    assert [payload_of(packet)[13] & 4 for packet in resets] == [4]


def test_a_kernel_complains_six_times_at_once_and_then_once_a_second() -> None:
    segment = Segment()
    host = Machine(segment.world, "d")
    host.plug(segment.switch, "lan", "d-lan", b"\x02\0\0\0\0\x09", [ip_interface("192.0.2.9/24")])
    errors = errors_at(segment.hosts["a"])
    for _ in range(100):
        segment.send("a", "192.0.2.9", b"x")
        segment.run(0.01)
    assert len(errors) == 6
    for _ in range(100):
        segment.send("a", "192.0.2.9", b"x")
        segment.run(0.05)
    assert len(errors) == pytest.approx(6 + 5, abs=1)


def test_a_host_answers_an_echo_and_forwards_nothing() -> None:
    segment = Segment()
    replies: list[bytes] = []
    segment.hosts["a"].register(ICMP, replies.append)
    echo = bytes((8, 0, 0, 0, 0, 1, 0, 2)) + b"data"
    segment.hosts["a"].send_ip(ip_packet(packed(A), packed(B), ICMP, echo))
    segment.run(0.1)
    assert [(ends(packet)[0], payload_of(packet)[0], payload_of(packet)[8:]) for packet in replies] == [
        (packed(B), 0, b"data")
    ]
    link = segment.link("a")
    link.send((segment.link("b").mac, link.mac, 0, udp(packed(A), packed(C), b"through b")), segment.world.now)
    segment.run(0.1)
    assert segment.got["c"] == []


@pytest.mark.parametrize("family", [4, 6])
def test_what_a_host_without_a_route_sends_comes_back(family: int) -> None:
    segment = Segment()
    host = segment.hosts["a"]
    got: list[bytes] = []
    host.register(ICMP if family == 4 else 58, got.append)
    own, far = (A, "203.0.113.9") if family == 4 else ("2001:db8::1", "2001:db8:9::9")
    host.send_ip(udp(packed(own), packed(far), b"x"))
    segment.run(0.1)
    assert len(got) == 1
