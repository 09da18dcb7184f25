"""Virtual time: the world's heap of events, and an asyncio loop that runs on it.

`World` is the heap: `at(when, function, argument)`, called in the order of time and, at one time, in the order in which
it was asked for. What happens to packets goes there directly. `VirtualLoop` is an asyncio loop whose time is the
world's: where another loop would wait for the kernel, it lets the world's events happen until one of its own timers is
due, or until an event has made one of its callbacks ready. So the same asyncio code runs in either world, and a wait of
a day costs what happens on that day. The loop has no file descriptors and no threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Any, TypeVar, TypeVarTuple

START_S = 1_000.0
"""The world's time at its beginning: the monotonic clock of machines that have been up for a while."""
HORIZON_S = 86_400.0
"""Virtual seconds for which a procedure may wait for an event without waiting for a time; then it is given up, although
members go on talking for ever. Lab's own."""
LOOK_S = 0.977
"""Virtual seconds between two looks whether anything happens. Not in step with heartbeats and ticks."""
TASKS_SHOWN_MAX = 10

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")
WorldEvent = tuple[float, int, Callable[[Any], object], Any]
"""When, the number in the order of asking, what to call, and with what."""


class Deadlock(RuntimeError):
    """Nothing will ever happen any more, and somebody waits for it."""


class World:
    """Virtual time, what will happen in it, and chance. `now` is in seconds, as of a monotonic clock."""

    __slots__ = ("events", "heap", "interrupted", "leap", "now", "order", "packets", "random", "seed")

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.now = START_S
        self.random = Random(seed)
        """The one source of chance."""
        self.heap: list[WorldEvent] = []
        """What will happen. The packet path pushes here itself: `(when, next(world.order), function, argument)`."""
        self.order = count()
        self.interrupted = False
        """An event has made somebody ready outside of the heap: `run` goes back."""
        self.events: list[tuple[float, str, str]] = []
        """What happened, for people: when, to whom, what."""
        self.packets: list[tuple[float, str, bytes]] | None = None
        """Every IP packet that arrived anywhere: when, at which interface, its bytes. None: not kept."""
        self.leap: Callable[[float], None] | None = None
        """Asked from time to time while the loop waits until a time: may move `now`, if nothing happens until then
        (`labs.simulation.leaping`)."""

    def at(self, when: float, function: Callable[[Any], object], argument: Any = None) -> None:
        """Call `function(argument)` at this time; at once (but not from here) where it is over."""
        heappush(self.heap, (when if when > self.now else self.now, next(self.order), function, argument))

    def run(self, until: float) -> None:
        """Let happen what is due up to `until`, or until somebody is ready outside; the clock goes along."""
        heap, pop = self.heap, heappop
        self.interrupted = False
        while heap and heap[0][0] <= until:
            self.now, _, function, argument = pop(heap)
            function(argument)
            if self.interrupted:
                return
        if self.now < until < inf:
            self.now = until

    def tell(self, who: str, what: str) -> None:
        """Note what happened. Not for single packets."""
        self.events.append((self.now, who, what))

    def log(self) -> bytes:
        """Everything that was noted, byte for byte the same whenever the same seed is run."""
        lines = [f"{when!r} {who}: {what}\n" for when, who, what in self.events]
        lines += [f"{when!r} {where} {data.hex()}\n" for when, where, data in self.packets or ()]
        return "".join(lines).encode()


class VirtualLoop(asyncio.BaseEventLoop):
    """An asyncio loop in a world's time. `select` stands for the selector that other loops wait in."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self._selector = self
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.world.now

    def call_soon(
        self,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self.world.interrupted = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self.world.interrupted = True
        return super().call_at(when, callback, *args, context=context)

    def select(self, timeout: float | None) -> list[Any]:
        """Where the loop waits. Raises `Deadlock` when it would wait for ever."""
        world = self.world
        if timeout == 0:
            return []
        if timeout is not None:
            # The timer's own time: `now + timeout` may miss it by a rounding.
            first: asyncio.TimerHandle = self._scheduled[0]  # type: ignore[attr-defined]
            self._pass(min(first.when(), world.now + timeout))
            return []
        self._pass(world.now + HORIZON_S)
        if not world.interrupted:
            raise Deadlock(f"nothing happens any more at {world.now:.6f} s, and {self._who_waits()}")
        return []

    def _pass(self, until: float) -> None:
        world = self.world
        while world.leap is not None and until - world.now > LOOK_S:
            world.run(world.now + LOOK_S)
            if world.interrupted:
                return
            world.leap(until)
        world.run(until)

    def _who_waits(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        if not tasks:
            return "no task is left"
        shown = [f"{task.get_name()} ({_place(task)})" for task in tasks[:TASKS_SHOWN_MAX]]
        more = f" and {len(tasks) - len(shown)} more" if len(tasks) > len(shown) else ""
        return f"these wait: {', '.join(shown)}{more}"

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no descriptors."""

    def _write_to_self(self) -> None:
        """Somebody outside, as Ctrl-C, has made a callback ready."""
        self.world.interrupted = True

    def run_in_executor(
        self, executor: Any, func: Callable[[*_Arguments], _Result], *args: *_Arguments
    ) -> asyncio.Future[_Result]:
        raise RuntimeError(f"{func!r} was to run in a thread, and a simulated world has none")


def _place(task: asyncio.Task[Any]) -> str:
    """Where the task waits: function and line of its innermost frame."""
    frames = task.get_stack()
    if not frames:
        return "not begun"
    code = frames[-1].f_code
    return f"{code.co_qualname}, line {frames[-1].f_lineno}"
