"""The two clocks.

*Wire time* (heartbeats, sync ticks, acknowledgements, dead timer) is the machine's monotonic time. *Lab time*
(connection timeouts) is the same, `rate` times faster, so that a day fits in a minute. At a high rate a short timeout
would undercut what a machine can do, so no lab timer fires sooner than `FLOOR_S` of wire time.

The wall clock, which may be set forward or back at any time, decides nothing: it only gives dates for people.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

FLOOR_S = 1.0
"""Wire seconds that any lab timer lasts at least: a TCP retransmission (0.2 s, 0.4 s) fits in, a busy machine too."""


@dataclass(frozen=True)
class LabClock:
    """`epoch` is the wire time at which lab time was 0. Members of one lab share it, and the clock of their machine."""

    rate: float = 1.0
    epoch: float = 0.0

    def now(self) -> float:
        """Lab seconds."""
        return self.at(wire_now())

    def at(self, wire_time: float) -> float:
        """Lab time of a wire time."""
        return (wire_time - self.epoch) * self.rate

    def wall(self, lab_time: float) -> float:
        """The date (`time.time()`) of a lab time, by the wall clock as it is set now."""
        return wall_now() - (self.now() - lab_time) / self.rate

    def problem(self) -> str:
        """What is wrong with the epoch on this machine; empty when nothing is. It may be a date, or of another boot."""
        now = wire_now()
        if self.epoch <= now:
            return ""
        return (
            f"{self.epoch:.0f} lies ahead of this machine's monotonic clock ({now:.0f}). Leave it out, so that lab "
            "time counts from the machine's start, or write that of a lab that runs here (`fwlab up` does)"
        )

    @property
    def floor(self) -> float:
        """The shortest a lab timer lasts, in lab seconds; nothing is stretched where lab time is wall time."""
        return FLOOR_S * self.rate if self.rate > 1 else 0.0


wire_now = time.monotonic
"""Wire time in seconds. No function around it: it is read several times a packet."""


def wall_now() -> float:
    """The wall clock, for dates that people read; nothing may be decided or measured with it."""
    return time.time()
