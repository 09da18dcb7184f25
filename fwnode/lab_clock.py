"""Lab time as a function of wire time. Pure; what reads the machine's clocks is `fwnode.clock`.

*Wire time* (heartbeats, sync ticks, acknowledgements, dead timer) is the machine's monotonic time. *Lab time*
(connection timeouts) is the same, `rate` times faster, so that a day fits in a minute. At a high rate a short timeout
would undercut what a machine can do, so no lab timer fires sooner than `FLOOR_S` of wire time.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOOR_S = 1.0
"""Wire seconds that any lab timer lasts at least: a TCP retransmission (0.2 s, 0.4 s) fits in, a busy machine too."""


@dataclass(slots=True)
class LabClock:
    """`epoch` is the wire time at which lab time was 0. Members of one lab share it, and the clock of their machine. It
    moves in a simulated world alone, which leaps over time in which nothing happens (`labs.simulation.leaping`)."""

    rate: float = 1.0
    epoch: float = 0.0

    def at(self, wire_time: float) -> float:
        """Lab time of a wire time."""
        return (wire_time - self.epoch) * self.rate

    def date(self, lab_time: float, now: float, wall: float) -> float:
        """The date of a lab time; at the wire time `now` the wall clock shows `wall`."""
        return wall - (self.at(now) - lab_time) / self.rate

    def problem(self, now: float) -> str:
        """What is wrong with the epoch at the wire time `now`; empty when nothing is. It may be a date, or of another
        boot."""
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
