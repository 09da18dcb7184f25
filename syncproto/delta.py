"""Delta sync: one numbered stream of updates for all peers, each of which acknowledges it.

This is the sender; `receiver` is the other end. The sending queue holds what has been sent; newer replaces older. What
a peer asks for again is sent again, or rejected and lost when it is no longer in the sending queue. A lost tail has no
gap to be seen by, so a sender tells a peer that is behind how far its stream has got. A peer that has asked for
something again is not sent more than its receiving queue can hold behind the gap: what is new waits, numbered, in the
sending queue, and counts as unacknowledged there. Where whole datagrams do not arrive, it is sent fragments (`path`).

This module knows nothing of gates, releases' names, bytes on the wire, or full sync. It is driven by its owners
(`session`, `engine`) and has no events of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import inf

from syncproto.errors import SyncError
from syncproto.events import SyncCounters
from syncproto.limits import (
    AGE_MAX_MS,
    DELTA_BODY_MAX,
    FRAGMENT_BODY_MAX,
    PACE_S,
    PACE_STEPS,
    REQUESTS_PER_CALL_MAX,
    UPDATES_PER_DATAGRAM_MAX,
    Limits,
)
from syncproto.message import Delta, Fragment, Newest, Reject
from syncproto.path import Path
from syncproto.record import HEAD_BYTES, Update, join, pack_update


@dataclass
class _Peer:
    """What the sender knows of one peer."""

    acked: int
    sent: int
    """Up to this number everything was sent to it once."""
    reach: float = inf
    """It has a gap: beyond this number its receiving queue would not hold what is sent."""
    live: bool = False
    probe_at: float = inf
    probe_interval_s: float = 0.0
    behind_since: float = inf
    path: Path = field(default_factory=Path)
    resend: dict[int, None] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)


class DeltaSender:
    """The member's own stream. `newest` is the last sequence number given out; the first is 1."""

    def __init__(self, limits: Limits, counters: SyncCounters) -> None:
        self._limits = limits
        self.counters = counters
        self.newest = 0
        self._queue: deque[Delta | None] = deque(maxlen=limits.sending_queue)
        self._backlog: deque[Update] = deque()
        self._must_confess = False
        self._peers: dict[int, _Peer] = {}
        self._next_burst = -inf

    # --- Peers ---

    def add_peer(self, peer: int) -> int:
        """The peer's stream begins here: the number after which updates are for it. Until `resume` it is not live."""
        self._peers[peer] = _Peer(self.newest, self.newest, probe_interval_s=self._limits.probe_interval_s)
        return self.newest

    def resume(self, peer: int, now: float) -> None:
        """The peer listens (again): it counts as live, and if it is behind it is told the newest number at once."""
        state = self._peers[peer]
        state.live = True
        state.sent, state.reach = self.newest, inf
        state.probe_interval_s = self._limits.probe_interval_s
        if state.acked < self.newest:
            state.probe_at = state.behind_since = now

    def suspend(self, peer: int) -> None:
        """The peer is gone: it no longer counts as live, and nothing is sent to it. Its position is kept."""
        state = self._peers.get(peer)
        if state is not None:
            state.live = False
            state.probe_at = state.behind_since = inf
            state.resend.clear()
            state.rejects.clear()

    def remove_peer(self, peer: int) -> None:
        """Forget the peer and its position in the stream."""
        self._peers.pop(peer, None)

    def has_peers(self) -> bool:
        """Whether the stream is for anybody, live or not."""
        return bool(self._peers)

    def acknowledged(self, peer: int) -> int | None:
        """The newest number that this peer has acknowledged; None for a peer that was not added."""
        state = self._peers.get(peer)
        return None if state is None else state.acked

    def unacknowledged(self) -> int:
        """Datagrams between the newest and the slowest live peer's position."""
        slowest = min((state.acked for state in self._peers.values() if state.live), default=self.newest)
        return self.newest - slowest

    def behind_since(self, peer: int) -> float:
        """Since when this peer owes an ACK and acknowledges nothing; infinity = it owes none."""
        state = self._peers.get(peer)
        return inf if state is None else state.behind_since

    def path_is_whole(self, peer: int) -> bool:
        """Whether whole datagrams are believed to reach this peer; if not, it is sent fragments."""
        state = self._peers.get(peer)
        return state is None or state.path.whole

    # --- Sending ---

    def submit(self, updates: Iterable[Update]) -> int:
        """Updates to be sent; packed and numbered when their turn comes. Returns how many were dropped (overload)."""
        room = self._limits.backlog_updates_max - len(self._backlog)
        dropped = 0
        for update in updates:
            if room > 0:
                self._backlog.append(update)
                room -= 1
            else:
                dropped += 1
        self._must_confess = self._must_confess or dropped > 0
        self.counters.overload_dropped += dropped
        self.counters.max_backlog = max(self.counters.max_backlog, len(self._backlog))
        return dropped

    def discard_backlog(self) -> None:
        """Drop what waits: no peer's gate is open, and a peer that comes takes the whole table."""
        self._backlog.clear()
        self._must_confess = False

    @property
    def backlog(self) -> int:
        """Number of updates that wait to be packed and sent for the first time."""
        return len(self._backlog)

    @property
    def queued(self) -> int:
        """Number of datagrams in the sending queue."""
        return len(self._queue)

    def burst(self, schema: int, now: float) -> list[Delta]:
        """New datagrams, to be sent to every live peer; at most a burst, and none before the pause is over."""
        if not self._backlog or now < self._next_burst:
            return []
        found: list[Delta] = []
        while self._backlog and len(found) < self._limits.burst_max:
            body = self._body(schema)
            if body:
                found.append(self._number(schema, body, now))
        self._count(len(found))
        self._next_burst = now + self._pause()
        for state in self._peers.values():
            if found and state.live:
                # What is new shows a peer as well as a repetition would that it is behind.
                state.probe_at = now + state.probe_interval_s
                state.behind_since = min(state.behind_since, now)
        return found

    def _count(self, sent: int) -> None:
        counters, behind = self.counters, self.unacknowledged()
        counters.generated_updates += sent
        counters.bursts += 1
        counters.unacknowledged_sum += behind
        counters.max_unacknowledged = max(counters.max_unacknowledged, behind)

    def may_send(self, peer: int, delta: Delta) -> bool:
        """Whether a new datagram goes to this peer now; if not, `repetitions` gives it once its gap is filled."""
        state = self._peers[peer]
        if delta.sequence == state.sent + 1 and delta.sequence <= state.reach:
            state.sent = delta.sequence
            return True
        return False

    def fit(self, peer: int, delta: Delta, now: float) -> list[Delta | Fragment]:
        """The datagrams in which this peer is sent an update."""
        found = self._peers[peer].path.fit(delta, now)
        self.counters.peak_fragments = max(self.counters.peak_fragments, len(found))
        return found

    def _reachable(self, state: _Peer) -> bool:
        return state.live and state.sent < self.newest and state.sent < state.reach

    def _pause(self) -> float:
        behind = self.unacknowledged()
        for step, pause in zip(PACE_STEPS, PACE_S, strict=False):
            if behind <= step:
                return pause
        return PACE_S[-1]

    def _body(self, schema: int) -> bytes:
        """As many waiting updates as fit in a datagram; empty when none of those tried could be packed."""
        items: list[bytes] = []
        room = DELTA_BODY_MAX - HEAD_BYTES
        backlog, counters = self._backlog, self.counters
        while backlog and len(items) < UPDATES_PER_DATAGRAM_MAX:
            update = backlog[0]
            try:
                item = pack_update(update, schema)
            except SyncError:
                item = b""
            if not item or len(item) > DELTA_BODY_MAX - HEAD_BYTES:
                counters.oversized_not_sent += 1
            elif len(item) > room:
                break
            else:
                room -= len(item)
                items.append(item)
                counters.records_sent[update.op] += 1
            backlog.popleft()
        return join(items) if items else b""

    def _number(self, schema: int, body: bytes, now: float) -> Delta:
        if self._must_confess:
            # Updates were dropped here. A number that nothing is sent under makes every peer notice, ask, and count it.
            self._must_confess = False
            self.newest += 1
            self._queue.append(None)
        self.newest += 1
        delta = Delta(self.newest, schema, body, at=now)
        self._queue.append(delta)
        return delta

    def repetitions(self, peer: int, now: float) -> tuple[list[Delta | Fragment], list[Newest | Reject]]:
        """What this peer asked for again, or was not sent yet; and what it is told about the rest."""
        state = self._peers.get(peer)
        if state is None or not state.live:
            return [], []
        found = [delta for sequence in state.resend if (delta := self._kept(sequence)) is not None]
        self.counters.sent_retransmission_updates += len(found)
        while self._reachable(state) and len(found) < self._limits.burst_max + len(state.resend):
            state.sent += 1
            delta = self._kept(state.sent)
            if delta is not None:
                found.append(delta)
        told: list[Newest | Reject] = [*state.rejects]
        if now >= state.probe_at:
            if state.sent > state.acked:
                told.append(Newest(state.sent))
                self.counters.sent_probes += 1
            state.probe_interval_s = min(state.probe_interval_s * 2, self._limits.probe_interval_max_s)
            state.probe_at = now + state.probe_interval_s
        state.resend.clear()
        state.rejects.clear()
        return [datagram for delta in found for datagram in self.fit(peer, _aged(delta, now), now)], told

    def _kept(self, sequence: int) -> Delta | None:
        """The datagram of that number, if the queue still has it. The queue has an entry for each of its numbers."""
        index = sequence - self.newest + len(self._queue) - 1
        return self._queue[index] if 0 <= index < len(self._queue) else None

    # --- What a peer answers ---

    def on_ack(self, peer: int, sequence: int, now: float) -> bool:
        """The peer has everything up to `sequence`. False for a number that was never sent."""
        if sequence > self.newest:
            return False
        state = self._peers[peer]
        if sequence > state.acked:
            state.acked = sequence
            state.path.acknowledged(sequence)
            if state.reach != inf:
                state.reach = inf if sequence >= self.newest else sequence + self._limits.receiving_queue
            state.probe_interval_s = self._limits.probe_interval_s
            behind = sequence < self.newest
            state.probe_at = now + state.probe_interval_s if behind else inf
            state.behind_since = now if behind else inf
        return True

    def on_retransmit(self, peer: int, first: int, count: int, now: float) -> int | None:
        """The peer misses these. Returns how many are gone for ever; None for numbers that were never sent."""
        if first + count - 1 > self.newest:
            return None
        state = self._peers[peer]
        gone: list[int] = []
        before = len(state.resend)
        state.reach = state.acked + self._limits.receiving_queue
        for sequence in range(first, first + count):
            if self._kept(sequence) is None:
                gone.append(sequence)
            else:
                state.resend[sequence] = None
        for reject in _runs(gone):
            # A peer that asks twice before the answer is out gets one answer.
            if reject not in state.rejects and len(state.rejects) < REQUESTS_PER_CALL_MAX:
                state.rejects.append(reject)
        if not gone and len(state.resend) == before:
            self.counters.duplicate_requests += 1
        lacked = self._kept(first) if first == state.acked + 1 else None
        state.path.asked(first, count, lacked is not None and len(lacked.body) > FRAGMENT_BODY_MAX, now)
        return len(gone)

    @property
    def memory_bytes(self) -> int:
        """Bytes of updates that the sending queue holds."""
        return sum(len(delta.body) for delta in self._queue if delta is not None)

    # --- Time ---

    def pending(self, peer: int) -> bool:
        """Whether `repetitions` has something for this peer now."""
        state = self._peers.get(peer)
        return state is not None and (bool(state.resend or state.rejects) or self._reachable(state))

    def next_wakeup(self) -> float:
        """Changes after submit, burst, repetitions, on_ack, on_retransmit, resume and suspend. Infinity = never."""
        soonest = min((state.probe_at for state in self._peers.values()), default=inf)
        return min(soonest, self._next_burst) if self._backlog else soonest


def _aged(delta: Delta, now: float) -> Delta:
    """The same delta with its age: how long ago its records were as they say."""
    return replace(delta, age_ms=min(AGE_MAX_MS, round((now - delta.at) * 1000)))


def _runs(numbers: list[int]) -> list[Reject]:
    """Ascending numbers -> their runs without a gap."""
    runs: list[Reject] = []
    for number in numbers:
        if runs and number == runs[-1].first + runs[-1].count:
            runs[-1] = Reject(runs[-1].first, runs[-1].count + 1)
        else:
            runs.append(Reject(number, 1))
    return runs
