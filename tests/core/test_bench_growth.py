"""The measurement of the table itself: that it measures what it says, on tables small enough for a test."""

from __future__ import annotations

import asyncio

import pytest

from labs.bench.growth import IN_USE, Table, measure, steps
from labs.bench.progress import Progress
from labs.network.errors import LabError


def test_both_figures_compare_the_large_table_with_the_small_one_round_by_round() -> None:
    with Progress(steps(2)) as progress:
        rows = asyncio.run(measure(2, progress, large=3_000))
    assert [row.figure for row in rows] == ["lookup_growth", "expiry_growth"]
    for row in rows:
        assert row.peer is not None and row.ours > 0 and row.peer > 0
        assert (row.rounds, row.unit, row.better) == (2, "ns", "lower")
        assert row.peer_name == "the same among 1,000 connections, for 3,000"


def test_a_round_ends_its_own_connections_and_no_others() -> None:
    table = Table(2_000, 2)
    table.packet()
    table.random_packet()
    for _ in range(2):
        table.end()
        table.end()
    with pytest.raises(LabError, match=f"0 connections ended, not {IN_USE}"):
        table.end()
