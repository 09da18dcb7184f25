"""Virtual time: the order of events, and asyncio code that runs on it."""

from __future__ import annotations

import asyncio

import pytest

from labs.simulation.loop import Deadlock, VirtualLoop, World


def run(world: World, main):
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(world)) as runner:
        return runner.run(main)


def test_events_come_in_the_order_of_time_then_of_asking() -> None:
    world, seen = World(), []
    start = world.now
    for when, what in ((2.0, "later"), (1.0, "first"), (1.0, "second")):
        world.at(start + when, seen.append, what)
    world.at(start - 5, seen.append, "overdue")
    world.run(start + 1.5)
    assert seen == ["overdue", "first", "second"]
    assert world.now == start + 1.5


def test_a_day_of_waiting_costs_nothing_and_takes_a_day() -> None:
    world = World()

    async def main() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.gather(asyncio.sleep(86_400), asyncio.sleep(3_600))
        return loop.time() - before

    assert run(world, main()) == 86_400


def test_an_event_that_makes_a_task_ready_lets_it_run_at_that_time() -> None:
    world, times = World(), []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        world.at(world.now + 1.25, future.set_result, None)
        world.at(world.now + 2, times.append, "too late")
        start = world.now
        await future
        times.append(world.now - start)

    run(world, main())
    assert times == [1.25]


def test_a_timer_set_by_an_event_is_heeded() -> None:
    world, start = World(), World().now

    async def main() -> float:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        world.at(start + 1, lambda _: loop.call_later(1, future.set_result, None))
        await asyncio.wait_for(future, 60)
        return world.now - start

    assert run(world, main()) == 2


def test_who_waits_for_ever_is_named() -> None:
    async def waits_for_nothing() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock, match="waits_for_nothing"):
        run(World(), waits_for_nothing())


def test_there_are_no_threads_and_no_descriptors() -> None:
    async def main() -> None:
        await asyncio.to_thread(print)

    with pytest.raises(RuntimeError, match="no"):
        run(World(), main())
