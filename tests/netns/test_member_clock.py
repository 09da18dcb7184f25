"""The wall clock of a member is set forward or back while it works: nobody notices but who reads dates."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from harness import UpLab, time_passes, until
from stepped import HOUR_S, Clock, established, left, stepped_pair, two_talks


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture
def stepped(clock: Clock, request: pytest.FixtureRequest) -> Iterator[UpLab]:
    with stepped_pair(clock, getattr(request, "param", "")) as lab:
        yield lab


@pytest.mark.parametrize("seconds", [HOUR_S, -HOUR_S])
@pytest.mark.parametrize("member", ["fw1", "fw2"])
def test_a_step_of_the_clock_leaves_both_tables_alone(
    stepped: UpLab, clock: Clock, member: str, seconds: int
) -> None:
    """On the active member and on the standby; then the other one takes over, and goes on."""
    talks = two_talks(stepped)
    before = stepped.control(member)["lab_time"], time.monotonic()
    clock.step(member, seconds)
    time_passes(stepped, 3.0)
    passed = stepped.control(member)["lab_time"] - before[0]
    assert 3.0 <= passed <= time.monotonic() - before[1] + 0.1, "lab time goes on as if nothing were"
    assert [established(stepped, m) for m in ("fw1", "fw2")] == [2, 2]
    assert min(left(stepped)) > HOUR_S - 60, "nothing was taken off"
    stepped.do("kill", "member=fw1")
    stepped.wait_for_state("fw2", "Active")
    assert [talk.ask() for talk in talks] == ["hello", "hello"]
    drops = stepped.control("fw2")["drops"]
    assert drops["OUT_OF_STATE"] == 0, drops


def test_a_connection_ends_in_time_though_the_clock_was_set_back(stepped: UpLab, clock: Clock) -> None:
    for member in ("fw1", "fw2"):
        stepped.fwctl(member, "ctl", "set", "int", "udp_timeout", "3")
    stepped.udp().open(5)
    until(lambda: stepped.control("fw2")["connections"] >= 5, "fw2 knows them")
    began = time.monotonic()
    for member in ("fw1", "fw2"):
        clock.step(member, -HOUR_S)
    until(lambda: not any(stepped.control(m)["connections"] for m in ("fw1", "fw2")), "they end on both", 60)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("seconds", [HOUR_S, -HOUR_S])
def test_a_member_that_starts_anew_with_another_date_is_heard_and_synchronised(
    stepped: UpLab, clock: Clock, seconds: int
) -> None:
    """Its incarnation must be larger all the same: for its heartbeats, and for the sync session."""
    talks = two_talks(stepped)
    stepped.do("kill", "member=fw1")
    clock.step("fw1", seconds)
    stepped.do("start", "member=fw1")
    stepped.wait_for_state("fw1", "Standby")
    until(lambda: established(stepped, "fw1") == 2, "it has the table")
    new = stepped.talk(1521)
    assert new.ask() == "hello"
    until(lambda: established(stepped, "fw1") == 3, "and hears of changes")
    stepped.do("kill", "member=fw2")
    stepped.wait_for_state("fw1", "Active")
    assert [talk.ask() for talk in [*talks, new]] == ["hello"] * 3


@pytest.mark.parametrize("stepped", ["fw1", "fw2"], indirect=True)
def test_members_of_machines_that_began_at_different_times_agree_on_durations(stepped: UpLab) -> None:
    """As on two machines: lab time of one counts from the start of the machine, that of the other from the lab's."""
    assert abs(stepped.control("fw1")["lab_time"] - stepped.control("fw2")["lab_time"]) > 30
    talks = two_talks(stepped)
    assert min(left(stepped)) > HOUR_S - 60
    stepped.do("kill", "member=fw1")
    stepped.wait_for_state("fw2", "Active")
    talks.append(stepped.talk(1521))
    assert [talk.ask() for talk in talks] == ["hello"] * 3
    stepped.do("start", "member=fw1")
    stepped.wait_for_state("fw1", "Standby")
    until(lambda: established(stepped, "fw1") == 3, "it has the table")
    talks.append(stepped.talk(1521))
    assert talks[-1].ask() == "hello"
    until(lambda: established(stepped, "fw1") == 4, "and hears of what begins now")
    stepped.do("kill", "member=fw2")
    stepped.wait_for_state("fw1", "Active")
    assert [talk.ask() for talk in talks] == ["hello"] * 4


def test_a_date_is_that_of_the_clock_as_it_is_set(stepped: UpLab, clock: Clock) -> None:
    clock.step("fw1", HOUR_S)
    stepped.fwctl("fw1", "ctl", "set", "int", "udp_timeout", "39")
    event = stepped.events("fw1")[-1]
    assert event["at"] == pytest.approx(time.time() + HOUR_S, abs=60)
