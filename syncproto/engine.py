"""`SyncEngine`: the one object that a member holds. It ties the sessions of all peers, the member's own stream of
updates, and a full sync into one protocol object.

Shape: `receive_message`, `send_updates`, `outgoing`, `next_wakeup`, `on_wakeup`, `next_event`. The owner's loop:

    after any call that takes `now`:  send what outgoing(now) returns, handle next_event() until None,
                                      arm one timer for next_wakeup()
    when the timer fires:             on_wakeup(now)

It knows nothing of bytes on the delta socket (the edge encodes and decodes), of heartbeats, or of the connection
table: which record wins is decided by whoever applies `Updates`, with (born, revision).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from math import inf

from syncproto.codec import Envelope
from syncproto.columns import Columns
from syncproto.delta import DeltaSender
from syncproto.errors import Reason, SyncError
from syncproto.events import (
    FULL_SYNC_CHECKSUM,
    FULL_SYNC_FAILURE,
    FULL_SYNC_QUEUE_FULL,
    NOT_STARTED,
    RISK_OLD,
    RISK_RECEIVED_REJECT,
    RISK_SENT_REJECT,
    SUPERSEDED,
    TERMINATED,
    TIMED_OUT,
    FullSyncBegun,
    FullSyncDone,
    FullSyncFailed,
    GateDecided,
    LagChanged,
    Listeners,
    LostUpdates,
    PathChanged,
    PeerGone,
    PeerRestarted,
    PeerUnreachable,
    Risk,
    SyncCounters,
    SyncEvent,
    TableSlice,
    Updates,
)
from syncproto.full import Frames, FullSink, FullSource
from syncproto.limits import DEFAULT_LIMITS, Limits
from syncproto.message import Delta, FullRequest, Message
from syncproto.only_new import OnlyNew
from syncproto.recall import TableTaken, positions
from syncproto.record import Op, Record, Update
from syncproto.release import RELEASE_MISMATCH, Compatibility, Exchange, Gate, version_numbers
from syncproto.session import Context, PeerSession, SessionState

__all__ = [
    "FullSink",
    "FullSource",
    "FullSyncBegun",
    "FullSyncDone",
    "FullSyncFailed",
    "GateDecided",
    "LagChanged",
    "LostUpdates",
    "Op",
    "PathChanged",
    "PeerGone",
    "PeerRestarted",
    "PeerUnreachable",
    "Record",
    "Risk",
    "SyncCounters",
    "SyncEngine",
    "SyncEvent",
    "TableSlice",
    "Update",
    "Updates",
]

NEW_CONNECTIONS_ONLY = "New connections only"


class SyncEngine:
    """The sync protocol of one member with all its peers.

    `incarnation` must be larger at each start of a member (the edge takes it from its clock). `cluster` and `key` are
    for the frames of full sync, which the engine encodes itself.
    """

    def __init__(
        self,
        *,
        member: int,
        incarnation: int,
        release: str,
        compatibility: Compatibility,
        peers: Iterable[int],
        now: float,
        limits: Limits = DEFAULT_LIMITS,
        cluster: int = 1,
        key: bytes | None = None,
    ) -> None:
        self.member = member
        self.incarnation = incarnation
        self.release = compatibility.release(release)
        self._compatibility = compatibility
        self._limits = limits
        self._frames = Frames(cluster, member, incarnation, key)
        self._counters = SyncCounters()
        self._sender = DeltaSender(limits, self._counters)
        self._events: deque[SyncEvent] = deque()
        self._sink: FullSink | None = None
        self._sources: dict[int, tuple[int, FullSource]] = {}
        """Who takes our table, or took it last, by peer, and in which of the peer's lives."""
        self._saved: deque[tuple[int, int, Updates]] = deque()
        self._saved_updates = 0
        self._only_new = OnlyNew(limits.known_keys_max, self._counters)
        self._risk_at: dict[str, float] = {}
        self._now = now
        self._context = Context(
            member, incarnation, self.release, compatibility, limits, self._sender, self._counters,
            self._emit, self._deliver, self._risk, now, TableTaken(), limits.peer_silence_s,
        )  # fmt: skip
        self._sessions = {peer: PeerSession(peer, self._context, now) for peer in peers if peer != member}

    # --- Input ---

    def receive_message(self, envelope: Envelope, now: float) -> None:
        """A message from the delta socket. Never raises: what does not fit is refused and counted."""
        self._now = now
        session = self._sessions.get(envelope.sender)
        if session is None:
            self._counters.refused[Reason.UNKNOWN_PEER.value] += 1
        else:
            session.receive_message(envelope.incarnation, envelope.message, now)

    def send_updates(self, updates: Iterable[Update], now: float) -> None:
        """Changes of this member's table, for every peer whose gate is open. The records are read when their turn
        comes, so hand over records that are not changed afterwards. With no such peer they go nowhere."""
        self._now = now
        if self._sender.has_peers():
            self._sender.submit(updates)

    def peer_lost(self, peer: int, now: float) -> None:
        """The cluster says that the peer is gone: its missing acknowledgements no longer count."""
        self._now = now
        self._session(peer).peer_lost(TIMED_OUT, now)
        if self._sink is not None and self._sink.peer == peer:
            self._sink.fail(TIMED_OUT, detail="the peer is gone")

    def peer_found(self, peer: int, now: float) -> None:
        """The cluster hears the peer (again)."""
        self._now = now
        self._session(peer).peer_found(now)

    def hurry(self, peer: int, now: float) -> None:
        """The way to the peer is open again: a HELLO that is due later is sent now."""
        self._now = now
        self._session(peer).hurry(now)

    # --- Output ---

    def outgoing(self, now: float) -> list[tuple[int, Message]]:
        """(peer, message): all that is to be sent now. New updates are the same object for every peer."""
        self.on_wakeup(now)
        found: list[tuple[int, Message]] = []
        for peer, session in self._sessions.items():
            found += [(peer, message) for message in session.outgoing(now)]
        schema = self._wire_schema()
        if schema is None:
            self._sender.discard_backlog()
        else:
            live = [peer for peer, session in self._sessions.items() if session.state is SessionState.OPEN]
            for delta in self._sender.burst(schema, now):
                those = [peer for peer in live if self._sender.may_send(peer, delta)]
                datagrams = [(peer, datagram) for peer in those for datagram in self._sender.fit(peer, delta, now)]
                self._counters.sent_packets += len(datagrams)
                found += datagrams
        return found

    def _wire_schema(self) -> int | None:
        """The lowest schema among peers whose gate is open, present or not: one that comes back reads the queue."""
        return min((schema for s in self._sessions.values() if (schema := s.peer_schema) is not None), default=None)

    def next_event(self) -> SyncEvent | None:
        """Events in the order in which they must be applied; None = no more for now."""
        return self._events.popleft() if self._events else None

    def next_wakeup(self) -> float | None:
        """When on_wakeup (and outgoing) must be called at the latest. May change after every call but status(),
        counters(), unacknowledged() and next_event(); also after calls of a FullSink that belongs to this engine."""
        soonest = min((session.next_wakeup() for session in self._sessions.values()), default=inf)
        soonest = min(soonest, self._sender.next_wakeup())
        stall = self._sink.next_wakeup() if self._sink is not None else None
        if stall is not None:
            soonest = min(soonest, stall)
        return None if soonest == inf else max(soonest, self._now)

    def on_wakeup(self, now: float) -> None:
        """The time is `now`: what is due by then is done, and its messages are in `outgoing(now)`."""
        self._now = now
        for session in self._sessions.values():
            session.on_wakeup(now)
        if self._sink is not None:
            self._sink.on_wakeup(now)

    # --- Figures ---

    @property
    def peers(self) -> tuple[int, ...]:
        return tuple(self._sessions)

    @property
    def sequence(self) -> int:
        """Number of the newest update sent."""
        return self._sender.newest

    @property
    def saving(self) -> bool:
        """Incoming updates are being saved because a full sync runs."""
        return self._sink is not None

    def status(self, peer: int) -> str:
        """`OK`, or `Off - ` and the product's reason."""
        return self._session(peer).status()

    def gate(self, peer: int) -> Gate | None:
        """The decision about this peer, as GateDecided told it last. None while its release is not known, and while
        an open gate cannot be used because the peer has not confirmed it, or is away."""
        return self._session(peer).told_gate

    def state(self, peer: int) -> SessionState:
        return self._session(peer).state

    def life(self, peer: int) -> int:
        """The incarnation of the peer that was heard last."""
        return self._session(peer).incarnation

    def knows_more(self, peer: int) -> bool:
        """The peer may know what we were never told, of what was before it heard of us."""
        return self._session(peer).knows_more

    def listeners(self) -> Listeners:
        """The peers that hear this member's updates now."""
        sessions = {peer: session for peer, session in self._sessions.items() if session.state is SessionState.OPEN}
        return Listeners(
            {peer: session.incarnation for peer, session in sessions.items()},
            all(s.gate is not None and s.gate.exchange is Exchange.NEW_CONNECTIONS for s in sessions.values()),
            frozenset(p for p, s in sessions.items() if not (s.takes_table or self._is_given_table(p, s.incarnation))),
        )

    def _is_given_table(self, peer: int, incarnation: int) -> bool:
        """The peer takes this member's whole table in this life, or has taken it."""
        life, source = self._sources.get(peer, (0, None))
        return life == incarnation and source is not None and not source.failed

    @property
    def keeps_up(self) -> bool:
        """Whether a peer listens, and those that do have everything: there is time for what is not urgent."""
        listens = any(session.state is SessionState.OPEN for session in self._sessions.values())
        return listens and not self.unacknowledged() and not self.backlog

    def peer_release(self, peer: int) -> str:
        """The release that the peer said it runs; empty while it has said nothing."""
        return self._session(peer).release

    def unacknowledged(self) -> int:
        """Updates between the newest sent and the slowest position of a live peer whose gate is open."""
        return self._sender.unacknowledged()

    def hears(self, peer: int) -> bool:
        """Whether this member's updates are for the peer now."""
        return self._sender.acknowledged(peer) is not None

    def came(self, peer: int, incarnation: int) -> int | None:
        """Up to this number the updates of the peer's life have come, without a gap; None: of that life none may."""
        session = self._session(peer)
        return session.receiver.expected - 1 if session.receiver and session.incarnation == incarnation else None

    def acknowledged(self, peers: Iterable[int]) -> int:
        """The newest update that each of these peers has acknowledged; of none of them, the newest sent."""
        acked = (self._sender.acknowledged(peer) for peer in peers)
        return min((number for number in acked if number is not None), default=self._sender.newest)

    @property
    def backlog(self) -> int:
        """Updates that wait to be sent for the first time."""
        return self._sender.backlog

    def memory_bytes(self) -> int:
        """Bytes of packed updates in the queues, sent and received."""
        receivers = [s.receiver for s in self._sessions.values() if s.receiver is not None]
        return self._sender.memory_bytes + sum(receiver.memory_bytes for receiver in receivers)

    def set_peer_silence(self, seconds: float) -> None:
        """How long a peer that is behind may say nothing before it no longer holds others up. Longer than the
        cluster's dead timer: the cluster should decide first."""
        self._context.peer_silence_s = seconds

    def counters(self) -> SyncCounters:
        """The figures now; a copy."""
        receivers = [s.receiver for s in self._sessions.values() if s.receiver is not None]
        counters = self._counters
        return replace(
            counters,
            records_sent=Counter(counters.records_sent),
            records_received=Counter(counters.records_received),
            refused=Counter(counters.refused),
            backlog=self._sender.backlog,
            sending_queue=self._sender.queued,
            receiving_queue=sum(receiver.held for receiver in receivers),
            unacknowledged=self._sender.unacknowledged(),
            sending_queue_size=self._limits.sending_queue,
            receiving_queue_size=self._limits.receiving_queue,
        )

    def reset_counters(self) -> None:
        """`cphaprob -reset syncstat`."""
        self._counters.reset()

    # --- Full sync ---

    def begin_full_sync(self, peer: int, now: float, attempt: int = 0, ends: bool = False) -> FullSink:
        """Joiner: take the peer's whole table. From here on incoming updates are saved; they are released in order
        after the snapshot's records, or after the failure. Where the gate does not allow it, the sink has failed
        already (and FullSyncFailed says `refused`). One that runs already is ended: `syncproto.joining` decides
        when, and numbers the attempts, so that it knows whose end it hears of. `ends`: the peer is asked for those
        that it remembers, too."""
        self._now = now
        session = self._session(peer)
        if self._sink is not None:
            self._sink.fail(SUPERSEDED)
        gate = session.gate
        sink = FullSink(
            peer=peer,
            incarnation=session.incarnation,
            schema=(gate.schema if gate is not None else None) or 0,
            request=FullRequest(self.release.name, self.release.schema, ends),
            frames=self._frames,
            limits=self._limits,
            counters=self._counters,
            now=now,
            on_begin=lambda expected: self._emit(FullSyncBegun(peer, expected, attempt)),
            on_records=lambda columns: self._emit(TableSlice(peer, columns, attempt, sink.begun_at)),
            on_end=self._on_full_end,
            attempt=attempt,
        )
        self._sink = sink
        if gate is None or session.state is not SessionState.OPEN:
            sink.fail(gate.reason if gate is not None and not gate.is_open else NOT_STARTED, refused=True)
        elif not gate.allows_full_sync:
            sink.fail(gate.reason or NEW_CONNECTIONS_ONLY, refused=True)
        return sink

    def accept_full_sync(
        self,
        snapshot: Callable[[int], Iterator[Columns]],
        count: int,
        now: float,
        peer: int | None = None,
        ended: Callable[[int], Iterator[Columns]] = lambda slice_max: iter(()),
    ) -> FullSource:
        """A peer has connected: whoever it is, it will be asked for its release first. `snapshot(n)` opens a walk over
        the table, in slices of up to n connections; it must bear that the table changes meanwhile. `ended(n)` gives
        what is remembered to be over, as records with the flag ENDED."""
        self._now = now
        source = FullSource(
            snapshot=snapshot,
            ended=ended,
            count=count,
            sequence=lambda: self._sender.newest,
            heard=self._heard,
            admit=lambda asking, request: self._admit(asking, request, peer, source),
            frames=self._frames,
            limits=self._limits,
            counters=self._counters,
            now=now,
        )
        return source

    def _admit(self, peer: int, request: FullRequest, expected: int | None, source: FullSource) -> Gate:
        """The gate for a full sync. Decided anew from the request: it must not depend on the delta socket."""
        if peer not in self._sessions or expected not in (None, peer):
            self._counters.refused[Reason.UNKNOWN_PEER.value] += 1
            return Gate(Exchange.NOTHING, f"member {peer} is not of this cluster", None)
        gate = self._compatibility.gate(self.release.name, request.release)
        if gate.exchange is Exchange.NEW_CONNECTIONS:
            return Gate(gate.exchange, gate.reason or NEW_CONNECTIONS_ONLY, None)
        if gate.schema is not None and request.schema < gate.schema:
            return Gate(gate.exchange, gate.reason, request.schema or None)
        if not gate.is_open:
            return Gate(Exchange.NOTHING, gate.reason or RELEASE_MISMATCH, None)
        self._sources[peer] = self._sessions[peer].incarnation, source
        return gate

    def _heard(self) -> list[list[int]]:
        heard = {peer: session.heard for peer, session in self._sessions.items()}
        return positions(heard, ((peer, sequence) for peer, sequence, _ in self._saved))

    def full_sync_missed(self, peer: int) -> None:
        """Joiner: the peer's table did not come, perhaps because not even its release did."""
        session = self._session(peer)
        session.full_sync_failure = session.full_sync_failure or FULL_SYNC_FAILURE

    def _on_full_end(self, sink: FullSink) -> None:
        session = self._sessions[sink.peer]
        saved, self._saved, self._saved_updates, self._sink = self._saved, deque(), 0, None
        for peer, sequence, updates in saved:
            if not sink.failed and peer == sink.peer and sequence <= sink.sequence:
                self._counters.covered_by_full += 1
            else:
                self._emit(updates)
        if sink.failed:
            gate = session.gate
            if not (sink.refused and gate is not None and gate.exchange is Exchange.NEW_CONNECTIONS):
                known = sink.failed in (FULL_SYNC_CHECKSUM, FULL_SYNC_QUEUE_FULL)
                session.full_sync_failure = sink.failed if known else FULL_SYNC_FAILURE
            self._emit(FullSyncFailed(sink.peer, sink.failed, sink.refused, sink.detail, sink.attempt))
            return
        first = self._context.table.take(sink.peer, (sink.incarnation, sink.sequence), sink.heard)
        for other in self._sessions.values():
            other.full_sync_failure = ""
            if first:
                other.recall(self._now)
        session.skip_to(sink.sequence, self._now)
        self._emit(FullSyncDone(sink.peer, sink.records, sink.attempt))

    # --- What the sessions call ---

    def _session(self, peer: int) -> PeerSession:
        session = self._sessions.get(peer)
        if session is None:
            known = ", ".join(map(str, self._sessions)) or "none"
            raise SyncError(Reason.UNKNOWN_PEER, f"member {peer} is not a peer; peers are: {known}")
        return session

    def _emit(self, event: SyncEvent) -> None:
        if isinstance(event, PeerRestarted):
            self._only_new.forget(event.peer)
            self._release_saved(event.peer)  # they are of the life that has ended
            event = replace(event, others=tuple(peer for peer in self._sessions if peer != event.peer))
        self._events.append(event)
        if self._sink is not None and self._sink.peer == getattr(event, "peer", None):
            if isinstance(event, PeerRestarted):
                self._sink.fail(TERMINATED, detail="the peer has restarted")
            elif isinstance(event, GateDecided) and not event.gate.allows_full_sync:
                self._sink.fail(event.gate.reason, detail="the gate has closed")

    def _release_saved(self, peer: int) -> None:
        """The peer's saved updates do not wait for the end of the full sync any longer."""
        saved, self._saved = self._saved, deque()
        for entry in saved:
            if entry[0] == peer:
                self._saved_updates -= len(entry[2].updates)
                self._events.append(entry[2])
            else:
                self._saved.append(entry)

    def _deliver(self, peer: int, delta: Delta) -> None:
        """Updates of one datagram, in order: applied now, or saved while a full sync runs."""
        received = self._counters.records_received
        for update in delta.updates:
            received[update.op] += 1
        updates, gate = list(delta.updates), self._sessions[peer].gate
        if gate is not None and gate.exchange is Exchange.NEW_CONNECTIONS:
            updates = self._only_new.of(peer, updates)
        if not updates:
            return
        if self._sink is not None and self._saved_updates + len(updates) > self._limits.saved_updates_max:
            self._sink.fail(FULL_SYNC_QUEUE_FULL, detail=f"{self._saved_updates} updates are saved")
        if self._sink is None:
            self._emit(Updates(peer, updates, delta.at))
            return
        self._saved.append((peer, delta.sequence, Updates(peer, updates, delta.at)))
        self._saved_updates += len(updates)
        self._counters.saved += 1

    def _risk(self, side: str, now: float) -> None:
        """Log the product's line, in the words of this member's release; one of a side in `risk_interval_s` at most."""
        if now - self._risk_at.get(side, -inf) < self._limits.risk_interval_s:
            return
        self._risk_at[side] = now
        numbers = version_numbers(self.release.version) or ()
        text = RISK_RECEIVED_REJECT if side == "received" else RISK_SENT_REJECT
        self._emit(Risk(text if numbers >= (80, 20) else RISK_OLD))
