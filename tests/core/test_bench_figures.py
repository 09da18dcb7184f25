"""Figures of the benchmark: medians and ratios of rounds that were measured in turn."""

from __future__ import annotations

import json

import pytest

from labs.bench.figures import COLUMNS, alone, cells, compare, document, peers, readable, unmeasured


def test_the_ratio_is_the_median_of_the_rounds_own_ratios():
    row = compare("tcp_stream", [8.0, 2.0, 9.0], [10.0, 1.0, 10.0], peer_name="kernel", unit="Gbit/s")
    assert (row.ours, row.peer, row.ratio, row.rounds) == (8.0, 10.0, 0.9, 3)
    assert row.spread == (2.0 - 0.8) / 0.9
    assert row.better == "higher"


def test_the_document_has_the_machine_and_the_rows():
    row = compare("memory_active", [1.0], [2.0], peer_name="other", unit="byte", better="lower")
    made = document({"cores": 2}, [row])
    assert made["machine"] == {"cores": 2}
    assert made["rows"][0]["figure"] == "memory_active"
    assert made["rows"][0]["ratio"] == 0.5


def test_a_row_without_a_peer_has_no_ratio_and_shows_that():
    row = alone("memory_active", [40.0, 50.0, 60.0], peer_name="other: not installed", unit="byte", better="lower")
    assert (row.ours, row.peer, row.ratio, row.spread) == (50.0, None, None, 0.4)
    assert cells(row) == ["memory_active", "50.0", "-", "byte", "lower", "-", "3", "40%"]
    assert peers([row, row]) == ["peer: other: not installed"]
    assert json.loads(json.dumps(document({}, [row])))["rows"][0]["peer"] is None


def test_what_cannot_be_measured_here_has_a_row_that_says_so():
    row = unmeasured("tcp_stream", peer_name="iperf3 is not installed (package iperf3)", unit="Gbit/s", better="higher")
    assert cells(row) == ["tcp_stream", "-", "-", "Gbit/s", "higher", "-", "0", "0%"]
    assert document({}, [row])["rows"][0]["ours"] is None


def test_rows_name_their_peers_and_each_peer_is_named_once():
    rows = [
        compare(figure, [8.0], [10.0], peer_name=name, unit="s")
        for figure, name in (("tcp_stream", "kernel"), ("udp_64b", "kernel"), ("round_trip", "other"))
    ]
    assert dict(zip(COLUMNS, cells(rows[0]), strict=True))["peer"] == "10.0"
    assert peers(rows) == ["tcp_stream, udp_64b: against kernel", "round_trip: against other"]


def test_what_the_wire_carries_is_no_row_of_the_comparison():
    rows = [
        compare("udp_64b", [8.0], [10.0], peer_name="kernel", unit="packets/s"),
        alone("bytes_per_record_ipv4", [60.0], peer_name="none", unit="byte", better="lower"),
        alone("simulated_packets", [100_000.0], peer_name="none", unit="packets/s", better="higher"),
    ]
    made = document({}, rows)
    assert [row["figure"] for row in made["rows"]] == ["udp_64b"]
    assert [row["figure"] for row in made["wire"]] == ["bytes_per_record_ipv4"]
    assert [row["figure"] for row in made["simulation"]] == ["simulated_packets"]


@pytest.mark.parametrize(
    ("figure", "text"),
    [(None, "-"), (0.0316, "0.0316"), (0.17612, "0.176"), (8.0, "8.00"), (17.93, "17.9"), (99.94, "99.9"),
     (601.3, "601"), (247_706.2, "247,706"), (0.0, "0.00")],
)  # fmt: skip
def test_a_figure_is_shown_with_as_many_digits_as_say_something(figure, text):
    assert readable(figure) == text
