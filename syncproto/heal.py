"""When to take a peer's whole table anew, of the member's own accord, because updates of it were lost for good.

A full sync in the middle of the trouble would only lose again, so healing waits for quiet, though not for ever; one
peer at a time; after a failure it tries again. Pure: whoever hears of losses calls `lost`, asks `due`, begins the full
sync, and calls `ended`. Whether to heal at all is the owner's setting: the product does not.
"""

from __future__ import annotations

from math import inf

from syncproto.limits import HEAL_LATEST_S, HEAL_QUIET_S, HEAL_RETRY_S


class Healer:
    """`next_wakeup()` changes with every other call; at most one entry a peer is kept."""

    def __init__(self) -> None:
        self._due: dict[int, float] = {}
        self._latest: dict[int, float] = {}
        self.running: int | None = None
        """The peer whose table is being taken."""
        self.healed = 0

    def lost(self, peer: int, now: float) -> None:
        """Updates of this peer will never come."""
        latest = self._latest.setdefault(peer, now + HEAL_LATEST_S)
        self._due[peer] = min(now + HEAL_QUIET_S, latest)

    def forget(self, peer: int) -> None:
        """The peer is gone, or began anew: there is nothing to take, or everything is taken anyway."""
        self._due.pop(peer, None)
        self._latest.pop(peer, None)

    def due(self, now: float) -> int | None:
        """The peer to take the table of now; `ended` must follow."""
        if self.running is not None:
            return None
        for peer, due in self._due.items():
            if now >= due:
                self.forget(peer)
                self.running = peer
                return peer
        return None

    def ended(self, complete: bool, now: float) -> None:
        """The full sync is over; one that failed is tried again."""
        peer, self.running = self.running, None
        if peer is None:
            return
        if complete:
            self.healed += 1
        else:
            self._due[peer] = max(self._due.get(peer, 0.0), now + HEAL_RETRY_S)

    def next_wakeup(self) -> float:
        """When `due` has something; infinity = never, or not before `ended`."""
        return inf if self.running is not None else min(self._due.values(), default=inf)
