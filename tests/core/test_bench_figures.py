"""Figures of the benchmark: medians and ratios of rounds that were measured in turn."""

from __future__ import annotations

from labs.bench.figures import compare, document


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
