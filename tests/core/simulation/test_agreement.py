"""What makes two documents of a lab disagree, and what may differ."""

import copy
from typing import Any

from labs.simulation.agreement import differences, states


def document(**more: Any) -> dict[str, Any]:
    def entry(text: str) -> dict[str, Any]:
        return {"kind": "member", "member": "fw1", "text": f"fw1: {text}"}

    fates = {"survived": 198, "hung": 2, "reset": 0, "refused": 0, "finished": 0, "open": 0}
    return {
        "verdict": "pass", "problem": "",
        "expectations": [{"text": "all go on", "at": "the end", "held": True, "seen": 1}],
        "workloads": {"database": {"kind": "sessions", "sessions": 200, **fates}},
        "members": {"fw1": {}}, "drops": {"fw1": {"OUT_OF_STATE": 40, "POLICY": 0}},
        "timeline": [entry("Initializing -> Active: no other member is active"), entry("fw2 is Standby"),
                     entry("Active -> Down: stopped"), entry("Initializing -> Standby: there is one")],
        **more,
    }  # fmt: skip


def test_a_document_agrees_with_itself_and_with_what_chance_makes_of_it() -> None:
    other = document(drops={"fw1": {"OUT_OF_STATE": 75, "POLICY": 4}})
    other["workloads"]["database"].update(survived=195, hung=5)
    assert differences(document(), document()) == differences(document(), other) == []


def test_states_of_every_life_are_in_order() -> None:
    assert states(document(), "fw1") == ["Initializing", "Active", "Down", "Initializing", "Standby"]


def test_everything_that_is_compared_is_told() -> None:
    other = document(verdict="fail", drops={"fw1": {"OUT_OF_STATE": 0, "POLICY": 0}})
    other["expectations"][0].update(held=False, seen=0)
    other["workloads"]["database"].update(survived=100, hung=100)
    other["timeline"] = other["timeline"][:1]
    assert differences(document(), other) == [
        "verdict: pass really, fail simulated ()",
        "expectation 'all go on': held really (seen: 1), not held simulated (seen: 0)",
        "workload database: 198 survived really, 100 simulated",
        "workload database: 2 hung really, 100 simulated",
        "drops of fw1: 40 OUT_OF_STATE really, 0 simulated",
        "states of fw1: Initializing -> Active -> Down -> Initializing -> Standby really, "
        "Initializing -> Active simulated",
    ]


def test_of_a_workload_that_goes_on_until_its_end_only_the_fates_count() -> None:
    real = document()
    real["workloads"]["database"].update(kind="short", sessions=120, survived=0, hung=72, finished=48)
    simulated = copy.deepcopy(real)
    simulated["workloads"]["database"].update(sessions=111, hung=55, finished=56)
    assert differences(real, simulated) == []
    simulated["workloads"]["database"].update(hung=0, finished=111)
    assert differences(real, simulated) == ["workload database: 72 hung really, 0 simulated"]
