"""How peers hear that a connection lives on: how exact their copies are, and what that may cost.

A packet moves its connection's end away and tells nobody: it must not cost more. Three things tell peers of it, each
with what is left until the end:

1. The walk: each sync tick some rows of the table are looked at, and an end that is later than peers know is told, as
   long as peers keep up and the tick has room. So a table that is not huge is the same everywhere, to a tick or two.
   It also tells of connections that began before a peer listened that takes no whole table (`Audience`). Of another
   one that nobody ever heard of, it tells when there has been a packet since somebody listens.
2. The next packet, once peers know of less than two thirds of the timeout. It waits for no room.
3. Expiry, when it finds that the end it came for has moved.

So peers never know of a later end than the owner, and what they do not know is what happened since they were told. When
an owner dies, that is lost; a copy is kept for a short grace beyond the end that it knows, for the last ticks.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from .audience import NOBODY_HEARD, Audience
from .connection import Connection
from .tcp_states import ConnectionState

REFRESHES_PER_TIMEOUT = 3
"""Times that packets announce their connection anew within its timeout, however little room there is."""
LAG_TICKS = 2
"""Sync ticks by which a connection's end may be later than peers know without the walk telling it."""
GRACE_TICKS = 5
"""Sync ticks that a copy is kept beyond the end that its owner announced: those that the walk may lag behind, and one
repetition of a lost datagram."""
LOOKED_AT_MAX = 1_000
"""Rows that the walk looks at in a tick, 0.1 ms: a table of 10,000 in a second."""
TOLD_MAX = 64
"""Updates in a tick up to which the walk adds its own: 5 KB, less than half of what 1 Mbit/s carries in a tick."""


class Walk:
    """Goes round the rows of a table, which may change between two calls. `lifetime` is what a timer of a length really
    lasts; `tick_s` a sync tick, in lab seconds."""

    def __init__(self, rows: list[Any], audience: Audience, lifetime: Callable[[float], float], tick_s: float) -> None:
        self.lag_s = LAG_TICKS * tick_s
        self._rows = rows
        self._audience = audience
        self._lifetime = lifetime
        self._at = 0
        self._heard_since = -inf

    def look_who_listens(self, now: float) -> None:
        """Each sync tick: note when somebody began to listen."""
        if not self._audience.listening:
            self._heard_since = -inf
        elif self._heard_since == -inf:
            self._heard_since = now

    def has_news(self, connection: Connection) -> bool:
        """Whether peers know too little of it: it is this member's and ends later than they know, or it is this
        member's or nobody's and one of them never heard of it."""
        told = connection.told
        if not connection.owned:
            anew_before, owner = self._audience.anew_before, connection.origin
            return 0 < told < anew_before and not owner.number and owner.heard_by < anew_before
        ends_later = connection.expires - connection.peers_until > self.lag_s
        return told > 0 and (ends_later or told < self._audience.anew_before)

    def _has_been_silent(self, connection: Connection) -> bool:
        """Whether nobody ever heard of it, nor has to, and no packet has come since somebody began to listen. If such a
        connection were told, it would depend on how long its opening took whether peers hear of it."""
        if connection.told != NOBODY_HEARD or connection.told < self._audience.anew_before:
            return False
        return connection.expires - self._lifetime(connection.timeout) <= self._heard_since

    def news(self, room: int) -> list[Connection]:
        """Up to `room` of this member's connections of which peers know too little."""
        found: list[Connection] = []
        if room <= 0:
            return found
        if self._at >= len(self._rows):
            self._at = 0
        for item in self._rows[self._at : self._at + LOOKED_AT_MAX]:
            self._at += 1
            if isinstance(item, Connection) and self.has_news(item) and not self._has_been_silent(item):
                found.append(item)
                if len(found) == room:
                    break
        return found


Lasts = Callable[[Connection, ConnectionState], float]
"""Seconds that a connection may be idle in a state, with the least that a timer lasts."""


def merged_end(
    known: Connection, was: ConnectionState, told: ConnectionState, newer: bool, now: float, ttl_s: float, lasts: Lasts
) -> float:
    """When a connection ends of which a peer told, by its end in `ttl_s` and its state `told`: `was` is what it was
    here, and `newer` whether the peer's word is.

    An end is the time of a packet and what the state lasts that it made. In a further state the same packet means
    another end: a handshake may last longer than its session may be idle, or not as long."""
    state, told_end = known.state, now + ttl_s
    if state is ConnectionState.CLOSING:
        if told is state and not known.owned and (newer or was is not told):
            return told_end
        # Where neither saw both FINs nobody has said so yet; a word of before the end does not put it off.
        return known.expires if was is state else now + lasts(known, state)
    if told is not state:  # a newer word, too: who has not seen the packet that took the state on does not know its end
        return max(known.expires, told_end + lasts(known, state) - lasts(known, told))
    if newer and not known.owned:
        return told_end
    known_end = known.expires if was is state else known.expires + lasts(known, state) - lasts(known, was)
    return max(known_end, told_end)
