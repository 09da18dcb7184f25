"""The TCP state table, as data.

One rule: `TABLE[(state, direction, segment)]` is the next state; what is not in it is out of state. The numbers of the
states are the ones that travel in sync records. Sequence numbers are not looked at (a choice: learned connections
could not be checked anyway, their window scale is unknown).
"""

from __future__ import annotations

from enum import IntEnum

from .packet import ACK, FIN, RST, SYN


class ConnectionState(IntEnum):
    """State of a connection; NONE for everything that is not TCP."""

    NONE = 0
    SYN_SENT = 1
    SYN_RECEIVED = 2
    ESTABLISHED = 3
    FIN_WAIT_INITIATOR = 4
    FIN_WAIT_RESPONDER = 5
    CLOSING = 6


class SegmentKind(IntEnum):
    """What the flags of a segment amount to."""

    SYN = 0
    SYN_ACK = 1
    ACK = 2
    FIN = 3
    RST = 4
    INVALID = 5


INITIATOR, RESPONDER = 0, 1

START_STATES = frozenset({ConnectionState.SYN_SENT, ConnectionState.SYN_RECEIVED})
END_TIMEOUT_S = 20.0
"""How long an entry stays after both FINs where nobody says otherwise (`tcp_end_timeout`)."""


def usual_timeout(state: ConnectionState, session_timeout: float) -> float:
    """Seconds that a connection may be idle in a state where no parameters say otherwise."""
    return END_TIMEOUT_S if state is ConnectionState.CLOSING else session_timeout


def _segment_kind(flags: int) -> SegmentKind:
    kind = flags & (SYN | ACK | FIN | RST)
    if kind & RST:
        return SegmentKind.INVALID if kind & (SYN | FIN) else SegmentKind.RST
    if kind == SYN:
        return SegmentKind.SYN
    if kind == SYN | ACK:
        return SegmentKind.SYN_ACK
    if kind == FIN | ACK:
        return SegmentKind.FIN
    return SegmentKind.ACK if kind == ACK else SegmentKind.INVALID


SEGMENT_KINDS = tuple(_segment_kind(flags) for flags in range(256))
"""What each byte of flags amounts to."""


def _table() -> dict[tuple[int, int, int], ConnectionState]:
    s, e = ConnectionState, SegmentKind
    both = (INITIATOR, RESPONDER)
    table: dict[tuple[int, int, int], ConnectionState] = {
        (s.SYN_SENT, INITIATOR, e.SYN): s.SYN_SENT,
        (s.SYN_SENT, RESPONDER, e.SYN): s.SYN_RECEIVED,  # simultaneous open (RFC 9293, 3.5)
        (s.SYN_SENT, RESPONDER, e.SYN_ACK): s.SYN_RECEIVED,
        # A responder that remembers an older connection does not take the SYN: it challenges it, and a RST answers.
        (s.SYN_SENT, RESPONDER, e.ACK): s.SYN_SENT,
        (s.SYN_RECEIVED, INITIATOR, e.SYN): s.SYN_RECEIVED,
        (s.SYN_RECEIVED, INITIATOR, e.SYN_ACK): s.SYN_RECEIVED,
        (s.SYN_RECEIVED, RESPONDER, e.SYN_ACK): s.SYN_RECEIVED,
        (s.SYN_RECEIVED, INITIATOR, e.ACK): s.ESTABLISHED,
        (s.SYN_RECEIVED, RESPONDER, e.ACK): s.SYN_RECEIVED,
        # The initiator's last ACK was lost on the way to the server, so the server asks again.
        (s.ESTABLISHED, RESPONDER, e.SYN_ACK): s.ESTABLISHED,
    }
    for direction in both:
        for state in (s.SYN_RECEIVED, s.ESTABLISHED):
            table[state, direction, e.FIN] = (s.FIN_WAIT_INITIATOR, s.FIN_WAIT_RESPONDER)[direction]
        table[s.ESTABLISHED, direction, e.ACK] = s.ESTABLISHED
        for state in (s.FIN_WAIT_INITIATOR, s.FIN_WAIT_RESPONDER, s.CLOSING):
            table[state, direction, e.ACK] = state
        table[s.CLOSING, direction, e.FIN] = s.CLOSING
        for state in ConnectionState:
            if state is not s.NONE:
                table[state, direction, e.RST] = s.CLOSING
    table[s.FIN_WAIT_INITIATOR, INITIATOR, e.FIN] = s.FIN_WAIT_INITIATOR
    table[s.FIN_WAIT_INITIATOR, RESPONDER, e.FIN] = s.CLOSING
    table[s.FIN_WAIT_RESPONDER, RESPONDER, e.FIN] = s.FIN_WAIT_RESPONDER
    table[s.FIN_WAIT_RESPONDER, INITIATOR, e.FIN] = s.CLOSING
    return table


TABLE = _table()

SIGNS_OF_NO_LIFE = frozenset({
    (ConnectionState.SYN_SENT, RESPONDER, SegmentKind.ACK),
    *((ConnectionState.CLOSING, direction, segment) for direction in (INITIATOR, RESPONDER)
      for segment in (SegmentKind.ACK, SegmentKind.FIN, SegmentKind.RST)),
})  # fmt: skip
"""Segments that pass and do not move a connection's end away: a challenge of the SYN (RFC 9293, 3.5.1; RFC 5961, 4),
which a stranger may repeat for ever, and what comes late."""


_BOTH_FINS = {ConnectionState.FIN_WAIT_INITIATOR, ConnectionState.FIN_WAIT_RESPONDER}


def further(one: ConnectionState, other: ConnectionState) -> ConnectionState:
    """What two members that saw different packets of one connection know together: the later of the two states.

    Commutative, associative, and never earlier than either: members that tell each other what they know agree in the
    end, in whatever order it arrives.
    """
    return ConnectionState.CLOSING if {one, other} == _BOTH_FINS else max(one, other)
