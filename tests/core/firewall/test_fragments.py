"""Datagrams in fragments: who follows an accepted first one passes, and nothing that was refused gets in the way."""

from __future__ import annotations

from typing import Any

import pytest
from control_wire import FtpControl, control_firewall, datagram, invite, sent
from firewall_wire import CLIENT, POLICY, SERVER, answer, firewall, fragments, ip, udp
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.packet import Raw

from fwnode.firewall.fragments import FRAGMENT_TIMEOUT_S, FRAGMENTS_MAX, AcceptedFragments
from fwnode.firewall.verdict import Hook
from fwnode.policy_file import build_policy


def numbered(packet: bytes, number: int) -> bytes:
    """The same fragment of another datagram."""
    return packet[:4] + number.to_bytes(2) + packet[6:]


def test_fragments_follow_the_verdict_of_the_first() -> None:
    fw = firewall()
    first, second, third = fragments()
    assert [answer(fw, p) for p in (second, first, second, third)] == ["FRAGMENT", "ACCEPT", "ACCEPT", "ACCEPT"]
    refused, tail, _ = fragments(port=9, number=2)
    assert [answer(fw, p) for p in (refused, tail)] == ["POLICY", "FRAGMENT"]
    assert answer(fw, second, FRAGMENT_TIMEOUT_S + 1) == "FRAGMENT"


def test_the_memory_for_fragments_is_bounded_and_the_oldest_gives_way() -> None:
    fw = firewall()
    trains = [fragments(number=n)[:2] for n in (1, 2)]
    answer(fw, trains[0][0])
    head = bytearray(trains[1][0])
    for number in range(2, FRAGMENTS_MAX + 2):
        head[4:6] = number.to_bytes(2, "big")
        fw.decide(bytes(head), Hook.FORWARD, 0.0)
    assert answer(fw, trains[0][1]) == "FRAGMENT"
    assert answer(fw, trains[1][1]) == "ACCEPT"


def test_first_fragments_that_are_refused_do_not_push_out_accepted_ones() -> None:
    fw = firewall()
    first, second, third = fragments()
    assert answer(fw, first) == "ACCEPT"
    refused = fragments(port=9)[0]
    for number in range(2, FRAGMENTS_MAX + 102):
        assert answer(fw, numbered(refused, number)) == "POLICY"
    assert answer(fw, refused) == "POLICY", "nor does one that names the same datagram"
    assert [answer(fw, second), answer(fw, third)] == ["ACCEPT", "ACCEPT"]


def test_fragments_of_what_an_older_policy_accepted_do_not_pass() -> None:
    fw = firewall()
    first, second, third = fragments()
    assert [answer(fw, first), answer(fw, second)] == ["ACCEPT", "ACCEPT"]
    fw.install(build_policy(POLICY, "again"))
    assert answer(fw, third) == "FRAGMENT"
    assert [answer(fw, first), answer(fw, third)] == ["ACCEPT", "ACCEPT"]


IDENTITIES = st.integers(0, 2_000).map(lambda n: n.to_bytes(2))


@examples(40)
@given(st.lists(st.tuples(IDENTITIES, st.floats(0, 100)), max_size=3_000))
def test_no_more_is_remembered_than_may_be_and_the_newest_is(accepted: list[tuple[bytes, float]]) -> None:
    known = AcceptedFragments()
    for identity, until in accepted:
        known.accept(identity, until)
        assert len(known) <= FRAGMENTS_MAX
        assert known.passes(identity, until - 0.5) and not known.passes(identity, until)
    newest = dict(accepted[-FRAGMENTS_MAX:])
    assert all(known.passes(identity, until - 0.5) for identity, until in newest.items())


# -- control connections ---------------------------------------------------------------------------------------------


def pieces(packet: Any, family: int, at: int) -> list[bytes]:
    """The packet in two fragments, the second from this byte of the transport header on."""
    whole = bytes(packet)
    payload = whole[40 if family == 6 else 20 :]
    protocol = whole[6] if family == 6 else whole[9]
    parts = []
    for offset, more, data in ((0, 1, payload[:at]), (at, 0, payload[at:])):
        if family == 6:
            head = ip(packet.src, packet.dst, 6) / IPv6ExtHdrFragment(offset=offset // 8, m=more, id=9, nh=protocol)
        else:
            head = IP(src=packet.src, dst=packet.dst, id=9, flags=more, frag=offset // 8, proto=protocol)
        parts.append(bytes(head / Raw(data)))
    return parts


THIRD_HOST = {4: b"PORT 203,0,113,9,156,65\r\n", 6: b"EPRT |2|2001:db8:9::9|40001|\r\n"}


@pytest.mark.parametrize("family", [4, 6])
def test_a_command_in_two_fragments_is_not_passed_by_the_inspection(family: int) -> None:
    control = FtpControl(control_firewall(), family)
    for text in (THIRD_HOST[family], b"NOOP, which cannot be known from its beginning\r\n"):
        first, second = pieces(control.segment(">", text), family, 24)
        assert [sent(control.fw, first), answer(control.fw, second)] == ["FRAGMENT", "FRAGMENT"]
    assert "ftp, which is inspected" in list(control.fw.log)[-2].text
    assert control.say(">", b"NOOP\r\n") == "ACCEPT"


def test_a_message_in_two_fragments_is_not_passed_by_the_inspection() -> None:
    fw = control_firewall()
    first, second = pieces(datagram(">", invite("203.0.113.9", 40_000), 5060, 5060), 4, 80)
    assert [sent(fw, first), answer(fw, second)] == ["FRAGMENT", "FRAGMENT"]
    assert answer(fw, udp()) == "POLICY"


# -- what no sender sends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("offset", [8, 16, 24])
def test_a_fragment_that_overlaps_the_tcp_header_is_malformed(family: int, offset: int) -> None:
    """RFC 3128: it would put other ports or flags in the place of those that were looked at."""
    fw = firewall()
    segment = ip(CLIENT, SERVER, family) / TCP(sport=40001, dport=80, flags="S") / Raw(bytes(40))
    first, _ = pieces(segment, family, 24)
    _, second = pieces(segment, family, offset)
    assert [answer(fw, first), answer(fw, second)] == ["ACCEPT", "ACCEPT" if offset == 24 else "MALFORMED"]


def test_an_ipv6_fragment_cannot_hide_its_protocol() -> None:
    """Only what the first fragment says of it counts (RFC 8200, 4.5)."""
    fw = firewall()
    first, _ = pieces(ip(CLIENT, SERVER, 6) / TCP(sport=40001, dport=80, flags="S") / Raw(bytes(40)), 6, 24)
    disguised = ip(CLIENT, SERVER, 6) / IPv6ExtHdrFragment(offset=1, m=0, id=9, nh=17) / Raw(bytes(40))
    assert [answer(fw, first), answer(fw, bytes(disguised))] == ["ACCEPT", "MALFORMED"]


def test_a_fragment_beyond_the_longest_datagram_is_malformed() -> None:
    fw = firewall()
    first = fragments()[0]
    beyond = bytes(IP(src=CLIENT[4], dst=SERVER[4], id=1, frag=8_189, proto=17) / Raw(bytes(8)))
    assert [answer(fw, first), answer(fw, beyond)] == ["ACCEPT", "ACCEPT"]
    assert answer(fw, beyond[:2] + (48).to_bytes(2) + beyond[4:] + bytes(20)) == "MALFORMED"


@pytest.mark.parametrize("family", [4, 6])
def test_the_udp_length_of_a_first_fragment_is_that_of_the_datagram(family: int) -> None:
    whole = ip(CLIENT, SERVER, family) / UDP(sport=5, dport=53) / Raw(bytes(100))
    first, second = pieces(whole, family, 48)
    fw = firewall()
    assert [answer(fw, first), answer(fw, second)] == ["ACCEPT", "ACCEPT"]
    cut = bytearray(first)
    cut[-48 + 4 : -48 + 6] = (7).to_bytes(2)
    assert answer(fw, bytes(cut)) == "MALFORMED"


def test_helpers_make_fragments_as_others_do() -> None:
    whole = IP(src=CLIENT[4], dst=SERVER[4], id=9) / UDP(sport=5, dport=53) / Raw(bytes(100))
    assert [p[20:] for p in pieces(whole, 4, 56)] == [bytes(p)[20:] for p in fragment(whole, 56)]
