"""Delta sync: one numbered stream of updates for all peers, each of which acknowledges it.

The sending queue holds what has been sent; newer replaces older. The receiving queue, one a peer, holds what arrived
ahead of a missing datagram. A gap is asked for (32 numbers a request); what is no longer in the sending queue is
rejected and lost; when the gap grows wider than the receiving queue, the receiver stops waiting. A lost tail has no
gap to be seen by, so a sender repeats its newest datagram to a peer that is behind. A peer that has asked for something
again is not sent more than its receiving queue can hold behind the gap: what is new waits, numbered, in the sending
queue, and counts as unacknowledged there.

This module knows nothing of gates, releases' names, bytes on the wire, or full sync. Both classes are driven by their
owner (`session`, `engine`) and have no events of their own: what is to be delivered is returned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from syncproto.errors import SyncError
from syncproto.events import Counters
from syncproto.limits import (
    DELTA_BODY_MAX,
    PACE_S,
    PACE_STEPS,
    REQUESTS_PER_CALL_MAX,
    RETRANSMIT_RANGE_MAX,
    UPDATES_PER_DATAGRAM_MAX,
    Limits,
)
from syncproto.message import Delta, Reject, Retransmit
from syncproto.record import Update, join, pack_update

_ARRAY_HEAD_BYTES = 3


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
    resend: dict[int, None] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)


class DeltaSender:
    """The member's own stream. `newest` is the last sequence number given out; the first is 1."""

    def __init__(self, limits: Limits, counters: Counters) -> None:
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
        """The peer listens, (again): it counts, and if it is behind it gets the newest datagram at once."""
        state = self._peers[peer]
        state.live = True
        state.sent, state.reach = self.newest, inf
        state.probe_interval_s = self._limits.probe_interval_s
        if state.acked < self.newest:
            state.probe_at = state.behind_since = now

    def suspend(self, peer: int) -> None:
        """The peer is gone: it holds nobody up, and nothing is sent to it. Its position is kept."""
        state = self._peers.get(peer)
        if state is not None:
            state.live = False
            state.probe_at = state.behind_since = inf
            state.resend.clear()
            state.rejects.clear()

    def remove_peer(self, peer: int) -> None:
        self._peers.pop(peer, None)

    def has_peers(self) -> bool:
        return bool(self._peers)

    def acknowledged(self, peer: int) -> int | None:
        state = self._peers.get(peer)
        return None if state is None else state.acked

    def unacknowledged(self) -> int:
        """Datagrams between the newest and the slowest live peer's position."""
        slowest = min((state.acked for state in self._peers.values() if state.live), default=self.newest)
        return self.newest - slowest

    def behind_since(self, peer: int) -> float:
        """Since when this peer owes an ACK; infinity = it owes none."""
        state = self._peers.get(peer)
        return inf if state is None else state.behind_since

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

    @property
    def backlog(self) -> int:
        return len(self._backlog)

    @property
    def queued(self) -> int:
        return len(self._queue)

    def burst(self, schema: int, now: float) -> list[Delta]:
        """New datagrams, to be sent to every live peer; at most a burst, and none before the pause is over."""
        if not self._backlog or now < self._next_burst:
            return []
        found: list[Delta] = []
        while self._backlog and len(found) < self._limits.burst_max:
            body = self._body(schema)
            if body:
                found.append(self._number(schema, body))
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
        room = DELTA_BODY_MAX - _ARRAY_HEAD_BYTES
        backlog, counters = self._backlog, self.counters
        while backlog and len(items) < UPDATES_PER_DATAGRAM_MAX:
            update = backlog[0]
            try:
                item = pack_update(update, schema)
            except SyncError:
                item = b""
            if not item or len(item) > DELTA_BODY_MAX - _ARRAY_HEAD_BYTES:
                counters.oversized_not_sent += 1
            elif len(item) > room:
                break
            else:
                room -= len(item)
                items.append(item)
                counters.records_sent[update.op] += 1
            backlog.popleft()
        return join(items) if items else b""

    def _number(self, schema: int, body: bytes) -> Delta:
        if self._must_confess:
            # Updates were dropped here. A number that nothing is sent under makes every peer notice, ask, and count it.
            self._must_confess = False
            self.newest += 1
            self._queue.append(None)
        self.newest += 1
        delta = Delta(self.newest, schema, body)
        self._queue.append(delta)
        return delta

    def repetitions(self, peer: int, now: float) -> tuple[list[Delta], list[Reject]]:
        """What this peer asked for again, or needs to notice that it is behind; and what it asks for in vain."""
        state = self._peers.get(peer)
        if state is None or not state.live:
            return [], []
        found: list[Delta] = []
        for sequence in state.resend:
            delta = self._kept(sequence)
            if delta is not None:
                found.append(delta)
        self.counters.sent_retransmission_updates += len(found)
        while self._reachable(state) and len(found) < self._limits.burst_max + len(state.resend):
            state.sent += 1
            delta = self._kept(state.sent)
            if delta is not None:
                found.append(delta)
        if now >= state.probe_at:
            probe = self._probe(state)
            if probe is not None and probe.sequence not in state.resend:
                found.append(probe)
                self.counters.sent_probes += 1
            state.probe_interval_s = min(state.probe_interval_s * 2, self._limits.probe_interval_max_s)
            state.probe_at = now + state.probe_interval_s
        state.resend.clear()
        rejects, state.rejects = state.rejects, []
        return found, rejects

    def _probe(self, state: _Peer) -> Delta | None:
        """What shows a peer that it is behind: not so far ahead of it that it would give up what is still here."""
        oldest = self.newest - len(self._queue) + 1
        return self._kept(max(min(state.sent, state.acked + self._limits.receiving_queue), oldest))

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
            if state.reach != inf:
                state.reach = inf if sequence >= self.newest else sequence + self._limits.receiving_queue
            state.probe_interval_s = self._limits.probe_interval_s
            behind = sequence < self.newest
            state.probe_at = now + state.probe_interval_s if behind else inf
            state.behind_since = now if behind else inf
        return True

    def on_retransmit(self, peer: int, first: int, count: int) -> int | None:
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
        return len(gone)

    @property
    def memory_bytes(self) -> int:
        """Bytes of updates that the sending queue holds."""
        return sum(len(delta.body) for delta in self._queue if delta is not None)

    # --- Time ---

    def pending(self, peer: int) -> bool:
        state = self._peers.get(peer)
        return state is not None and (bool(state.resend or state.rejects) or self._reachable(state))

    def next_wakeup(self) -> float:
        """Changes after submit, burst, repetitions, on_ack, on_retransmit, resume and suspend. Infinity = never."""
        soonest = min((state.probe_at for state in self._peers.values()), default=inf)
        return min(soonest, self._next_burst) if self._backlog else soonest


def _runs(numbers: list[int]) -> list[Reject]:
    """Ascending numbers -> their runs without a gap."""
    runs: list[Reject] = []
    for number in numbers:
        if runs and number == runs[-1].first + runs[-1].count:
            runs[-1] = Reject(runs[-1].first, runs[-1].count + 1)
        else:
            runs.append(Reject(number, 1))
    return runs


class DeltaReceiver:
    """One peer's stream, put in order. `expected` is the number that may be delivered next."""

    def __init__(self, start: int, limits: Limits, counters: Counters) -> None:
        self._limits = limits
        self.counters = counters
        self.expected = start + 1
        self.highest = start
        self._held: dict[int, Delta] = {}
        # Missing numbers from here on were never asked for; infinity = there are none.
        self._fresh_from: float = inf
        self._repeat_at = inf
        self._repeat_interval_s = limits.request_interval_s
        self._tries = 0
        self.ack_due = False

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def memory_bytes(self) -> int:
        """Bytes of updates that wait behind a missing one."""
        return sum(len(delta.body) for delta in self._held.values())

    def receive(self, delta: Delta, now: float) -> tuple[list[Delta], int]:
        """What can be delivered now, in order, and how many were given up (lost)."""
        sequence = delta.sequence
        self.ack_due = True
        if sequence < self.expected or sequence in self._held:
            self.counters.duplicates += 1
            return [], 0
        self.counters.received_updates += 1
        if sequence > self.highest + 1:
            self.counters.dropped_by_net += sequence - self.highest - 1
            self._fresh_from = min(self._fresh_from, self.highest + 1)
        self.highest = max(self.highest, sequence)
        if sequence != self.expected:
            self.counters.were_queued += 1
        self._held[sequence] = delta
        found, lost = self._skip_to(self.highest - self._limits.receiving_queue)
        self.counters.lost_bulks += lost > 0
        found += self._in_order()
        self._progress(now, bool(found or lost))
        return found, lost

    def on_reject(self, first: int, count: int, now: float) -> tuple[list[Delta], int]:
        """The sender no longer has these. Only what is really missing counts."""
        gone = range(max(first, self.expected), min(first + count, self.highest))
        if not gone or gone.start != self.expected:
            # Numbers further ahead are asked for, and rejected, when their turn comes.
            return [], 0
        found, lost = self._skip_to(gone.stop)
        found += self._in_order()
        self._progress(now, True)
        return found, lost

    def skip_to(self, sequence: int, now: float) -> list[Delta]:
        """Everything up to `sequence` is known from elsewhere (a snapshot). What waited behind it can be delivered."""
        if sequence < self.expected:
            return []
        for number in [number for number in self._held if number <= sequence]:
            del self._held[number]
        self.expected = sequence + 1
        self.highest = max(self.highest, sequence)
        self.ack_due = True
        found = self._in_order()
        self._progress(now, True)
        return found

    def _in_order(self) -> list[Delta]:
        found: list[Delta] = []
        while (delta := self._held.pop(self.expected, None)) is not None:
            found.append(delta)
            self.expected += 1
        return found

    def _skip_to(self, sequence: int) -> tuple[list[Delta], int]:
        """Stop waiting for what is missing before `sequence`. Work is bounded by what is held, not by the gap."""
        if sequence <= self.expected:
            return [], 0
        kept = sorted(number for number in self._held if number < sequence)
        lost = sequence - self.expected - len(kept)
        self.expected = sequence
        self.ack_due = True
        self.counters.lost_updates += lost
        return [self._held.pop(number) for number in kept], lost

    def _progress(self, now: float, moved: bool) -> None:
        """Rearm the timer: patience begins anew whenever anything was delivered."""
        if not self._held:
            self._fresh_from = self._repeat_at = inf
            self._tries = 0
        elif moved or self._repeat_at == inf:
            self._tries = 0
            self._repeat_interval_s = self._limits.request_interval_s
            self._repeat_at = now + self._repeat_interval_s

    def requests(self, stream: int, now: float) -> list[Retransmit]:
        """Requests that are due now: at once for a gap that is new, again and again for all of them."""
        if now >= self._repeat_at:
            start = self.expected
            self._tries += 1
            self._repeat_interval_s = min(self._repeat_interval_s * 2, self._limits.request_interval_max_s)
            self._repeat_at = now + self._repeat_interval_s
        elif self._fresh_from != inf:
            start = max(self.expected, int(self._fresh_from))
        else:
            return []
        self._fresh_from = inf
        found = [Retransmit(stream, first, count) for first, count in self._missing(start)]
        self.counters.sent_retransmission_requests += len(found)
        self.counters.requested_updates += sum(request.count for request in found)
        return found

    def give_up(self, now: float) -> tuple[list[Delta], int]:
        """After many requests in vain: stop waiting for the first gap. What follows it, and how many were lost."""
        if self._tries <= self._limits.request_tries_max or not self._held:
            return [], 0
        found, lost = self._skip_to(min(self._held))
        found += self._in_order()
        self._progress(now, True)
        return found, lost

    def _missing(self, start: int) -> list[tuple[int, int]]:
        """Runs of missing numbers from `start`, each of up to 32, up to the newest number seen."""
        runs: list[tuple[int, int]] = []
        number = start
        while number < self.highest and len(runs) < REQUESTS_PER_CALL_MAX:
            if number in self._held:
                number += 1
                continue
            first = number
            while number < self.highest and number not in self._held and number - first < RETRANSMIT_RANGE_MAX:
                number += 1
            runs.append((first, number - first))
        return runs

    def next_wakeup(self) -> float:
        """Changes after receive, on_reject, skip_to, requests and give_up. Infinity = never; it may be in the past."""
        return -inf if self._fresh_from != inf else self._repeat_at
