"""Time in which nothing happens costs nothing, and leaves everything as it would have been."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from labs.procedure.model import load
from labs.simulation.agreement import differences
from labs.simulation.run import Simulation

BOTH = [{"start": ["fw1", "fw2"]}, {"until": {"that": "members.fw2.state", "is": "Standby", "within": "20s"}}]
IDLE = {"idle": {"kind": "sessions", "port": 1521, "count": 10, "idle": True}}


def run(folder: Path, steps: list[Any], *, leaps: bool = True, **more: Any) -> tuple[dict[str, Any], Simulation]:
    path = folder / "lab.yaml"
    path.write_text(json.dumps({
        "title": "a lab", "shows": "something",
        "members": {"fw1": {"release": "R77.30"}, "fw2": {"release": "R77.30"}},
        "policy": {"name": "p", "rules": [{"name": "all", "action": "accept"}]}, "steps": BOTH + steps, **more,
    }))  # fmt: skip
    simulation = Simulation(load(path), 1)
    if not leaps:
        simulation.world.leap = None
    document, _ = simulation.run()
    assert document["problem"] == ""
    return document, simulation


def check(**wanted: Any) -> dict[str, Any]:
    return {"check": [{"that": path.replace("_", "."), "is": value} for path, value in wanted.items()]}


def test_a_day_of_waiting_costs_nothing(tmp_path: Path) -> None:
    begin = time.process_time()
    document, simulation = run(tmp_path, [{"wait": "24h"}, {"kill": "fw1"}, {"wait": "24h"}])
    assert document["lab_seconds"] >= 2 * 86_400
    assert simulation.ground.leaps.leapt_s > 0.99 * 2 * 86_400
    assert [takeover["taker"] for takeover in document["takeovers"]] == ["fw2"]
    assert time.process_time() - begin < 10  # turn by turn it takes a quarter of an hour and more


def test_connections_end_at_their_time(tmp_path: Path) -> None:
    """Idle ones after an hour, at both members; what speaks meanwhile lives on."""
    speaks = {"speaks": {"kind": "sessions", "port": 1522, "count": 3, "think": "20m..20m"}}
    steps = [{"open": ["idle", "speaks"]}, {"wait": "59m"}, check(members_fw1_connections=13), {"wait": "2m"},
             check(members_fw1_connections=3, members_fw2_connections=3), {"wait": "2h"},
             check(members_fw1_connections=3, members_fw2_connections=3)]  # fmt: skip
    document, simulation = run(tmp_path, steps, workloads={**IDLE, **speaks})
    assert [found["held"] for found in document["expectations"]] == [True] * 5
    assert document["workloads"]["speaks"]["survived"] == 3
    assert simulation.ground.leaps.leapt_s > 8_000


def said(document: dict[str, Any]) -> list[str]:
    """What members told. In which order two of them hear of one thing depends on the phases of their heartbeats."""
    return sorted(entry["text"] for entry in document["timeline"] if entry["kind"] == "member")


@pytest.mark.parametrize("fault", [{"down": "fw2"}, {"cut": {"links": "fw1-lan", "way": "in"}}])
def test_a_run_is_the_same_with_leaps_and_without(tmp_path: Path, fault: Any) -> None:
    """What happened and to whom, and what the members know at the end."""
    steps = [{"open": "idle"}, fault, {"wait": "45s"}, {"speak": "idle"}, {"wait": "45s"}, {"stop": "fw1"},
             {"wait": "45s"}, {"start": "fw1"}]  # fmt: skip
    one, leaping = run(tmp_path, steps, workloads=IDLE)
    other, plain = run(tmp_path, steps, workloads=IDLE, leaps=False)
    assert (leaping.ground.leaps.leapt_s > 50, plain.ground.leaps.leapt_s) == (True, 0)
    assert differences(one, other) == []
    assert said(one) == said(other)
    for member in one["members"]:
        assert one["members"][member]["connections"] == other["members"][member]["connections"]
        assert one["members"][member]["sync"]["status"] == other["members"][member]["sync"]["status"]


def test_a_member_that_was_frozen_knows_it(tmp_path: Path) -> None:
    """Its wire time has gone on: nothing is leapt over while it is paused."""
    steps = [{"wait": "24h"}, {"pause": "fw1"}, {"wait": "30s"}, {"resume": "fw1"}, {"wait": "5s"}]
    document, _ = run(tmp_path, steps)
    said = [entry["text"] for entry in document["timeline"] if entry.get("member") == "fw1"]
    assert any("fw1: Active -> Initializing" in text for text in said)
    assert document["members"]["fw2"]["state"] == "Active"
