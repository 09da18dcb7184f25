"""Divergence and its mending: whatever the network and the processes did, once it is quiet the tables are equal.

Real connection tables, real frames, virtual time. Small queues, so that updates are lost for good all the time.
"""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import event, example, given
from hypothesis import strategies as st
from properties import examples
from sync_world import TICK_S, key_of
from table_world import TableWorld

from syncproto.codec import decode, encode
from syncproto.events import LostUpdates
from syncproto.heal import Healer
from syncproto.limits import DEFAULT_LIMITS, HEAL_LATEST_S, HEAL_QUIET_S, HEAL_RETRY_S, RETRANSMIT_RANGE_MAX
from syncproto.message import Ack, Delta, Reject, Retransmit
from syncproto.record import Op, Update, join, pack_update

SMALL = replace(DEFAULT_LIMITS, sending_queue=6, receiving_queue=4, full_slice_records=40, backlog_updates_max=300,
                saved_updates_max=400, known_keys_max=50, peer_silence_s=2.0)  # fmt: skip
QUIET_S = 400.0

network = {
    "seed": st.integers(0, 2**32),
    "loss": st.sampled_from([0.0, 0.2, 0.5]),
    "double": st.sampled_from([0.0, 0.3]),
    "delay": st.sampled_from([(0.0005, 0.0005), (0.0, 0.05), (0.0, 0.4)]),
}
faults = st.lists(st.sampled_from(["cut", "mend", "pause", "resume", "restart", "traffic", "traffic", "burst"]),
                  min_size=2, max_size=9)  # fmt: skip


class Play:
    """A cluster, its traffic (each member has connections of its own) and its faults."""

    def __init__(self, members: int, seed: int, loss: float, double: float, delay: tuple[float, float]) -> None:
        self.rng = random.Random(seed)
        self.world = TableWorld(dict.fromkeys(range(1, members + 1), "R77.30"), seed=seed, loss=loss, double=double,
                                delay=delay, limits=SMALL)  # fmt: skip
        self.cut = False
        self.world.filter = lambda sender, receiver, kind: not self.cut

    def do(self, what: str) -> None:
        world, member = self.world, self.rng.choice(list(self.world.nodes))
        if what in ("cut", "mend"):
            self.cut = what == "cut"
        elif what == "pause":
            world.pause(member)
        elif what == "resume":
            self.resume()
        elif what == "restart" and member not in world.paused:
            world.kill(member)
            others = [other for other in world.nodes if other != member]
            for other in others:
                # Nobody joins a member that joins: one whose source is gone is active with what it has (`Cluster`).
                world.no_source_for(other)
            world.join_from = {member: self.rng.choice(others)}
            world.start(member)
        for _ in range(3):
            self.tick(60 if what == "burst" else 8)

    def resume(self) -> None:
        for member in list(self.world.paused):
            self.world.resume(member)

    def tick(self, changes: int) -> None:
        world, rng = self.world, self.rng
        for member in world.nodes:
            if member in world.paused or not world.joinings[member].over:
                continue  # a member forwards nothing before its first full sync has ended
            table = world.tables[member]
            for _ in range(rng.randrange(changes)):
                key = key_of(member * 1000 + rng.randrange(80))
                if key not in table.entries:
                    world.open(member, key)
                elif rng.random() < 0.3:
                    world.close(member, key)
                else:
                    world.advance(member, key)
            world.tick(member)
        world.run(TICK_S)

    def silence(self) -> None:
        """The faults end, and the traffic; what is lost on the wires goes on being lost."""
        self.cut = False
        self.resume()
        for _ in range(int(QUIET_S / 20)):
            self.world.run(20)
            for member in self.world.nodes:
                self.world.tick(member)


@examples(120)
@example(seed=5772684, loss=0.2, double=0.0, delay=(0.0, 0.05), members=2,
         what=["mend", "mend", "mend", "restart", "burst", "restart", "restart"])  # fmt: skip
@example(seed=3548053576, loss=0.5, double=0.0, delay=(0.0, 0.05), members=3,
         what=["restart", "pause", "traffic", "pause"])  # fmt: skip
@example(seed=829190120, loss=0.5, double=0.3, delay=(0.0005, 0.0005), members=3,
         what=["pause", "restart", "resume", "pause", "mend", "restart", "cut"])  # fmt: skip
@given(**network, what=faults, members=st.sampled_from([2, 2, 3]))
def test_after_silence_all_know_the_same(
    seed: int, loss: float, double: float, delay: tuple[float, float], what: list[str], members: int
) -> None:
    play = Play(members, seed, loss, double, delay)
    for one in what:
        play.do(one)
    play.silence()
    world = play.world
    event(f"lost updates: {'some' if world.lost else 'none'}")
    views = world.views()
    assert all(view == views[0] for view in views), [len(view) for view in views]
    assert world.went_back == 0
    for node in world.nodes.values():
        assert node.engine.unacknowledged() == 0
        assert world.joinings[node.member].next_wakeup() == float("inf")


def hear_each_other(world: TableWorld, *pairs: set[int]) -> None:
    """From now on these do, and nobody else does."""
    world.filter = lambda sender, receiver, kind: {sender, receiver} in pairs


def restart(world: TableWorld, member: int, source: int) -> None:
    world.kill(member)
    world.join_from = {member: source}
    world.start(member)


def test_what_a_member_told_others_before_it_was_heard_is_taken_from_itself() -> None:
    """Member 3 knows a connection of member 2 from member 1 alone, and nobody told it of the end."""
    world = TableWorld(dict.fromkeys((1, 2, 3), "R77.30"))
    world.run(5)
    hear_each_other(world, {1, 2})
    restart(world, 3, source=1)
    restart(world, 2, source=1)  # so it is not the older one
    world.run(3)
    world.open(2, key_of(1))
    world.tick(2)
    world.run(1)
    hear_each_other(world, {1, 2}, {1, 3})
    world.run(7)
    assert key_of(1) in world.tables[3]
    world.close(2, key_of(1))
    world.tick(2)
    world.run(1)
    assert [key_of(1) in table for table in world.tables.values()] == [False, False, True]
    hear_each_other(world, {1, 2}, {1, 3}, {2, 3})
    world.run(10)
    assert key_of(1) not in world.tables[3]


def test_without_healing_the_divergence_stays_and_is_counted() -> None:
    """As the product does."""
    world = TableWorld({1: "R77.30", 2: "R77.30"}, heals=False, limits=SMALL)
    world.run(5)
    world.filter = lambda sender, receiver, kind: False
    for number in range(600):
        world.open(1, key_of(number))
        if number % 20 == 19:
            world.tick(1)
            world.run(TICK_S)
    world.filter = lambda sender, receiver, kind: True
    world.run(60)
    first, second = world.views()
    assert len(first) == 600
    assert 0 < len(second) < 600
    counters = world.nodes[2].engine.counters()
    assert counters.lost_updates == world.lost > 0
    assert [e for e in world.nodes[2].events if isinstance(e, LostUpdates)]


def test_what_the_sender_had_to_drop_is_lost_to_its_peers_and_they_know() -> None:
    """An overload at the sender leaves a number that nothing was sent under: no divergence is silent."""
    world = TableWorld({1: "R77.30", 2: "R77.30"}, limits=replace(SMALL, sending_queue=512, receiving_queue=256))
    world.run(5)
    for number in range(1000):
        world.open(1, key_of(number))
    world.tick(1)
    world.run(60)
    assert world.nodes[1].engine.counters().overload_dropped == 700
    assert world.nodes[2].engine.counters().lost_updates == 1
    first, second = world.views()
    assert first == second and len(first) == 1000, "and healing mends it"


# -- a peer that says anything ----------------------------------------------------------------------------------------

numbers = st.integers(1, 2**40)
updates = st.builds(lambda n, born: Update(Op.DELETE, key_of(n), None, born, 1), st.integers(0, 5000), st.floats(1, 9))
bodies = st.lists(updates, min_size=1, max_size=5)
messages = st.one_of(
    st.builds(lambda n, u: ("delta", n, u), st.one_of(st.integers(1, 600), numbers), bodies),
    st.builds(lambda n: ("message", Ack(1, n), None), numbers),
    st.builds(lambda n, c: ("message", Retransmit(1, n, c), None), numbers, st.integers(1, RETRANSMIT_RANGE_MAX)),
    st.builds(lambda n, c: ("message", Reject(n, c), None), numbers, st.integers(1, RETRANSMIT_RANGE_MAX)),
)


@examples(60)
@given(st.lists(messages, min_size=20, max_size=150), st.integers(0, 2**32))
def test_memory_stays_in_its_caps_whatever_a_peer_sends(said: list[tuple[str, object, object]], seed: int) -> None:
    world = TableWorld({1: "R77.30", 2: "R77.30"}, limits=SMALL, seed=seed)
    world.run(5)
    node, stranger = world.nodes[1], world.nodes[2].engine.incarnation
    for kind, what, some in said:
        if kind == "delta":
            body = join([pack_update(update, 2) for update in some])  # type: ignore[attr-defined]
            message = Delta(what, 2, body)  # type: ignore[arg-type]
        else:
            message = replace(what, stream=node.engine.incarnation) if hasattr(what, "stream") else what  # type: ignore
        data = encode(message, cluster=7, sender=2, incarnation=stranger)
        node.engine.receive_message(decode(data, cluster=7), world.now)
        world.serve(node)
        counters = node.engine.counters()
        assert counters.receiving_queue <= SMALL.receiving_queue
        assert counters.sending_queue <= SMALL.sending_queue
        assert counters.backlog <= SMALL.backlog_updates_max
        assert node.engine.memory_bytes() <= (SMALL.receiving_queue + SMALL.sending_queue) * 1400
    world.run(1)


# -- when to heal -----------------------------------------------------------------------------------------------------


def test_healing_waits_for_quiet_but_not_for_ever() -> None:
    healer = Healer()
    healer.lost(2, 0.0)
    assert healer.due(HEAL_QUIET_S - 0.1) is None
    now = 0.0
    while healer.due(now) is None:
        assert now <= HEAL_LATEST_S
        now += 0.5
        healer.lost(2, now)
    assert now >= HEAL_LATEST_S - 0.5


def test_one_peer_after_the_other_and_a_failure_is_tried_again() -> None:
    healer = Healer()
    healer.lost(2, 0.0)
    healer.lost(3, 0.0)
    assert healer.due(5.0) == 2
    healer.failed(2, 6.0)
    assert healer.due(6.0) == 3
    assert healer.due(7.0) is None
    assert healer.due(6.0 + HEAL_RETRY_S) == 2
    assert healer.next_wakeup() == float("inf")
