"""The measurement of the table itself: that it measures what it says, on tables small enough for a test."""

from __future__ import annotations

import asyncio

from labs.bench.growth import FilledFirewall, measure, steps
from labs.bench.progress import Progress


def test_both_figures_compare_the_large_table_with_the_small_one_round_by_round() -> None:
    with Progress(steps(2)) as progress:
        rows = asyncio.run(measure(2, progress, large=3_000))
    assert [row.figure for row in rows] == ["lookup_growth", "expiry_growth"]
    for row in rows:
        assert row.peer is not None and row.ours > 0 and row.peer > 0
        assert (row.rounds, row.unit, row.better) == (2, "ns", "lower")
        assert row.peer_name == "the same among 1,000 connections, for 3,000"


def test_each_round_finds_the_table_as_the_one_before() -> None:
    table = FilledFirewall(2_000)
    for _ in range(2):
        assert min(table.packet(), table.random_packet(), table.end(), table.random_end()) > 0
