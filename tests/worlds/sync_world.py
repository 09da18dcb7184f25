"""A cluster in virtual time: engines, their tables, and a network that loses, doubles and reorders.

Everything crosses the codec, so what is tested is what stands on the wire. No sockets, no clock: `World.run` jumps
from one event to the next. One seed decides everything; a failing test prints it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from syncproto.codec import decode, encode
from syncproto.columns import Columns
from syncproto.engine import SyncEngine
from syncproto.events import FullSyncDone, FullSyncFailed, GateDecided, SyncEvent, TableSlice, Updates
from syncproto.full import FullSink, FullSource
from syncproto.limits import DATAGRAM_MAX, DEFAULT_LIMITS, Limits
from syncproto.message import Kind
from syncproto.record import Op, Record, Update
from syncproto.release import BUILTIN_RELEASES, Compatibility

with Path(BUILTIN_RELEASES).open(encoding="utf-8") as _file:
    BUILTIN = yaml.safe_load(_file)
COMPATIBILITY = Compatibility.from_mapping(BUILTIN)

CLUSTER = 7
TICK_S = 0.1


def key_of(number: int) -> bytes:
    return b"\x06" + bytes((192, 0, 2, 100, 198, 51, 100, 100)) + (1024 + number).to_bytes(2, "big") + b"\x05\xf1"


def key6_of(number: int) -> bytes:
    return b"\x11" + b"\x20\x01\x0d\xb8" + bytes(28) + (1024 + number).to_bytes(2, "big") + b"\x00\x35"


def record_of(number: int = 1, **changes: Any) -> Record:
    record = Record(key_of(number), 3, 3599.5, 3600.0, 4, "oracle", 0, 1000.125, 1)
    return replace(record, **changes)


@dataclass
class Node:
    """A member: an engine and a table. The table does what the firewall's does: the greater (born, revision) wins."""

    member: int
    engine: SyncEngine
    table: dict[bytes, Record] = field(default_factory=dict)
    alive: bool = True
    joining: bool = False
    joined_from: int | None = None
    dirty: list[Update] = field(default_factory=list)
    events: list[SyncEvent] = field(default_factory=list)
    went_back: int = 0
    armed: float | None = None
    idle_wakes: int = 0
    """Times in a row that the timer fired, nothing was done, and it was armed for the same moment."""

    def apply(self, update: Update) -> None:
        mine = self.table.get(update.key)
        if update.op is Op.DELETE:
            if mine is not None and (update.born == 0 or mine.born <= update.born):
                del self.table[update.key]
            return
        record = update.record
        assert record is not None and record.key == update.key
        if mine is not None and (mine.born, mine.revision) > (record.born, record.revision):
            self.went_back += 1
        else:
            self.table[update.key] = record


class World:
    """Members 1..n and the network between them."""

    def __init__(
        self,
        releases: dict[int, str],
        *,
        seed: int = 0,
        loss: float = 0.0,
        double: float = 0.0,
        delay: tuple[float, float] = (0.0005, 0.0005),
        limits: Limits = DEFAULT_LIMITS,
        join_from: dict[int, int] | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.loss, self.double, self.delay = loss, double, delay
        self.limits = limits
        self.releases = releases
        self.now = 100.0
        self.born = 0
        self.join_from = join_from or {}
        self.filter: Callable[[int, int, Kind], bool] = lambda sender, receiver, kind: True
        self.largest: dict[tuple[int, int], int] = {}
        """Bytes of the largest datagram that the way from one member to another bears; any, where nothing is said."""
        self.sent: list[tuple[float, int, int, Kind]] = []
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._incarnation = 1000
        self.nodes: dict[int, Node] = {}
        for member in releases:
            self.start(member)

    # --- Members ---

    def start(self, member: int) -> Node:
        """A member starts, with an empty table; it joins by full sync if `join_from` says so."""
        self._incarnation += 1
        engine = SyncEngine(
            member=member, incarnation=self._incarnation, release=self.releases[member], compatibility=COMPATIBILITY,
            peers=list(self.releases), now=self.now, limits=self.limits, cluster=CLUSTER,
        )  # fmt: skip
        node = Node(member, engine, joined_from=self.join_from.get(member))
        node.joining = node.joined_from is not None
        self.nodes[member] = node
        self.serve(node)
        return node

    def kill(self, member: int) -> None:
        self.nodes[member].alive = False

    def serve(self, node: Node) -> None:
        """What the edge does after every call: send, handle events, arm the timer."""
        engine = node.engine
        for peer, message in engine.outgoing(self.now):
            data = encode(message, cluster=CLUSTER, sender=node.member, incarnation=engine.incarnation)
            assert len(data) <= DATAGRAM_MAX
            self.send(node.member, peer, message.kind, data)
        while (event := engine.next_event()) is not None:
            node.events.append(event)
            self.handle(node, event)
        due = engine.next_wakeup()
        if due is not None and (node.armed is None or due < node.armed):
            node.armed = due
            self.at(max(due, self.now), lambda: self.wake(node))

    def wake(self, node: Node) -> None:
        """The timer fires. An engine that asks for the next moment must have something to do then, or it would spin."""
        node.armed = None
        if not node.alive:
            return
        done = len(self.sent), len(node.events)
        node.engine.on_wakeup(self.now)
        self.serve(node)
        idle = done == (len(self.sent), len(node.events)) and node.armed is not None and node.armed <= self.now
        node.idle_wakes = node.idle_wakes + 1 if idle else 0
        assert node.idle_wakes < 2, f"member {node.member} wakes up again and again and does nothing"

    def handle(self, node: Node, event: SyncEvent) -> None:
        if isinstance(event, Updates):
            for update in event.updates:
                node.apply(update)
        elif isinstance(event, TableSlice):
            for record in event.columns:
                node.apply(Update(Op.SET, record.key, record, record.born, record.revision))
        elif isinstance(event, GateDecided) and node.joining and event.peer == node.joined_from:
            if event.gate.allows_full_sync and not node.engine.saving:
                self.full_sync(node, event.peer)
        elif isinstance(event, FullSyncDone):
            node.joining = False
        elif isinstance(event, FullSyncFailed) and node.joining and not event.refused:
            self.at(self.now + 0.3, lambda: self.retry(node, event.peer))

    def retry(self, node: Node, peer: int) -> None:
        if node.alive and node.joining and not node.engine.saving and node.engine.status(peer).find("mismatch") < 0:
            self.full_sync(node, peer)
            self.serve(node)

    # --- Datagrams ---

    def send(self, sender: int, receiver: int, kind: Kind, data: bytes) -> None:
        self.sent.append((self.now, sender, receiver, kind))
        if not self.filter(sender, receiver, kind) or len(data) > self.largest.get((sender, receiver), DATAGRAM_MAX):
            return
        copies = 0 if self.random.random() < self.loss else 1
        copies += self.random.random() < self.double
        for _ in range(copies):
            self.at(self.now + self.random.uniform(*self.delay), lambda: self.arrive(receiver, data))

    def arrive(self, receiver: int, data: bytes) -> None:
        node = self.nodes[receiver]
        if node.alive:
            node.engine.receive_message(decode(data, cluster=CLUSTER), self.now)
            self.serve(node)

    # --- Streams ---

    def full_sync(self, node: Node, peer: int, attempt: int = 0, ends: bool = False) -> FullSink:
        """The joiner connects to the peer; two byte streams, in order, chopped and delayed."""
        sink = node.engine.begin_full_sync(peer, self.now, attempt, ends)
        other = self.nodes[peer]
        if not other.alive:
            sink.connection_lost("Could not start a connection to remote member")
            return sink
        source = other.engine.accept_full_sync(
            partial(self.snapshot_of, other), self.count_of(other), self.now, ended=partial(self.ended_of, other)
        )
        self.at(self.now, lambda: self.pump(node, sink, other, source))
        return sink

    def count_of(self, node: Node) -> int:
        return len(node.table)

    def snapshot_of(self, node: Node, slice_max: int) -> Iterator[Columns]:
        return snapshot(node.table, slice_max)

    def ended_of(self, node: Node, slice_max: int) -> Iterator[Columns]:
        return iter(())

    def pump(self, node: Node, sink: FullSink, other: Node, source: FullSource) -> None:
        if not (node.alive and other.alive):
            sink.connection_lost("Connection terminated by remote member")
            source.connection_lost("Connection terminated by remote member")
        for data in (sink.outgoing(self.now),):
            for chunk in chop(data, self.random):
                source.receive_data(chunk, self.now)
        # One slice a turn, so that the table changes while it is being sent.
        for chunk in chop(source.outgoing(self.now), self.random):
            sink.receive_data(chunk, self.now)
        for end in (node, other):
            if end.alive:
                self.serve(end)
        if not (sink.finished and source.finished):
            self.at(self.now + self.random.uniform(0.001, 0.06), lambda: self.pump(node, sink, other, source))

    # --- Traffic ---

    def open(self, member: int, key: bytes) -> None:
        node = self.nodes[member]
        self.born += 1
        record = replace(record_of(), key=key, state=1, born=float(self.born), revision=1)
        node.table[key] = record
        node.dirty.append(Update(Op.SET, key, record))

    def change(self, member: int, key: bytes, op: Op = Op.MODIFY) -> None:
        node = self.nodes[member]
        old = node.table[key]
        record = replace(old, state=3, revision=old.revision + 1, ttl_s=float(old.revision))
        node.table[key] = record
        node.dirty.append(Update(op, key, record))

    def close(self, member: int, key: bytes) -> None:
        node = self.nodes[member]
        record = node.table.pop(key)
        node.dirty.append(Update(Op.DELETE, key, None, record.born, record.revision))

    def tick(self, member: int) -> None:
        node = self.nodes[member]
        updates, node.dirty = node.dirty, []
        node.engine.send_updates(updates, self.now)
        self.serve(node)

    # --- Time ---

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, what))

    def run(self, seconds: float, *, steps_max: int = 200_000) -> bool:
        """Until so much time has passed, or nothing is left to happen. True = idle."""
        end = self.now + seconds
        for _ in range(steps_max):
            if not self._heap:
                self.now = end
                return True
            if self._heap[0][0] > end:
                self.now = end
                return False
            when, _, what = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            what()
        raise AssertionError(f"{steps_max} steps in {seconds} s of virtual time: endless chatter")


def snapshot(table: dict[bytes, Record], slice_max: int) -> Iterator[Columns]:
    """A table that changes while it is being read, as the firewall's does: the keys are fixed, the records are not."""
    walk = (record for key in list(table) if (record := table.get(key)) is not None)
    while records := list(islice(walk, slice_max)):
        yield Columns.of(records)


def chop(data: bytes, rng: random.Random) -> list[bytes]:
    chunks: list[bytes] = []
    while data:
        size = rng.choice((1, 3, 100, 5000, 100_000))
        chunks.append(data[:size])
        data = data[size:]
    return chunks


def traffic(world: World, rng: random.Random, member: int, *, keys: range, ticks: int) -> None:
    """Connections open, change, close and are opened again under the same key."""
    for _ in range(ticks):
        for _ in range(rng.choice((1, 20, 150))):
            key = key_of(rng.choice(keys))
            if key not in world.nodes[member].table:
                world.open(member, key)
            elif rng.random() < 0.3:
                world.close(member, key)
            else:
                world.change(member, key, rng.choice((Op.MODIFY, Op.REFRESH)))
        world.tick(member)
        world.run(TICK_S)


def settle(world: World) -> None:
    """Quiet: nobody sends, nobody waits, and all have the same."""
    assert world.run(120), "not idle after two minutes: endless chatter"
    nodes = list(world.nodes.values())
    for node in nodes:
        assert node.engine.next_wakeup() is None
        assert node.engine.unacknowledged() == 0
        counters = node.engine.counters()
        assert counters.lost_updates == 0 and counters.backlog == 0 and counters.receiving_queue == 0
        assert node.table == nodes[0].table, f"seed, tables: {len(nodes[0].table)} and {len(node.table)}"
