"""Memory for each connection: on the active member, and on a standby after its full sync.

Ours is what the member's process grew by, from an empty table on. The peer's is what conntrackd grew by (the active's
internal cache, the standby's external cache) and the kernel's entry, which the standby has once it has committed.
"""

from __future__ import annotations

from labs.bench.conntrackd import NAME, kernel_entry_bytes, missing, resident_bytes
from labs.bench.figures import Row, against, in_turn
from labs.bench.generator import offer
from labs.bench.pairs import daemons, members, reached
from labs.bench.progress import Progress
from labs.bench.sync import fill, taken
from labs.bench.ways import ACTIVE, STANDBY
from labs.network.errors import LabError

CONNECTIONS = 100_000


def steps(rounds: int) -> int:
    return rounds * (1 if missing() else 2)


async def measure(rounds: int, progress: Progress, connections: int = CONNECTIONS) -> list[Row]:
    """The rows `memory_active` and `memory_standby`. Raises `LabError`."""
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    sides = [("the members", _ours, ours), *([] if missing() else [("conntrackd", _theirs, theirs)])]
    for number in range(rounds):
        for name, side, figures in in_turn(sides, number):
            progress.begins(f"memory of {connections:,} connections, {name}")
            active, standby = await side(connections)
            figures.append((active, standby))
            progress.done(f"round {number + 1} of {rounds}, {name}: {active:.0f} bytes a connection on the active, "
                          f"{standby:.0f} on the standby")  # fmt: skip
    return [
        against(f"memory_{role}", [each[n] for each in ours], [each[n] for each in theirs], peer_name=NAME,
                lacking=missing(), unit="byte", better="lower")
        for n, role in enumerate(("active", "standby"))
    ]  # fmt: skip


async def _ours(connections: int) -> tuple[float, float]:
    async with members(ACTIVE) as lab:
        empty = resident_bytes(lab.pid(ACTIVE))
        await fill(lab, connections)
        await lab.start(STANDBY)
        await taken(lab, connections)
        active, standby = (resident_bytes(lab.pid(member)) - empty for member in (ACTIVE, STANDBY))
        return active / connections, standby / connections


async def _theirs(connections: int) -> tuple[float, float]:
    async with daemons() as (lab, pair):
        empty = [pair.memory_bytes(node) for node in (ACTIVE, STANDBY)]
        offered = await offer(lab, flows=connections, count=connections)
        there, _ = await reached(pair.synchronised, connections)
        if offered.lost or there < connections:
            raise LabError(f"conntrackd: {there} of {connections} connections are on the standby")
        grown = [pair.memory_bytes(node) - e for node, e in zip((ACTIVE, STANDBY), empty, strict=True)]
        active, standby = (each / connections + kernel_entry_bytes() for each in grown)
        return active, standby
