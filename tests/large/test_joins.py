"""Whole members that join: whatever happens meanwhile, it ends, and nobody forwards before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joining_world import JoiningWorld
from properties import examples
from sync_world import key_of

from syncproto.limits import DEFAULT_LIMITS

MANY = 900
SLOW = replace(DEFAULT_LIMITS, full_slice_records=20)


def joined_world(members: int, joiner: int, *, load_sharing: bool = True, seed: int = 0) -> JoiningWorld:
    """All but one are up and know so many connections; the last has begun to take the table, and has part of it."""
    world = JoiningWorld(members, load_sharing=load_sharing, limits=SLOW, seed=seed)
    world.run(3)
    world.kill(joiner)
    world.run(4)
    for number in range(MANY):
        world.open(1, key_of(number))
    world.tick(1)
    world.run(4)
    world.start(joiner)
    while world.full_sync_of(joiner)["records"] < 100:
        world.run(0.05)
    assert world.state(joiner) == "Initializing" and world.count(joiner) < MANY
    return world


def until_joined(world: JoiningWorld, joiner: int) -> None:
    for _ in range(1200):
        world.run(0.05)
        if world.joinings[joiner].over:
            break
    world.run(1)
    assert world.joinings[joiner].over
    assert world.forwarded_early == []


def test_the_source_is_put_down_while_a_third_member_joins() -> None:
    """A second join was begun while the first one ran, and the process ended."""
    world = joined_world(3, 3)
    world.put_down(1)
    world.run(0.5)
    assert (world.state(1), world.state(3)) == ("Down", "Initializing")
    until_joined(world, 3)
    assert world.state(3) == "Active" and world.count(3) == MANY
    assert world.full_sync_of(3)["peer"] == "fw1", "it went on with the table that it was taking"


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_the_source_is_gone_while_a_third_member_joins(how: str) -> None:
    """It forwarded with part of the table although fw2 had all of it."""
    world = joined_world(3, 3)
    getattr(world, how)(1)
    until_joined(world, 3)
    assert world.state(3) == "Active" and world.count(3) == MANY
    assert (world.full_sync_of(3)["peer"], world.full_sync_of(3)["state"]) == ("fw2", "done")


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_the_only_source_is_gone(how: str) -> None:
    """Availability wins, and what is missing is said."""
    world = joined_world(2, 2, load_sharing=False)
    getattr(world, how)(1)
    until_joined(world, 2)
    world.run(3)
    assert world.state(2) == "Active"
    full = world.full_sync_of(2)
    assert full["state"] == "failed" and full["records"] == world.count(2) < MANY
    missing = f"{MANY - full['records']:,} connections of fw1 are missing"
    assert full["text"] == f"took {full['records']:,} of {MANY:,} ({full['percent']} %); {missing}"


def test_the_joiner_dies_and_comes_back() -> None:
    world = joined_world(2, 2, load_sharing=False)
    world.kill(2)
    world.run(1)
    world.start(2)
    until_joined(world, 2)
    assert (world.state(1), world.state(2), world.count(2)) == ("Active", "Standby", MANY)


faults = st.lists(st.sampled_from(["kill 1", "kill 2", "stop 1", "down 1", "down 2", "start 1", "start 2", "again",
                                   "cut", "mend", "wait", "wait"]), max_size=8)  # fmt: skip


@examples(40)
@given(faults, st.integers(0, 2**32))
def test_whatever_happens_during_a_join_it_ends_and_nobody_forwards_before(what: list[str], seed: int) -> None:
    world = joined_world(3, 3, seed=seed)
    cut = False
    world.filter = lambda sender, receiver, kind: not cut
    for word in what:
        verb, _, number = word.partition(" ")
        member = int(number or 3)
        alive = world.nodes[member].alive
        if verb in ("cut", "mend"):
            cut = verb == "cut"
        elif verb == "start" and not alive:
            world.start(member)
        elif verb == "again":
            world.kill(3)
            world.start(3)
        elif verb in ("kill", "stop") and alive:
            getattr(world, verb)(member)
        elif verb == "down" and alive:
            world.put_down(member)
        world.run(0.4)
    cut = False
    until_joined(world, 3)
    if all(world.nodes[member].alive and world.joinings[member].over for member in (1, 2)):
        assert world.state(3) == "Active"
