"""A member's synchronisation: the sync engine between the connections table and the edges. Pure.

Carries out what `syncproto.engine` decides: sends its messages, applies what peers sent, and opens the full syncs that
`syncproto.joining` begins. It tells the firewall how loaded sync is, and lets held packets go once the active peers
have acknowledged them. Knows nothing of states or elections: the cluster tells `Joining` who could be joined. Knows no
sockets: the edges move the bytes of the ends that it makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import inf
from typing import Any, Protocol

from fwnode.cluster.sync_network import ReachChanged
from fwnode.configuration import MemberConfig
from fwnode.edges import Edges, FullSyncEnd
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.holding import HeldPackets
from fwnode.firewall.load import LoadChanged
from fwnode.firewall.refreshing import TOLD_MAX
from fwnode.lab_clock import LabClock
from syncproto import engine
from syncproto.codec import Envelope
from syncproto.columns import Columns
from syncproto.errors import SyncError
from syncproto.events import NOT_STARTED
from syncproto.full import FullSource
from syncproto.joining import Attempt, AttemptEnded, AttemptState, Begin, Joining
from syncproto.limits import (
    BEHIND_AFTER_S,
    DEFAULT_LIMITS,
    FRAGMENT_DATAGRAM_MAX,
    PEER_SILENCE_S,
    RISK_INTERVAL_S,
)
from syncproto.message import Message
from syncproto.pacing import Pace
from syncproto.release import Compatibility, Gate


class Owner(Protocol):
    """What the member does for its synchronisation."""

    @property
    def now(self) -> float: ...
    def send_sync(self, messages: Iterable[tuple[int, Message]]) -> None: ...
    def full_sync_ended(self, now: float) -> None: ...
    def active_peers(self) -> list[int]: ...
    def event(self, kind: str, text: str, **details: Any) -> None: ...


class Synchroniser:
    """`next_wakeup()` may change after every other call."""

    def __init__(
        self,
        owner: Owner,
        edges: Edges,
        config: MemberConfig,
        compatibility: Compatibility,
        firewall: Firewall,
        clock: LabClock,
        joining: Joining,
        *,
        incarnation: int,
        now: float,
    ) -> None:
        self._owner = owner
        self._edges = edges
        self._config = config
        self._compatibility = compatibility
        self._firewall = firewall
        self._clock = clock
        self.joining = joining
        parameters = firewall.parameters
        limits = replace(
            DEFAULT_LIMITS,
            sending_queue=parameters["fw_sync_sending_queue_size"],
            receiving_queue=parameters["fw_sync_recv_queue_size"],
        )
        self.engine = engine.SyncEngine(
            member=config.number,
            incarnation=incarnation,
            release=config.release,
            compatibility=compatibility,
            peers=config.peers,
            now=now,
            limits=limits,
            cluster=config.cluster.id,
            key=config.key.encode() or None,
        )
        self.held: HeldPackets[object] = HeldPackets()
        self._load_told_at = -inf
        self._lost: Counter[int] = Counter()
        """Lost updates that nobody was told of yet, by peer."""
        self._losses_told_at = -inf
        self._no_room_told = 0
        """Connections of peers that found no room here, as far as somebody was told."""
        self._no_room_told_at = -inf
        self.parameters_changed(now)
        self.synced = {"full": 0, "delta": 0}
        """Connections that peers told of and that were news."""
        self._ends: list[FullSyncEnd] = []
        """Of the full syncs whose streams the edges have."""
        self._pace = Pace()
        self._interface = config.sync_interface

    # -- time and messages ---------------------------------------------------------------------------------------

    def next_wakeup(self) -> float | None:
        wakeups = [
            self.engine.next_wakeup(), self.held.next_wakeup(), self.joining.next_wakeup(),
            *(end.next_wakeup() for end in self._ends),
        ]  # fmt: skip
        return min((w for w in wakeups if w is not None and w != inf), default=None)

    def parameters_changed(self, now: float) -> None:
        """Kernel parameters were set: what they decide here follows."""
        dead_timeout_s = self._firewall.parameters["fwha_dead_timeout_ms"] / 1000
        self.engine.set_peer_silence(max(PEER_SILENCE_S, 2 * dead_timeout_s))
        self._weigh(now)

    def receive(self, envelope: Envelope, now: float) -> None:
        self.engine.receive_message(envelope, now)

    def advance(self, now: float) -> None:
        """Give the engine and the ends of full syncs the time, and carry out what they want."""
        wakeup = self.engine.next_wakeup()
        if wakeup is not None and now >= wakeup:
            self.engine.on_wakeup(now)
        self._drain(now)
        self._tell_losses(now)
        self._tell_no_room(now)
        self.joining.on_wakeup(now, self._gate, bool(self._firewall.parameters["fwlab_sync_heal"]))
        self._full_syncs(now)
        if self.held.unflushed:
            self._take_updates(now)
        self._send(now)
        self._weigh(now)
        self._release(now)
        for end in self._ends:
            self._wake(end, now)

    @property
    def settled(self) -> bool:
        """Every peer that is there has acknowledged every update so far."""
        return not self.engine.backlog and not self.engine.unacknowledged()

    def flush(self, now: float) -> None:
        """What changed in the table since the last time goes out."""
        if self._take_updates(now, TOLD_MAX if self.engine.keeps_up else 0):
            self._send(now)
            self._weigh(now)

    def _take_updates(self, now: float, room: int = 0) -> bool:
        self._firewall.connections.audience.listen(self.engine.listeners())
        updates = self._firewall.connections.take_updates(self._clock.at(now), room)
        if not updates or not self._config.peers:
            return False
        self.engine.send_updates(updates, now)
        return True

    # -- load, and packets that wait -----------------------------------------------------------------------------

    def _weigh(self, now: float) -> None:
        """Tell the firewall how many updates go unacknowledged."""
        change = self._firewall.load.update(self.engine.unacknowledged(), now)
        # It may come and go with every ACK: counted each time, told once a second.
        if change is not None and now - self._load_told_at >= RISK_INTERVAL_S:
            self._load_told_at = now
            self._tell_load(change)

    def _tell_load(self, change: LoadChanged) -> None:
        seen = f"{change.unacknowledged} updates are not acknowledged, the threshold is {change.threshold}"
        if change.heavy:
            self._owner.event("log", f"State synchronization is in risk: {seen}")
        if change.blocking:
            self._owner.event("sync", f"new connections are blocked: {seen}")
        elif not change.heavy:
            self._owner.event("sync", f"sync is no longer under load: {seen}")

    def _release(self, now: float) -> None:
        """Held packets whose changes every active peer knows go on."""
        if not len(self.held):
            return
        if not self.engine.backlog:
            self.held.flushed(self.engine.sequence)
        for packet in self.held.acknowledged(self.engine.acknowledged(self._owner.active_peers()), now):
            self._edges.release(packet, True)

    def _send(self, now: float) -> None:
        self._owner.send_sync(self.engine.outgoing(now))

    def _drain(self, now: float) -> None:
        while (event := self.engine.next_event()) is not None:
            if isinstance(event, engine.Updates):
                self._apply(event)
            elif isinstance(event, engine.TableSlice):
                self._apply_slice(event)
            elif isinstance(event, engine.GateDecided):
                self._gate_decided(event, now)
            elif isinstance(event, engine.Risk):
                self._owner.event("log", event.text)
            elif isinstance(event, engine.LagChanged):
                self._lag_changed(event)
            elif isinstance(event, engine.LostUpdates):
                self._lost[event.peer] += event.count
            elif isinstance(event, engine.PeerGone):
                self._firewall.connections.tellers.gone(event.peer)
            elif isinstance(event, engine.PeerUnreachable | engine.PeerRestarted | engine.PathChanged):
                self._owner.event("sync", self._describe(event))
                if isinstance(event, engine.PeerRestarted):
                    self._firewall.connections.tellers.end(event.peer)
            self.joining.receive_event(event, now)
            self._full_syncs(now)

    def _tell_losses(self, now: float) -> None:
        """Updates are lost by handfuls, many times a second: counted each time, told once a second."""
        if not self._lost or now - self._losses_told_at < RISK_INTERVAL_S:
            return
        self._losses_told_at = now
        for peer, count in self._lost.items():
            self._owner.event("sync", f"{count} updates of {self._config.peers[peer]} are lost for good")
        self._lost.clear()

    def _tell_no_room(self, now: float) -> None:
        """Connections of peers that this member lacks since its table is full, told once a second as well."""
        refused = self._firewall.connections.over_limit - self._no_room_told
        if not refused or now - self._no_room_told_at < RISK_INTERVAL_S:
            return
        self._no_room_told, self._no_room_told_at = self._firewall.connections.over_limit, now
        limit = self._firewall.parameters["connections_limit"]
        text = f"{refused:,} records of peers found no room here: connections_limit is {limit:,}"
        self._owner.event("log", f"State synchronization is in risk: {text}")

    def reach_changed(self, event: ReachChanged, now: float) -> None:
        """What passes on the sync network has changed."""
        name = self._config.peers[event.peer]
        if event.reach.whole:
            self.engine.hurry(event.peer, now)
            self._owner.event("sync", f"with {name}: {event.reach} sync packets again", peer=name)
        else:
            text = f"State synchronization is in risk: with {name}: {event.reach} sync packets"
            self._owner.event("log", text, peer=name)

    def _lag_changed(self, event: engine.LagChanged) -> None:
        name = self._config.peers[event.peer]
        if event.behind and event.receiving:
            seen = f"{event.count} updates of {name} do not arrive"
        else:
            seen = f"{name} has acknowledged nothing for {BEHIND_AFTER_S:g} s, {event.count} updates wait for it"
        if event.behind:
            self._owner.event("log", f"State synchronization is in risk: {seen}", peer=name)
        else:
            text = f"updates of {name} arrive again" if event.receiving else f"{name} acknowledges updates again"
            self._owner.event("sync", text, peer=name)

    def _describe(self, event: engine.PeerUnreachable | engine.PeerRestarted | engine.PathChanged) -> str:
        name = self._config.peers[event.peer]
        if isinstance(event, engine.PathChanged):
            how = "whole again" if event.whole else f"in fragments of {FRAGMENT_DATAGRAM_MAX} bytes"
            return f"large datagrams {'reach' if event.whole else 'do not reach'} {name}: updates are sent {how}"
        if isinstance(event, engine.PeerUnreachable):
            return f"sync with {name} is off: {event.reason}"
        return f"{name} has started anew"

    def _gate_decided(self, event: engine.GateDecided, now: float) -> None:
        name = self._config.peers[event.peer]
        word = event.gate.exchange.name.lower().replace("_", " ")
        reason = f" ({event.gate.reason})" if event.gate.reason else ""
        self._owner.event("sync", f"with {name}: {word}{reason}", peer=name)
        if event.gate.allows_full_sync and self.engine.knows_more(event.peer):
            # One member's table is not what each member knows, and the one that was asked may not have answered.
            self.joining.mend(event.peer, now)

    def _apply(self, event: engine.Updates) -> None:
        then = self._clock.at(event.at)
        table, generation = self._firewall.connections, self._firewall.generation
        self.synced["delta"] += table.apply_all(event.updates, then, generation, event.peer)

    def _apply_slice(self, event: engine.TableSlice) -> None:
        table, generation = self._firewall.connections, self._firewall.generation
        self.synced["full"] += table.apply_slice(event.columns, self._clock.at(event.at), generation, event.peer)

    # -- full sync: the member that joins, or heals --------------------------------------------------------------

    @property
    def full_sync(self) -> dict[str, Any]:
        """The full sync that runs, or else how the last one of this member went."""
        return self.joining.report(self._config.peers)

    def _gate(self, peer: int) -> Gate | None:
        """What may be exchanged with this peer, as far as is known; nothing comes without a sync interface."""
        return self.engine.gate(peer) if self._interface is not None else None

    def _full_syncs(self, now: float) -> None:
        """Carry out what `Joining` wants, and tell what became of it."""
        while (event := self.joining.next_event()) is not None:
            if isinstance(event, Begin):
                self._begin_full_sync(event, now)
            else:
                self._full_sync_ended(event, now)

    def _begin_full_sync(self, begin: Begin, now: float) -> None:
        peer, name = begin.peer, self._config.peers[begin.peer]
        if begin.heals:
            self._owner.event("sync", f"updates were lost: the whole table of {name} is taken anew")
        self._owner.event("sync", f"full sync from {name} begins", peer=name)
        self._firewall.connections.await_whole(peer, begin.own_only)
        sink = self.engine.begin_full_sync(peer, now, begin.attempt, begin.ends)
        try:
            port = self._compatibility.release(self.engine.peer_release(peer)).full_sync_port
            self._edges.open_stream(peer, port, sink)
        except (OSError, SyncError) as error:  # no address on the interface, no socket left, a release without a name
            sink.connection_lost(f"{NOT_STARTED}: {error}")
            return
        self._add_end(sink)

    def _full_sync_ended(self, event: AttemptEnded, now: float) -> None:
        attempt, name = event.attempt, self._config.peers[event.attempt.peer]
        gone = self._firewall.connections.whole_has_come(attempt.peer, attempt.state is AttemptState.DONE)
        if gone:
            self._owner.event("sync", f"{gone} connections that {name} no longer has were removed")
        self._owner.event("sync", self._told(attempt, name))
        if attempt.state is AttemptState.FAILED:
            self.engine.full_sync_missed(attempt.peer)
        if attempt.heals or not self.joining.over:
            return
        if (lacks := self.lacks()) and attempt.state is not AttemptState.DONE:
            self._owner.event("log", f"Full sync is incomplete: {lacks}")
        self._owner.full_sync_ended(now)

    def _told(self, attempt: Attempt, name: str) -> str:
        if attempt.state is AttemptState.DONE:
            return f"full sync is complete: {attempt.records} connections"
        if attempt.state is AttemptState.REFUSED:
            return f"no full sync: {attempt.reason}"
        failed = "; ".join(filter(None, (f"full sync failed: {attempt.reason}", attempt.text(name))))
        if self.joining.attempt is not None:
            return f"{failed}. {self._config.peers[self.joining.attempt.peer]} is asked next"
        return f"{failed}. Delta sync goes on: only new and changed connections"

    def lacks(self) -> str:
        """What this member never got of the table that it joined; empty where it got all, or where that is unknown."""
        incomplete = self.joining.incomplete
        return incomplete.text(self._config.peers[incomplete.peer]) if incomplete is not None else ""

    def refuse_held(self) -> None:
        """The member does not forward any more: held packets go nowhere."""
        for packet in self.held.take_all():
            self._edges.release(packet, False)

    def woke(self, now: float) -> None:
        """The member did not run for so long that others may have taken over: held packets go nowhere, and who asked
        for the table meanwhile, or gets it now, does not get one that may be out of date."""
        self.refuse_held()
        self._edges.refuse_waiting(now)
        for end in [end for end in self._ends if isinstance(end, FullSource)]:
            end.connection_lost()
            self._ends.remove(end)

    # -- full sync: both ends ------------------------------------------------------------------------------------

    def accept_stream(self, address: str, now: float) -> FullSource | None:
        """Somebody has connected for a full sync; None: it is no member, and the stream is to be closed."""
        assert self._interface is not None
        names = {str(self._interface.members[name][0].ip): number for number, name in self._config.peers.items()}
        peer = names.get(address)
        if peer is None:  # the policy let somebody through who is no member
            self._owner.event("sync", f"full sync was refused to {address}: it is no member's address")
            return None
        table = self._firewall.connections
        source = self.engine.accept_full_sync(self._snapshot, len(table), now, peer, table.snapshot_ended)
        self._add_end(source)
        return source

    def _snapshot(self, slice_max: int) -> Iterator[Columns]:
        """A walk over the table for a peer, which may have begun to listen since the last tick."""
        table = self._firewall.connections
        table.audience.listen(self.engine.listeners())
        return table.snapshot(self._clock.at(self._owner.now), slice_max)

    def _add_end(self, end: FullSyncEnd) -> None:
        self._ends.append(end)
        self._pace.begin(self._forwarded())

    def _wake(self, end: FullSyncEnd, now: float) -> None:
        wakeup = end.next_wakeup()
        if wakeup is None or now < wakeup:
            return
        if isinstance(end, FullSource) and self._edges.drains(end):
            end.moved(now)
        else:
            end.on_wakeup(now)

    def stream_ended(self, end: FullSyncEnd, now: float) -> None:
        """The edges have closed the stream of this end, which has finished or failed."""
        self._ends = [other for other in self._ends if other is not end]
        self._drain(now)

    def pause(self, now: float) -> float:
        """Seconds until a full sync's next slice may follow the one that was sent now: packets come first."""
        return self._pace.pause(self._forwarded(), now)

    def _forwarded(self) -> int:
        """Packets between others that were decided on so far."""
        counters = self._firewall.counters
        return counters.accepted + counters.dropped - counters.local
