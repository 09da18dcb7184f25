"""The two clocks.

*Wire time* (heartbeats, sync ticks, acknowledgements, dead timer) is the machine's monotonic time. *Lab time*
(connection timeouts) runs `rate` times faster, so that a day fits in a minute. At a high rate a short timeout would
undercut what a machine can do, so no lab timer fires sooner than `FLOOR_S` of wall time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

FLOOR_S = 1.0
"""Wall seconds that any lab timer lasts at least: a TCP retransmission (0.2 s, 0.4 s) fits in, a busy machine too."""


@dataclass(frozen=True)
class LabClock:
    """`epoch` is the wall time (`time.time()`) at which lab time was 0; members of one lab share it."""

    rate: float = 1.0
    epoch: float = 0.0

    def now(self) -> float:
        """Lab seconds."""
        return (time.time() - self.epoch) * self.rate

    def wall(self, lab_time: float) -> float:
        """Wall time (`time.time()`) of a lab time."""
        return self.epoch + lab_time / self.rate

    @property
    def floor(self) -> float:
        """The shortest a lab timer lasts, in lab seconds; nothing is stretched where lab time is wall time."""
        return FLOOR_S * self.rate if self.rate > 1 else 0.0


def wire_now() -> float:
    """Wire time in seconds."""
    return time.monotonic()
