"""The time by which members of one cluster order what they begin. No two of their clocks need to agree.

It is a hybrid logical clock: a member's cluster time is its lab time and an offset that only grows. Each heartbeat
tells it, and who hears a later one than its own moves its offset forward to it. So what a member begins is later than
everything that its peers had begun when it last heard them, on whichever machine. Members of one lab share lab time:
their offset stays 0.

Only `born`, the order of the views of one key, is read from it. What lasts is a duration, and expiry is lab time, which
no peer moves.
"""

from __future__ import annotations

from syncproto.limits import TIME_MAX_S

HEARD_MAX_S = TIME_MAX_S / 2
"""Latest cluster time that is believed, seconds: years of lab time fit in behind it before a record may no longer carry
it."""


class ClusterTime:
    """`at` only grows as long as `now` does, and never runs behind what was `heard`."""

    def __init__(self) -> None:
        self.offset = 0.0
        self._latest = 0.0

    def at(self, now: float) -> float:
        """Cluster time at a lab time."""
        return max(now + self.offset, self._latest)  # what was heard, though the sum is rounded

    def heard(self, told: float, now: float) -> None:
        """A peer said that this is its cluster time."""
        if self.at(now) < told <= HEARD_MAX_S:
            self.offset, self._latest = told - now, told
