"""Who told of the copies in a table: peers, each in one life (from a start of its process to the end of it).

A copy belongs to the peer that forwards its packets, for that peer tells how it goes on. When its life has ended,
nobody does: such copies are nobody's, and what that peer told last may have reached some members and not others. So
each member tells the others once what it heard of it lately. Times are lab seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from math import inf

from syncproto.limits import PEER_RECALL_S, SYNC_TICK_S

from .audience import Audience

LATELY_TICKS = round(PEER_RECALL_S / SYNC_TICK_S)
"""Sync ticks for which it is remembered what a peer told, at least."""
LATELY_MAX = 16_384
"""Updates of which that is remembered, twice: those of the present span, and of the one before. Lab's own."""


class Teller:
    """A peer in one life. `number` is the peer's, and 0 when that life has ended; `heard_by` the audience that was
    there then, which heard of its copies from itself or is told of them at once."""

    __slots__ = ("_before", "_count", "_now", "_since", "_span_s", "heard_by", "number")

    def __init__(self, number: int, span_s: float) -> None:
        self.number = number
        self.heard_by = inf
        self._span_s = span_s
        self._now: list[Sequence[bytes]] = []
        self._before: list[Sequence[bytes]] = []
        self._count = 0
        self._since = 0.0

    def note(self, keys: Sequence[bytes], now: float) -> None:
        """It told of these connections, or of their ends. Cheap: the list is kept as it is."""
        if now - self._since > self._span_s or self._count >= LATELY_MAX:
            self._before = self._now if now - self._since <= 2 * self._span_s else []
            self._now, self._count, self._since = [], 0, now
        if self.number:
            self._now.append(keys)
            self._count += len(keys)

    def take_lately_told(self) -> dict[bytes, None]:
        """Of which connections it told lately; forgotten with that."""
        found = dict.fromkeys(key for keys in (*self._before, *self._now) for key in keys)
        self._before, self._now = [], []
        return found


NOBODY = Teller(0, 0.0)
"""The owner of a copy whose owner is not known."""


class Tellers:
    """The present life of each peer. `tick_s`: lab seconds of a sync tick; `audience`: who listens to this member."""

    def __init__(self, tick_s: float, audience: Audience) -> None:
        self._audience = audience
        self._span_s = LATELY_TICKS * tick_s
        self.present: dict[int, Teller] = {0: NOBODY}
        """By number; those that `of` was asked for."""
        self._untold: dict[bytes, None] = {}

    def of(self, peer: int) -> Teller:
        """The peer in its present life."""
        teller = self.present.get(peer)
        if teller is None:
            teller = self.present[peer] = Teller(peer, self._span_s)
        return teller

    def end(self, peer: int) -> None:
        """The present life of this peer has ended: its copies are nobody's."""
        self.gone(peer)
        ended = self.present.pop(peer, NOBODY)
        if ended is not NOBODY:
            ended.number, ended.heard_by = 0, self._audience.number

    def gone(self, peer: int) -> None:
        """The peer is not heard any more: what it told lately is to be told on."""
        self._untold.update(self.of(peer).take_lately_told())

    def take_untold(self, at_most: int) -> list[bytes]:
        """Connections of which peers told that are gone: up to so many, which are to be told on now."""
        if not self._untold or at_most <= 0:
            return []
        found = list(islice(self._untold, at_most))
        for key in found:
            del self._untold[key]
        return found
