"""Something that a client begins again and again, at a pace: connections of the kind `short`, pings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Paced:
    """Calls `begin` at a `rate` a second of `clock`, `count` times at each `start`; without a count, until `end`."""

    def __init__(
        self, rate: float, count: int | None, clock: Callable[[], float], begin: Callable[[], Awaitable[None]]
    ) -> None:
        self._rate = rate
        self._count = count
        self._clock = clock
        self._begin = begin
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and not ended since."""
        return self._task is not None

    def start(self) -> None:
        """Begin, where it is not running."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def end(self) -> None:
        """Wait for those of the count that are to come; without a count, begin no other."""
        if self._task is not None:
            if self._count is None:
                self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        began, index = self._clock(), 0
        while self._count is None or index < self._count:
            await asyncio.sleep(max(0.0, index / self._rate - (self._clock() - began)))
            await self._begin()
            index += 1
