"""Delta sync, the receiving end: one peer's numbered stream of updates, put in order.

The receiving queue, one a peer, holds what arrived ahead of a missing datagram. A gap is asked for (32 numbers a
request), again and again; when it grows wider than the receiving queue, or the sender has rejected the requests, the
receiver stops waiting. A sender whose newest datagrams were lost says how far it has got, so that they are missed.
Fragments of an update are put together here. What was told before the stream began for this member may be asked for
as well (`recall`): it is a stream of its own, which ends where the other begins.

This module knows nothing of gates, bytes on the wire, or full sync. It is driven by `session` and has no events of its
own: what is to be delivered is returned.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from syncproto.events import SyncCounters
from syncproto.limits import DELTA_BODY_MAX, REQUESTS_PER_CALL_MAX, RETRANSMIT_RANGE_MAX, Limits
from syncproto.message import Delta, Fragment, Retransmit


class DeltaReceiver:
    """One peer's stream, put in order. `expected` is the number that may be delivered next, `highest` the newest that
    came, `known` the newest that the sender is known to have sent; `start` the last that is not for this member."""

    def __init__(self, start: int, limits: Limits, counters: SyncCounters) -> None:
        self._limits = limits
        self.counters = counters
        self.start = start
        self.earlier: DeltaReceiver | None = None
        """Of what is recalled from before `start`, until it has come."""
        self._recalled = False
        self.expected = start + 1
        self.highest = start
        self.known = start
        self._behind_since = inf
        self._partial: dict[int, dict[int, Fragment]] = {}
        self._held: dict[int, Delta] = {}
        # Missing numbers from here on were never asked for; infinity = there are none.
        self._fresh_from: float = inf
        self._repeat_at = inf
        self._repeat_interval_s = limits.request_interval_s
        self._tries = 0
        self.ack_due = False

    @property
    def held(self) -> int:
        """Number of datagrams that wait behind a missing one."""
        return len(self._held) + (self.earlier.held if self.earlier is not None else 0)

    @property
    def behind_since(self) -> float:
        """Since when something is missing and nothing could be delivered; infinity = nothing is missing."""
        since = self._behind_since
        return since if self.earlier is None else min(since, self.earlier.behind_since)

    @property
    def owed(self) -> int:
        """Updates that the sender is known to have sent and that could not be delivered yet."""
        owed = self.known - self.expected + 1
        return owed if self.earlier is None else owed + self.earlier.owed

    @property
    def whole_until(self) -> int:
        """Up to this number everything has been delivered, or was known from elsewhere."""
        return (self if self.earlier is None else self.earlier).expected - 1

    def recall(self, position: int, now: float) -> int:
        """Of what was told before `start`, all up to `position` is known from elsewhere: ask for the rest, as far as a
        sender may still have it. Returns how many are given up (lost). Once; later it does nothing."""
        if self._recalled:
            return 0
        self._recalled = True
        begin = min(self.start, max(position, self.start - self._limits.sending_queue))
        lost = max(0, begin - position)
        self.counters.lost_updates += lost
        if begin < self.start:
            earlier = self.earlier = DeltaReceiver(begin, self._limits, self.counters)
            earlier.known, earlier._fresh_from = self.start, begin + 1  # they are not missing for the network's fault
            earlier._progress(now, True)
        return lost

    def _after(self, earlier: DeltaReceiver, found: tuple[list[Delta], int]) -> tuple[list[Delta], int]:
        """What `earlier` has given; it is over with the last one."""
        if earlier.expected > earlier.known:
            self.earlier = None
        return found

    @property
    def memory_bytes(self) -> int:
        """Bytes of updates that wait behind a missing one."""
        earlier = self.earlier.memory_bytes if self.earlier is not None else 0
        return earlier + sum(len(delta.body) for delta in self._held.values())

    def receive(self, delta: Delta, now: float) -> tuple[list[Delta], int]:
        """What can be delivered now, in order, and how many were given up (lost)."""
        sequence = delta.sequence
        if sequence <= self.start and self.earlier is not None:
            return self._after(self.earlier, self.earlier.receive(delta, now))
        self.ack_due = True
        if sequence < self.expected or sequence in self._held:
            self.counters.duplicates += 1
            return [], 0
        self.counters.received_updates += 1
        self._learn(sequence - 1)
        self.known = max(self.known, sequence)
        self.highest = max(self.highest, sequence)
        if sequence != self.expected:
            self.counters.were_queued += 1
        self._held[sequence] = replace(delta, at=now - delta.age_ms / 1000)  # it may wait here, too
        found, lost = self._skip_to(self.highest - self._limits.receiving_queue)
        self.counters.lost_bulks += lost > 0
        found += self._in_order()
        self._progress(now, bool(found or lost))
        return found, lost

    def _learn(self, sequence: int) -> None:
        """The sender has sent up to this number: what of it never came is to be asked for."""
        if sequence > self.known:
            self.counters.dropped_by_net += sequence - self.known
            self._fresh_from = min(self._fresh_from, self.known + 1)
            self.known = sequence

    def on_newest(self, sequence: int, now: float) -> None:
        """The sender has sent up to this number: ask for what is missing, and acknowledge what is there."""
        self.ack_due = True
        self._learn(sequence)
        self._progress(now, False)

    def on_fragment(self, fragment: Fragment, now: float) -> tuple[list[Delta], int]:
        """As `receive`, once all parts of an update are there."""
        sequence = fragment.sequence
        if sequence <= self.start and self.earlier is not None:
            return self._after(self.earlier, self.earlier.on_fragment(fragment, now))
        if sequence < self.expected or sequence in self._held:
            self.counters.duplicates += 1
            self.ack_due = True
            return [], 0
        parts = self._partial.setdefault(sequence, {})
        if any(part.parts != fragment.parts for part in parts.values()):
            parts.clear()  # the sender has cut it anew
        parts[fragment.part] = fragment
        if len(parts) < fragment.parts:
            too_long = sum(len(part.body) for part in parts.values()) > 2 * DELTA_BODY_MAX
            if too_long or len(self._partial) > self._limits.receiving_queue:
                del self._partial[sequence if too_long else max(self._partial)]  # what is missing is asked for again
            return [], 0
        del self._partial[sequence]
        updates = tuple(update for part in range(fragment.parts) for update in parts[part].updates)
        return self.receive(Delta(sequence, fragment.schema, b"", updates, fragment.age_ms), now)

    def on_reject(self, first: int, count: int, now: float) -> tuple[list[Delta], int]:
        """The sender no longer has these. Only what is really missing counts."""
        if first <= self.start and self.earlier is not None:
            return self._after(self.earlier, self.earlier.on_reject(first, count, now))
        gone = range(max(first, self.expected), min(first + count, self.known + 1))
        if not gone or gone.start != self.expected:
            # Numbers further ahead are asked for, and rejected, when their turn comes.
            return [], 0
        found, lost = self._skip_to(gone.stop)
        found += self._in_order()
        self._progress(now, True)
        return found, lost

    def skip_to(self, sequence: int, now: float) -> list[Delta]:
        """Everything up to `sequence` is known from elsewhere (a snapshot). What waited behind it can be delivered."""
        if sequence >= self.start:
            self.earlier = None
        if sequence < self.expected:
            return []
        for number in [number for number in self._held if number <= sequence]:
            del self._held[number]
        self.expected = sequence + 1
        self.highest = max(self.highest, sequence)
        self.known = max(self.known, sequence)
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
        self.highest = max(self.highest, sequence - 1)
        self.ack_due = True
        self.counters.lost_updates += lost
        return [self._held.pop(number) for number in kept], lost

    def _progress(self, now: float, moved: bool) -> None:
        """Set the timer of the next request. The number of tries begins anew whenever something was delivered."""
        if moved and self._partial:
            self._partial = {number: parts for number, parts in self._partial.items() if number >= self.expected}
        if self.expected > self.known:
            self._fresh_from = self._repeat_at = self._behind_since = inf
            self._tries = 0
        elif moved or self._repeat_at == inf:
            self._tries = 0
            self._repeat_interval_s = self._limits.request_interval_s
            self._repeat_at = now + self._repeat_interval_s
            self._behind_since = now

    def requests(self, stream: int, now: float) -> list[Retransmit]:
        """Requests that are due now: at once for a gap that is new, again and again for all of them."""
        earlier = self.earlier.requests(stream, now) if self.earlier is not None else []
        return earlier + self._own_requests(stream, now)

    def _own_requests(self, stream: int, now: float) -> list[Retransmit]:
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
        if self.earlier is not None and self.earlier.tired:
            if self.earlier.held:
                return self._after(self.earlier, self.earlier.give_up(now))
            lost, self.earlier = self.earlier.owed, None  # nobody will say again that they are missing
            self.counters.lost_updates += lost
            return [], lost
        if not self.tired:
            return [], 0
        if not self._held:
            self.known = self.expected - 1  # nothing waits behind it; the sender will say again how far it is
            self._progress(now, True)
            return [], 0
        found, lost = self._skip_to(min(self._held))
        found += self._in_order()
        self._progress(now, True)
        return found, lost

    @property
    def tired(self) -> bool:
        """Whether the first gap has been asked for often enough."""
        return self._tries > self._limits.request_tries_max

    def _missing(self, start: int) -> list[tuple[int, int]]:
        """Runs of missing numbers from `start`, each of up to 32, up to the newest that was sent."""
        runs: list[tuple[int, int]] = []
        number = start
        while number <= self.known and len(runs) < REQUESTS_PER_CALL_MAX:
            if number in self._held:
                number += 1
                continue
            first = number
            while number <= self.known and number not in self._held and number - first < RETRANSMIT_RANGE_MAX:
                number += 1
            runs.append((first, number - first))
        return runs

    def next_wakeup(self) -> float:
        """Changes with every other method but held and memory_bytes. Infinity = never; it may be in the past."""
        own = -inf if self._fresh_from != inf else self._repeat_at
        return own if self.earlier is None else min(own, self.earlier.next_wakeup())
