"""How a member stops in good order: what it knows reaches its peers first. Pure; driven by the node's loop.

First it goes on as it is until what waits to be sent was sent and acknowledged. Then it forwards no more, so that
nothing changes any more, and waits for what changed last. Only then it says that it leaves: peers listen no longer to
one that has left. Both waits are bounded: a peer that does not answer keeps nobody from stopping.
"""

from __future__ import annotations

from enum import Enum
from math import inf

DRAIN_S = 2.0
"""Longest wait for what had piled up, seconds, during which the member forwards. The lab's own: a backlog of 20,000
connections takes less."""

LAST_S = 0.5
"""Longest wait for the last changes, seconds, during which nobody forwards. The lab's own: five sync ticks."""


class StopStep(Enum):
    """What a member that is to stop does now. WAIT: go on as before."""

    WAIT = "wait"
    LEAVE = "leave"
    """Forward no more, and send what changed last."""
    END = "end"
    """Tell the peers, and end."""


class GracefulStop:
    """One stop, from the wish to the end. Times are wire seconds."""

    def __init__(self) -> None:
        self._until = inf
        self._leaving = False

    def next(self, settled: bool, now: float) -> StopStep:
        """What to do now that a stop is wanted. `settled`: every peer that is there has acknowledged everything."""
        if self._until == inf:
            self._until = now + DRAIN_S
        if not settled and now < self._until:
            return StopStep.WAIT
        if self._leaving:
            return StopStep.END
        self._leaving = True
        self._until = now + LAST_S
        return StopStep.LEAVE
