"""Joining: one attempt at a time, each with a number; nobody forwards before the first join is over; it always ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from sync_world import record_of

from syncproto.columns import Columns
from syncproto.events import (
    NOT_STARTED,
    TERMINATED,
    FullSyncBegun,
    FullSyncDone,
    FullSyncFailed,
    LostUpdates,
    PeerRestarted,
    TableSlice,
)
from syncproto.joining import TABLE, Attempt, AttemptEnded, AttemptState, Begin, Joining, Phase, Sources
from syncproto.limits import HEAL_QUIET_S, HEAL_RETRY_S, JOIN_GATE_WAIT_S, JOIN_TRIES_MAX
from syncproto.release import Exchange, Gate

OPEN = Gate(Exchange.FULL, "", 2)
CLOSED = Gate(Exchange.NOTHING, "Release version mismatch", None)
NAMES = {1: "fw1", 2: "fw2", 3: "fw3"}


def is_open(peer: int) -> Gate:
    return OPEN


def outcome(joining: Joining) -> list[Begin | AttemptEnded]:
    found = []
    while (event := joining.next_event()) is not None:
        found.append(event)
    return found


def ends(joining: Joining) -> list[tuple[int, int, AttemptState]]:
    """(attempt, peer, how) of the attempts that ended since the last look."""
    over = [event.attempt for event in outcome(joining) if isinstance(event, AttemptEnded)]
    return [(attempt.number, attempt.peer, attempt.state) for attempt in over]


def begun(*sources: int, gate: Callable[[int], Gate | None] = is_open, expected: int = 2500) -> Joining:
    """It takes the table of the first of these."""
    joining = Joining()
    joining.receive_event(Sources(sources), 0.0)
    assert joining.next_wakeup() < 0.0, "a source was chosen: the gate is looked at at once"
    joining.on_wakeup(0.0, gate, False)
    assert outcome(joining) == [Begin(1, sources[0], False, False)]
    joining.receive_event(FullSyncBegun(sources[0], expected, 1), 0.0)
    return joining


def some(count: int) -> Columns:
    return Columns.of([record_of(n) for n in range(count)])


# -- the rules ---------------------------------------------------------------------------------------------------------


def test_a_member_alone_has_nothing_to_join() -> None:
    joining = Joining()
    assert not joining.over
    joining.receive_event(Sources((), more_to_come=True), 0.0)
    assert not joining.over, "one that starts now will be active in a moment"
    joining.receive_event(Sources(()), 1.0)
    assert joining.over and outcome(joining) == [] and joining.report(NAMES)["state"] == "none"


@pytest.mark.parametrize("heals", [True, False])
def test_a_member_that_heals_asks_its_first_source_for_ends_too(heals: bool) -> None:
    """It takes tables of others afterwards, who may not know yet that a connection is over."""
    joining = Joining()
    joining.receive_event(Sources((1,)), 0.0)
    joining.on_wakeup(0.0, is_open, heals)
    assert outcome(joining) == [Begin(1, 1, heals=False, own_only=False, ends=heals)]


def test_what_is_told_while_one_runs_waits_for_its_end() -> None:
    """The source was put down: it still has its table, and hears every update."""
    joining = begun(1, 2)
    joining.receive_event(Sources((2,)), 1.0)
    joining.on_wakeup(1.0, is_open, True)
    assert outcome(joining) == [] and joining.phase is Phase.TAKING
    joining.receive_event(FullSyncDone(1, 2500, 1), 2.0)
    assert ends(joining) == [(1, 1, AttemptState.DONE)] and joining.over
    assert joining.incomplete is None


def test_the_next_source_is_asked_when_one_is_gone() -> None:
    joining = begun(1, 2)
    joining.receive_event(TableSlice(1, some(100), 1), 0.5)
    joining.receive_event(Sources((2,)), 1.0)
    joining.receive_event(FullSyncFailed(1, TERMINATED, attempt=1), 1.0)
    assert ends(joining) == [(1, 1, AttemptState.FAILED)] and not joining.over
    joining.on_wakeup(1.0, is_open, False)
    assert outcome(joining) == [Begin(2, 2, False, False)]
    joining.receive_event(FullSyncFailed(1, TERMINATED, attempt=1), 1.1)
    assert not joining.over and joining.stale == 1, "the end of the first attempt says nothing of the second"
    joining.receive_event(FullSyncDone(2, 2500, 2), 2.0)
    assert joining.over and joining.report(NAMES)["peer"] == "fw2"


def test_with_nobody_left_it_goes_on_with_what_it_has_and_says_so() -> None:
    joining = begun(1)
    joining.receive_event(TableSlice(1, some(128), 1), 0.5)
    assert joining.report(NAMES)["text"] == "took 128 of 2,500 (5 %)"
    joining.receive_event(Sources(()), 1.0)
    assert not joining.over, "its attempt has not ended"
    joining.receive_event(FullSyncFailed(1, TERMINATED, attempt=1), 1.0)
    assert joining.over and joining.incomplete is not None
    report = joining.report(NAMES)
    assert (report["state"], report["percent"], report["missing"]) == ("failed", 5, 2372)
    assert report["text"] == "took 128 of 2,500 (5 %); 2,372 connections of fw1 are missing"


def test_a_peer_whose_table_came_in_part_is_asked_again_but_not_for_ever() -> None:
    joining = begun(1)
    for attempt in range(2, JOIN_TRIES_MAX + 1):
        joining.receive_event(FullSyncFailed(1, TERMINATED, attempt=attempt - 1), 1.0)
        joining.on_wakeup(1.0, is_open, False)
        assert Begin(attempt, 1, False, False) in outcome(joining)
        joining.receive_event(FullSyncBegun(1, 2500, attempt), 1.0)
    joining.receive_event(FullSyncFailed(1, TERMINATED, attempt=JOIN_TRIES_MAX), 2.0)
    assert joining.over and joining.incomplete is not None


def test_one_that_never_began_is_asked_once() -> None:
    """The policy lets no connection to port 256 through."""
    joining = Joining()
    joining.receive_event(Sources((1,)), 0.0)
    joining.on_wakeup(0.0, is_open, False)
    joining.receive_event(FullSyncFailed(1, NOT_STARTED, attempt=1), 10.0)
    assert joining.over and joining.report(NAMES)["state"] == "failed" and joining.report(NAMES)["text"] == ""


def test_the_gate_is_waited_for_but_not_for_ever() -> None:
    joining = Joining()
    joining.receive_event(Sources((1, 2)), 0.0)
    joining.on_wakeup(0.0, lambda peer: None, False)
    assert joining.next_wakeup() == JOIN_GATE_WAIT_S and joining.phase is Phase.WAITING
    joining.on_wakeup(JOIN_GATE_WAIT_S, lambda peer: None, False)
    assert ends(joining) == [(1, 1, AttemptState.FAILED)]
    joining.on_wakeup(4.0, lambda peer: CLOSED, False)
    assert ends(joining) == [(2, 2, AttemptState.REFUSED)] and joining.over


def test_a_source_that_is_active_no_more_is_not_waited_for() -> None:
    joining = Joining()
    joining.receive_event(Sources((1,)), 0.0)
    joining.on_wakeup(0.0, lambda peer: None, False)
    joining.receive_event(Sources((2,)), 1.0)
    assert ends(joining) == [(1, 1, AttemptState.FAILED)]
    joining.on_wakeup(1.0, is_open, False)
    assert outcome(joining) == [Begin(2, 2, False, False)]


def test_healing_waits_for_the_first_join_and_completes_it() -> None:
    """With healing on, what the first join did not get is taken when its source is heard again, of all owners."""
    joining = begun(1)
    joining.receive_event(LostUpdates(2, 5), 0.0)
    joining.receive_event(FullSyncFailed(1, TERMINATED, attempt=1), 1.0)
    joining.receive_event(Sources(()), 1.0)
    for attempt in range(2, JOIN_TRIES_MAX + 1):
        joining.on_wakeup(1.0, is_open, False)
        joining.receive_event(FullSyncFailed(1, NOT_STARTED, attempt=attempt), 1.0)
    assert joining.over
    outcome(joining)
    joining.on_wakeup(1.0 + HEAL_QUIET_S, is_open, False)
    assert outcome(joining) == [], "healing is off"
    joining.on_wakeup(1.0 + HEAL_QUIET_S, is_open, True)
    [first] = outcome(joining)
    assert isinstance(first, Begin) and first.peer == 2 and first.heals and not first.own_only
    joining.receive_event(FullSyncDone(2, 10, first.attempt), 3.0)
    assert joining.healed == 1 and joining.incomplete is None
    outcome(joining)
    joining.on_wakeup(3.0, is_open, True)
    [second] = outcome(joining)
    assert isinstance(second, Begin) and second.peer == 1 and second.own_only
    joining.receive_event(FullSyncFailed(1, TERMINATED, attempt=second.attempt), 4.0)
    outcome(joining)
    joining.on_wakeup(4.5, is_open, True)
    assert outcome(joining) == []
    joining.on_wakeup(4.0 + HEAL_RETRY_S, is_open, True)
    assert [type(event) for event in outcome(joining)] == [Begin]


def test_how_far_an_attempt_came() -> None:
    attempt = Attempt(1, 1, False, 0.0, AttemptState.FAILED, True, 2176, 2500)
    assert attempt.text("fw1") == "took 2,176 of 2,500 (87 %); 324 connections of fw1 are missing"
    assert replace(attempt, records=2499).text("fw1") == "took 2,499 of 2,500 (99 %); 1 connection of fw1 is missing"
    assert replace(attempt, records=2500).text("fw1") == "took 2,500 of 2,500 (100 %)"
    assert replace(attempt, expected=0, records=0).text("fw1") == "took 0 of 0 (0 %)"


def test_the_table_is_consulted(monkeypatch: pytest.MonkeyPatch) -> None:
    joining = begun(1)
    monkeypatch.delitem(TABLE, (Phase.TAKING, FullSyncDone))
    joining.receive_event(FullSyncDone(1, 0, 1), 1.0)
    assert not joining.over and joining.stale == 1


# -- whatever comes, in whatever order ---------------------------------------------------------------------------------

peers = st.integers(1, 3)
attempts = st.integers(-2, 1)
"""Of the number of the attempt that runs: most are stale, or of the future."""
words = st.one_of(
    st.builds(lambda p, m: ("sources", tuple(dict.fromkeys(p)), m), st.lists(peers, max_size=3), st.booleans()),
    st.builds(lambda a: ("begun", a, 0), attempts),
    st.builds(lambda a, n: ("slice", a, n), attempts, st.integers(1, 3)),
    st.builds(lambda a: ("done", a, 0), attempts),
    st.builds(lambda a, r: ("failed", a, r), attempts, st.booleans()),
    st.builds(lambda p: ("lost", p, 0), peers),
    st.builds(lambda p: ("restarted", p, 0), peers),
    st.builds(lambda g, h: ("wakeup", g, h), st.sampled_from([None, OPEN, CLOSED]), st.booleans()),
    st.builds(lambda s: ("time", s, 0), st.sampled_from([0.1, 1.0, 4.0])),
)


def the_event(what: str, one: Any, other: Any, number: int, peer: int) -> object:
    if what == "sources":
        return Sources(one, other)
    if what in ("lost", "restarted"):
        return LostUpdates(one, 1) if what == "lost" else PeerRestarted(one)
    if what == "begun":
        return FullSyncBegun(peer, 10, number)
    if what == "slice":
        return TableSlice(peer, some(other), number)
    return FullSyncDone(peer, 10, number) if what == "done" else FullSyncFailed(peer, TERMINATED, other, "", number)


@examples(500)
@given(st.lists(words, max_size=60))
def test_whatever_comes_one_attempt_runs_and_it_ends(said: list[tuple[str, object, object]]) -> None:
    joining, now, running, was_over = Joining(), 0.0, dict[int, int](), False

    def look() -> None:
        nonlocal was_over
        for event in outcome(joining):
            if isinstance(event, Begin):
                assert not running, "one runs already"
                running[event.attempt] = event.peer
            else:
                running.pop(event.attempt.number, None)
        assert len(running) <= 1
        assert bool(running) == (joining.phase in (Phase.TAKING, Phase.HEALING))
        assert not (was_over and not joining.over), "what is over stays over"
        was_over = joining.over

    for what, one, other in said:
        number = joining._number + (one if isinstance(one, int) else 0)
        peer = running.get(number, 1)
        if what == "wakeup":
            joining.on_wakeup(now, lambda peer, gate=one: gate, bool(other))  # type: ignore[misc]
        elif what == "time":
            now += one  # type: ignore[operator]
        else:
            joining.receive_event(the_event(what, one, other, number, peer), now)
        look()
        joining.report(NAMES)
    # Every attempt that was begun is ended by the engine, sooner or later; then the first join is over.
    for _ in range(3 * JOIN_TRIES_MAX + 2):
        joining.receive_event(Sources((1, 2, 3)), now)
        for number in list(running):
            joining.receive_event(FullSyncFailed(running[number], TERMINATED, attempt=number), now)
        now += JOIN_GATE_WAIT_S
        joining.on_wakeup(now, is_open, False)
        look()
    assert joining.over and not running


# -- a peer that began anew -------------------------------------------------------------------------------------------


def joined() -> Joining:
    joining = Joining()
    joining.receive_event(Sources(()), 0.0)
    outcome(joining)
    return joining


@pytest.mark.parametrize("before", [[], [LostUpdates(2, 5)]])
@pytest.mark.parametrize("missed", [False, True])
def test_what_was_missed_of_a_life_that_has_ended_is_taken_from_the_others(before: list[object], missed: bool) -> None:
    joining = joined()
    for event in (*before, PeerRestarted(2, others=(3,), missed=missed)):
        joining.receive_event(event, 0.0)
    joining.on_wakeup(HEAL_QUIET_S, is_open, True)
    begun_now = [event.peer for event in outcome(joining) if isinstance(event, Begin)]
    assert begun_now == ([3] if missed or before else [])


def test_a_healing_that_the_end_of_its_source_breaks_off_goes_on_with_the_others() -> None:
    joining = joined()
    joining.receive_event(LostUpdates(2, 5), 0.0)
    joining.on_wakeup(HEAL_QUIET_S, is_open, True)
    [first] = outcome(joining)
    assert isinstance(first, Begin) and first.peer == 2
    joining.receive_event(PeerRestarted(2, others=(3,)), 2.0)
    joining.receive_event(FullSyncFailed(2, TERMINATED, attempt=first.attempt), 2.0)
    outcome(joining)
    joining.on_wakeup(2.0 + HEAL_QUIET_S, is_open, True)
    [second] = outcome(joining)
    assert isinstance(second, Begin) and second.peer == 3
