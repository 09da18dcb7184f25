"""Expectations: every comparison, paths that lead nowhere, and what is seen."""

from typing import Any

import pytest
from pydantic import ValidationError

from labs.procedure.expectations import Expectation, judge, look_up

DOCUMENT: dict[str, Any] = {
    "workloads": {"database": {"survived": 200, "hung": 0}},
    "members": {"fw1": {"state": "Active Attention", "connections": 10, "log": ["up", "sync is in risk: 411"]},
                "fw2": {"connections": 10, "running": True}},
    "drops": {"fw1": {"POLICY": 3}},
    "takeovers": [{"taker": "fw2"}],
}
SURVIVED = "workloads.database.survived"


def held(**keys: Any) -> bool:
    return judge(Expectation.model_validate(keys), DOCUMENT, "the end").held


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"is": 200}, True), ({"is": 199}, False), ({"is_not": 0}, True), ({"is_not": 200}, False),
        ({"at_least": 200}, True), ({"at_least": 201}, False), ({"at_most": 200}, True), ({"at_most": 199}, False),
        ({"below": 201}, True), ({"below": 200}, False), ({"at_least": 1, "below": 300}, True),
        ({"at_least": 1, "below": 200}, False), ({"contains": "2"}, False),
    ],
)  # fmt: skip
def test_comparisons(keys: dict[str, Any], expected: bool) -> None:
    assert held(that=SURVIVED, **keys) is expected


def test_other_kinds_of_values() -> None:
    assert held(that="members.fw1.state", contains="Active")
    log = judge(Expectation(that="members.fw1.log", contains="in risk"), DOCUMENT, "the end")
    assert (log.held, log.seen) == (True, "sync is in risk: 411")  # the line, not the whole log
    assert not held(that="members.fw1.log", contains="in peril")
    assert held(that="members.fw1.connections", same_as="members.fw2.connections")
    assert not held(that="members.fw1.connections", same_as=SURVIVED)
    assert held(that="takeovers.0.taker", **{"is": "fw2"})
    assert not held(that="members.fw2.running", at_least=0)  # a truth is no number


def test_paths_that_lead_nowhere() -> None:
    assert look_up(DOCUMENT, "members.fw3.state") is None
    assert look_up(DOCUMENT, "drops.fw1.OUT_OF_STATE") == 0  # a reason that was never counted
    assert not held(that="members.fw3.connections", same_as="members.fw4.connections")
    assert not held(that="members.fw3.connections", at_most=5)


def test_the_judgement_says_what_was_seen() -> None:
    found = judge(Expectation.model_validate({"that": SURVIVED, "is": 3, "says": "all go on"}), DOCUMENT, "1h")
    assert found.as_json() == {"text": "all go on", "held": False, "seen": 200, "that": SURVIVED, "wanted": "is 3",
                               "warn": False, "at": "1h"}  # fmt: skip
    assert judge(Expectation.model_validate({"that": SURVIVED, "at_least": 3}), DOCUMENT, "").text == (
        "workloads.database.survived at least 3"
    )


@pytest.mark.parametrize("keys", [{}, {"is": 1, "like": 2}])
def test_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Expectation.model_validate({"that": SURVIVED, **keys})


def test_is_may_be_nothing_or_false() -> None:
    assert held(that="members.fw3", **{"is": None})
    assert not held(that="members.fw2.running", **{"is": False})
