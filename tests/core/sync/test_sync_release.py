"""The gate: what two releases may exchange, and a table's problems, all at once."""

from __future__ import annotations

import pytest
from sync_world import BUILTIN, COMPATIBILITY

from syncproto.errors import Reason, SyncError
from syncproto.release import Compatibility, Exchange

MISMATCH = "Release version mismatch"

CASES = [
    # ours, theirs, exchange, schema, reason
    ("R77.30", "R77.30", Exchange.FULL, 2, ""),
    ("R75.47", "R75.47", Exchange.FULL, 1, ""),
    ("R77.30", "R77.30-JHF205", Exchange.FULL, 2, ""),
    ("R77.30-JHF205", "R77.30-JHF216", Exchange.FULL, 2, ""),
    ("R77.30", "R77.30-JHF351", Exchange.NOTHING, None, MISMATCH),
    ("R77.20", "R77.30", Exchange.NOTHING, None, MISMATCH),
    ("R77.30", "R80.10", Exchange.NOTHING, None, MISMATCH),
    ("R75.47", "R77.30", Exchange.NOTHING, None, MISMATCH),
    ("R77.30-NCP", "R80.10-NCP", Exchange.NEW_CONNECTIONS, 2, "New connections only"),
    ("R77.30-NCP", "R80.10", Exchange.NOTHING, None, MISMATCH),
    ("R77.30", "R80.10-CU", Exchange.TRANSLATED, 2, "Connectivity Upgrade (CU)"),
    ("R80.10", "R80.10-CU", Exchange.FULL, 3, ""),
    ("R80.40", "R81.10-MVC", Exchange.TRANSLATED, 3, "Multi-Version Cluster (MVC)"),
    ("R80.40", "R81.10", Exchange.NOTHING, None, MISMATCH),
    ("R77.30", "R99.10", Exchange.NOTHING, None, MISMATCH),
]


@pytest.mark.parametrize(("ours", "theirs", "exchange", "schema", "reason"), CASES)
def test_gate(ours: str, theirs: str, exchange: Exchange, schema: int | None, reason: str) -> None:
    gate = COMPATIBILITY.gate(ours, theirs)
    assert (gate.exchange, gate.schema, gate.reason) == (exchange, schema, reason)
    if theirs in COMPATIBILITY.names:
        assert COMPATIBILITY.gate(theirs, ours) == gate, "the gate must be the same from both sides"


def test_gate_is_the_same_from_both_sides_for_every_pair() -> None:
    for a in COMPATIBILITY.names:
        for b in COMPATIBILITY.names:
            assert COMPATIBILITY.gate(a, b) == COMPATIBILITY.gate(b, a)


@pytest.mark.parametrize(
    ("a", "b", "order"),
    [
        ("R80.10", "R77.30", 1),
        ("R77.30", "R80.10", -1),
        ("R77.30", "R77.30-JHF216", 0),
        ("R80.10", "R80.40", -1),
        ("R81.10-MVC", "R81.10", 0),
        ("R77.30", "R99.10-beta", -1),
        ("R77.30", "nonsense", 0),
        ("R77.30", "", 0),
    ],
)
def test_newer_compares_versions_only(a: str, b: str, order: int) -> None:
    assert COMPATIBILITY.newer(a, b) == order
    assert COMPATIBILITY.newer(b, a) == -order


def test_defaults_follow_the_release() -> None:
    assert COMPATIBILITY.release("R77.30").defaults["tcp_end_timeout"] == 20
    assert COMPATIBILITY.release("R80.20").defaults["tcp_end_timeout"] == 5
    assert COMPATIBILITY.release("R80.10").full_sync_port == 256


def test_unknown_release_names_the_known_ones() -> None:
    with pytest.raises(SyncError) as caught:
        COMPATIBILITY.release("R76")
    assert caught.value.reason is Reason.UNKNOWN_RELEASE
    assert "R77.30" in str(caught.value)


def test_users_table_is_asked_first_and_leaves_the_rest() -> None:
    merged = COMPATIBILITY.merged(
        {
            "releases": {"R77.30-MINE": {"version": "R77.30", "schema": 2}},
            "rules": [{"between": ["R77.30", "R77.30-MINE"], "exchange": "nothing"}],
        },
        "mine.yaml",
    )
    assert merged.gate("R77.30", "R77.30-MINE").reason == MISMATCH
    assert merged.gate("R77.30-MINE", "R77.30-JHF216").exchange is Exchange.FULL
    assert "R77.30-MINE" not in COMPATIBILITY.names


def test_all_problems_are_told_at_once() -> None:
    table = {
        "releases": {
            "R1": {"version": "77.30", "schema": 4, "colour": "red"},
            "R2": {"version": "R2", "schema": 1, "full_sync_port": 0, "defaults": {"tcp_end_timeout": "20"}},
            "R3": [],
        },
        "rules": [
            {"between": ["R1", "R9"], "exchange": "full"},
            {"between": ["R1"], "exchange": "everything", "same": ["colour"]},
            "nonsense",
        ],
        "extra": 1,
    }
    with pytest.raises(SyncError) as caught:
        Compatibility.from_mapping(table, "table.yaml")
    assert caught.value.reason is Reason.BAD_RELEASES
    problems = caught.value.problems
    for start in (
        "table.yaml: extra:",
        "table.yaml: releases.R1.version:",
        "table.yaml: releases.R1.schema:",
        "table.yaml: releases.R1.colour:",
        "table.yaml: releases.R2.full_sync_port:",
        "table.yaml: releases.R2.defaults.tcp_end_timeout:",
        "table.yaml: releases.R3:",
        "table.yaml: rules[0].between: release 'R9' is unknown",
        "table.yaml: rules[1].between:",
        "table.yaml: rules[1].same:",
        "table.yaml: rules[1].exchange:",
        "table.yaml: rules[2]:",
    ):
        assert [text for text in problems if text.startswith(start)], f"{start} not in {problems}"
    assert not [text for text in problems if "'R1' is unknown" in text], "a broken entry is not also an unknown one"
    assert str(caught.value) == "\n".join(problems)


@pytest.mark.parametrize("data", [None, [], 3, "releases"])
def test_a_table_that_is_none(data: object) -> None:
    with pytest.raises(SyncError, match="expected a mapping"):
        Compatibility.from_mapping(data, "x.yaml")


def test_rules_from_the_file_decide_in_order() -> None:
    swapped = {**BUILTIN, "rules": [{"exchange": "nothing", "reason": "Manually disabled sync"}, *BUILTIN["rules"]]}
    gate = Compatibility.from_mapping(swapped).gate("R77.30", "R77.30")
    assert (gate.exchange, gate.reason) == (Exchange.NOTHING, "Manually disabled sync")
