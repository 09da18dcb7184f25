"""Labs that are made from seeds, and the shrinking of one that fails. Nothing is run here."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fwnode.files import load_yaml
from labs.chaos import procedures
from labs.chaos.hunting import as_file, example
from labs.chaos.making import PAIRS, make_lab
from labs.chaos.script import Script
from labs.chaos.shrinking import Shrinking
from labs.chaos.situations import SITUATIONS, Situation
from labs.network.topology import parse_topology
from labs.procedure.model import LabFile, Reading
from labs.procedure.problems import LabFileError
from labs.procedure.verbs import VERBS
from labs.traffic.workload import KINDS

SEEDS = 120
ALWAYS_THERE = {"check", "until", "note"}
"""What no chaos lab has: only the invariants judge."""


def read(lab: dict[str, Any]) -> LabFile:
    return Reading(Path("chaos.yaml"), "chaos").lab(lab)


def is_lab(lab: dict[str, Any]) -> bool:
    try:
        read(lab)
    except LabFileError:
        return False
    return True


def steps_of(lab: dict[str, Any]) -> list[str]:
    return [next(iter(step)) for step in lab["steps"]]


def test_every_seed_makes_a_lab_that_the_checker_takes() -> None:
    for seed in range(SEEDS):
        read(make_lab(seed))


def test_a_lab_that_is_written_down_is_read_as_the_same(tmp_path: Path) -> None:
    breaks = {"invariant": "counts-add-up", "sentence": "They do.", "at": 1.5, "text": "they did not"}
    for seed in range(SEEDS):
        path = tmp_path / f"chaos-{seed}.yaml"
        path.write_text(as_file(make_lab(seed), seed, breaks, path.name), encoding="utf-8")
        assert load_yaml(path) == make_lab(seed)


def test_the_workers_can_read_what_they_are_given(tmp_path: Path) -> None:
    assert load_yaml(example().lay_out(tmp_path)) == make_lab(0)


def test_a_seed_makes_the_same_lab_again() -> None:
    assert [make_lab(seed) for seed in range(20)] == [make_lab(seed) for seed in range(20)]


def test_seeds_meet_all_verbs_modes_kinds_and_releases() -> None:
    labs = [make_lab(seed) for seed in range(5 * SEEDS)]
    verbs = Counter(verb for lab in labs for verb in steps_of(lab))
    assert set(VERBS) - set(verbs) <= ALWAYS_THERE
    clusters = [parse_topology(lab["topology"], "topology") for lab in labs]
    assert {(c.cluster.mode, c.cluster.sharing) for c in clusters} == {
        ("high-availability", "symmetric"), ("load-sharing-multicast", "symmetric"),
        ("load-sharing-multicast", "asymmetric"), ("load-sharing-unicast", "symmetric"),
    }  # fmt: skip
    assert {len(c.members) for c in clusters} == {2, 3, 4, 5}
    assert {w["kind"] for lab in labs for w in lab["workloads"].values()} == set(KINDS)
    releases = {member["release"] for lab in labs for member in lab["members"].values()}
    upgrades = {step["upgrade"]["release"] for lab in labs for step in lab["steps"] if "upgrade" in step}
    assert {older for older, _ in PAIRS} <= releases
    assert {newer for _, newer in PAIRS} <= releases | upgrades


def test_seeds_meet_all_situations(monkeypatch: pytest.MonkeyPatch) -> None:
    met = Counter[str]()

    def watched(situation: Situation) -> Situation:
        def act(script: Script) -> None:
            met[situation.act.__name__] += 1
            situation.act(script)

        return replace(situation, act=act)

    monkeypatch.setattr(procedures, "SITUATIONS", tuple(map(watched, SITUATIONS)))
    for seed in range(SEEDS):
        make_lab(seed)
    assert len(met) == len(SITUATIONS)
    assert min(met.values()) >= SEEDS / 20, met


def test_every_fault_is_taken_away_before_the_calm() -> None:
    undone = {"cut": "restore", "limit": "unlimit", "lose": "unlose", "delay": "undelay", "block": "unblock"}
    for seed in range(SEEDS):
        count = Counter(steps_of(make_lab(seed)))
        assert all(count[verb] == count[undo] for verb, undo in undone.items()), seed


# -- shrinking


def failing_when(lab: dict[str, Any]) -> bool:
    """A stand-in for a fault: it needs a loss on the sync network, then a kill, and some sessions."""
    verbs = steps_of(lab)
    if not is_lab(lab) or "lose" not in verbs or "kill" not in verbs[verbs.index("lose") :]:
        return False
    return any(workload["kind"] == "sessions" and workload["count"] >= 3 for workload in lab["workloads"].values())


def test_a_failing_lab_becomes_short() -> None:
    failing = [lab for lab in map(make_lab, range(400)) if failing_when(lab)][:3]
    assert failing
    for lab in failing:
        small = Shrinking(failing_when).shrink(lab)
        verbs = steps_of(small)
        assert [verb for verb in verbs if verb in ("lose", "kill")] == ["lose", "kill"]
        assert len(verbs) == 3, "and a start, of whatever kind"
        (workload,) = small["workloads"].values()
        assert set(workload) == {"kind", "port", "count"}
        assert workload["count"] < 6
        named = map(int, re.findall(r"fw(\d)", str(small["steps"])))
        assert small["topology"]["members"] == max(2, *named), "names stay what they are"
        assert small["topology"]["cluster"] == {"mode": "high-availability"}
        assert not any("parameters" in member for member in small["members"].values())
        assert small["policy"].keys() <= {"name", "networks", "services", "rules"}


def test_shrinking_is_the_same_each_time_and_leaves_its_lab_alone() -> None:
    lab = next(lab for lab in map(make_lab, range(400)) if failing_when(lab))
    before = repr(lab)
    assert Shrinking(failing_when).shrink(lab) == Shrinking(failing_when).shrink(lab)
    assert repr(lab) == before


def test_shrinking_ends_when_its_tries_are_spent() -> None:
    lab = next(lab for lab in map(make_lab, range(400)) if failing_when(lab))
    shrinking = Shrinking(failing_when, tries_max=7)
    assert failing_when(shrinking.shrink(lab))
    assert shrinking.tries == 7


def test_what_cannot_become_smaller_stays_as_it_is() -> None:
    lab = make_lab(1)
    assert Shrinking(lambda smaller: smaller == lab).shrink(lab) == lab
