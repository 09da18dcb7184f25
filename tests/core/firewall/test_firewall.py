"""What a user sees of `Firewall.decide`: everything that is not about TCP states."""

from __future__ import annotations

from typing import Any

import pytest
from firewall_wire import (
    CLIENT,
    FW1,
    FW2,
    POLICY,
    SERVER,
    VIRTUAL,
    answer,
    echo,
    firewall,
    ip,
    key_of,
    play,
    tcp,
    udp,
    unreachable,
)
from hypothesis import example, given
from hypothesis import strategies as st
from properties import examples
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Raw

from fwnode.firewall.firewall import LOG_MAX, Firewall
from fwnode.firewall.tcp_states import ConnectionState
from fwnode.firewall.verdict import DropReason, Hook
from fwnode.policy_file import build_policy

OPENING = "> S ACCEPT SYN_SENT\n < SA ACCEPT SYN_RECEIVED\n > A ACCEPT ESTABLISHED\n"


# -- whatever comes --------------------------------------------------------------------------------------------------

SEEDS = [
    *(tcp(f, way, family=n) for f in ("S", "PA", "RA") for way in "<>" for n in (4, 6)),
    *(tcp("S", family=n, server_port=23) for n in (4, 6)),
    *(udp(family=n, server_port=p) for n in (4, 6) for p in (53, 123, 9)),
    *(echo(family=n) for n in (4, 6)),
    *(unreachable(tcp("PA", family=n), family=n) for n in (4, 6)),
    bytes(fragment(IP(src=CLIENT[4], dst=SERVER[4]) / UDP(sport=1, dport=53) / Raw(bytes(2000)), 1000)[1]),
    bytes(ip(CLIENT, SERVER, 6) / IPv6ExtHdrDestOpt() / TCP(sport=40001, dport=80, flags="S")),
]


@st.composite
def anything(draw: st.DrawFn) -> bytes:
    """Bytes of any kind, most of them nearly a packet."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=100))
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@examples(120)
@given(
    st.lists(st.tuples(anything(), st.sampled_from(list(Hook)), st.floats(0, 5000)), max_size=8),
    st.booleans(),
    st.sampled_from(({}, {"rules": [{"action": "reject"}]}, {"rules": [{"action": "accept"}]})),
    st.integers(0, 1),
)
def test_decide_answers_to_anything(
    packets: list[tuple[bytes, Hook, float]], forwarding: bool, policy: dict[str, Any], learn: int
) -> None:
    fw = firewall(policy=policy, fw_allow_out_of_state_tcp=learn)
    fw.forwarding = forwarding
    play(fw, OPENING) if forwarding and not policy else None
    before = fw.counters.accepted + fw.counters.dropped
    for data, hook, now in packets:
        verdict = fw.decide(data, hook, now)
        assert verdict.accept is (verdict.reason is None)
        if verdict.reply:
            reply = (IP if verdict.reply[0] >> 4 == 4 else IPv6)(verdict.reply)
            assert len(verdict.reply) <= 1280 and reply.haslayer(Raw) in (0, 1)
    assert fw.counters.accepted + fw.counters.dropped - before == len(packets)
    assert sum(fw.counters.drops.values()) == fw.counters.dropped


@examples(80)
@given(
    st.sampled_from([tcp("A"), tcp("PA", "<"), tcp("A", family=6), udp(), udp("<"), udp(family=6)]),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=2),
)
@example(tcp("A"), [(32, 0x40)])
@example(tcp("A"), [(32, 0x60)])
@example(tcp("PA", "<"), [(32, 0xF0)])
@example(tcp("A", family=6), [(52, 0xF0)])
@example(udp(), [(25, 7)])
@example(udp("<"), [(25, 99)])
@example(udp(family=6), [(45, 0)])
@example(udp(family=6), [(44, 1)])
@example(tcp("A", family=6), [(52, 0)])
def test_the_short_way_decides_as_the_long_way(packet: bytes, damage: list[tuple[int, int]]) -> None:
    """Established traffic takes a short cut through `decide`; it must not be a way round any check."""
    data = bytearray(packet)
    lengths = (2, 3) if data[0] >> 4 == 4 else (4, 5)  # the kernel has checked these against what came
    for at, value in damage:
        if at < len(data) and at not in lengths:
            data[at] = value
    results = []
    for short in (True, False):
        fw = firewall()
        for family in (4, 6):
            play(fw, OPENING, family=family)
            answer(fw, udp(family=family))
        fw.connections.take_updates(0.0)
        for entry in fw.connections:
            entry.refresh_at = 100.0 if short else 0.0
        verdict = answer(fw, bytes(data), 5.0)
        results.append((verdict, sorted((e.key, e.state, e.expires) for e in fw.connections)))
    assert results[0] == results[1]


def test_malformed_packets_are_counted_and_logged_with_what_is_wrong() -> None:
    fw = firewall()
    assert answer(fw, tcp("S")[:30]) == "MALFORMED"
    assert fw.counters.drops[DropReason.MALFORMED] == 1
    assert fw.log[-1].text == "TCP header cut short"


def test_the_log_keeps_its_length() -> None:
    fw = firewall()
    for _ in range(LOG_MAX + 5):
        fw.decide(b"", Hook.FORWARD, 0.0)
    assert len(fw.log) == LOG_MAX
    assert fw.log[-1].number == LOG_MAX + 5


# -- who processes what ----------------------------------------------------------------------------------------------


def test_a_member_that_is_not_active_forwards_nothing_and_answers_for_no_virtual_address() -> None:
    fw = firewall(policy={"rules": [{"action": "accept"}]})
    play(fw, OPENING)
    fw.forwarding = False
    assert answer(fw, tcp("PA")) == "NOT_ACTIVE"
    assert answer(fw, tcp("S", client_port=5)) == "NOT_ACTIVE"
    to_virtual = bytes(ip(CLIENT, VIRTUAL) / ICMP())
    to_member = bytes(ip(CLIENT, "192.0.2.11") / ICMP())
    assert answer(fw, to_virtual, hook=Hook.INPUT) == "NOT_ACTIVE"
    assert answer(fw, to_member, hook=Hook.INPUT) == "ACCEPT"
    fw.forwarding = True
    assert answer(fw, to_virtual, hook=Hook.INPUT) == "ACCEPT"
    assert answer(fw, tcp("PA")) == "ACCEPT", "its table was kept"


def full_sync(flags: str, way: str = ">") -> bytes:
    ends, ports = ((FW2, FW1), (50000, 256)) if way == ">" else ((FW1, FW2), (256, 50000))
    return bytes(ip(*ends) / TCP(sport=ports[0], dport=ports[1], flags=flags))


def test_fw1_runs_between_members_whatever_the_rules_say_unless_the_policy_switches_it_off() -> None:
    nothing: dict[str, Any] = {"rules": [{"action": "drop"}]}
    asked, asking = firewall("fw1", nothing), firewall("fw2", nothing)
    asking.forwarding = False
    for flags, way in (("S", ">"), ("SA", "<"), ("A", ">"), ("PA", "<")):
        hooks = (Hook.OUTPUT, Hook.INPUT) if way == ">" else (Hook.INPUT, Hook.OUTPUT)
        assert answer(asking, full_sync(flags, way), hook=hooks[0]) == "ACCEPT", flags
        assert answer(asked, full_sync(flags, way), hook=hooks[1]) == "ACCEPT", flags
    assert len(asked.connections) == 0, "its own connections are not those it forwards, and never synchronised"

    switched_off = firewall("fw1", nothing | {"implied_rules": {"control_connections": False}})
    assert answer(switched_off, full_sync("S"), hook=Hook.INPUT) == "POLICY"


def test_fw1_is_implied_between_members_only() -> None:
    fw = firewall(policy={"rules": [{"action": "drop"}]})
    stranger = bytes(ip(CLIENT, FW1) / TCP(sport=50000, dport=256, flags="S"))
    other_port = bytes(ip(FW2, FW1) / TCP(sport=50000, dport=22, flags="S"))
    forwarded = bytes(ip(FW2, FW1) / TCP(sport=50000, dport=256, flags="S"))
    assert answer(fw, stranger, hook=Hook.INPUT) == "POLICY"
    assert answer(fw, other_port, hook=Hook.INPUT) == "POLICY"
    assert answer(fw, forwarded, hook=Hook.FORWARD) == "POLICY"


def test_what_the_member_itself_sends_is_implied_unless_switched_off() -> None:
    ping = bytes(ip("192.0.2.11", SERVER) / ICMP(id=9))
    reply = bytes(ip(SERVER, "192.0.2.11") / ICMP(type=0, id=9))
    fw = firewall()
    assert answer(fw, ping, hook=Hook.OUTPUT) == "ACCEPT"
    assert answer(fw, reply, hook=Hook.INPUT) == "ACCEPT"
    closed = firewall(policy={"implied_rules": {"outgoing": False}, "rules": [{"action": "drop"}]})
    assert answer(closed, ping, hook=Hook.OUTPUT) == "POLICY"


# -- protocols without states ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
def test_udp_answers_pass_while_the_connection_lives(family: int) -> None:
    fw = firewall()
    assert answer(fw, udp("<", family=family)) == "POLICY"
    assert answer(fw, udp(family=family), 0) == "ACCEPT"
    assert answer(fw, udp("<", family=family), 39) == "ACCEPT"
    assert answer(fw, udp("<", family=family), 78) == "ACCEPT"
    fw.expire(120)
    assert answer(fw, udp("<", family=family), 120) == "POLICY"


@pytest.mark.parametrize("family", [4, 6])
def test_a_ping_is_answered_by_its_own_reply_only(family: int) -> None:
    fw = firewall()
    assert answer(fw, echo("<", family=family, reply=True)) == "OUT_OF_STATE"
    assert answer(fw, echo(family=family)) == "ACCEPT"
    assert answer(fw, echo("<", family=family, reply=True), 29) == "ACCEPT"
    assert answer(fw, echo("<", family=family, reply=True, number=8), 29) == "OUT_OF_STATE"
    assert answer(fw, echo("<", family=family, reply=True), 61) == "OUT_OF_STATE"
    assert answer(fw, echo("<", family=family)) == "POLICY", "the other side may not ping"


def test_other_protocols_are_connections_of_their_addresses() -> None:
    fw = firewall()
    gre, back = (bytes(ip(*ends, proto=47) / Raw(b"tunnel")) for ends in ((CLIENT, SERVER), (SERVER, CLIENT)))
    assert answer(fw, back) == "POLICY"
    assert [answer(fw, gre, 0), answer(fw, back, 59), answer(fw, back, 118)] == ["ACCEPT"] * 3
    assert answer(fw, back, 180) == "POLICY"
    assert answer(fw, bytes(ip(CLIENT, SERVER, proto=50) / Raw(b"not in a rule"))) == "POLICY"


@pytest.mark.parametrize(
    ("parameter", "packet"),
    [("udp_timeout", udp()), ("icmp_timeout", echo()), ("icmp_timeout", echo(family=6)),
     ("other_timeout", bytes(ip(CLIENT, SERVER, proto=47) / Raw(b"tunnel")))],
)  # fmt: skip
def test_the_other_timeouts_are_parameters_too(parameter: str, packet: bytes) -> None:
    fw = firewall(**{parameter: 7})
    answer(fw, packet, 0.0)
    fw.expire(6.5)
    assert len(fw.connections) == 1
    fw.expire(8.0)
    assert len(fw.connections) == 0


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_full_table_refuses_new_connections_and_keeps_those_it_has() -> None:
    fw = firewall(connections_limit=2)
    for port in (1, 2):
        play(fw, OPENING, client_port=port)
    assert answer(fw, tcp("S", client_port=3)) == "TABLE_FULL"
    assert "limit" in fw.log[-1].text
    play(fw, "> PA ACCEPT ESTABLISHED\n > R ACCEPT CLOSING\n > S ACCEPT SYN_SENT", client_port=1)
    fw.parameters.set("connections_limit", 3)
    assert answer(fw, tcp("S", client_port=3)) == "ACCEPT"


# -- rejects ---------------------------------------------------------------------------------------------------------


def reply_to(fw: Firewall, packet: bytes) -> Any:
    """The reject's packet, after scapy has recomputed its checksums and found them the same."""
    verdict = fw.decide(packet, Hook.FORWARD, 0.0)
    assert verdict.reason is DropReason.REJECTED
    if not verdict.reply:
        return None
    layer = IP if verdict.reply[0] >> 4 == 4 else IPv6
    again = layer(verdict.reply)
    for part in (again, again.payload):
        for name in ("chksum", "cksum", "len", "plen"):
            if name in part.fields:
                delattr(part, name)
    assert bytes(again) == verdict.reply
    return layer(verdict.reply)


@pytest.mark.parametrize("family", [4, 6])
def test_a_rejected_tcp_packet_is_answered_with_a_reset_that_the_sender_believes(family: int) -> None:
    packet = bytes(ip(CLIENT, SERVER, family) / TCP(sport=40001, dport=23, flags="S", seq=0xFFFF_FFFF))
    reply = reply_to(firewall(), packet)
    assert (reply.src, reply.dst) == (SERVER[family], CLIENT[family])
    segment = reply[TCP]
    assert (segment.sport, segment.dport, str(segment.flags), segment.ack) == (23, 40001, "RA", 0)

    learning = firewall(fw_allow_out_of_state_tcp=1)
    data = bytes(ip(CLIENT, SERVER, family) / TCP(sport=40001, dport=23, flags="PA", seq=5, ack=77) / Raw(b"x"))
    segment = reply_to(learning, data)[TCP]
    assert (str(segment.flags), segment.seq) == ("R", 77)


def test_a_rejected_packet_of_another_kind_is_answered_with_an_icmp_error_that_quotes_it() -> None:
    reply = reply_to(firewall(), udp(server_port=123))
    assert (reply[ICMP].type, reply[ICMP].code) == (3, 13)
    assert bytes(reply[ICMP].payload)[:28] == udp(server_port=123)[:28]
    reply = reply_to(firewall(), udp(family=6, server_port=123))
    assert (reply[ICMPv6DestUnreach].code, reply.dst) == (1, CLIENT[6])


REJECT_ALL: dict[str, Any] = {"rules": [{"action": "reject"}], "out_of_state": {"drop_tcp": False}}


@pytest.mark.parametrize(
    "packet",
    [
        tcp("RA"),
        echo(),
        bytes(IP(src="0.0.0.0", dst=SERVER[4]) / UDP(dport=9)),
        bytes(IP(src="224.0.0.1", dst=SERVER[4]) / UDP(dport=9)),
        bytes(IP(src="255.255.255.255", dst=SERVER[4]) / UDP(dport=9)),
        bytes(IPv6(src="::", dst=SERVER[6]) / UDP(dport=9)),
        bytes(IPv6(src="ff02::1", dst=SERVER[6]) / UDP(dport=9)),
    ],
    ids=["RST", "ICMP", "no source", "multicast", "broadcast", "no IPv6 source", "IPv6 multicast"],
)
def test_no_reject_is_sent_where_none_is_due(packet: bytes) -> None:
    assert reply_to(firewall(policy=REJECT_ALL), packet) is None


def test_a_reject_of_a_long_header_chain_fits_the_smallest_ipv6_link() -> None:
    long = bytes(ip(CLIENT, SERVER, 6) / IPv6ExtHdrDestOpt(options=[], len=200) / Raw(bytes(1598)) / UDP(dport=9))
    verdict = firewall(policy=REJECT_ALL).decide(long, Hook.FORWARD, 0.0)
    assert verdict.reason is DropReason.REJECTED
    assert len(verdict.reply) <= 1280


def test_a_drop_says_nothing_on_the_wire() -> None:
    verdict = firewall().decide(tcp("S", server_port=9999), Hook.FORWARD, 0.0)
    assert (verdict.reason, verdict.reply) == (DropReason.POLICY, b"")


# -- installing a policy ---------------------------------------------------------------------------------------------


def install(fw: Firewall, changes: dict[str, Any]) -> None:
    fw.install(build_policy(POLICY | changes, "policy"))


CLOSED: dict[str, Any] = {"name": "closed", "rules": [{"name": "nothing", "action": "drop"}]}


def test_an_install_drops_and_deletes_what_the_new_rules_do_not_accept() -> None:
    fw = firewall()
    play(fw, OPENING)
    play(fw, OPENING, client_port=2)
    fw.connections.take_updates(0.0)
    install(fw, CLOSED)
    assert len(fw.connections) == 2, "matched again by its next packet, not before"
    play(fw, "< PA POLICY -\n > PA OUT_OF_STATE -")
    assert [u.op.name for u in fw.connections.take_updates(0.0)] == ["DELETE"], "peers delete it too"
    play(fw, "> PA POLICY -", client_port=2)


def test_new_rules_decide_about_a_connection_of_which_peers_are_still_to_hear() -> None:
    """Opened, or refreshed, within the sync tick in which the rules are installed."""
    fw = firewall()
    play(fw, OPENING)
    for rules in (CLOSED | {"on_install": "keep"}, CLOSED):
        install(fw, rules)
        assert fw.connections.take_updates(0.0)
        play(fw, "> PA ACCEPT ESTABLISHED" if rules.get("on_install") else "> PA POLICY -")
    assert len(fw.connections) == 0


def test_peers_hear_of_a_copy_that_the_new_rules_end_after_a_takeover() -> None:
    """Its former owner sees no more of its packets."""
    former, active = firewall(), firewall()
    play(former, OPENING)
    for update in former.connections.take_updates(0.0):
        active.connections.apply(update, 0.0)
    install(active, CLOSED)
    play(active, "> PA POLICY -")
    for update in active.connections.take_updates(0.0):
        former.connections.apply(update, 0.0)
    assert len(active.connections) == len(former.connections) == 0


def test_an_install_that_keeps_connections_refuses_new_ones_only() -> None:
    fw = firewall()
    play(fw, OPENING)
    install(fw, CLOSED | {"on_install": "keep"})
    play(fw, "> PA ACCEPT ESTABLISHED\n < PA ACCEPT ESTABLISHED")
    play(fw, "> S POLICY -", client_port=2)


def test_what_the_new_rules_accept_goes_on_under_its_new_rule() -> None:
    fw = firewall()
    play(fw, OPENING)
    assert fw.connections.entries[key_of()].rule == 3
    install(fw, {"rules": [{"name": "web", "source": "inside", "service": "web", "action": "accept"}]})
    play(fw, "< PA ACCEPT ESTABLISHED\n > PA ACCEPT ESTABLISHED")
    assert fw.connections.entries[key_of()].rule == 1


def test_the_rematch_looks_in_the_direction_of_the_connection_not_of_the_packet() -> None:
    fw = firewall()
    for packet in (udp(), echo()):
        answer(fw, packet)
    play(fw, OPENING)
    install(fw, {})
    assert [answer(fw, p) for p in (udp("<"), echo("<", reply=True), tcp("PA", "<"))] == ["ACCEPT"] * 3


def test_learned_connections_survive_the_install_that_ends_the_learning() -> None:
    """The last of the five steps: enforcement comes back by a policy install, and rematches what was learned."""
    fw = firewall(policy={"out_of_state": {"drop_tcp": False}})
    play(fw, "> PA ACCEPT ESTABLISHED")
    install(fw, {"out_of_state": {"drop_tcp": True}})
    play(fw, "< PA ACCEPT ESTABLISHED\n > PA ACCEPT ESTABLISHED")
    play(fw, "> PA OUT_OF_STATE -", client_port=2)


def test_a_rejecting_install_tells_the_sender() -> None:
    fw = firewall()
    play(fw, OPENING)
    install(fw, {"rules": [{"action": "reject"}]})
    assert str(reply_to(fw, tcp("PA"))[TCP].flags) == "R"


# -- a copy that came by sync ----------------------------------------------------------------------------------------


def test_after_a_failover_the_other_member_goes_on_with_what_it_was_told() -> None:
    active, standby = firewall("fw1"), firewall("fw2")
    standby.forwarding = False
    play(active, OPENING)
    for update in active.connections.take_updates(0.0):
        assert standby.connections.apply(update, 0.0)
    standby.forwarding = True
    play(standby, "< PA ACCEPT ESTABLISHED\n > FA ACCEPT FIN_WAIT_INITIATOR")
    [update] = standby.connections.take_updates(0.0)
    assert update.op.name in ("MODIFY", "REFRESH")
    assert active.connections.apply(update, 0.0), "the new owner's word counts from here on"
    assert active.connections.entries[key_of()].state is ConnectionState.FIN_WAIT_INITIATOR


def test_a_copy_one_tick_behind_the_handshake_still_lets_the_connection_go_on() -> None:
    active, standby = firewall("fw1"), firewall("fw2")
    play(active, "> S ACCEPT SYN_SENT")
    [update] = active.connections.take_updates(0.0)
    standby.connections.apply(update, 0.0)
    play(active, "< SA ACCEPT SYN_RECEIVED\n > A ACCEPT ESTABLISHED")
    play(standby, "> PA ACCEPT ESTABLISHED\n < PA ACCEPT ESTABLISHED")


def test_half_open_copies_do_not_outlive_the_handshake_by_a_session() -> None:
    """What a lost member was just opening or closing must not stay in the table for half an hour."""
    for transcript in ("> S ACCEPT SYN_SENT", "> S ACCEPT SYN_SENT\n < RA ACCEPT CLOSING"):
        active, standby = firewall("fw1"), firewall("fw2")
        play(active, transcript)
        for update in active.connections.take_updates(0.0):
            standby.connections.apply(update, 0.0)
        standby.expire(19.0)
        assert len(standby.connections) == 1
        standby.expire(60.0)
        assert len(standby.connections) == 0


@pytest.mark.parametrize("family", [4, 6])
def test_no_datagram_of_a_known_connection_passes_by_the_short_way_that_the_long_one_drops(family: int) -> None:
    """Every length that UDP may say, and every place where the packet may be cut off."""
    fw, good = firewall(), udp(family=family)
    assert fw.decide(good, Hook.FORWARD, 0.0).accept
    fw.connections.take_updates(0.0)
    header = 20 if family == 4 else 40
    for said in range(len(good) + header):
        packet = good[: header + 4] + said.to_bytes(2, "big") + good[header + 6 :]
        assert fw.decide(packet, Hook.FORWARD, 0.1).accept == (8 <= said <= len(good) - header), said
    for end in range(len(good)):
        assert fw.decide(good[:end], Hook.FORWARD, 0.1).accept == (end >= header + 8), end
