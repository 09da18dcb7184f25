"""Full sync: how long until the standby could decide on 100,000 connections, and what packets notice of a million.

Ours counts from the standby's asking for the table to its having all of it, as its events say. conntrackd's counts from
the order to ask for the active's cache to the last connection's being in the kernel: until they are committed there,
the standby drops their packets. The pairs carry no other traffic meanwhile.

For a million connections packets' round trips through the active member are timed, before the standby starts and while
it takes the table.
"""

from __future__ import annotations

import asyncio
import time
from statistics import quantiles

from labs.bench.conntrackd import ConntrackdPair, missing
from labs.bench.figures import Row, against, compare, in_turn
from labs.bench.generator import offer
from labs.bench.pairs import daemons, held, members, reached
from labs.bench.progress import Progress
from labs.bench.round_trips import echo, round_trips
from labs.bench.ways import ACTIVE, STANDBY
from labs.network.errors import LabError
from labs.network.lab import Lab

CONNECTIONS = 100_000
MILLION = 1_000_000
MILLION_ROUNDS_MAX = 3
"""A million connections take half a minute to be made and fetched."""
IDLE_S = 5.0
"""Seconds of round trips on the idle path."""
TRIP_PAUSE_S = 0.002
"""Between two round trips: a client that waits now and then, as most do."""
RESYNC = "conntrackd: resync and commit"


async def fill(lab: Lab, count: int) -> None:
    """So many connections on the active member. `LabError` when some are missing."""
    offered = await offer(lab, flows=count, count=count)
    there = await held(lab, ACTIVE)
    if offered.lost or there < count:
        raise LabError(f"{offered.lost} packets of new connections were lost; {ACTIVE} has {there} of {count}")


# -- a hundred thousand --------------------------------------------------------------------------------------------


def steps(rounds: int) -> int:
    return rounds * (1 if missing() else 2)


async def measure(rounds: int, progress: Progress, connections: int = CONNECTIONS) -> list[Row]:
    """The row `full_sync_100k`. Raises `LabError`."""
    ours: list[float] = []
    theirs: list[float] = []
    sides = [("the members", _ours, ours), *([] if missing() else [("conntrackd", _theirs, theirs)])]
    for number in range(rounds):
        for name, side, figures in in_turn(sides, number):
            progress.begins(f"full sync of {connections:,}, {name}")
            figures.append(await side(connections))
            progress.done(f"round {number + 1} of {rounds}, {name}: {connections:,} connections in {figures[-1]:.3f} s")
    row = against("full_sync_100k", ours, theirs, peer_name=RESYNC, lacking=missing(), unit="s", better="lower")
    return [row]


async def _ours(connections: int) -> float:
    async with members(ACTIVE) as lab:
        await fill(lab, connections)
        await lab.start(STANDBY)
        begin, end = await taken(lab, connections)
        return end - begin


async def taken(lab: Lab, connections: int) -> tuple[float, float]:
    """When the standby's full sync began and when it was complete, on the monotonic clock. `LabError` when it did not
    bring everything."""
    status = (await lab.control(STANDBY, "status"))["full_sync"]
    if status["state"] != "done" or status["records"] < connections or await held(lab, STANDBY) < connections:
        raise LabError(f"full sync of {connections} connections: {status}")
    begin = end = 0.0
    for event in (await lab.control(STANDBY, "events"))["events"]:
        if event["text"].startswith("full sync from") and event["text"].endswith("begins"):
            begin = lab.epoch + event["lab_time"]
        elif event["text"].startswith("full sync is complete"):
            end = lab.epoch + event["lab_time"]
    if not 0 < begin < end:
        raise LabError(f"{STANDBY} does not tell when its full sync began and ended")
    return begin, end


async def _theirs(connections: int) -> float:
    async with daemons() as (lab, pair):
        await learn(lab, pair, connections)
        begin = time.monotonic()
        await pair.ask(STANDBY, "-n")
        await _reach(connections, pair, committed=False)
        await pair.ask(STANDBY, "-c")
        return await _reach(connections, pair, committed=True) - begin


async def learn(lab: Lab, pair: ConntrackdPair, connections: int) -> None:
    """The active has the connections; the standby has forgotten them."""
    offered = await offer(lab, flows=connections, count=connections)
    await _reach(connections, pair, committed=False)
    await pair.forget(STANDBY)
    there = await pair.decidable(ACTIVE)
    if offered.lost or there < connections:
        raise LabError(f"{offered.lost} packets of new connections were lost; conntrack has {there} of {connections}")


async def _reach(connections: int, pair: ConntrackdPair, *, committed: bool) -> float:
    count = (lambda: pair.decidable(STANDBY)) if committed else pair.synchronised
    there, when = await reached(count, connections)
    if there < connections:
        raise LabError(f"conntrackd: {there} of {connections} connections are on the standby")
    return when


# -- a million -----------------------------------------------------------------------------------------------------


def million_steps(rounds: int) -> int:
    return min(rounds, MILLION_ROUNDS_MAX)


async def measure_million(
    rounds: int, progress: Progress, connections: int = MILLION, pause: float = TRIP_PAUSE_S
) -> list[Row]:
    """The row `full_sync_1m_p99`. Raises `LabError`."""
    rounds = min(rounds, MILLION_ROUNDS_MAX)
    during: list[float] = []
    idle: list[float] = []
    for number in range(rounds):
        progress.begins(f"full sync of {connections:,} under traffic")
        async with members(ACTIVE) as lab, echo(lab):
            await fill(lab, connections)
            trips = await round_trips(lab, pause=pause, during=asyncio.sleep(IDLE_S))
            idle.append(p99([trip.took for trip in trips]))
            trips = await round_trips(lab, pause=pause, during=lab.start(STANDBY))
            begin, end = await taken(lab, connections)
            during.append(p99([trip.took for trip in trips if begin <= trip.at <= end]))
        progress.done(f"round {number + 1} of {rounds}, {connections:,} connections in {end - begin:.1f} s; "
                      f"p99 of a round trip {during[-1]:.0f} µs meanwhile, {idle[-1]:.0f} µs before")  # fmt: skip
    name = "the same path when idle"
    return [compare("full_sync_1m_p99", during, idle, peer_name=name, unit="µs", better="lower")]


def p99(trips: list[float]) -> float:
    """The round trip than which one in a hundred takes longer."""
    if len(trips) < 100:
        raise LabError(f"{len(trips)} round trips are too few for a p99")
    return quantiles(trips, n=100)[-1]
