"""The packet reader: what scapy builds it understands, whatever else comes is `MalformedPacket` and nothing else."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from firewall_wire import CLIENT, SERVER, echo, ip, tcp, udp, unreachable
from hypothesis import assume, example, given
from hypothesis import strategies as st
from properties import examples
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet as Built
from scapy.packet import Raw

from fwnode.firewall.packet import (
    EXTENSION_HEADERS_MAX,
    MalformedPacket,
    describe_key,
    flag_names,
    parse,
    reverse_key,
    split_key,
)

PORTS = st.integers(1, 65_535)
AUTHENTICATION_HEADER = bytes([6, 4, 0, 0]) + bytes(20)  # next header TCP, (4 + 2) * 4 bytes long


@st.composite
def built_packets(draw: st.DrawFn) -> tuple[Built, bytes]:
    """A packet of any shape that the reader knows, and its connection key, put together from scapy's fields."""
    family = draw(st.sampled_from((4, 6)))
    sport, dport, number = draw(PORTS), draw(PORTS), draw(PORTS)
    make: Any
    if family == 4:
        source, destination = (draw(st.binary(min_size=4, max_size=4)) for _ in "sd")
        head: Any = IP(src=str(IPv4Address(source)), dst=str(IPv4Address(destination)))
        head.options = draw(st.lists(st.sampled_from([IPOption_NOP(), IPOption_RR()]), max_size=4))
        ping: Any = ICMP(type=draw(st.sampled_from((0, 8))), id=number)
        ping_number = 1
    else:
        source, destination = (draw(st.binary(min_size=16, max_size=16)) for _ in "sd")
        head = IPv6(src=str(IPv6Address(source)), dst=str(IPv6Address(destination)))
        for extension in draw(st.lists(st.sampled_from("hdr"), max_size=3)):
            head /= {"h": IPv6ExtHdrHopByHop, "d": IPv6ExtHdrDestOpt}.get(extension, IPv6ExtHdrRouting)()
        from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest

        ping = draw(st.sampled_from((ICMPv6EchoRequest, ICMPv6EchoReply)))(id=number)
        ping_number = 58
    make, protocol, ports = draw(
        st.sampled_from(
            [
                (TCP(sport=sport, dport=dport, flags=draw(st.integers(0, 255))), 6, (sport, dport)),
                (UDP(sport=sport, dport=dport), 17, (sport, dport)),
                (ping, ping_number, (number, number)),
            ]
        )
    )
    key = bytes((protocol,)) + source + destination + b"".join(p.to_bytes(2, "big") for p in ports)
    return head / make / Raw(b"payload"), key


@examples(80)
@given(built_packets())
def test_the_key_is_what_scapy_built(case: tuple[Built, bytes]) -> None:
    built, key = case
    assume(key != reverse_key(key) and built.src != built.dst)
    data = bytes(built)
    packet = parse(data)
    assert packet.key == key
    assert packet.fragment == b""
    assert packet.flags == (int(built[TCP].flags) & 0xFF if TCP in built else 0)
    assert data[packet.header_length : packet.header_length + 2] == key[-4:-2] or packet.icmp_type >= 0
    assert parse(data[: -len(b"payload")]).key == key, "the headers alone are enough"


@examples(300)
@given(st.binary(max_size=120))
@example(b"")
@example(b"\x45")
@example(b"\x60" + bytes(39))
def test_any_bytes_are_a_packet_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        parse(data)


@examples(100)
@given(
    built_packets(),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4),
    st.integers(0, 120),
    st.booleans(),
)
def test_damaged_and_cut_packets_are_read_or_malformed(
    case: tuple[Built, bytes], damage: list[tuple[int, int]], length: int, quoted: bool
) -> None:
    data = bytearray(bytes(case[0]))
    for at, value in damage:
        if at < len(data):
            data[at] = value
    whole = bytes(data)
    if quoted:
        whole = unreachable(whole, family=6 if IPv6 in case[0] else 4)
    with contextlib.suppress(MalformedPacket):
        parse(whole[:length])
    with contextlib.suppress(MalformedPacket):
        parse(whole)


@given(st.one_of(st.binary(min_size=13, max_size=13), st.binary(min_size=37, max_size=37)))
def test_turning_a_key_round_twice_gives_the_same_key(key: bytes) -> None:
    turned = reverse_key(key)
    assert reverse_key(turned) == key
    protocol, source, destination, source_port, destination_port = split_key(key)
    assert split_key(turned) == (protocol, destination, source, destination_port, source_port)


@pytest.mark.parametrize("family", [4, 6])
def test_both_directions_of_a_connection_have_the_same_two_keys(family: int) -> None:
    for there, back in (
        (tcp("S", family=family), tcp("SA", "<", family=family)),
        (udp(family=family), udp("<", family=family)),
        (echo(family=family), echo("<", family=family, reply=True)),
    ):
        assert parse(back).key == reverse_key(parse(there).key)


def test_ipv4_fragments_share_an_identity_and_only_the_first_has_ports() -> None:
    big = IP(src=CLIENT[4], dst=SERVER[4], id=4711) / UDP(sport=5, dport=6) / Raw(bytes(3000))
    first, *others = [parse(bytes(part)) for part in fragment(big, 1000)]
    assert first.first_fragment and (first.source_port, first.destination_port) == (5, 6)
    assert len(others) >= 2
    assert {other.fragment for other in others} == {first.fragment}
    assert not any(other.first_fragment or any(other.key[-4:]) for other in others)
    another = parse(bytes(fragment(IP(src=CLIENT[4], dst=SERVER[4], id=4712) / UDP() / Raw(bytes(2000)), 1000)[0]))
    assert another.fragment != first.fragment


def test_ipv6_fragments_share_an_identity_and_only_the_first_has_ports() -> None:
    def part(offset: int, more: int, number: int = 99) -> bytes:
        head = IPv6(src=CLIENT[6], dst=SERVER[6]) / IPv6ExtHdrFragment(offset=offset, m=more, id=number, nh=17)
        return bytes(head / (UDP(sport=5, dport=6) / Raw(bytes(40)) if not offset else Raw(bytes(48))))

    first, second, other = parse(part(0, 1)), parse(part(6, 0)), parse(part(6, 0, 100))
    assert first.first_fragment and first.destination_port == 6
    assert not second.first_fragment and not any(second.key[-4:]) and second.fragment == first.fragment
    assert other.fragment != first.fragment
    assert parse(part(0, 0)).fragment == b"", "an atomic fragment is a whole packet (RFC 6946)"


def test_an_authentication_header_is_walked() -> None:
    data = bytes(IPv6(src=CLIENT[6], dst=SERVER[6], nh=51) / Raw(AUTHENTICATION_HEADER + bytes(TCP(sport=1, dport=2))))
    assert (parse(data).protocol, parse(data).destination_port) == (6, 2)


def test_extension_headers_are_walked_up_to_the_limit_and_no_further() -> None:
    def chain(length: int) -> bytes:
        head: Any = IPv6(src=CLIENT[6], dst=SERVER[6])
        for _ in range(length):
            head /= IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
        return bytes(head / TCP(sport=1, dport=2))

    assert parse(chain(EXTENSION_HEADERS_MAX)).destination_port == 2
    with pytest.raises(MalformedPacket, match=f"more than {EXTENSION_HEADERS_MAX}"):
        parse(chain(EXTENSION_HEADERS_MAX + 1))


@pytest.mark.parametrize("family", [4, 6])
def test_an_icmp_error_tells_which_connection_it_is_about(family: int) -> None:
    for about in (tcp("PA", family=family), udp(family=family), echo(family=family)):
        assert parse(unreachable(about, family=family)).about == parse(about).key


def test_eight_bytes_of_the_quoted_transport_header_are_enough() -> None:
    """RFC 792 promises no more."""
    about = tcp("PA")
    quoting = bytes(IP(src=SERVER[4], dst=CLIENT[4]) / ICMP(type=3, code=4) / Raw(about[:28]))
    assert parse(quoting).about == parse(about).key


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\x55" + bytes(39), "IP version 5"),
        (tcp("S")[:19], "IPv4 header cut short"),
        (b"\x44" + tcp("S")[1:], "header length"),
        (b"\x46" + bytes(ip(CLIENT, SERVER, proto=47, len=40))[1:] + b"\x01\x01", "header length"),
        (tcp("S")[:39], "TCP header cut short"),
        (tcp("S")[:32] + b"\x40" + tcp("S")[33:], "TCP header length"),
        (tcp("S")[:32] + b"\x60" + tcp("S")[33:], "TCP header length"),
        (bytes(ip(CLIENT, SERVER, 6) / TCP(sport=5, dport=80, dataofs=15)), "TCP header length"),
        (tcp("S", server_port=0), "port 0"),
        (tcp("S", client_port=0, family=6), "port 0"),
        (udp(server_port=0), "port 0"),
        (udp(client_port=0, family=6), "port 0"),
        (bytes(ip(CLIENT, SERVER) / UDP(sport=5, dport=53, len=7) / b"x"), "UDP length"),
        (bytes(ip(CLIENT, SERVER) / UDP(sport=5, dport=53, len=10) / b"x"), "UDP length"),
        (bytes(ip(CLIENT, SERVER, 6) / UDP(sport=5, dport=53, len=10) / b"x"), "UDP length"),
        (bytes(ip(CLIENT, SERVER, 6) / UDP(sport=5, dport=53, len=0) / b"x"), "UDP length"),
        (udp()[:27], "UDP header cut short"),
        (echo()[:27], "ICMP header cut short"),
        (tcp("S", family=6)[:39], "IPv6 header cut short"),
        (bytes(IPv6(nh=0))[:40] + b"\x06", "extension header cut short"),
        (unreachable(tcp("S")[:24]), "quoted by an ICMP error"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_packet_says_what_is_wrong(data: bytes, words: str) -> None:
    with pytest.raises(MalformedPacket, match=words):
        parse(data)


def test_flags_and_keys_are_written_as_the_log_has_them() -> None:
    names = {"PA": "PUSH-ACK", "FA": "FIN-ACK", "RA": "RST-ACK", "SA": "SYN-ACK", "A": "ACK", "": "none"}
    assert {flags: flag_names(parse(tcp(flags)).flags) for flags in names} == names
    assert describe_key(parse(tcp("S")).key) == "tcp 192.0.2.100:40001 -> 198.51.100.100:80"
    assert describe_key(parse(udp(family=6)).key) == "udp [2001:db8:1::100]:40001 -> [2001:db8:2::100]:53"
    assert describe_key(parse(echo(number=7)).key) == "icmp 192.0.2.100 -> 198.51.100.100 id 7"
    assert describe_key(bytes((47,)) + bytes(12)) == "protocol 47 0.0.0.0 -> 0.0.0.0"
