"""Members in virtual time as they really are: the sync engine, the firewall's connections table, joining and healing.

`World` gives the network (loss, duplication, reordering) and the streams; here each member has a `ConnectionTable` and
not a stand-in, may be paused as a process is by SIGSTOP, and takes a peer's table when it starts, and anew when updates
were lost: `Joining` decides. Who could be joined is told by the test, or by a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sync_world import Node, World

from fwnode.firewall.connection import Connection
from fwnode.firewall.refreshing import TOLD_MAX
from fwnode.firewall.table import ConnectionTable
from fwnode.firewall.tcp_states import ConnectionState
from syncproto.columns import Columns
from syncproto.events import GateDecided, LostUpdates, PeerGone, PeerRestarted, SyncEvent, TableSlice, Updates
from syncproto.full import FullSink
from syncproto.joining import AttemptState, Begin, Joining, Sources
from syncproto.record import Op

SOCKET_BUFFER = 300
"""Datagrams that the kernel keeps for a paused process; more are lost."""

FOLLOWING = {
    ConnectionState.SYN_SENT: ConnectionState.SYN_RECEIVED,
    ConnectionState.SYN_RECEIVED: ConnectionState.ESTABLISHED,
    ConnectionState.ESTABLISHED: ConnectionState.FIN_WAIT_RESPONDER,
    ConnectionState.FIN_WAIT_RESPONDER: ConnectionState.CLOSING,
}


class TableWorld(World):
    """`heals`: members mend lost updates. `went_back` counts states that were taken back: there must be none."""

    def __init__(self, releases: dict[int, str], *, heals: bool = True, **kw: Any) -> None:
        self.heals = heals
        self.tables: dict[int, ConnectionTable] = {}
        self.joinings: dict[int, Joining] = {}
        self.paused: dict[int, list[bytes]] = {}
        self.went_back = 0
        self.lost = 0
        super().__init__(releases, **kw)

    def start(self, member: int) -> Node:
        self.tables[member] = ConnectionTable(member=member)
        self.joinings[member] = Joining()
        self.paused.pop(member, None)
        self.tell_sources(member)
        return super().start(member)

    def tell_sources(self, member: int) -> None:
        source = self.join_from.get(member)
        self.joinings[member].receive_event(Sources(() if source is None else (source,)), self.now)

    def no_source_for(self, member: int) -> None:
        """It has nobody to join any more."""
        self.joinings[member].receive_event(Sources(()), self.now)

    # --- What the edge does ---

    def serve(self, node: Node) -> None:
        if node.member in self.paused:
            return
        super().serve(node)
        joining = self.joinings[node.member]
        joining.on_wakeup(self.now, node.engine.gate, self.heals)
        self.carry_out(node, joining)
        if joining.next_wakeup() < float("inf"):
            self.at(max(joining.next_wakeup(), self.now + 0.01), lambda: self.serve_if_alive(node))

    def serve_if_alive(self, node: Node) -> None:
        if node.alive and self.nodes[node.member] is node:
            self.serve(node)

    def carry_out(self, node: Node, joining: Joining) -> None:
        table = self.tables[node.member]
        while (event := joining.next_event()) is not None:
            if isinstance(event, Begin):
                table.await_whole(event.peer, event.own_only)
                self.full_sync(node, event.peer, event.attempt, event.ends)
                super().serve(node)
            else:
                table.whole_has_come(event.attempt.peer, event.attempt.state is AttemptState.DONE)

    def handle(self, node: Node, event: SyncEvent) -> None:
        table, joining = self.tables[node.member], self.joinings[node.member]
        if isinstance(event, Updates):
            with self.watching(table, [update.key for update in event.updates]):
                table.apply_all(event.updates, event.at, origin=event.peer)
        elif isinstance(event, TableSlice):
            with self.watching(table, event.columns.key):
                table.apply_slice(event.columns, event.at, origin=event.peer)
        elif isinstance(event, LostUpdates):
            self.lost += event.count
        elif isinstance(event, PeerRestarted):
            table.tellers.end(event.peer)
        elif isinstance(event, PeerGone):
            table.tellers.gone(event.peer)
        elif isinstance(event, GateDecided) and event.gate.allows_full_sync and node.engine.knows_more(event.peer):
            joining.mend(event.peer, self.now)
        joining.receive_event(event, self.now)
        self.carry_out(node, joining)

    @contextmanager
    def watching(self, table: ConnectionTable, keys: list[bytes]) -> Iterator[None]:
        """Count which of these connections are taken back to an earlier state meanwhile."""
        was = {c.key: (c.born, c.state) for c in table if c.key in keys}
        yield
        for c in table:
            if c.key in was and c.born == was[c.key][0] and c.state < was[c.key][1]:
                self.went_back += 1

    def count_of(self, node: Node) -> int:
        return len(self.tables[node.member])

    def snapshot_of(self, node: Node, slice_max: int) -> Iterator[Columns]:
        table = self.tables[node.member]
        table.audience.listen(node.engine.listeners())
        return table.snapshot(self.now, slice_max)

    def ended_of(self, node: Node, slice_max: int) -> Iterator[Columns]:
        return self.tables[node.member].snapshot_ended(slice_max)

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
        connection = Connection(key, ConnectionState.SYN_SENT, 1e6, 1e6, self.now)
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
        connection = table.find(key)
        assert connection is not None
        connection.owned = True
        table.remove(connection)

    def tick(self, member: int) -> None:
        node = self.nodes[member]
        if member in self.paused or not node.alive:
            return
        table = self.tables[member]
        table.audience.listen(node.engine.listeners())
        node.engine.send_updates(table.take_updates(self.now, TOLD_MAX if node.engine.keeps_up else 0), self.now)
        self.serve(node)

    def views(self) -> list[dict[bytes, tuple[float, int]]]:
        """What every member holds: key -> born, state."""
        return [
            {c.key: (c.born, int(c.state)) for c in self.tables[member]} for member in self.nodes
        ]  # fmt: skip
