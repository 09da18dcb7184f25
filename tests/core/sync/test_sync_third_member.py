"""What a member told only some of its peers before it died: those who heard it tell the others. No healing here."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from properties import examples
from sync_world import TICK_S, key_of
from table_world import TableWorld

from fwnode.firewall.audience import Audience
from fwnode.firewall.tellers import LATELY_MAX, Tellers
from syncproto.events import PeerGone
from syncproto.limits import PEER_RECALL_S, PEER_SILENCE_S
from syncproto.message import Kind

THREE = dict.fromkeys((1, 2, 3), "R77.30")


def cluster(**kw: object) -> TableWorld:
    world = TableWorld(THREE, heals=False, **kw)  # type: ignore[arg-type]
    world.run(5)
    tick(world, 1, 2, 3)  # all know who listens
    return world


def tick(world: TableWorld, *members: int, times: int = 1) -> None:
    for _ in range(times):
        for member in members:
            world.tick(member)
        world.run(TICK_S)


def keep_from(world: TableWorld, deaf: int) -> None:
    """Nothing of member 1 gets to this member."""
    world.filter = lambda sender, receiver, kind: (sender, receiver) != (1, deaf) or kind is Kind.HELLO


def test_what_a_member_told_one_of_two_others_reaches_the_other_when_it_dies() -> None:
    world = cluster()
    world.open(1, key_of(1))
    world.open(1, key_of(2))
    tick(world, 1)
    keep_from(world, 3)
    world.open(1, key_of(3))
    world.advance(1, key_of(1))
    world.close(1, key_of(2))
    tick(world, 1)
    assert len(world.tables[2]) == len(world.tables[3]) == 2
    world.kill(1)
    for member in (2, 3):
        world.nodes[member].engine.peer_lost(1, world.now)
        world.serve(world.nodes[member])
    tick(world, 2, 3, times=3)
    _, second, third = world.views()
    assert second == third and set(second) == {key_of(1), key_of(3)}
    assert [event for event in world.nodes[2].events if isinstance(event, PeerGone)] == [PeerGone(1)]


def test_a_member_that_begins_anew_hears_of_it_too() -> None:
    world = cluster()
    keep_from(world, 3)
    world.open(1, key_of(1))
    tick(world, 1)
    world.kill(1)
    world.filter = lambda sender, receiver, kind: True
    world.join_from = {1: 3}
    world.start(1)
    world.run(1)
    tick(world, 1, 2, 3, times=3)
    assert [set(view) for view in world.views()] == [{key_of(1)}] * 3


def test_who_begins_anew_is_not_told_once_more_what_it_could_have_taken_whole() -> None:
    world = cluster()
    for number in range(100):
        world.open(1, key_of(number))
    tick(world, 1)
    world.run(2 * PEER_RECALL_S)
    world.open(1, key_of(200))
    tick(world, 1)
    world.run(PEER_RECALL_S / 2)
    world.kill(1)
    world.start(1)
    world.run(1)
    tick(world, 1, 2, 3, times=30)
    assert set(world.tables[1].entries) == {key_of(200)}, "only what it told last"


@examples(40)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.2, 0.5]),
    delay=st.sampled_from([(0.0005, 0.0005), (0.0, 0.3)]),
    changes=st.lists(st.tuples(st.sampled_from(["open", "open", "advance", "close"]), st.integers(1, 20)), max_size=60),
    restarts=st.booleans(),
)
@example(seed=3, loss=0.5, delay=(0.0, 0.3), changes=[("open", n) for n in range(1, 20)], restarts=False)
def test_the_survivors_are_equal_whatever_the_dead_member_told_whom(
    seed: int, loss: float, delay: tuple[float, float], changes: list[tuple[str, int]], restarts: bool
) -> None:
    """It dies at once after its last word, of which each of the others may have heard a part."""
    world = cluster(seed=seed, delay=delay)
    world.loss = loss
    for number, (what, key) in enumerate(changes):
        if what == "open" and key_of(key) not in world.tables[1].entries:
            world.open(1, key_of(key))
        elif what != "open" and key_of(key) in world.tables[1].entries:
            (world.advance if what == "advance" else world.close)(1, key_of(key))
        if number % 5 == 4:
            tick(world, 1)
    world.tick(1)
    world.kill(1)
    if restarts:
        world.join_from = {1: 2}
        world.start(1)
    world.run(0.5)
    for member in (2, 3):
        if not restarts:
            world.nodes[member].engine.peer_lost(1, world.now)
            world.serve(world.nodes[member])
    for _ in range(10):
        world.run(PEER_SILENCE_S)
        tick(world, 2, 3)
    _, second, third = world.views()
    assert second == third, (len(second), len(third))


def test_who_owns_a_copy_is_known_for_a_life_and_what_it_told_for_a_while() -> None:
    tellers = Tellers(TICK_S, Audience())
    first = tellers.of(2)
    first.note([b"early"], 0.0)
    first.note([b"late"], PEER_RECALL_S + 1.0)
    first.note([b"later"], 2 * PEER_RECALL_S + 2.0)
    tellers.gone(2)
    assert tellers.take_untold(1) == [b"late"], "as many as there is room for"
    assert (tellers.take_untold(9), tellers.take_untold(9)) == ([b"later"], [])
    tellers.end(2)
    assert first.number == 0 and tellers.of(2).number == 2 and tellers.of(2) is not first
    for number in range(3 * LATELY_MAX):
        tellers.of(2).note([number.to_bytes(4, "big")], 0.0)
    tellers.gone(2)
    assert LATELY_MAX <= len(tellers.take_untold(10**6)) <= 2 * LATELY_MAX
