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
        "takeovers": [takeover()],
        "timeline": [entry("Initializing -> Active: no other member is active"), entry("fw2 is Standby"),
                     entry("Active -> Down: stopped"), entry("Initializing -> Standby: there is one")],
        **more,
    }  # fmt: skip


def takeover(**more: Any) -> dict[str, Any]:
    return {"former": "fw1", "taker": "fw2", "former_release": "R77.30", "release": "R80.10", "cause": "stop fw1",
            "exchange": "nothing", "state": "Ready", "former_connections": 200, "taker_connections": 0,
            **more}  # fmt: skip


def test_a_document_agrees_with_itself_and_with_what_chance_makes_of_it() -> None:
    other = document(drops={"fw1": {"OUT_OF_STATE": 75, "POLICY": 4}}, takeovers=[takeover(former_connections=210)])
    assert differences(document(), document()) == differences(document(), other) == []


def test_reasons_of_drops_that_may_occur_in_one_world_have_a_name_and_are_few() -> None:
    assert differences(document(), document(drops={"fw1": {"OUT_OF_STATE": 40, "NOT_ACTIVE": 5}})) == []
    many = document(drops={"fw1": {"OUT_OF_STATE": 40, "NOT_ACTIVE": 6}})
    assert differences(document(), many) == ["drops of fw1: 0 NOT_ACTIVE really, 6 simulated"]
    other = document(drops={"fw1": {"OUT_OF_STATE": 40, "SYNC_LOAD": 1}})
    assert differences(other, document()) == ["drops of fw1: 1 SYNC_LOAD really, 0 simulated"]


def test_one_session_that_ends_otherwise_is_told() -> None:
    other = document()
    other["workloads"]["database"].update(survived=197, hung=3)
    assert differences(document(), other) == [
        "workload database: 198 survived really, 197 simulated", "workload database: 2 hung really, 3 simulated",
    ]  # fmt: skip


def test_of_a_flood_some_more_may_find_the_link_full() -> None:
    real, simulated = document(), document()
    for world, refused in ((real, 100), (simulated, 109)):
        world["workloads"]["database"].update(kind="flood", survived=0, hung=0, refused=refused, finished=200 - refused)
    assert differences(real, simulated) == []
    simulated["workloads"]["database"].update(refused=111, finished=89)
    assert differences(real, simulated) == [
        "workload database: 100 refused really, 111 simulated", "workload database: 100 finished really, 89 simulated",
    ]  # fmt: skip


def test_states_of_every_life_are_in_order() -> None:
    assert states(document(), "fw1") == ["Initializing", "Active", "Down", "Initializing", "Standby"]


def test_everything_that_is_compared_is_told() -> None:
    other = document(verdict="fail", drops={"fw1": {"OUT_OF_STATE": 0, "POLICY": 0}})
    other["expectations"][0].update(held=False, seen=0)
    other["workloads"]["database"].update(survived=100, hung=100)
    other["timeline"] = other["timeline"][:1]
    other["takeovers"] = [takeover(taker_connections=200)]
    assert differences(document(), other) == [
        "verdict: pass really, fail simulated ()",
        "expectation 'all go on': held really (seen: 1), not held simulated (seen: 0)",
        "workload database: 198 survived really, 100 simulated",
        "workload database: 2 hung really, 100 simulated",
        "drops of fw1: 40 OUT_OF_STATE really, 0 simulated",
        "states of fw1: Initializing -> Active -> Down -> Initializing -> Standby really, "
        "Initializing -> Active simulated",
        "takeovers: fw1 fw2 R77.30 R80.10 stop fw1 nothing Ready knew none really, "
        "fw1 fw2 R77.30 R80.10 stop fw1 nothing Ready knew all simulated",
    ]


def test_of_a_workload_that_goes_on_until_its_end_shares_count() -> None:
    real = document()
    real["workloads"]["database"].update(kind="short", sessions=120, survived=0, hung=72, finished=48)
    simulated = copy.deepcopy(real)
    simulated["workloads"]["database"].update(sessions=111, hung=55, finished=56)
    assert differences(real, simulated, ["database"]) == []
    assert len(differences(real, simulated)) == 3, "another has a number of sessions"
    simulated["workloads"]["database"].update(sessions=107, hung=0, finished=107)
    assert differences(real, simulated, ["database"]) == [
        "workload database: 120 sessions really, 107 simulated", "workload database: 72 hung really, 0 simulated",
        "workload database: 48 finished really, 107 simulated",
    ]  # fmt: skip
