"""When the neighbours are told who has the virtual addresses."""

from __future__ import annotations

from itertools import product

import pytest
from cluster_world import World, pair

from fwnode.cluster.announcing import ANNOUNCE_AFTER_S, Announcing


def test_each_occasion_is_followed_by_several_announcements_that_are_spaced() -> None:
    announcing = Announcing()
    assert not announcing.due(5.0)
    announcing.begin(10.0)
    made = []
    for tick in range(1000):
        now = 10 + tick / 100
        if announcing.due(now):
            made.append(round(now - 10, 2))
    assert made == list(ANNOUNCE_AFTER_S)
    assert announcing.next_wakeup() == float("inf")


def test_a_new_occasion_begins_them_anew_and_a_late_one_makes_up_for_nothing() -> None:
    announcing = Announcing()
    announcing.begin(0.0)
    assert announcing.due(0.0) and announcing.due(0.1)
    announcing.begin(0.15)
    assert announcing.due(0.15) and not announcing.due(0.2)
    assert announcing.due(100.0) and not announcing.due(100.0)


def last_word(world: World) -> int:
    """Who announced the addresses last, by itself or because it was asked by one that has had them."""
    return world.announced[-1][1]


@pytest.mark.parametrize(("first_deaf", "first_hears"), list(product((1, 2), repeat=2)))
@pytest.mark.parametrize("pause", [0.0, 0.05, 0.4, 3.0])
def test_after_a_split_brain_the_winner_has_the_last_word(first_deaf: int, first_hears: int, pause: float) -> None:
    """One way is cut before the other, and restored before the other."""
    world = pair()
    world.deaf.add((first_deaf, 3 - first_deaf))
    world.run(pause)
    world.deaf.add((3 - first_deaf, first_deaf))
    world.run(5)
    assert 2 in world.forwarding()
    world.deaf.discard((first_hears, 3 - first_hears))
    world.run(pause)
    world.deaf.clear()
    since = world.now
    world.run(6)
    [winner] = world.forwarding()
    loser_stopped = max((at for at, who, on in world.announced if who != winner and on), default=0.0)
    told = [at for at, who, on in world.announced if who == winner and on and at > loser_stopped]
    assert len(told) >= 3 and told[-1] - told[0] > 1.0, "after the loser, several times"
    assert told[-1] > since


def test_a_member_that_gives_way_asks_who_has_the_addresses() -> None:
    """The winner may not hear it, and not know that it was active."""
    world = pair()
    world.deaf = {(1, 2), (2, 1)}
    assert world.run(10) == "1 Active, 2 Active"
    world.announced.clear()
    world.deaf = {(1, 2)}
    assert world.run(5) == "1 Active, 2 Standby"
    assert [(who, on) for _, who, on in world.announced] == [(2, False)] * len(ANNOUNCE_AFTER_S)


def test_in_load_sharing_all_announce_when_one_begins_to_hear_another() -> None:
    world = World(2, load_sharing=True)
    world.start()
    world.run(3)
    world.deaf = {(1, 2), (2, 1)}
    world.run(10)
    world.deaf = {(2, 1)}
    world.run(10)  # fw1 hears fw2 long before it is heard
    world.announced.clear()
    world.deaf = set()
    world.run(5)
    assert {who for _, who, _ in world.announced} == {1, 2}
