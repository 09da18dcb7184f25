"""Figures of the benchmark: medians and ratios of rounds that were measured in turn."""

from __future__ import annotations

import json

from labs.bench.figures import COLUMNS, alone, cells, compare, document, peers


def test_the_ratio_is_the_median_of_the_rounds_own_ratios():
    row = compare("tcp_stream", [8.0, 2.0, 9.0], [10.0, 1.0, 10.0], peer_name="kernel", unit="Gbit/s")
    assert (row.ours, row.peer, row.ratio, row.rounds) == (8.0, 10.0, 0.9, 3)
    assert row.spread == (2.0 - 0.8) / 0.9
    assert row.better == "higher"


def test_the_document_has_the_machine_and_the_rows():
    row = compare("memory", [1.0], [2.0], peer_name="other", unit="byte", better="lower")
    made = document({"cores": 2}, [row])
    assert made["machine"] == {"cores": 2}
    assert made["rows"][0]["figure"] == "memory"
    assert made["rows"][0]["ratio"] == 0.5


def test_a_row_without_a_peer_has_no_ratio_and_shows_that():
    row = alone("bytes_per_record", [40.0, 50.0, 60.0], peer_name="other: not installed", unit="byte", better="lower")
    assert (row.ours, row.peer, row.ratio, row.spread) == (50.0, None, None, 0.4)
    assert cells(row) == ["bytes_per_record", "50.00", "-", "byte", "lower", "-", "3", "40%"]
    assert peers([row, row]) == ["peer: other: not installed"]
    assert json.loads(json.dumps(document({}, [row])))["rows"][0]["peer"] is None


def test_a_row_with_a_peer_shows_both_and_rows_of_different_peers_name_theirs():
    row = compare("tcp_stream", [8.0], [10.0], peer_name="kernel", unit="Gbit/s")
    assert dict(zip(COLUMNS, cells(row), strict=True))["peer"] == "10.00"
    other = alone("size", [1.0], peer_name="other", unit="byte", better="lower")
    assert peers([row, other]) == ["tcp_stream: kernel", "size: other"]
