"""Members under loss, reordering and duplication, with a full sync and a restart in the middle of changing tables.

After the traffic ends: the tables are equal, nothing was lost, everybody is quiet, and no record of the delta stream
ever went back to an older (born, revision).
"""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from sync_world import World, key_of, settle, traffic

from syncproto.events import FullSyncDone, TableSlice, Updates
from syncproto.limits import DEFAULT_LIMITS

# Small slices: a snapshot takes many turns, and the table changes between them.
SLICES = replace(DEFAULT_LIMITS, full_slice_records=40)

network = {
    "seed": st.integers(0, 2**32),
    "loss": st.sampled_from([0.0, 0.05, 0.3, 0.4]),
    "double": st.sampled_from([0.0, 0.3]),
    "delay": st.sampled_from([(0.0005, 0.0005), (0.0, 0.05), (0.0, 0.4)]),
}


@examples(100)
@given(**network, ticks=st.integers(1, 12), keys=st.sampled_from([5, 60, 400]))
def test_two_members(seed: int, loss: float, double: float, delay: tuple[float, float], ticks: int, keys: int) -> None:
    world = World({1: "R77.30", 2: "R77.30"}, seed=seed, loss=loss, double=double, delay=delay)
    world.run(15)  # until the gate is open
    traffic(world, random.Random(seed), 1, keys=range(keys), ticks=ticks)
    settle(world)
    assert world.nodes[2].went_back == 0, "the stream alone keeps the order"


@examples(100)
@given(**network, ticks=st.integers(1, 10), restarted=st.integers(1, 2), count=st.sampled_from([0, 30, 1500]))
def test_full_sync_and_restart_in_the_middle(
    seed: int, loss: float, double: float, delay: tuple[float, float], ticks: int, restarted: int, count: int
) -> None:
    """Either member dies and comes back empty; it takes the other's table while that one goes on changing."""
    rng = random.Random(seed)
    world = World(
        {1: "R77.30", 2: "R77.30"},
        seed=seed, loss=loss, double=double, delay=delay, join_from={2: 1}, limits=SLICES,
    )  # fmt: skip
    for number in range(count):
        world.open(1, key_of(number))
    world.nodes[1].dirty.clear()  # known from before: only a full sync can bring them
    traffic(world, rng, 1, keys=range(500), ticks=ticks)
    world.run(30)
    world.kill(restarted)
    writer = 3 - restarted
    if rng.random() < 0.5:
        world.nodes[writer].engine.peer_lost(restarted, world.now)
        traffic(world, rng, writer, keys=range(500), ticks=2)
    world.join_from = {restarted: writer}
    node = world.start(restarted)
    traffic(world, rng, writer, keys=range(500), ticks=ticks)
    settle(world)
    assert [event for event in node.events if isinstance(event, FullSyncDone)]
    assert node.engine.status(writer) == world.nodes[writer].engine.status(restarted) == "OK"


@examples(40)
@given(**network, ticks=st.integers(1, 8))
def test_three_members_one_joins_late(
    seed: int, loss: float, double: float, delay: tuple[float, float], ticks: int
) -> None:
    rng = random.Random(seed)
    releases = {1: "R80.10-CU", 2: "R77.30", 3: "R80.10-CU"}
    world = World(releases, seed=seed, loss=loss, double=double, delay=delay, join_from={2: 1}, limits=SLICES)
    world.kill(3)
    traffic(world, rng, 1, keys=range(300), ticks=ticks)
    world.join_from = {3: 1}
    world.start(3)
    traffic(world, rng, 1, keys=range(300), ticks=ticks)
    world.run(20)
    world.kill(2)
    world.join_from = {2: 1}
    world.start(2)
    traffic(world, rng, 1, keys=range(300), ticks=ticks)
    settle(world)


@examples(40)
@given(**network, ticks=st.integers(1, 8))
def test_three_members_all_write(seed: int, loss: float, double: float, delay: tuple[float, float], ticks: int) -> None:
    """Load sharing: each member changes connections of its own, all have all."""
    rng = random.Random(seed)
    world = World({1: "R81.10", 2: "R81.10", 3: "R81.10"}, seed=seed, loss=loss, double=double, delay=delay)
    world.run(15)
    for _ in range(ticks):
        for member in (1, 2, 3):
            traffic(world, rng, member, keys=range(member * 1000, member * 1000 + 50), ticks=1)
    settle(world)
    assert sum(node.went_back for node in world.nodes.values()) == 0


def test_a_restart_costs_no_chatter_and_no_old_record() -> None:
    world = World({1: "R77.30", 2: "R77.30"}, join_from={2: 1})
    world.run(1)
    world.open(1, key_of(1))
    world.tick(1)
    world.run(1)
    world.kill(2)
    world.nodes[1].engine.peer_lost(2, world.now)
    world.serve(world.nodes[1])
    before = len(world.sent)
    world.run(60)
    assert len(world.sent) == before, "nothing is sent to a peer that is gone"
    world.start(2)
    settle(world)
    seen = [type(event) for event in world.nodes[2].events if isinstance(event, Updates | TableSlice)]
    assert seen == [TableSlice]


def test_a_member_alone_only_says_hello_now_and_then() -> None:
    world = World({1: "R77.30", 2: "R77.30"})
    world.kill(2)
    world.nodes[1].engine.send_updates([], world.now)
    world.run(60)
    assert 10 < len(world.sent) < 25


def test_a_member_that_starts_anew_with_a_smaller_incarnation_is_synchronised_within_seconds() -> None:
    """Its machine's clock began again, or was set back: peers believe it once its former life has been silent."""
    world = World({1: "R77.30", 2: "R77.30"})
    world.run(5)
    for away_s in (0.1, 1.0, 10.0):
        world.kill(2)
        world.run(away_s)
        world._incarnation -= 100
        world.start(2)
        world.run(7)
        assert world.nodes[1].engine.status(2) == world.nodes[2].engine.status(1) == "OK", away_s


def test_who_is_older_is_told_by_age_and_not_by_the_incarnation() -> None:
    """Incarnations of two machines cannot be compared."""
    world = World({1: "R77.30", 2: "R77.30"})
    world.run(5)
    world.kill(2)
    world._incarnation = 10
    world.start(2)
    world.run(10)
    assert (world.nodes[2].engine.knows_more(1), world.nodes[1].engine.knows_more(2)) == (True, False)
