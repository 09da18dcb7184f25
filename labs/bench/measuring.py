"""A benchmark's part inside the private namespaces; called by the supervisor as `main(argv, lab_name)`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import NamedTuple

from labs.bench import connections, failover, forward, growth, memory, simulation, sync, wire
from labs.bench.figures import Row
from labs.bench.progress import Progress
from labs.exit_codes import ExitCode
from labs.network import supervisor
from labs.network.errors import LabError


class Group(NamedTuple):
    """Figures that are measured together."""

    steps: Callable[[int], int]
    """Measurements of so many rounds: how often `measure` calls `Progress.done`."""
    measure: Callable[[int, Progress], Awaitable[list[Row]]]


GROUPS: dict[str, list[Group]] = {
    "forward": [
        Group(forward.stream_steps, forward.measure_stream),
        Group(forward.small_steps, forward.measure_small),
        Group(forward.trip_steps, forward.measure_trip),
    ],
    "connections": [Group(connections.steps, connections.measure), Group(growth.steps, growth.measure)],
    "sync": [
        Group(sync.steps, sync.measure),
        Group(sync.million_steps, sync.measure_million),
        Group(wire.steps, wire.measure),
    ],
    "failover": [Group(failover.steps, failover.measure)],
    "memory": [Group(memory.steps, memory.measure)],
    "simulation": [Group(simulation.steps, simulation.measure)],
}


def main(argv: list[str], lab_name: str) -> int:
    what, rounds, result = argv[0], int(argv[1]), int(argv[2])
    groups = [group for name, each in GROUPS.items() if what in (name, "all") for group in each]
    with Progress(sum(group.steps(rounds) for group in groups)) as progress:
        rows, errors = supervisor.run(_measure(groups, rounds, progress))
    with os.fdopen(result, "w", encoding="utf-8") as file:
        json.dump([asdict(row) for row in rows], file)
    for error in errors:
        print(f"fwlab bench: {error}", file=sys.stderr)
    return errors[0].exit_code if errors else ExitCode.HELD


async def _measure(groups: list[Group], rounds: int, progress: Progress) -> tuple[list[Row], list[LabError]]:
    """The rows; and why others are missing. What fails costs its own figures, and no others."""
    rows: list[Row] = []
    errors: list[LabError] = []
    for group in groups:
        try:
            rows += await group.measure(rounds, progress)
        except LabError as error:
            progress.note(f"failed: {error}")
            errors.append(error)
    return rows, errors
