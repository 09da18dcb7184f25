"""When to look at what may have ended: a timing wheel. Of an item it knows only the attribute `bucket`, a number.

Time is cut into buckets. What moves its end away, as a connection does with each packet, is not touched here: it is
looked at when its bucket comes, and planned anew. So no work is done here for a packet, and expiry looks at
what is due and not at all that is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from math import ceil, inf
from typing import Generic, Protocol, TypeVar


class Planned(Protocol):
    """`bucket` is the wheel's own; -1: not planned."""

    bucket: int


T = TypeVar("T", bound=Planned)


class Wheel(Generic[T]):
    """Buckets are `width` seconds wide: an item is looked at by so much later than planned."""

    def __init__(self, width: float) -> None:
        self._width = width
        self._buckets: dict[int, list[T]] = {}
        self._order: list[int] = []
        self._reached = -1
        """The last bucket that was begun; what is planned goes behind it."""
        self._current: Iterator[T] = iter(())

    def plan(self, item: T, at: float) -> None:
        """Look at the item at this time, unless it will be looked at sooner anyway."""
        bucket = ceil(at / self._width)
        if 0 <= item.bucket <= bucket:
            return
        if bucket <= self._reached:
            bucket = self._reached + 1
        item.bucket = bucket
        waiting = self._buckets.get(bucket)
        if waiting is None:
            self._buckets[bucket] = [item]
            heappush(self._order, bucket)
        else:
            waiting.append(item)

    def next_at(self) -> float:
        """Before this time nothing is due."""
        return self._order[0] * self._width if self._order else inf

    def next_due(self, now: float) -> T | None:
        """An item whose time has come; it is no longer planned. None: no more for now."""
        while True:
            for item in self._current:
                if item.bucket == self._reached:  # else it is over, or planned for another time
                    item.bucket = -1
                    return item
            if not self._order or self._order[0] * self._width > now:
                return None
            self._reached = heappop(self._order)
            self._current = iter(self._buckets.pop(self._reached))
