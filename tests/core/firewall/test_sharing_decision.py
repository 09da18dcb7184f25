"""What a firewall does with packets that are another member's in load sharing."""

from __future__ import annotations

from firewall_wire import CLIENT, SERVER, VIRTUAL, address, answer, echo, firewall, fragments, ip, tcp, udp, unreachable
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.packet import Raw

from fwnode.firewall.firewall import Firewall
from fwnode.firewall.packet import parse
from fwnode.firewall.sharing_key import FRAGMENTED_MAX, SharingKeys
from fwnode.firewall.verdict import Hook


def tcp_syn(family: int) -> bytes:
    return tcp("S", family=family)


class Mine:
    """A decision function that knows its keys."""

    all_receive = True

    def __init__(self, *keys: bytes) -> None:
        self.keys = keys

    def is_mine(self, key: bytes) -> bool:
        return key in self.keys


def sharing(*packets: bytes) -> Firewall:
    made = firewall()
    made.sharing = Mine(*(SharingKeys().of(parse(packet)) for packet in packets))
    return made


def test_what_is_anothers_is_left_to_it_without_a_word() -> None:
    fw = sharing(tcp("S"))
    assert answer(fw, tcp("S")) == "ACCEPT"
    assert answer(fw, tcp("S", client_port=40002)) == "OTHER_MEMBER"
    assert len(fw.connections) == 1
    assert not list(fw.log)


def test_a_known_connection_of_another_member_is_left_to_it_on_the_short_way_too() -> None:
    fw = sharing(tcp("S"), tcp("SA", "<"), tcp("A"))
    for packet in (tcp("S"), tcp("SA", "<"), tcp("A"), tcp("A")):
        assert answer(fw, packet) == "ACCEPT"
    fw.connections.take_updates(0.0)
    assert answer(fw, tcp("A")) == "ACCEPT"
    fw.sharing = Mine()
    assert answer(fw, tcp("A")) == "OTHER_MEMBER"


LOOKED_AT = [0, 2, 3, 4, 5, 6, 7, 9, *range(20, 26), 32, 33, *range(40, 46), 52, 53]
"""Where lengths, protocols, fragments and ports of either family stand."""
PACKETS = [made(family=family) for made in (tcp_syn, udp, echo) for family in (4, 6)]
PACKETS += [tcp("S", client_port=0), *fragments()[:2]]


@given(
    st.sampled_from(PACKETS),
    st.dictionaries(st.sampled_from(LOOKED_AT), st.sampled_from((0, 5, 8, 20, 0x60, 0xF0)), max_size=3),
    st.integers(0, 50),
)
@examples(500)
def test_the_short_way_of_what_is_anothers_ends_where_the_long_one_does(
    packet: bytes, changes: dict[int, int], missing: int
) -> None:
    """Whatever is wrong with a packet: it is dropped and counted for the same reason."""
    data = bytes(changes.get(at, octet) for at, octet in enumerate(packet))[: len(packet) - max(0, missing - 20)]
    short, long = sharing(), sharing()
    assert short.decide(data, Hook.FORWARD, 0.0) == long.decide_inspected(data, Hook.FORWARD, 0.0)
    assert short.counters == long.counters
    assert [entry.text for entry in short.log] == [entry.text for entry in long.log]


def test_an_icmp_error_follows_the_connection_that_it_is_about() -> None:
    error = unreachable(udp(">"))
    assert SharingKeys().of(parse(error)) == SharingKeys().of(parse(udp(">")))
    fw = sharing(udp(">"))
    assert answer(fw, udp(">")) == "ACCEPT"
    assert answer(fw, error) == "ACCEPT"


def test_all_fragments_of_a_datagram_come_to_one_member() -> None:
    datagram = ip(CLIENT, SERVER, 4) / UDP(sport=40001, dport=53) / Raw(b"x" * 4000)
    keys = SharingKeys()
    parts = [keys.of(parse(bytes(part))) for part in fragment(datagram, 1000)]
    assert len(parts) > 2
    assert set(parts) == {parse(udp(">")).key}, "to that of their connection's whole packets"
    stray = [SharingKeys().of(parse(bytes(part))) for part in fragment(datagram, 1000)[1:]]
    assert len(set(stray)) == 1, "one whose first was not seen goes by its addresses"


def test_datagrams_whose_fragments_are_remembered_stay_in_their_cap() -> None:
    keys = SharingKeys()
    first = bytes(ip(CLIENT, SERVER, 4, flags="MF") / UDP(sport=1, dport=53) / Raw(bytes(16)))
    for number in range(FRAGMENTED_MAX + 10):
        keys.of(parse(first[:4] + number.to_bytes(2) + first[6:]))
    assert len(keys._firsts) == FRAGMENTED_MAX


def test_fragments_of_an_accepted_datagram_pass_however_many_others_have_come() -> None:
    fw, others = firewall(), fragments(port=9)[0]
    first, second, _ = fragments(number=0)
    fw.sharing = Mine(parse(first).key)
    assert answer(fw, first) == "ACCEPT"
    for number in range(1, FRAGMENTED_MAX + 10):
        assert answer(fw, first[:4] + number.to_bytes(2) + others[6:]) == "OTHER_MEMBER"
    assert answer(fw, second) == "ACCEPT"


def test_an_error_about_a_packet_to_the_members_own_address_is_its_own() -> None:
    fw = sharing()
    fw._control_addresses |= {address("192.0.2.11")}
    for own, said in (("192.0.2.11", "ACCEPT"), ("198.51.100.100", "OTHER_MEMBER")):
        about = bytes(ip("192.0.2.100", own) / UDP(sport=5, dport=9))
        error = bytes(ip("192.0.2.11", "192.0.2.100") / ICMP(type=3, code=3) / Raw(about))
        assert answer(fw, error, hook=Hook.OUTPUT) == said


def test_its_own_traffic_is_each_members_own_and_the_virtual_address_is_shared() -> None:
    fw = sharing()
    own = bytes(IP(src="192.0.2.100", dst="192.0.2.11") / ICMP())
    virtual = bytes(IP(src="192.0.2.100", dst=VIRTUAL[4]) / ICMP())
    assert answer(fw, own, hook=Hook.INPUT) != "OTHER_MEMBER"
    assert answer(fw, virtual, hook=Hook.INPUT) == "OTHER_MEMBER"
    assert answer(fw, echo(), hook=Hook.OUTPUT) != "OTHER_MEMBER"
    assert answer(fw, unreachable(udp()), hook=Hook.OUTPUT) == "OTHER_MEMBER", "each kernel would send its own"
    forwarded = bytes(IP(src="192.0.2.100", dst="203.0.113.2") / ICMP())
    assert answer(fw, forwarded) == "OTHER_MEMBER", "fw2 has received it itself"
    assert fw.sharing is not None
    fw.sharing.all_receive = False  # type: ignore[misc]  # unicast: what reaches a member's virtual address is its own
    assert answer(fw, virtual, hook=Hook.INPUT) != "OTHER_MEMBER"
