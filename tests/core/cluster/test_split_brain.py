"""Two members that forwarded at once: both say so, for how long, and what each accepted; nobody else does."""

from __future__ import annotations

import pytest
from cluster_world import World, pair
from hypothesis import given
from hypothesis import strategies as st

from fwnode.cluster.split_brain import Activity, PossibleSplit, SplitBrain


def told(world: World, number: int) -> list[SplitBrain]:
    return [event for who, event in world.splits if who == number and isinstance(event, SplitBrain)]


def warned(world: World) -> list[tuple[int, int]]:
    return [(who, event.peer) for who, event in world.splits if isinstance(event, PossibleSplit)]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
@pytest.mark.parametrize("pause", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("load_sharing", [False, True])
def test_both_tell_it_once_it_is_over_and_how_long_it_lasted(
    order: tuple[int, int], pause: float, load_sharing: bool
) -> None:
    world = World(2, load_sharing=load_sharing)
    world.start()
    world.run(2)
    for number in (1, 2):
        world.cluster(number).split_brains.own_figures(80, 100)
    world.run(0.5)
    world.deaf = {(1, 2), (2, 1)}
    world.run(3.0)
    assert sorted(warned(world)) == [(1, 2), (2, 1)], "while it lasts, nobody knows more"
    world.cluster(1).split_brains.own_figures(83, 103)
    world.cluster(2).split_brains.own_figures(87, 107)
    world.run(3.0)
    for number in order:
        world.deaf.discard((number, 3 - number))
        world.run(pause)
    world.run(3.0)
    for number, (here, there) in ((1, (3, 7)), (2, (7, 3))):
        [over] = [split for split in told(world, number) if split.over]
        # fw2 gives way when it hears fw1, whoever of them hears first.
        lasted = 3.5 + (pause if order[0] == 1 or load_sharing else 0.0)
        assert over.seconds == pytest.approx(lasted, abs=0.3)
        assert (over.accepted, over.accepted_there, over.known) == (here, there, 80)
        assert world.cluster(number).split_brains.count == 1
        assert world.cluster(number).split_brains.present == world.cluster(number).split_brains.possible == []


def test_who_hears_a_rival_that_does_not_hear_it_knows_at_once() -> None:
    world = pair()
    world.deaf = {(2, 1)}
    assert world.run(4) == "1 Active, 2 Active"
    [begun] = told(world, 1)
    assert not begun.over and begun.peer == 2
    assert world.cluster(1).split_brains.present == [2]
    assert warned(world) == [(2, 1)]
    world.deaf = set()
    assert world.run(1) == "1 Active, 2 Standby"
    assert told(world, 1)[-1].over and told(world, 2)[-1].over


@pytest.mark.parametrize("death", ["stop", "kill", "admin_down", "power_cut"])
def test_a_failover_is_no_split_brain(death: str) -> None:
    world = pair()
    getattr(world, death)(1)
    world.run(5)
    if death != "admin_down":
        world.start(1)
    world.run(5)
    assert [event for _, event in world.splits if isinstance(event, SplitBrain)] == []
    assert warned(world) == ([(2, 1)] if death == "power_cut" else []), "a silent one may be active"


def test_a_member_that_was_frozen_did_not_forward() -> None:
    world = pair()
    world.freeze(1)
    world.run(10)
    world.thaw(1)
    world.run(3)
    assert [event for _, event in world.splits if isinstance(event, SplitBrain)] == []


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_ages_tell_what_the_sender_did_whatever_its_clock_says(began: float, lasted: float) -> None:
    own = Activity()
    own.set(True, began)
    assert Activity.told(own.ages(began + 5), 99.0) == Activity(pytest.approx(94.0, abs=1e-6), None)
    own.set(False, began + lasted)
    copy = Activity.told(own.ages(began + lasted + 5), 99.0)
    assert copy.ended == pytest.approx(94.0, abs=1e-6) and copy.began == pytest.approx(94.0 - lasted, abs=1e-6)
    assert Activity.told([], 1.0) == Activity()


# -- the cluster's failover count --------------------------------------------------------------------------------------


def test_all_members_know_one_failover_count_and_who_joins_takes_it() -> None:
    world = World(3)
    world.start()
    world.run(3)
    for number in (1, 2, 3):
        world.kill(number)
        world.run(2)
        world.start(number)
        world.run(3)
    assert {world.cluster(n).failover_count for n in (1, 2, 3)} == {2}


def test_members_of_two_releases_agree_on_the_failover_count() -> None:
    """An upgrade: the newer one takes over when the older stops, and gives way when it is back."""
    world = World(2)
    world.start(1)
    world.start(2, release="R80.10")
    world.run(3)
    world.stop(1)
    world.run(2)
    world.start(1)
    assert world.run(3) == "1 Active, 2 Ready"
    assert [world.cluster(n).failover_count for n in (1, 2)] == [2, 2]


def test_a_split_brain_leaves_one_count() -> None:
    world = pair()
    world.deaf = {(1, 2), (2, 1)}
    world.run(5)
    world.deaf = set()
    world.run(2)
    assert [world.cluster(n).failover_count for n in (1, 2)] == [1, 1]
