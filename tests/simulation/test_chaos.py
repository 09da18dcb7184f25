"""Chaos finds nothing in the member as it is, and every deliberate fault in one that is broken.

Each seed is a lab of its own. A failure names seed and invariant; `fwlab chaos --seeds 1 --from SEED` shrinks it.
"""

from __future__ import annotations

from itertools import chain

import pytest
from deliberate_faults import SEEDS_MAX, search

from labs.chaos.hunting import broken
from labs.chaos.making import make_lab

SEEDS = range(1, 301)
A_TEST = 10
"""Seeds of one test: tests run side by side."""

FOUND_AT: dict[str, tuple[int, str]] = {
    "ack_before_apply": (3, "only-what-came"),
    "older_record_wins": (15, "state-forward"),
    "address_before_state": (1, "state-before-address"),
    "threshold_off_by_one": (17, "load-measured"),
    "delete_forgotten": (113, "tables-equal"),
    "saved_deltas_ignored": (85, "tables-equal"),
    "newer_not_ready": (3, "one-forwards"),
    "copys_end_for_the_owners": (8, "own-stays"),
    "retransmission_from_the_wrong_number": (8, "sync-recovers"),
    "learning_without_rules": (21, "rule-or-connection"),
}
"""Of each deliberate fault: the first seed that finds it, counted from 1, and the invariant that it breaks. Another lab
of the same seed may not: then the search goes on from seed 1."""


@pytest.mark.parametrize("first", SEEDS[::A_TEST])
def test_no_invariant_is_broken(first: int) -> None:
    seeds = range(first, first + A_TEST)
    assert {seed: found for seed in seeds if (found := broken(make_lab(seed), seed))} == {}


@pytest.mark.parametrize("name", FOUND_AT)
def test_a_deliberate_fault_is_found(name: str) -> None:
    known, invariant = FOUND_AT[name]
    found = search(name, chain([known], range(1, SEEDS_MAX + 1)))
    assert found is not None, f"not found within {SEEDS_MAX} seeds"
    assert found[1]["invariant"] == invariant, found
    assert broken(make_lab(found[0]), found[0]) == [], "this seed finds something without the fault, too"
