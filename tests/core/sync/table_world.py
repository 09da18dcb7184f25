"""Members in virtual time as they really are: the sync engine, the firewall's connections table, and healing.

`World` gives the network (loss, duplication, reordering) and the streams; here each member has a `ConnectionTable` and
not a stand-in, may be paused as a process is by SIGSTOP, and takes a peer's table anew when updates were lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

from sync_world import Node, World

from fwnode.firewall.connection import Connection
from fwnode.firewall.table import ConnectionTable
from fwnode.firewall.tcp import State
from syncproto.columns import Columns
from syncproto.events import (
    Event,
    FullSyncDone,
    FullSyncFailed,
    GateDecided,
    LostUpdates,
    PeerRestarted,
    TableSlice,
    Updates,
)
from syncproto.full import FullSink
from syncproto.heal import Healer
from syncproto.record import Op

SOCKET_BUFFER = 300
"""Datagrams that the kernel keeps for a paused process; more are lost."""

FOLLOWING = {
    State.SYN_SENT: State.SYN_RECEIVED,
    State.SYN_RECEIVED: State.ESTABLISHED,
    State.ESTABLISHED: State.FIN_WAIT_RESPONDER,
    State.FIN_WAIT_RESPONDER: State.CLOSING,
}


class TableWorld(World):
    """`heals`: members mend lost updates. `went_back` counts states that were taken back: there must be none."""

    def __init__(self, releases: dict[int, str], *, heals: bool = True, **kw: Any) -> None:
        self.heals = heals
        self.tables: dict[int, ConnectionTable] = {}
        self.healers: dict[int, Healer] = {}
        self.paused: dict[int, list[bytes]] = {}
        self.went_back = 0
        self.lost = 0
        super().__init__(releases, **kw)

    def start(self, member: int) -> Node:
        self.tables[member] = ConnectionTable(member=member)
        self.healers[member] = Healer()
        self.paused.pop(member, None)
        return super().start(member)

    # --- What the edge does ---

    def serve(self, node: Node) -> None:
        if node.member in self.paused:
            return
        super().serve(node)
        healer = self.healers[node.member]
        if healer.next_wakeup() <= self.now and not node.engine.saving and not node.joining:
            self.heal(node, healer)
        elif healer.next_wakeup() != inf:
            self.at(max(healer.next_wakeup(), self.now + 0.01), lambda: self.serve_if_alive(node))

    def serve_if_alive(self, node: Node) -> None:
        if node.alive and self.nodes[node.member] is node:
            self.serve(node)

    def heal(self, node: Node, healer: Healer) -> None:
        peer = healer.due(self.now)
        if peer is None:
            return
        gate = node.engine.gate(peer)
        if gate is None or not gate.allows_full_sync:
            healer.ended(False, self.now)
        else:
            self.full_sync(node, peer)
        self.serve(node)

    def handle(self, node: Node, event: Event) -> None:
        table, healer = self.tables[node.member], self.healers[node.member]
        if isinstance(event, Updates):
            with self.watching(table, [update.key for update in event.updates]):
                for update in event.updates:
                    table.apply(update, self.now, origin=event.peer)
        elif isinstance(event, TableSlice):
            with self.watching(table, event.columns.key):
                table.apply_slice(event.columns, self.now, origin=event.peer)
        elif isinstance(event, LostUpdates):
            self.lost += event.count
            if self.heals:
                healer.lost(event.peer, self.now)
        elif isinstance(event, PeerRestarted):
            healer.forget(event.peer)
        elif isinstance(event, FullSyncDone | FullSyncFailed):
            done = isinstance(event, FullSyncDone)
            table.whole_has_come(event.peer, done)
            healer.ended(done, self.now)
            super().handle(node, event)
        elif isinstance(event, GateDecided):
            if self.heals and event.gate.allows_full_sync and node.engine.is_older(event.peer):
                healer.lost(event.peer, self.now)
            super().handle(node, event)

    @contextmanager
    def watching(self, table: ConnectionTable, keys: list[bytes]) -> Iterator[None]:
        """Count which of these connections are taken back to an earlier state meanwhile."""
        was = {c.key: (c.born, c.state) for c in table if c.key in keys}
        yield
        for c in table:
            if c.key in was and c.born == was[c.key][0] and c.state < was[c.key][1]:
                self.went_back += 1

    def full_sync(self, node: Node, peer: int) -> FullSink:
        self.healers[node.member].forget(peer)
        self.tables[node.member].await_whole(peer, own_only=not node.joining)
        return super().full_sync(node, peer)

    def snapshot_of(self, node: Node, slice_max: int) -> Iterator[Columns]:
        return self.tables[node.member].snapshot(self.now, slice_max)

    # --- Pausing ---

    def pause(self, member: int) -> None:
        self.paused[member] = []

    def resume(self, member: int) -> None:
        waiting = self.paused.pop(member, [])
        for data in waiting:
            super().arrive(member, data)
        self.wake(self.nodes[member])

    def wake(self, node: Node) -> None:
        if node.member in self.paused:
            node.armed = None
        else:
            super().wake(node)

    def arrive(self, receiver: int, data: bytes) -> None:
        waiting = self.paused.get(receiver)
        if waiting is None:
            super().arrive(receiver, data)
        elif len(waiting) < SOCKET_BUFFER:
            waiting.append(data)

    def pump(self, node: Node, sink: FullSink, other: Node, source: Any) -> None:
        if node.member in self.paused or other.member in self.paused:
            self.at(self.now + 0.1, lambda: self.pump(node, sink, other, source))
        else:
            super().pump(node, sink, other, source)

    # --- Traffic ---

    def open(self, member: int, key: bytes) -> None:
        connection = Connection(key, State.SYN_SENT, 1e6, 1e6, self.now)
        self.tables[member].add(connection, self.now)

    def advance(self, member: int, key: bytes) -> None:
        """A packet that takes the connection one state further, through this member."""
        table = self.tables[member]
        connection = table.entries[key]
        following = FOLLOWING.get(connection.state)
        if following is not None:
            connection.owned = True
            connection.state = following
            table.announce(connection, Op.MODIFY)

    def close(self, member: int, key: bytes) -> None:
        table = self.tables[member]
        connection = table.entries[key]
        connection.owned = True
        table.remove(connection)

    def tick(self, member: int) -> None:
        node = self.nodes[member]
        if member in self.paused or not node.alive:
            return
        node.engine.send_updates(self.tables[member].take_updates(self.now), self.now)
        self.serve(node)

    def views(self) -> list[dict[bytes, tuple[float, int]]]:
        """What every member holds: key -> born, state."""
        return [
            {c.key: (c.born, int(c.state)) for c in self.tables[member]} for member in self.nodes
        ]  # fmt: skip
