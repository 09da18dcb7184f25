"""Whole members in virtual time: cluster, joining, sync engine and connections table, as the node wires them.

`TableWorld` gives engines, tables and streams; here each member has its `Cluster`, too, and who is active is the
cluster's decision. A killed member is silent. `forwarded_early` notes who forwarded before its first join was over:
there must be nobody.
"""

from __future__ import annotations

from typing import Any

from sync_world import COMPATIBILITY, Node
from table_world import TableWorld

from fwnode.cluster.membership import Cluster, MemberState, PeerChanged
from syncproto.message import Heartbeat

TURN_S = 0.05
LATENCY_S = 0.0005


class JoiningWorld(TableWorld):
    def __init__(self, members: int, *, load_sharing: bool = True, **kw: Any) -> None:
        self.load_sharing = load_sharing
        self.clusters: dict[int, Cluster] = {}
        self.forwarded_early: list[int] = []
        super().__init__(dict.fromkeys(range(1, members + 1), "R77.30"), heals=False, **kw)

    # -- what an operator and fate do ------------------------------------------------------------------------------

    def start(self, member: int) -> Node:
        node = super().start(member)
        peers = {n: f"fw{n}" for n in self.releases if n != member}
        self.clusters[member] = Cluster(
            member, peers, "R77.30", COMPATIBILITY.newer, now=self.now, load_sharing=self.load_sharing,
            joining=self.joinings[member],
        )  # fmt: skip
        self.turn(node)
        return node

    def tell_sources(self, member: int) -> None:
        """The cluster does."""

    def put_down(self, member: int) -> None:
        self.clusters[member].set_device("admin_down", "the administrator has put this member down", self.now)

    def stop(self, member: int) -> None:
        """In good order: the peers are told."""
        self.broadcast(member, self.clusters[member].leave(self.now))
        self.kill(member)

    # -- what is seen ----------------------------------------------------------------------------------------------

    def state(self, member: int) -> str:
        return self.clusters[member].state.label

    def count(self, member: int) -> int:
        return len(self.tables[member])

    def full_sync_of(self, member: int) -> dict[str, Any]:
        return self.joinings[member].report({n: f"fw{n}" for n in self.releases})

    # -- the node's loop -------------------------------------------------------------------------------------------

    def turn(self, node: Node) -> None:
        if not node.alive or self.nodes[node.member] is not node:
            return
        self.advance_cluster(node)
        self.at(self.now + TURN_S, lambda: self.turn(node))

    def advance_cluster(self, node: Node) -> None:
        cluster = self.clusters[node.member]
        if node.member not in self.paused:
            cluster.on_wakeup(self.now)
            while (event := cluster.next_event()) is not None:
                if isinstance(event, PeerChanged) and event.new is MemberState.LOST:
                    node.engine.peer_lost(event.peer, self.now)
                elif isinstance(event, PeerChanged) and event.old is MemberState.LOST:
                    node.engine.peer_found(event.peer, self.now)
            if cluster.state.forwards and not self.joinings[node.member].over:
                self.forwarded_early.append(node.member)
            heartbeat = cluster.outgoing(self.now)
            if heartbeat is not None:
                self.broadcast(node.member, heartbeat)
            self.serve(node)

    def broadcast(self, member: int, heartbeat: Heartbeat) -> None:
        incarnation = self.nodes[member].engine.incarnation
        for other in self.releases:
            if other != member and self.filter(member, other, heartbeat.kind):
                self.at(self.now + LATENCY_S, lambda o=other: self.hear(o, member, incarnation, heartbeat))  # type: ignore[misc]

    def hear(self, member: int, sender: int, incarnation: int, heartbeat: Heartbeat) -> None:
        node = self.nodes.get(member)
        if node is not None and node.alive and member not in self.paused:
            self.clusters[member].receive_heartbeat(sender, incarnation, heartbeat, self.now)
            self.advance_cluster(node)
