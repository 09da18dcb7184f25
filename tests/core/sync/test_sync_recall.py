"""What a third member told and a whole table does not hold yet is asked for by who took that. No healing here."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from properties import examples
from sync_world import TICK_S, key_of
from table_world import TableWorld

from syncproto.events import NOT_COMING
from syncproto.limits import DEFAULT_LIMITS, PEER_SILENCE_S
from syncproto.message import Kind
from syncproto.recall import TableTaken, positions

THREE = dict.fromkeys((1, 2, 3), "R77.30")
TELLER = 3


def cluster(**kw: object) -> TableWorld:
    """The third was there first; it forwards."""
    world = TableWorld(THREE, heals=False, **kw)  # type: ignore[arg-type]
    world.run(5)
    restart(world, 1, source=TELLER)
    restart(world, 2, source=TELLER)
    return world


def tick(world: TableWorld, times: int = 3) -> None:
    for _ in range(times):
        for member in THREE:
            world.tick(member)
        world.run(TICK_S)


def cut(world: TableWorld, *hears_nothing: int) -> None:
    """Nothing passes between these and the third member."""
    world.filter = lambda sender, receiver, kind: (
        not ({sender, receiver} & {*hears_nothing} and TELLER in (sender, receiver))
    )


def restart(world: TableWorld, member: int, source: int) -> None:
    """It takes the whole table of the source; one that took none, for nothing got through, says so and lacks it."""
    loss, world.loss = world.loss, 0.0
    world.kill(member)
    world.join_from = {member: source}
    world.start(member)
    world.run(1)
    assert world.joinings[member].incomplete is None
    world.loss = loss
    tick(world)


def tell_while_cut(world: TableWorld) -> None:
    """The third member has opened a connection that nobody knows of, and closed one that all know."""
    world.open(TELLER, key_of(1))
    tick(world)
    assert [set(view) for view in world.views()] == [{key_of(1)}] * 3
    cut(world, 1, 2)
    world.open(TELLER, key_of(2))
    world.close(TELLER, key_of(1))
    tick(world)
    assert [set(view) for view in world.views()] == [{key_of(1)}, {key_of(1)}, {key_of(2)}]


@pytest.mark.parametrize("hears_first", [1, 2])
@pytest.mark.parametrize("cut_for_s", [0.5, 2 * PEER_SILENCE_S])
def test_who_took_a_table_that_lacks_updates_of_a_third_member_asks_that_for_them(
    hears_first: int, cut_for_s: float
) -> None:
    world = cluster()
    tell_while_cut(world)
    restart(world, 1, source=2)
    world.run(cut_for_s)
    cut(world, 3 - hears_first)
    world.run(10)
    cut(world)
    world.run(10)
    assert [set(view) for view in world.views()] == [{key_of(2)}] * 3
    assert world.lost == 0


def test_how_far_a_table_holds_what_a_third_member_told_goes_on_with_it() -> None:
    """The second takes the table of the first, which took the second's; neither has heard the third since."""
    world = cluster()
    tell_while_cut(world)
    restart(world, 1, source=2)
    restart(world, 2, source=1)
    cut(world)
    world.run(10)
    assert [set(view) for view in world.views()] == [{key_of(2)}] * 3
    assert world.lost == 0


def test_who_hears_a_younger_peer_late_asks_for_all_that_it_told() -> None:
    """The others heard the end of a connection that this member knows of an earlier life of the peer."""
    world = cluster()
    world.open(TELLER, key_of(1))
    tick(world)
    cut(world, 1)
    restart(world, TELLER, source=2)
    world.close(TELLER, key_of(1))
    tick(world)
    assert [set(view) for view in world.views()] == [{key_of(1)}, set(), set()]
    cut(world)
    world.run(10)
    assert world.views() == [{}] * 3


def test_what_the_third_member_no_longer_has_is_counted_as_lost() -> None:
    world = cluster(limits=replace(DEFAULT_LIMITS, sending_queue=8))
    tell_while_cut(world)
    for number in range(3, 23):
        world.open(TELLER, key_of(number))
        tick(world, 1)
    restart(world, 1, source=2)
    world.run(2 * PEER_SILENCE_S)
    cut(world, 2)
    world.run(10)
    counters = world.nodes[1].engine.counters()
    assert counters.lost_updates == world.lost == 1 + 20 - 8
    assert set(world.views()[0]) == {key_of(1), *map(key_of, range(15, 23))}


def test_a_way_that_bears_no_answer_is_not_waited_for_for_ever() -> None:
    world = cluster()
    tell_while_cut(world)
    restart(world, 1, source=2)
    world.filter = lambda sender, receiver, kind: kind is not Kind.DELTA
    world.run(5)
    assert NOT_COMING in world.nodes[1].engine.status(TELLER), "it says so meanwhile"
    world.run(60)
    assert world.nodes[1].engine.counters().lost_updates > 0


def test_what_is_saved_is_in_no_table() -> None:
    heard = {2: (1000, 7), 3: (1001, 9), 4: None}
    assert positions(heard, [(3, 5), (2, 8), (3, 6)]) == [[2, 1000, 7], [3, 1001, 4]]
    table = TableTaken()
    assert table.holds(3, 1001) is None, "no table was taken"
    assert table.take(2, (1000, 8), [[3, 1001, 4]]) and not table.take(3, (1001, 9), [])
    assert [table.holds(2, 1000), table.holds(3, 1001), table.holds(3, 1002), table.holds(4, 5)] == [8, 4, 0, 0]


ACTIONS = st.one_of(
    st.tuples(st.just("open"), st.integers(1, 9)),
    st.tuples(st.just("advance"), st.integers(1, 9)),
    st.tuples(st.just("close"), st.integers(1, 9)),
    st.tuples(st.just("cut"), st.integers(0, 3)),
    st.tuples(st.just("restart"), st.integers(1, 2)),
    st.tuples(st.just("wait"), st.sampled_from([0, 1, 3, 7])),
)


@examples(40)
@given(seed=st.integers(0, 2**32), loss=st.sampled_from([0.0, 0.3]), actions=st.lists(ACTIONS, max_size=40))
@example(seed=2935, loss=0.3, actions=[("cut", 3), ("restart", 1), ("restart", 1), ("restart", 1), ("open", 1)])
@example(seed=1, loss=0.0, actions=[("cut", 3), ("open", 1), ("wait", 0), ("restart", 1), ("cut", 0)])
def test_whoever_takes_whose_table_whenever_all_are_equal_after_quiet(
    seed: int, loss: float, actions: list[tuple[str, int]]
) -> None:
    """The third tells; the two others are cut off from it, and take each other's tables."""
    world = cluster(seed=seed)
    world.loss = loss
    for what, number in actions:
        held = world.tables[TELLER].entries
        if what == "open" and key_of(number) not in held:
            world.open(TELLER, key_of(number))
        elif what == "advance" and key_of(number) in held:
            world.advance(TELLER, key_of(number))
        elif what == "close" and key_of(number) in held:
            world.close(TELLER, key_of(number))
        elif what == "cut":
            cut(world, *[member for member in (1, 2) if number & member])
        elif what == "restart":
            restart(world, number, source=3 - number)
        elif what == "wait":
            world.run(number)
        tick(world, 1)
    world.loss = 0.0
    cut(world)
    for _ in range(4):
        world.run(PEER_SILENCE_S)
        tick(world)
    first, second, third = world.views()
    assert first == second == third or world.lost, "one that ends may still owe what it told on"
