"""How fast a full sync goes: packets come first.

A slice of the table costs as much as a hundred packets, at both ends. While packets are forwarded there is a pause
after each slice, for them and for whoever sends them; without any, slices follow one another. This module knows nothing
of streams and packets: it is told how many were forwarded so far.
"""

from __future__ import annotations

from math import inf

from syncproto.limits import FULL_PAUSE_S, FULL_QUIET_S


class Pace:
    """The pauses of all full syncs of a member. Times are wire seconds."""

    def __init__(self) -> None:
        self._forwarded = 0
        self._packets_until = -inf

    def begin(self, forwarded: int) -> None:
        """A full sync begins; packets until now do not count."""
        self._forwarded = forwarded

    def pause(self, forwarded: int, now: float) -> float:
        """Seconds until the next slice may follow the one that was sent now."""
        if forwarded != self._forwarded:
            self._forwarded, self._packets_until = forwarded, now + FULL_QUIET_S
        return FULL_PAUSE_S if now < self._packets_until else 0.0
