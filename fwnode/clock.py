"""The machine's two clocks, as the edges read them; what lab time is, `fwnode.lab_clock` says.

The wall clock, which may be set forward or back at any time, decides nothing: it only gives dates for people.
"""

from __future__ import annotations

import time

wire_now = time.monotonic
"""Wire time in seconds. No function around it: it is read several times a packet."""


def wall_now() -> float:
    """The wall clock, for dates that people read; nothing may be decided or measured with it."""
    return time.time()
