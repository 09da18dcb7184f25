"""Whether a stream of updates stands still although something is owed.

A peer may be heard all the time and still get nothing, or acknowledge nothing: what counts is that its position moves.
One that has stood still for `BEHIND_AFTER_S` is behind, until it has got past everything that had been sent while it
stood still. One object for each direction of a session. Pure; driven by `session`.
"""

from __future__ import annotations

from math import inf

from syncproto.limits import BEHIND_AFTER_S


class Lag:
    """`since`: since when something is owed and nothing has moved; infinity = nothing is owed."""

    def __init__(self) -> None:
        self.behind = False
        self.owed = 0
        self._position = -1
        self._goal = 0

    def update(self, since: float, position: int, newest: int, now: float) -> bool:
        """Compare the position with the newest number. Returns whether `behind` has changed."""
        self.owed = newest - position
        if not self.behind:
            if now < since + BEHIND_AFTER_S:
                return False
            self.behind, self._position, self._goal = True, position, newest
            return True
        if position == self._position or newest < self._goal:
            self._goal = newest  # it still stands still; or there is less to come than was believed
        self._position = position
        self.behind = position < self._goal
        return not self.behind

    def due(self, since: float) -> float:
        """When to call `update` at the latest; infinity: not before something arrives."""
        return inf if self.behind else since + BEHIND_AFTER_S
