"""Flush and ack: a packet that changed the table waits until every other active member has acknowledged the change.

Pure: packets are opaque, updates are their numbers, times are wire seconds. Whoever owns the packets calls `hold`, then
`flushed` with the number of the update that carries the change, `acknowledged` with what the active peers have, and
carries out what comes back. A packet never waits longer than `RELEASE_TIMEOUT_S`, and no more than `HELD_MAX` wait.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

RELEASE_TIMEOUT_S = 5.0
"""A held packet goes on after this, acknowledged or not (seconds; 50 ticks of the product)."""
HELD_MAX = 4_096
"""Packets that wait at a time; more are let go at once. A quarter of the kernel's queue: the lab's own."""
SLOW_S = 1.0
"""A packet that waits longer counts as a timed-out sync connection (the product's figure)."""

T = TypeVar("T")


@dataclass
class HoldCounters:
    """What `syncstat` and `pstat` show of flush and ack. Times in seconds."""

    held: int = 0
    released: int = 0
    timed_out: int = 0
    """Released by the timeout, not by an ACK."""
    no_members: int = 0
    """Not held: no other member is active."""
    overflow: int = 0
    """Not held: too many waited already."""
    slow: int = 0
    longest_s: float = 0.0
    total_s: float = 0.0


@dataclass
class _Held(Generic[T]):
    packet: T
    since: float
    sequence: int | None = None


class HeldPackets(Generic[T]):
    """The packets that wait, in the order in which they came. `next_wakeup()` may change after every other call."""

    def __init__(self) -> None:
        self.counters = HoldCounters()
        self._held: deque[_Held[T]] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, packet: T, now: float, others: bool) -> bool:
        """Keep the packet, if `others` are active who could acknowledge. False: let it go."""
        if not others:
            self.counters.no_members += 1
            return False
        if len(self._held) >= HELD_MAX:
            self.counters.overflow += 1
            return False
        self.counters.held += 1
        self._held.append(_Held(packet, now))
        return True

    @property
    def unflushed(self) -> bool:
        """Something waits whose change peers have not been told yet."""
        return bool(self._held) and self._held[-1].sequence is None

    def flushed(self, sequence: int) -> None:
        """Everything that was held before now is told of in updates up to this number."""
        for held in reversed(self._held):
            if held.sequence is not None:
                break
            held.sequence = sequence

    def acknowledged(self, sequence: int, now: float) -> list[T]:
        """What may go now: every active peer has the updates up to `sequence`, or the time is over."""
        released: list[T] = []
        while self._held:
            first = self._held[0]
            waited = now - first.since
            told = first.sequence is not None and first.sequence <= sequence
            if not told and waited < RELEASE_TIMEOUT_S:
                break
            self._held.popleft()
            self._count(waited, told)
            released.append(first.packet)
        return released

    def take_all(self) -> list[T]:
        """Everything that waits: it must not go on, whatever the peers know by now."""
        taken = [held.packet for held in self._held]
        self._held.clear()
        return taken

    def _count(self, waited: float, told: bool) -> None:
        counters = self.counters
        counters.released += 1
        counters.timed_out += not told
        counters.slow += waited > SLOW_S
        counters.longest_s = max(counters.longest_s, waited)
        counters.total_s += waited

    def next_wakeup(self) -> float:
        """When the oldest packet's time is over; infinity = nothing waits."""
        return self._held[0].since + RELEASE_TIMEOUT_S if self._held else inf

    def reset(self) -> None:
        """Start counting anew; what waits goes on waiting."""
        self.counters = HoldCounters()
