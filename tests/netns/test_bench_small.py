"""Every group of the benchmark, small: that each figure is there, of real packets, with its peer or why it has none."""

from collections.abc import Awaitable, Callable

import pytest
from network_ground import unique_name

from labs.bench import connections, failover, forward, memory, sync
from labs.bench.figures import FIGURES, Row
from labs.bench.progress import Progress
from labs.network.supervisor import run, run_in_lab

SMALL = 400
"""Connections, packets or round trips where a real measurement takes many."""


async def failover_fast(progress: Progress) -> list[Row]:
    return [await failover.figure("failover_fast", 1, progress)]


MEASURES: dict[str, Callable[[Progress], Awaitable[list[Row]]]] = {
    "tcp_stream": lambda progress: forward.measure_stream(1, progress, seconds=1),
    "udp_64b": lambda progress: forward.measure_small(1, progress, seconds=0.2),
    "round_trip": lambda progress: forward.measure_trip(1, progress, count=SMALL, probes=2),
    "new_connections": lambda progress: connections.measure(1, progress, flows=SMALL),
    "full_sync_100k": lambda progress: sync.measure(1, progress, connections=SMALL),
    "full_sync_1m_p99": lambda progress: sync.measure_million(1, progress, connections=40_000, pause=0.0),
    "failover_fast": failover_fast,
    "memory_active": lambda progress: memory.measure(1, progress, connections=SMALL),
}


def measure_inside(argv: list[str], name: str) -> int:
    with Progress(10) as progress:
        rows = run(MEASURES[argv[0]](progress))
    assert rows[0].figure == argv[0] and all(row.figure in FIGURES for row in rows)
    for row in rows:
        assert row.ours is None or row.rounds == 1
        if row.peer is None:  # it is not on this machine, or not for this user, and the row says so
            assert row.ratio is None and ("package" in row.peer_name or "root" in row.peer_name)
        else:
            assert row.ours is not None and row.ratio is not None
            assert row.ratio * row.peer == pytest.approx(row.ours)
    return 0


@pytest.mark.parametrize("figure", MEASURES)
def test_a_small_measurement(figure):
    assert run_in_lab(unique_name(), f"{__file__}:measure_inside", [figure]) == 0
