"""When to take a peer's whole table anew, of the member's own accord, because updates of it were lost for good.

A full sync in the middle of the trouble would only lose again, so healing waits for quiet, though not for ever; one
peer at a time; after a failure it tries again. `syncproto.joining` asks `due`, begins the full sync, and says where it
has `failed`. Whether to heal at all is the owner's setting: the product does not.
"""

from __future__ import annotations

from math import inf

from syncproto.limits import HEAL_LATEST_S, HEAL_QUIET_S, HEAL_RETRY_S


class Healer:
    """`next_wakeup()` changes with every other call; at most one entry a peer is kept."""

    def __init__(self) -> None:
        self._due: dict[int, float] = {}
        self._latest: dict[int, float] = {}

    def lost(self, peer: int, now: float) -> None:
        """Updates of this peer will never come."""
        latest = self._latest.setdefault(peer, now + HEAL_LATEST_S)
        self._due[peer] = min(now + HEAL_QUIET_S, latest)

    def has(self, peer: int) -> bool:
        """Whether its table is to be taken anew."""
        return peer in self._due

    def forget(self, peer: int) -> None:
        """Plan no healing from this peer any more: it began anew, or its whole table is being taken."""
        self._due.pop(peer, None)
        self._latest.pop(peer, None)

    def due(self, now: float) -> int | None:
        """A peer whose table is to be taken now, or None. Its entry is removed."""
        peer = next((peer for peer, due in self._due.items() if now >= due), None)
        if peer is not None:
            self.forget(peer)
        return peer

    def failed(self, peer: int, now: float) -> None:
        """Its table could not be taken: plan another attempt, `HEAL_RETRY_S` from now."""
        self._due[peer] = max(self._due.get(peer, 0.0), now + HEAL_RETRY_S)

    def next_wakeup(self) -> float:
        """When `due` will return a peer; infinity: never."""
        return min(self._due.values(), default=inf)
