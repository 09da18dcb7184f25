"""TCP connections through the firewall: handshake, end, timeouts, and what is out of state."""

from __future__ import annotations

import pytest
from firewall_wire import answer, firewall, key_of, play, tcp

from fwnode.control.watching import log_line
from fwnode.firewall.tcp_states import INITIATOR, RESPONDER, SEGMENT_KINDS, TABLE, ConnectionState, SegmentKind

OVERVIEW = """
                    S   SA  A   F   R    S   SA  A   F   R
SYN_SENT            1   -   -   -   6    2   2   1   -   6
SYN_RECEIVED        2   2   3   4   6    -   2   2   5   6
ESTABLISHED         -   -   3   4   6    -   3   3   5   6
FIN_WAIT_INITIATOR  -   -   4   4   6    -   -   4   6   6
FIN_WAIT_RESPONDER  -   -   5   6   6    -   -   5   5   6
CLOSING             -   -   6   6   6    -   -   6   6   6
"""
"""State by row, event by column (initiator's, then responder's); the next state's number, - for out of state."""


def test_the_state_table_is_the_reviewed_one() -> None:
    rows = ["".ljust(20) + "".join(f"{h:4}" for h in ("S", "SA", "A", "F", "R", " S", " SA", " A", " F", " R"))]
    for state in list(ConnectionState)[1:]:
        cells = [
            str(int(TABLE[state, way, event])) if (state, way, event) in TABLE else "-"
            for way in (INITIATOR, RESPONDER)
            for event in list(SegmentKind)[:5]
        ]
        rows.append(" ".join([state.name, *cells]))
    expected = [" ".join(line.split()) for line in OVERVIEW.strip("\n").splitlines()]
    assert [" ".join(row.split()) for row in rows] == expected


FLAGS = {SegmentKind.SYN: "S", SegmentKind.SYN_ACK: "SA", SegmentKind.ACK: "PA", SegmentKind.FIN: "FA",
         SegmentKind.RST: "R", SegmentKind.INVALID: "FS"}  # fmt: skip


@pytest.mark.parametrize("state", list(ConnectionState)[1:], ids=lambda s: s.name)
def test_what_the_table_does_not_have_is_dropped_and_changes_nothing(state: ConnectionState) -> None:
    for direction, way in ((INITIATOR, ">"), (RESPONDER, "<")):
        for event in SegmentKind:
            fw = firewall()
            play(fw, "> S ACCEPT SYN_SENT")
            entry = fw.connections.entries[key_of()]
            entry.state = state
            verdict = answer(fw, tcp(FLAGS[event], way))
            following = TABLE.get((state, direction, event))
            where = f"{state.name} {way} {FLAGS[event]}"
            if following is not None:
                assert (verdict, entry.state) == ("ACCEPT", following), where
            elif event is SegmentKind.SYN and state is ConnectionState.CLOSING and way == ">":
                assert (verdict, fw.connections.entries[key_of()].state) == ("ACCEPT", ConnectionState.SYN_SENT), where
            else:
                assert verdict in ("OUT_OF_STATE", "SYN_ON_ESTABLISHED", "POLICY"), where
                assert fw.connections.entries[key_of()] is entry and entry.state is state, where


def test_a_reset_ends_a_connection_in_every_state() -> None:
    for state in list(ConnectionState)[1:]:
        for direction in (INITIATOR, RESPONDER):
            assert TABLE[state, direction, SegmentKind.RST] is ConnectionState.CLOSING


def test_flag_bytes_that_no_tcp_sends_are_no_event() -> None:
    names = {0x00: "null", 0x01: "FIN alone", 0x03: "SYN+FIN", 0x06: "SYN+RST", 0x29: "xmas", 0x08: "PSH alone"}
    assert {n: SEGMENT_KINDS[f] for f, n in names.items()} == dict.fromkeys(names.values(), SegmentKind.INVALID)
    assert SEGMENT_KINDS[0xC2] is SegmentKind.SYN, "a SYN that offers ECN is a SYN"


@pytest.mark.parametrize("family", [4, 6])
def test_a_connection_opens_talks_and_closes(family: int) -> None:
    play(
        firewall(),
        """
        > S   ACCEPT SYN_SENT
        > S   ACCEPT SYN_SENT
        < SA  ACCEPT SYN_RECEIVED
        > A   ACCEPT ESTABLISHED
        > PA  ACCEPT ESTABLISHED
        < PA  ACCEPT ESTABLISHED
        + 3000
        < PA  ACCEPT ESTABLISHED
        + 3000
        > FA  ACCEPT FIN_WAIT_INITIATOR
        < PA  ACCEPT FIN_WAIT_INITIATOR
        < FA  ACCEPT CLOSING
        > A   ACCEPT CLOSING
        + 21
        > A   OUT_OF_STATE -
        """,
        family=family,
    )


def test_the_server_may_close_first_and_one_side_may_stay_half_open() -> None:
    play(
        firewall(),
        """
        > S   ACCEPT SYN_SENT
        < SA  ACCEPT SYN_RECEIVED
        > A   ACCEPT ESTABLISHED
        < FA  ACCEPT FIN_WAIT_RESPONDER
        + 2000
        > PA  ACCEPT FIN_WAIT_RESPONDER
        + 2000
        > FA  ACCEPT CLOSING
        """,
    )


def test_a_refused_connection_can_be_tried_again_at_once() -> None:
    play(
        firewall(),
        """
        > S   ACCEPT SYN_SENT
        < RA  ACCEPT CLOSING
        > S   ACCEPT SYN_SENT
        < SA  ACCEPT SYN_RECEIVED
        """,
    )


def test_a_port_is_used_again_after_a_close() -> None:
    fw = firewall()
    play(
        fw,
        """
        > S   ACCEPT SYN_SENT
        < SA  ACCEPT SYN_RECEIVED
        > A   ACCEPT ESTABLISHED
        > FA  ACCEPT FIN_WAIT_INITIATOR
        < FA  ACCEPT CLOSING
        + 3
        > S   ACCEPT SYN_SENT
        < SA  ACCEPT SYN_RECEIVED
        > A   ACCEPT ESTABLISHED
        + 100
        > PA  ACCEPT ESTABLISHED
        """,
    )
    assert (len(fw.connections), fw.connections.peak) == (1, 1)


def test_a_syn_on_an_established_connection_is_dropped_and_named() -> None:
    fw = firewall()
    play(
        fw,
        """
        > S   ACCEPT SYN_SENT
        < SA  ACCEPT SYN_RECEIVED
        > A   ACCEPT ESTABLISHED
        > S   SYN_ON_ESTABLISHED ESTABLISHED
        > PA  ACCEPT ESTABLISHED
        """,
    )
    assert fw.log[-1].text == "SYN packet on established connection"


def test_half_open_connections_end_after_the_start_timeout() -> None:
    play(firewall(), "> S ACCEPT SYN_SENT\n + 26\n < SA OUT_OF_STATE -")
    play(firewall(), "> S ACCEPT SYN_SENT\n < SA ACCEPT SYN_RECEIVED\n + 26\n > A OUT_OF_STATE -")
    play(firewall(), "> S ACCEPT SYN_SENT\n + 24\n < SA ACCEPT SYN_RECEIVED\n + 24\n > A ACCEPT ESTABLISHED")


RECOVERY = """
    > S   ACCEPT SYN_SENT
    < A   ACCEPT SYN_SENT
    > R   ACCEPT CLOSING
    > S   ACCEPT SYN_SENT
    < SA  ACCEPT SYN_RECEIVED
    > A   ACCEPT ESTABLISHED
    < PA  ACCEPT ESTABLISHED
"""
"""A client has forgotten its connection and opens it anew from the same port; the server remembers it, and challenges
the SYN (RFC 9293, 3.5.1, figure 9; RFC 5961, 4)."""


@pytest.mark.parametrize("family", [4, 6])
def test_a_client_that_has_forgotten_its_connection_gets_through_to_a_server_that_has_not(family: int) -> None:
    play(firewall(), RECOVERY, family=family)
    closing = "> S ACCEPT SYN_SENT\n < SA ACCEPT SYN_RECEIVED\n > A ACCEPT ESTABLISHED\n > R ACCEPT CLOSING\n"
    play(firewall(), closing + RECOVERY.lstrip(), family=family)


def test_challenges_prolong_nothing_and_establish_nothing() -> None:
    fw = firewall()
    now = play(fw, "> S ACCEPT SYN_SENT")
    fw.connections.take_updates(now)
    for _ in range(4):
        now = play(fw, "+ 6\n < A ACCEPT SYN_SENT\n < PA ACCEPT SYN_SENT", now=now)
        assert fw.connections.take_updates(now) == [], "and peers hear nothing of them"
    play(fw, "+ 2\n < A OUT_OF_STATE -", now=now)


def test_a_challenge_does_not_establish_a_copy_and_the_clients_ack_still_does() -> None:
    first, second = firewall("fw1"), firewall("fw2")
    play(first, "> S ACCEPT SYN_SENT")
    for update in first.connections.take_updates(0.0):
        second.connections.apply(update, 0.0, second.generation, 1)
    play(second, "< A ACCEPT SYN_SENT")
    entry = second.connections.entries[key_of()]
    assert not entry.owned
    play(second, "> A ACCEPT ESTABLISHED")


@pytest.mark.parametrize(
    ("parameter", "transcript"),
    [
        ("tcp_start_timeout", "> S ACCEPT SYN_SENT\n + 6\n < SA OUT_OF_STATE -"),
        ("tcp_session_timeout",
         "> S ACCEPT SYN_SENT\n < SA ACCEPT SYN_RECEIVED\n > A ACCEPT ESTABLISHED\n + 6\n > PA OUT_OF_STATE -"),
        ("tcp_end_timeout", "> S ACCEPT SYN_SENT\n < RA ACCEPT CLOSING\n + 6\n < A OUT_OF_STATE -"),
    ],
)  # fmt: skip
def test_the_tcp_timeouts_are_parameters(parameter: str, transcript: str) -> None:
    play(firewall(**{parameter: 5}), transcript)
    with pytest.raises(AssertionError):
        play(firewall(), transcript)


def test_an_idle_connection_ends_by_a_packet_too_not_only_by_the_clock() -> None:
    """The sync tick may not have come by since the timeout."""
    fw = firewall()
    now = play(fw, "> S ACCEPT SYN_SENT\n < SA ACCEPT SYN_RECEIVED\n > A ACCEPT ESTABLISHED")
    assert answer(fw, tcp("PA"), now + 3601) == "OUT_OF_STATE"
    assert len(fw.connections) == 0


def test_a_service_has_its_own_session_timeout() -> None:
    """`database` has 90d in the policy; its handshake and its end keep the ordinary timeouts."""
    opening = "> S ACCEPT SYN_SENT\n < SA ACCEPT SYN_RECEIVED\n > A ACCEPT ESTABLISHED\n"
    days = 89 * 86_400
    play(firewall(), f"{opening} + {days}\n < PA ACCEPT ESTABLISHED", server_port=1521)
    play(firewall(), f"{opening} + {days}\n < PA OUT_OF_STATE -", server_port=80)
    play(firewall(), "> S ACCEPT SYN_SENT\n + 26\n < SA OUT_OF_STATE -", server_port=1521)
    play(firewall(), f"{opening} > R ACCEPT CLOSING\n + 21\n > A OUT_OF_STATE -", server_port=1521)


# -- out of state ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "written"), [("PA", "PUSH-ACK"), ("A", "ACK"), ("FA", "FIN-ACK"), ("RA", "RST-ACK"), ("SA", "SYN-ACK")]
)
def test_a_packet_out_of_state_is_dropped_silently_and_logged_with_its_flags(flags: str, written: str) -> None:
    fw = firewall()
    verdict = fw.decide(tcp(flags), 2, 0.0)
    assert (verdict.accept, verdict.reply) == (False, b"")
    line = log_line(fw.log[-1], lambda at: at)
    assert line["text"] == f"TCP packet out of state: First packet isn't SYN; tcp_flags: {written}"
    assert (line["action"], line["reason"], line["hook"]) == ("drop", "OUT_OF_STATE", "forward")
    assert line["connection"] == "tcp 192.0.2.100:40001 -> 198.51.100.100:80"


def test_logging_of_out_of_state_packets_can_be_switched_off() -> None:
    fw = firewall(fw_log_out_of_state_tcp=0)
    assert answer(fw, tcp("PA")) == "OUT_OF_STATE"
    assert not fw.log
    assert sum(fw.counters.drops.values()) == 1, "counted all the same"


LEARNED = """
    > PA  ACCEPT ESTABLISHED
    < PA  ACCEPT ESTABLISHED
    + 3599
    < PA  ACCEPT ESTABLISHED
    > FA  ACCEPT FIN_WAIT_INITIATOR
    < FA  ACCEPT CLOSING
"""
NOT_LEARNED = "> PA OUT_OF_STATE -"


def test_out_of_state_connections_are_learned_when_the_parameter_allows_it() -> None:
    play(firewall(), NOT_LEARNED)
    fw = firewall(fw_allow_out_of_state_tcp=1)
    play(fw, LEARNED)
    assert (fw.counters.learned, fw.connections.learned) == (1, 1)
    assert fw.connections.entries[key_of()].learned


def test_a_learned_connection_goes_on_when_enforcement_returns_and_ages_like_any_other() -> None:
    fw = firewall(fw_allow_out_of_state_tcp=1)
    now = play(fw, "> PA ACCEPT ESTABLISHED")
    fw.parameters.set("fw_allow_out_of_state_tcp", 0)
    now = play(fw, "< PA ACCEPT ESTABLISHED", now=now)
    play(fw, "> PA OUT_OF_STATE -", now=now, client_port=40002)
    play(fw, "+ 3602\n > PA OUT_OF_STATE -", now=now)
    assert (fw.counters.learned, fw.connections.learned) == (1, 0)


def test_the_policy_allows_out_of_state_on_all_members_or_on_those_it_excepts() -> None:
    play(firewall("fw1", {"out_of_state": {"drop_tcp": False}}), LEARNED)
    excepted = {"out_of_state": {"drop_tcp": True, "exceptions": ["fw2"]}}
    play(firewall("fw2", excepted), LEARNED)
    play(firewall("fw1", excepted), NOT_LEARNED)


def test_allowed_out_of_state_is_still_judged_by_the_rule_base() -> None:
    fw = firewall(fw_allow_out_of_state_tcp=1)
    play(fw, "> PA POLICY -", server_port=9999)
    assert fw.counters.learned == 0


def test_a_server_that_speaks_first_is_dropped_by_policy_until_the_client_speaks() -> None:
    """The first packet seen sets the direction, and no rule lets the server open connections to the client."""
    fw = firewall(fw_allow_out_of_state_tcp=1)
    play(
        fw,
        """
        < PA  POLICY -
        < PA  POLICY -
        > PA  ACCEPT ESTABLISHED
        < PA  ACCEPT ESTABLISHED
        """,
    )
    assert fw.connections.entries[key_of()].key == key_of(">")


def test_a_server_first_packet_that_a_rule_accepts_makes_the_server_the_initiator() -> None:
    both_ways = {"rules": [{"action": "accept"}], "out_of_state": {"drop_tcp": False}}
    fw = firewall(policy=both_ways)
    play(fw, "< PA ACCEPT ESTABLISHED\n > PA ACCEPT ESTABLISHED")
    assert [c.key for c in fw.connections] == [key_of("<")]


def test_a_reset_is_let_through_and_not_learned() -> None:
    fw = firewall(fw_allow_out_of_state_tcp=1)
    play(fw, "> RA ACCEPT -\n < RA POLICY -")
    assert (len(fw.connections), fw.counters.learned) == (0, 0)


def test_a_connection_first_seen_at_its_end_is_learned_as_ending() -> None:
    play(
        firewall(fw_allow_out_of_state_tcp=1),
        """
        > FA  ACCEPT FIN_WAIT_INITIATOR
        < FA  ACCEPT CLOSING
        > A   ACCEPT CLOSING
        + 21
        < FA  POLICY -
        """,
    )


def test_flags_that_no_tcp_sends_are_never_learned() -> None:
    fw = firewall(fw_allow_out_of_state_tcp=1)
    play(fw, "> FS OUT_OF_STATE -\n > FPU OUT_OF_STATE -")


def test_a_learned_connection_is_announced_to_the_peers_as_learned() -> None:
    fw = firewall(fw_allow_out_of_state_tcp=1)
    play(fw, "> PA ACCEPT ESTABLISHED")
    [update] = fw.connections.take_updates(0.0)
    assert update.record is not None
    assert (update.op.name, update.record.flags, update.record.state) == ("SET", 1, 3)
