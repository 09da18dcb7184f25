"""When the virtual addresses are announced to the neighbours. Pure: times are wire seconds.

A host keeps the MAC that it learned last, and one announcement may be lost, or come while the host is not yet willing
to learn another MAC (Linux: within a second of the last one), or before another member has stopped to answer. So each
occasion is followed by several announcements, ever further apart. A new occasion begins them anew.
"""

from __future__ import annotations

from math import inf

ANNOUNCE_AFTER_S = (0.0, 0.1, 0.2, 0.5, 1.5, 4.0)
"""Seconds from the occasion to each announcement. Lab's own: the first three because one may be
lost, the others because a host may not yet be willing to learn another MAC."""


class Announcing:
    """`begin` at each occasion; `due` is true once for each announcement that is to be made."""

    def __init__(self) -> None:
        self._since = 0.0
        self._done = len(ANNOUNCE_AFTER_S)

    def begin(self, now: float) -> None:
        """An occasion: the announcements begin anew."""
        self._since, self._done = now, 0

    def next_wakeup(self) -> float:
        """When the next announcement is to be made; infinity for never."""
        return self._since + ANNOUNCE_AFTER_S[self._done] if self._done < len(ANNOUNCE_AFTER_S) else inf

    def due(self, now: float) -> bool:
        """Whether to announce now. Those that were missed are not made up for."""
        if now < self.next_wakeup():
            return False
        while now >= self.next_wakeup():
            self._done += 1
        return True
