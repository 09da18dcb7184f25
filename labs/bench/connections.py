"""New connections: decided, created, and on the standby.

So many UDP flows of one packet each are offered through the active member, as fast as it takes them. The rate counts
from the first packet to the moment when the standby holds every one of them. Nothing may be lost on the way: where a
packet does not arrive, or a connection is missing on the standby, the next lower rate is offered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from labs.bench.conntrackd import NAME, missing
from labs.bench.figures import Row, against, in_turn
from labs.bench.generator import offer
from labs.bench.pairs import daemons, held, members, reached
from labs.bench.progress import Progress
from labs.bench.ways import ACTIVE, STANDBY
from labs.network.errors import LabError
from labs.network.lab import Lab

FLOWS = 60_000
RATES = (0.0, 80_000.0, 40_000.0, 20_000.0, 10_000.0)
"""Packets a second that are offered, one after the other until nothing is lost; 0: as many as get through."""


class Trial(NamedTuple):
    """`rate` was offered; `lost` packets did not arrive, `missing` connections are not on the standby."""

    rate: float
    lost: int
    missing: int
    per_second: float

    def __str__(self) -> str:
        offered = f"offered {self.rate:,.0f}/s" if self.rate else "offered without a limit"
        if self.lost or self.missing:
            return f"{offered}: {self.lost} packets lost, {self.missing} missing on the standby"
        return f"{self.per_second:,.0f} new connections/s, {offered}, nothing lost"


@dataclass
class Side:
    """One of the two that are compared. The rate at which it lost nothing is where its next round begins."""

    name: str
    measure: Callable[[int, float], Awaitable[Trial]]
    """So many flows, offered at this rate, to a fresh pair."""
    step: int = 0

    async def best(self, flows: int, told: Callable[[str], None]) -> Trial:
        """The first attempt that loses nothing. `LabError` when it loses some at every rate."""
        while self.step < len(RATES):
            attempt = await self.measure(flows, RATES[self.step])
            if not (attempt.lost or attempt.missing):
                return attempt
            told(f"{self.name}: {attempt}")
            self.step += 1
        raise LabError(f"new connections, {self.name}: some are lost at every rate")


def steps(rounds: int) -> int:
    return rounds * (1 if missing() else 2)


async def measure(rounds: int, progress: Progress, flows: int = FLOWS) -> list[Row]:
    """The row `new_connections`. Raises `LabError`."""
    sides = [Side("the members", _ours), *([] if missing() else [Side("conntrackd", _theirs)])]
    rates: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in in_turn(sides, number):
            progress.begins(f"new connections, {side.name}")
            attempt = await side.best(flows, progress.note)
            rates[side.name].append(attempt.per_second)
            progress.done(f"round {number + 1} of {rounds}, {side.name}: {attempt}")
    ours, theirs = rates["the members"], rates.get("conntrackd", [])
    row = against("new_connections", ours, theirs, peer_name=NAME, lacking=missing(), unit="conn/s", better="higher")
    return [row]


async def _ours(flows: int, rate: float) -> Trial:
    async with members(ACTIVE, STANDBY) as lab:
        return await _attempt(lab, flows, rate, lambda: held(lab, STANDBY))


async def _theirs(flows: int, rate: float) -> Trial:
    async with daemons() as (lab, pair):
        return await _attempt(lab, flows, rate, pair.synchronised)


async def _attempt(lab: Lab, flows: int, rate: float, on_standby: Callable[[], Awaitable[int]]) -> Trial:
    before = await on_standby()
    offered = await offer(lab, flows=flows, count=flows, rate=rate)
    there, when = await reached(on_standby, before + flows)
    missing_there = max(0, before + flows - there)
    return Trial(rate, offered.lost, missing_there, flows / (when - offered.begin))
