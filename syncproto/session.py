"""One peer, as a state machine: releases first, then the gate, then updates.

Rules on top:

1. What may happen is in `TABLE`: (state, kind of message) -> handler. A message that has no entry for the present
   state is refused and counted, whoever sent it. `describe()` lists the table for the documentation.
2. No update is sent before the peer has said HELLO to *this* incarnation of ours, and none is accepted before we know
   where the peer's stream begins for us. Both come with the peer's HELLO.

States: ASKING, nothing is known, HELLO is repeated. HEARD, the peer's release is known and the gate is open, but the
peer has not confirmed that it has heard us. OPEN, updates flow. CLOSED, the gate forbids it. LOST, the cluster says
that the peer is gone; the stream's position is kept in case it is the same incarnation that comes back.

This module knows nothing of bytes, sockets, tables, or full sync (a stream of its own, see `full`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any

from syncproto.delta import DeltaSender
from syncproto.errors import Reason
from syncproto.events import (
    NOT_ACKNOWLEDGED,
    NOT_COMING,
    NOT_STARTED,
    TIMED_OUT,
    GateDecided,
    LagChanged,
    LostUpdates,
    PathChanged,
    PeerGone,
    PeerRestarted,
    PeerUnreachable,
    SyncCounters,
    SyncEvent,
)
from syncproto.lag import Lag
from syncproto.limits import JOIN_GATE_WAIT_S, PEER_RECALL_S, Limits
from syncproto.message import Ack, Delta, Fragment, Hello, Kind, Message, Newest, Reject, Retransmit
from syncproto.recall import TableTaken
from syncproto.receiver import DeltaReceiver
from syncproto.release import RELEASE_MISMATCH, Compatibility, Exchange, Gate, Release


class SessionState(Enum):
    """See the states in the module docstring."""

    ASKING = "asking"
    HEARD = "heard"
    OPEN = "open"
    CLOSED = "closed"
    LOST = "lost"


@dataclass
class Context:
    """What the sessions of one member share. `deliver` takes updates in order; `risk` takes which side rejected."""

    member: int
    incarnation: int
    release: Release
    compatibility: Compatibility
    limits: Limits
    sender: DeltaSender
    counters: SyncCounters
    emit: Callable[[SyncEvent], None]
    deliver: Callable[[int, Delta], None]
    risk: Callable[[str, float], None]
    started_at: float
    """When this life of the member began."""
    table: TableTaken
    peer_silence_s: float
    """`limits.peer_silence_s`, as long as the owner has not set another one."""


class PeerSession:
    """What one member knows of one peer. Driven by the engine; a session never touches another one."""

    def __init__(self, peer: int, context: Context, now: float) -> None:
        self.peer = peer
        self.context = context
        self.state = SessionState.ASKING
        self.incarnation = 0
        self.release = ""
        self.gate: Gate | None = None
        self.receiver: DeltaReceiver | None = None
        self.off_reason = NOT_STARTED
        self.full_sync_failure = ""
        self.began_at = inf
        """When the peer's present life began, by our clock, as far as is known."""
        self._ours, self._theirs = Lag(), Lag()
        self._path_whole = True
        self._start = 0
        self._told_before = False
        self._last_heard = now
        self._hello_at = now
        self._hello_interval_s = context.limits.hello_interval_s
        self._answer_due = False

    @property
    def knows_more(self) -> bool:
        """The peer may know what we were never told: its present life began before ours, or it has told others, from
        whom we may have taken what is out of date by now, before it told us."""
        return self.began_at < self.context.started_at or self._told_before

    @property
    def takes_table(self) -> bool:
        """The peer's present life began after ours, and not with it: it takes a whole table before it forwards."""
        return self.began_at > self.context.started_at + JOIN_GATE_WAIT_S

    @property
    def peer_schema(self) -> int | None:
        """The schema that both sides read, while the gate is open; also when the peer is away for a while."""
        return self.gate.schema if self.gate is not None and self.gate.is_open else None

    @property
    def told_gate(self) -> Gate | None:
        """The gate as `GateDecided` told it: None while an open one cannot be used (yet, or for now)."""
        if self.gate is None or (self.gate.is_open and self.state is not SessionState.OPEN):
            return None
        return self.gate

    def status(self) -> str:
        """`OK`, or `Off - ` and the product's reason. Deltas may flow although the full sync has failed."""
        if self.state is SessionState.OPEN:
            if self._ours.behind:
                return f"Off - {TIMED_OUT}: {NOT_ACKNOWLEDGED}"
            if self._theirs.behind:
                return f"Off - {TIMED_OUT}: {NOT_COMING}"
            return f"Off - {self.full_sync_failure}" if self.full_sync_failure else "OK"
        return f"Off - {self.off_reason}"

    # --- Receiving ---

    def receive_message(self, incarnation: int, message: Message, now: float) -> None:
        """One message from this peer. What the table does not name is refused."""
        handler = TABLE.get((self.state, message.kind))
        if handler is None:
            self._refuse(self._why_unexpected(message.kind))
            self._hurry(incarnation, now)
        elif message.kind is not Kind.HELLO and incarnation != self.incarnation:
            self._refuse(Reason.STALE_INCARNATION)
        else:
            handler(self, incarnation, message, now)

    def _why_unexpected(self, kind: Kind) -> Reason:
        if kind not in DATAGRAM_KINDS or self.state in (SessionState.OPEN, SessionState.LOST):
            return Reason.UNEXPECTED
        return Reason.GATE_CLOSED

    def _refuse(self, reason: Reason) -> None:
        self.context.counters.refused[reason.value] += 1

    def _hurry(self, incarnation: int, now: float) -> None:
        """A peer that sends what only an open session has is alive: send it the next HELLO soon."""
        if incarnation == self.incarnation:
            self.hurry(now + self.context.limits.hello_interval_s)

    def hurry(self, at: float) -> None:
        """The next HELLO is due then at the latest, if one is due at all."""
        if self.state in (SessionState.ASKING, SessionState.HEARD):
            self._hello_interval_s = self.context.limits.hello_interval_s
            self._hello_at = min(self._hello_at, at)

    def _on_hello(self, incarnation: int, message: Any, now: float) -> None:
        hello: Hello = message
        if incarnation < self.incarnation and now - self._last_heard < self.context.limits.stale_after_s:
            self._refuse(Reason.STALE_INCARNATION)
            return
        if incarnation != self.incarnation:
            self._begin(incarnation, hello, now)
        self._last_heard = now
        self.began_at = min(self.began_at, now - hello.age_s)  # a HELLO that was long on its way says too late a time
        if hello.answer:
            self._answer_due = True
        if hello.heard == self.context.incarnation:
            self._on_confirmed(hello, now)
        if self.state in (SessionState.ASKING, SessionState.LOST) and self.gate is not None:
            # The same incarnation is back, but may not have heard us since.
            if self.gate.is_open:
                self._enter(SessionState.HEARD, now)
            else:
                self._shut(self.gate, now)

    def _begin(self, incarnation: int, hello: Hello, now: float) -> None:
        """The peer has started anew: forget what was known of its earlier life, and decide the gate again."""
        restarted, lost, missed = self.incarnation != 0, self._owed(), self._may_have_missed(now)
        self._close_stream()
        self.incarnation, self.release = incarnation, hello.release
        self.began_at = inf
        if restarted:  # one that is heard for the first time may have been waited for in vain
            self.full_sync_failure = ""
        self._ours, self._theirs, self._path_whole = Lag(), Lag(), True
        if lost:
            self.context.counters.lost_updates += lost
            self.context.emit(LostUpdates(self.peer, lost))
        if restarted:
            self.context.emit(PeerRestarted(self.peer, missed=missed))
        self.gate = self._decide(hello)
        if self.gate.is_open:
            self._start = self.context.sender.add_peer(self.peer)
            self._enter(SessionState.HEARD, now)
        else:
            self._shut(self.gate, now)

    def _owed(self) -> int:
        """Updates that the peer is known to have sent, in its present life, and that have not come."""
        return 0 if self.receiver is None else self.receiver.owed

    def _may_have_missed(self, now: float) -> bool:
        """Whether the peer may have told others what we do not know of: we have not listened all the time."""
        silent = now - self._last_heard > PEER_RECALL_S
        return silent or self.receiver is None or self.state not in (SessionState.OPEN, SessionState.LOST)

    def _decide(self, hello: Hello) -> Gate:
        """The gate by our table; never a newer schema than the peer says it reads."""
        gate = self.context.compatibility.gate(self.context.release.name, hello.release)
        if gate.schema is not None and hello.schema < gate.schema:
            gate = Gate(gate.exchange, gate.reason, hello.schema)
        return gate if gate.schema != 0 else Gate(Exchange.NOTHING, RELEASE_MISMATCH, None)

    def _on_confirmed(self, hello: Hello, now: float) -> None:
        """The peer has heard us: both sides have decided. The narrower decision counts."""
        gate = self.gate
        if gate is None or not gate.is_open or self.state is SessionState.OPEN:
            return
        if hello.decided < gate.exchange:
            exchange = Exchange(max(hello.decided, 0))
            if exchange is Exchange.NOTHING:
                self._shut(Gate(exchange, RELEASE_MISMATCH, None), now)
                return
            gate = self.gate = Gate(exchange, gate.reason, gate.schema)
        if self.receiver is None:
            self.receiver = DeltaReceiver(hello.start, self.context.limits, self.context.counters)
            self._told_before = hello.start > 0
            self.recall(now)
        self._enter(SessionState.OPEN, now)
        self.context.sender.resume(self.peer, now)
        self.context.emit(GateDecided(self.peer, gate))

    def recall(self, now: float) -> None:
        """Ask for what the peer told before its stream began for us: all of it where it began after us, and else what
        the table that we took does not hold."""
        if self.receiver is None or self.gate is None or self.gate.exchange < Exchange.FULL:
            return
        younger = self.began_at > self.context.started_at
        position = 0 if younger else self.context.table.holds(self.peer, self.incarnation)
        if position is not None:
            self._deliver([], self.receiver.recall(position, now))

    @property
    def heard(self) -> tuple[int, int] | None:
        """How far this member knows what the peer told: the incarnation in which it did, and a number of its stream."""
        if self.receiver is None:
            return self.context.table.heard.get(self.peer)
        return self.incarnation, self.receiver.whole_until

    def _on_delta(self, incarnation: int, message: Any, now: float) -> None:
        delta: Delta = message
        self._last_heard = now
        schema = self.peer_schema
        if self.receiver is None or schema is None or delta.schema > schema:
            self._refuse(Reason.UNKNOWN_SCHEMA)
            return
        self._deliver(*self.receiver.receive(delta, now))

    def _on_fragment(self, incarnation: int, message: Any, now: float) -> None:
        fragment: Fragment = message
        self._last_heard = now
        schema = self.peer_schema
        if self.receiver is None or schema is None or fragment.schema > schema:
            self._refuse(Reason.UNKNOWN_SCHEMA)
            return
        self._deliver(*self.receiver.on_fragment(fragment, now))

    def _on_newest(self, incarnation: int, message: Any, now: float) -> None:
        newest: Newest = message
        self._last_heard = now
        if self.receiver is not None:
            self.receiver.on_newest(newest.sequence, now)

    def _on_ack(self, incarnation: int, message: Any, now: float) -> None:
        ack: Ack = message
        self._last_heard = now
        if ack.stream != self.context.incarnation:
            self._refuse(Reason.STALE_INCARNATION)
        elif not self.context.sender.on_ack(self.peer, ack.sequence, now):
            self._refuse(Reason.ILLEGAL_SEQUENCE)
        else:
            self.context.counters.received_acks += 1
            self._note_path()

    def _on_retransmit(self, incarnation: int, message: Any, now: float) -> None:
        request: Retransmit = message
        self._last_heard = now
        if request.stream != self.context.incarnation:
            self._refuse(Reason.STALE_INCARNATION)
            return
        self.context.counters.received_retransmission_requests += 1
        gone = self.context.sender.on_retransmit(self.peer, request.first, request.count, now)
        if gone is None:
            self.context.counters.illegal_requests += 1
            self._refuse(Reason.ILLEGAL_SEQUENCE)
        self._note_path()

    def _note_path(self) -> None:
        whole = self.context.sender.path_is_whole(self.peer)
        if whole is not self._path_whole:
            self._path_whole = whole
            self.context.emit(PathChanged(self.peer, whole))

    def _on_reject(self, incarnation: int, message: Any, now: float) -> None:
        reject: Reject = message
        self._last_heard = now
        self.context.counters.received_rejects += 1
        if self.receiver is not None:
            found, lost = self.receiver.on_reject(reject.first, reject.count, now)
            if lost:
                self.context.risk("received", now)
            self._deliver(found, lost)

    def _deliver(self, found: list[Delta], lost: int) -> None:
        if lost:
            self.context.emit(LostUpdates(self.peer, lost))
        for delta in found:
            self.context.deliver(self.peer, delta)

    def skip_to(self, sequence: int, now: float) -> None:
        """A whole table held every update up to `sequence`: they need not come any more."""
        if self.receiver is not None:
            self._deliver(self.receiver.skip_to(sequence, now), 0)

    # --- States ---

    def _enter(self, state: SessionState, now: float) -> None:
        self.state = state
        if state in (SessionState.ASKING, SessionState.HEARD):
            self._hello_interval_s = self.context.limits.hello_interval_s
            self._hello_at = now
        else:
            self._hello_at = inf

    def _shut(self, gate: Gate, now: float) -> None:
        self.gate = gate
        self._close_stream()
        self.off_reason = gate.reason or RELEASE_MISMATCH
        self._enter(SessionState.CLOSED, now)
        self.context.emit(GateDecided(self.peer, gate))

    def _close_stream(self) -> None:
        self.context.sender.remove_peer(self.peer)
        self.receiver = None

    def peer_lost(self, reason: str, now: float) -> None:
        """The cluster hears nothing of the peer: it is sent nothing until it says HELLO, or is found."""
        self.context.sender.suspend(self.peer)
        self.off_reason = reason
        self._answer_due = False
        self._enter(SessionState.LOST, now)
        self.context.emit(PeerGone(self.peer))

    def peer_found(self, now: float) -> None:
        """The cluster hears the peer again: ask for its release as if for the first time."""
        if self.state is SessionState.LOST:
            self._enter(SessionState.ASKING, now)

    # --- Sending and time ---

    def outgoing(self, now: float) -> Iterator[Message]:
        """What is due for this peer except new updates, which are the same for all."""
        if now >= self._hello_at or self._answer_due:
            yield self._hello(now)
        if self.state is not SessionState.OPEN or self.receiver is None:
            return
        counters = self.context.counters
        if self.receiver.ack_due:
            self.receiver.ack_due = False
            counters.sent_acks += 1
            yield Ack(self.incarnation, self.receiver.expected - 1)
        yield from self.receiver.requests(self.incarnation, now)
        repeated, told = self.context.sender.repetitions(self.peer, now)
        for message in told:
            if isinstance(message, Reject):
                counters.sent_rejects += 1
                self.context.risk("sent", now)
            yield message
        counters.sent_packets += len(repeated)
        yield from repeated

    def _hello(self, now: float) -> Hello:
        self._answer_due = False
        asking = self.state in (SessionState.ASKING, SessionState.HEARD)
        if now >= self._hello_at:
            self._hello_at = now + self._hello_interval_s
            self._hello_interval_s = min(self._hello_interval_s * 2, self.context.limits.hello_interval_max_s)
        decided = -1 if self.gate is None else int(self.gate.exchange)
        own = self.context.release
        age_s = now - self.context.started_at
        return Hello(own.name, own.schema, self.incarnation, decided, self._start, asking, age_s)

    def next_wakeup(self) -> float:
        """Changes after every call of this class except status(). Infinity = never; it may be in the past."""
        if self._answer_due:
            return -inf
        if self.state is not SessionState.OPEN or self.receiver is None:
            return self._hello_at
        if self.receiver.ack_due or self.context.sender.pending(self.peer):
            return -inf
        since = self.context.sender.behind_since(self.peer)
        soonest = min(self.receiver.next_wakeup(), self._theirs.due(self.receiver.behind_since))
        return soonest if since == inf else min(soonest, self._silent_at(since), self._ours.due(since))

    def _silent_at(self, since: float) -> float:
        """When the peer has said nothing for too long that has been behind since then."""
        return inf if since == inf else max(since, self._last_heard) + self.context.peer_silence_s

    def on_wakeup(self, now: float) -> None:
        """The time is `now`: what is due by then is done; its messages are in `outgoing(now)`."""
        if self.state is not SessionState.OPEN or self.receiver is None:
            return
        self._deliver(*self.receiver.give_up(now))
        self._note_lag(self.receiver, now)
        if now >= self._silent_at(self.context.sender.behind_since(self.peer)):
            self.context.sender.suspend(self.peer)
            self.context.counters.silent_peers += 1
            self.off_reason = TIMED_OUT
            self._enter(SessionState.ASKING, now)
            self.context.emit(PeerUnreachable(self.peer, TIMED_OUT))

    def _note_lag(self, receiver: DeltaReceiver, now: float) -> None:
        """Look whether the peer makes progress in our stream, and this member in the peer's; tell when that changes."""
        sender, ours, theirs = self.context.sender, self._ours, self._theirs
        acked = sender.acknowledged(self.peer) or 0
        if ours.update(sender.behind_since(self.peer), acked, sender.newest, now):
            self.context.emit(LagChanged(self.peer, False, ours.behind, ours.owed))
        if theirs.update(receiver.behind_since, receiver.known - receiver.owed, receiver.known, now):
            self.context.emit(LagChanged(self.peer, True, theirs.behind, theirs.owed))


MessageHandler = Callable[[PeerSession, int, Any, float], None]

DATAGRAM_KINDS = frozenset({Kind.HELLO, Kind.DELTA, Kind.FRAGMENT, Kind.NEWEST, Kind.ACK, Kind.RETRANSMIT, Kind.REJECT})
"""Kinds that have any business on the delta socket of the engine. Heartbeats go to the cluster."""

TABLE: dict[tuple[SessionState, Kind], MessageHandler] = {
    (SessionState.ASKING, Kind.HELLO): PeerSession._on_hello,
    (SessionState.HEARD, Kind.HELLO): PeerSession._on_hello,
    (SessionState.OPEN, Kind.HELLO): PeerSession._on_hello,
    (SessionState.CLOSED, Kind.HELLO): PeerSession._on_hello,
    (SessionState.LOST, Kind.HELLO): PeerSession._on_hello,
    (SessionState.OPEN, Kind.DELTA): PeerSession._on_delta,
    (SessionState.OPEN, Kind.FRAGMENT): PeerSession._on_fragment,
    (SessionState.OPEN, Kind.NEWEST): PeerSession._on_newest,
    (SessionState.OPEN, Kind.ACK): PeerSession._on_ack,
    (SessionState.OPEN, Kind.RETRANSMIT): PeerSession._on_retransmit,
    (SessionState.OPEN, Kind.REJECT): PeerSession._on_reject,
}


def describe() -> list[tuple[str, str, str]]:
    """The table for people: (state, kind, handler), in the table's order."""
    return [(state.value, kind.name, handler.__name__.lstrip("_")) for (state, kind), handler in TABLE.items()]


__all__ = ["DATAGRAM_KINDS", "TABLE", "Context", "PeerSession", "SessionState", "describe"]
