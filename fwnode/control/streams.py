"""What goes on while people watch: a member's events and its log. Pure.

The last entries are kept once, for everybody. Who follows remembers a number alone, so a follower that does not read
costs nothing; what left the stream before it was read is lost to that follower, who is told how many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Stream(Generic[T]):
    """`entries` are the last ones, numbered without gaps up to `number()`; `show` makes one what a follower gets."""

    def __init__(self, entries: deque[T], number: Callable[[], int], show: Callable[[T], dict[str, Any]]) -> None:
        self._entries = entries
        self._number = number
        self._show = show

    @property
    def number(self) -> int:
        """Of the last entry; 0 when there was none."""
        return self._number()

    @property
    def before(self) -> int:
        """The number before the oldest entry that is still here: who has read so far gets them all."""
        return self._number() - len(self._entries)

    def after(self, number: int, at_most: int) -> tuple[int, list[dict[str, Any]]]:
        """For one who has read up to `number`: how many are lost since, and the next ones."""
        lost = max(0, self.before - number)
        begin = number + lost - self.before
        return lost, [self._show(entry) for entry in islice(self._entries, begin, begin + at_most)]
