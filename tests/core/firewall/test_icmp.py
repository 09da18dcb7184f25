"""ICMP through the firewall: errors reach whom they concern, echo has a direction, redirects stay on their link."""

from __future__ import annotations

from typing import Any

import pytest
from firewall_wire import CLIENT, SERVER, answer, echo, firewall, fragments, ip, play, tcp, udp, unreachable
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
)
from scapy.packet import Raw

from fwnode.firewall.packet import parse
from fwnode.firewall.verdict import Hook

OPENING = "> S ACCEPT SYN_SENT\n < SA ACCEPT SYN_RECEIVED\n > A ACCEPT ESTABLISHED\n"
STRANGER = {4: "192.0.2.150", 6: "2001:db8:1::150"}
"""A host of the inside that has no connection."""
ROUTER = {4: "198.51.100.254", 6: "2001:db8:2::fe"}
ANYTHING: dict[str, Any] = {"rules": [{"action": "accept"}]}
ERRORS = {
    4: [ICMP(type=3, code=1), ICMP(type=3, code=4, nexthopmtu=1280), ICMP(type=11), ICMP(type=12), ICMP(type=4)],
    6: [ICMPv6DestUnreach(), ICMPv6PacketTooBig(mtu=1280), ICMPv6TimeExceeded(), ICMPv6ParamProblem()],
}
CASES = [(family, error) for family, errors in ERRORS.items() for error in errors]


def said(error: Any, about: bytes, to: dict[int, str], family: int = 4) -> bytes:
    """An error of a router on the way, as long as one may be."""
    return bytes(ip(ROUTER, to, family) / error / Raw(about + bytes(1_100)))


@pytest.mark.parametrize(("family", "error"), CASES, ids=str)
def test_an_error_passes_to_the_sender_of_the_packet_it_is_about_and_to_nobody_else(family: int, error: Any) -> None:
    for opening, there, back in (
        (OPENING, tcp("PA", family=family), tcp("PA", "<", family=family)),
        ("", udp(family=family), udp("<", family=family)),
    ):
        fw = firewall()
        play(fw, opening, family=family) if opening else answer(fw, there)
        assert answer(fw, said(error, there, CLIENT, family)) == "ACCEPT"
        assert answer(fw, said(error, back, SERVER, family)) == "ACCEPT"
        for about, to in ((there, SERVER), (back, CLIENT), (there, STRANGER), (back, STRANGER)):
            assert answer(fw, said(error, about, to, family)) == "OUT_OF_STATE"
            assert fw.log[-1].text == "ICMP error to a host that has not sent the packet it is about"
        assert len(fw.connections) == 1, "an error is no connection"


def test_an_error_about_a_connection_that_is_over_does_not_pass() -> None:
    fw = firewall()
    answer(fw, udp(), 0.0)
    assert answer(fw, said(ICMP(type=3), udp(), CLIENT), 39.0) == "ACCEPT"
    assert answer(fw, said(ICMP(type=3), udp(), CLIENT), 41.0) == "OUT_OF_STATE", "before expiry has looked at it"


@pytest.mark.parametrize("hook", [Hook.FORWARD, Hook.INPUT])
@pytest.mark.parametrize("allowed", [0, 1])
def test_redirects_and_neighbour_discovery_stay_on_their_link_whatever_is_allowed(hook: Hook, allowed: int) -> None:
    fw = firewall(policy=ANYTHING, fw_allow_out_of_state_icmp_error=allowed)
    play(fw, OPENING)
    redirect = ICMP(type=5, code=1, gw=STRANGER[4])
    assert answer(fw, said(redirect, tcp("PA"), CLIENT), hook=hook) == "OUT_OF_STATE"
    for message in (ICMPv6ND_RS(), ICMPv6ND_RA(), ICMPv6ND_NS(), ICMPv6ND_NA(), ICMPv6ND_Redirect()):
        assert answer(fw, bytes(ip(ROUTER, CLIENT, 6) / message), hook=hook) == "OUT_OF_STATE"
    assert fw.log[-1].text == "ICMP that is for its own link alone"
    assert len(fw.connections) == 1


def test_an_icmp_message_that_is_no_echo_is_no_echo_where_an_error_quotes_it() -> None:
    fw = firewall()
    assert answer(fw, echo(number=0)) == "ACCEPT"
    for kind in (13, 14, 17, 3, 11):  # timestamp, its reply, mask request, errors: nobody may send one about an error
        quoted = bytes(ip(CLIENT, SERVER) / ICMP(type=kind))
        assert answer(fw, said(ICMP(type=3), quoted, CLIENT)) == "OUT_OF_STATE", kind
    assert answer(fw, said(ICMP(type=3), echo(number=0), CLIENT)) == "ACCEPT"


@pytest.mark.parametrize("family", [4, 6])
def test_of_an_echo_exchange_requests_run_one_way_and_replies_the_other(family: int) -> None:
    fw = firewall()
    assert answer(fw, echo(family=family)) == "ACCEPT"
    assert answer(fw, echo("<", family=family)) == "POLICY", "the other side may not ping, not even by this number"
    assert answer(fw, echo(family=family, reply=True)) == "OUT_OF_STATE"
    assert answer(fw, echo("<", family=family, reply=True)) == "ACCEPT"
    error = ERRORS[family][0]
    for about, to, verdict in (
        (echo(family=family), CLIENT, "ACCEPT"),
        (echo("<", family=family, reply=True), SERVER, "ACCEPT"),
        (echo("<", family=family), SERVER, "OUT_OF_STATE"),
        (echo(family=family, reply=True), CLIENT, "OUT_OF_STATE"),
    ):
        assert answer(fw, said(error, about, to, family)) == verdict


def test_two_hosts_that_ping_each_other_by_one_number_are_two_exchanges() -> None:
    fw = firewall(policy=ANYTHING)
    assert [answer(fw, echo()), answer(fw, echo("<")), answer(fw, echo(reply=True))] == ["ACCEPT"] * 3


ABOUT = [tcp("PA"), tcp("PA", "<"), udp(), udp("<"), echo(), echo("<", reply=True), udp(client_port=9)]


@examples(80)
@given(st.sampled_from(ABOUT), st.sampled_from((CLIENT, SERVER, STRANGER)), st.sampled_from(ERRORS[4]))
def test_who_gets_an_error_has_sent_what_it_is_about(about: bytes, to: dict[int, str], error: Any) -> None:
    fw = firewall()
    play(fw, OPENING)
    answer(fw, udp())
    answer(fw, echo())
    packet = said(error, about, to)
    passes = answer(fw, packet) == "ACCEPT"
    assert passes == (parse(about).source == parse(packet).destination and about is not ABOUT[-1])


@pytest.mark.parametrize("family", [4, 6])
def test_an_icmp_error_passes_when_it_is_about_a_known_connection(family: int) -> None:
    about = tcp("PA", family=family)
    fw = firewall()
    assert answer(fw, unreachable(about, family=family)) == "OUT_OF_STATE"
    assert fw.log[-1].text == "ICMP error about no known connection"
    play(fw, OPENING, family=family)
    assert answer(fw, unreachable(about, family=family)) == "ACCEPT"
    assert answer(fw, unreachable(tcp("PA", "<", family=family), ">", family=family)) == "ACCEPT", "from the client"
    assert len(fw.connections) == 1, "an error is no connection"


def test_too_big_reaches_an_ipv6_sender() -> None:
    fw = firewall()
    play(fw, OPENING, family=6)
    router = bytes(ip("2001:db8:2::fe", CLIENT, 6) / ICMPv6PacketTooBig(mtu=1280) / Raw(tcp("PA", family=6)))
    assert answer(fw, router) == "ACCEPT"


def test_icmp_errors_are_a_property_of_the_policy_and_a_kernel_parameter() -> None:
    fw = firewall(policy={"implied_rules": {"icmp_errors": False}})
    play(fw, OPENING)
    assert answer(fw, unreachable(tcp("PA"))) == "OUT_OF_STATE"
    assert answer(firewall(fw_allow_out_of_state_icmp_error=1), unreachable(tcp("PA"))) == "ACCEPT"


def test_an_icmp_error_about_nonsense_is_malformed() -> None:
    assert answer(firewall(), unreachable(b"\x45nonsense")) == "MALFORMED"


def test_an_icmp_error_about_a_later_fragment_is_about_no_known_connection() -> None:
    """What it quotes has no ports: nobody can tell whose it is."""
    fw = firewall()
    first, second, _ = fragments()
    assert answer(fw, first) == "ACCEPT"
    assert answer(fw, unreachable(second)) == "OUT_OF_STATE"
    assert fw.log[-1].text == "ICMP error about no known connection"
