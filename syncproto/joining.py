"""Whose whole table this member takes, and how that went: the one owner of that question.

A member takes a whole table when it starts (the *first join*), and, where healing is on, whenever updates of a peer
were lost. `Joining` is told who could be asked and what the engine reports, and says which full sync to begin:

    receive_event(event, now)                what the cluster and the sync engine tell
    on_wakeup(now, gate, heals)              looks at gates and timers
    next_event()                             `Begin`: begin this full sync now; `AttemptEnded`: this one is over

Rules on top:

1. One attempt at a time. Each has a number that every event of it carries; what comes of an earlier one is ignored.
2. What is told or wished for while an attempt runs waits for its end: a source that is put down still has its table and
   hears every update, so that breaking off would only cost time. A source that is gone ends the attempt by itself.
3. The first join is over when one attempt was complete, when every peer that could be asked has been, or when there is
   none. Until then the member forwards nothing. A peer whose table came in part is asked again, `JOIN_TRIES_MAX` times
   in all, but those that were asked less often come first.
4. With part of a table and nobody left to ask the member goes on: availability wins. `incomplete` says what it lacks.

What happens in which phase is in `TABLE`; what it does not name is ignored. Phases: CHOOSING, nobody is asked yet;
WAITING, a source is chosen, and whether its release allows a full sync is not known; TAKING, the first join's attempt
runs; JOINED, the first join is over, and nothing runs; HEALING, an attempt of a later time runs.

This module knows nothing of bytes, streams and tables.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any

from syncproto.events import (
    NOT_STARTED,
    FullSyncBegun,
    FullSyncDone,
    FullSyncFailed,
    LostUpdates,
    PeerRestarted,
    TableSlice,
)
from syncproto.heal import Healer
from syncproto.limits import JOIN_GATE_WAIT_S, JOIN_TRIES_MAX
from syncproto.record import RecordFlag
from syncproto.release import Gate


class Phase(Enum):
    """See rules and phases in the module docstring."""

    CHOOSING = "choosing"
    WAITING = "waiting"
    TAKING = "taking"
    JOINED = "joined"
    HEALING = "healing"


class AttemptState(Enum):
    """How far an attempt has come."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Sources:
    """The peers that process traffic, and so have a table to give; `more_to_come`: one that is started now will."""

    peers: tuple[int, ...]
    more_to_come: bool = False


@dataclass(slots=True)
class Attempt:
    """One full sync from one peer."""

    number: int
    peer: int
    heals: bool
    chosen_at: float
    state: AttemptState = AttemptState.WAITING
    began: bool = False
    """The source has said that it sends."""
    records: int = 0
    expected: int = 0
    reason: str = ""

    @property
    def percent(self) -> int:
        """How much of the table has come, 0 to 100."""
        return min(100, self.records * 100 // self.expected) if self.expected else 0

    @property
    def missing(self) -> int:
        """Connections of the source that did not come, as far as is known."""
        return max(0, self.expected - self.records) if self.state is AttemptState.FAILED else 0

    def text(self, source: str) -> str:
        """How far it came, for people."""
        if not self.began:
            return ""
        took = f"took {self.records:,} of {self.expected:,} ({self.percent} %)"
        if not self.missing:
            return took
        missing = f"{self.missing:,} connection{' of' if self.missing == 1 else 's of'} {source}"
        return f"{took}; {missing} {'is' if self.missing == 1 else 'are'} missing"


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin this full sync. `own_only`: of the peer's copies of other members' connections none is taken; `ends`: what
    it remembers to be over is, so that others, who do not know that yet, do not bring it back."""

    attempt: int
    peer: int
    heals: bool
    own_only: bool
    ends: bool = False


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """This attempt is over; its `state` and `reason` say how."""

    attempt: Attempt


class Joining:
    """`next_wakeup()` changes with every other call."""

    def __init__(self) -> None:
        self.phase = Phase.CHOOSING
        self.attempt: Attempt | None = None
        """The one that waits or runs."""
        self.incomplete: Attempt | None = None
        """The first join ended with part of a table, or none, and no whole one has come since."""
        self.healed = 0
        self.stale = 0
        """Events of earlier attempts, which were ignored."""
        self._last: Attempt | None = None
        self._number = 0
        self._sources = Sources((), True)
        self._tries: Counter[int] = Counter()
        self._asked: set[int] = set()
        """Peers that are not asked again in this first join."""
        self._healer = Healer()
        self._heals = False
        self._look_at_once = False
        self._events: deque[Begin | AttemptEnded] = deque()

    @property
    def over(self) -> bool:
        """The first join has ended, whatever its end: the member may process traffic."""
        return self.phase in (Phase.JOINED, Phase.HEALING)

    # -- what comes in -------------------------------------------------------------------------------------------

    def receive_event(self, event: object, now: float) -> None:
        """Something that the cluster or the sync engine tells. What is not in the table is not for us."""
        handler = TABLE.get((self.phase, type(event)))
        if handler is None:
            self.stale += type(event) in _OF_AN_ATTEMPT
        elif type(event) in _OF_AN_ATTEMPT and (self.attempt is None or event.attempt != self.attempt.number):  # type: ignore[attr-defined]
            self.stale += 1
        else:
            handler(self, event, now)

    def mend(self, peer: int, now: float) -> None:
        """Take this peer's table anew, if healing is on: after a while, and after the attempt that runs now."""
        self._healer.lost(peer, now)

    def on_wakeup(self, now: float, gate: Callable[[int], Gate | None], heals: bool) -> None:
        """`gate` says what may be exchanged with a peer, or None while that is not known; `heals`: healing is on."""
        self._look_at_once = False
        self._heals = heals
        if self.phase is Phase.WAITING:
            self._try_gate(gate, now)
        elif self.phase is Phase.JOINED and heals:
            self._heal(gate, now)

    def next_wakeup(self) -> float:
        """When `on_wakeup` is to be called at the latest; minus infinity: at once; infinity: never."""
        if self._look_at_once:
            return -inf
        if self.phase is Phase.WAITING and self.attempt is not None:
            return self.attempt.chosen_at + JOIN_GATE_WAIT_S
        return self._healer.next_wakeup() if self.phase is Phase.JOINED and self._heals else inf

    def next_event(self) -> Begin | AttemptEnded | None:
        """What is to be done or told next, in order; None: nothing more for now."""
        return self._events.popleft() if self._events else None

    # -- the first join ------------------------------------------------------------------------------------------

    def _on_sources(self, event: Any, now: float) -> None:
        self._sources = event
        if self.phase is Phase.CHOOSING:
            self._choose(now)
        elif self.phase is Phase.WAITING and self.attempt is not None and self.attempt.peer not in event.peers:
            self._end(AttemptState.FAILED, "it is no longer active", now)

    def _choose(self, now: float) -> None:
        """The next peer to ask: of those that were asked least the one that the cluster names first."""
        candidates = [peer for peer in self._sources.peers if peer not in self._asked]
        if candidates:
            peer = min(candidates, key=self._tries.__getitem__)
            self._tries[peer] += 1
            self._start(peer, now, heals=False)
            self.phase = Phase.WAITING
            self._look_at_once = True
        elif self._sources.peers or not self._sources.more_to_come:
            self._be_joined(now)

    def _start(self, peer: int, now: float, *, heals: bool) -> Attempt:
        self._number += 1
        self.attempt = Attempt(self._number, peer, heals, now)
        return self.attempt

    def _try_gate(self, gate: Callable[[int], Gate | None], now: float) -> None:
        attempt = self.attempt
        assert attempt is not None
        decided = gate(attempt.peer)
        if decided is None:
            if now >= attempt.chosen_at + JOIN_GATE_WAIT_S:
                self._end(AttemptState.FAILED, NOT_STARTED, now)
        elif decided.allows_full_sync:
            self.phase = Phase.TAKING
            self._begin(attempt, own_only=False)
        else:
            self._end(AttemptState.REFUSED, decided.reason, now)

    def _begin(self, attempt: Attempt, *, own_only: bool) -> None:
        attempt.state = AttemptState.RUNNING
        self._healer.forget(attempt.peer)  # whatever was lost before now is in it
        self._events.append(Begin(attempt.number, attempt.peer, attempt.heals, own_only, ends=self._heals))

    def _be_joined(self, now: float) -> None:
        self.phase = Phase.JOINED
        if self._last is not None and self._last.state is AttemptState.FAILED:
            self.incomplete = self._last
            self.mend(self._last.peer, now)

    # -- an attempt ----------------------------------------------------------------------------------------------

    def _on_begun(self, event: Any, now: float) -> None:
        assert self.attempt is not None
        self.attempt.began, self.attempt.expected = True, event.expected

    def _on_slice(self, event: Any, now: float) -> None:
        assert self.attempt is not None
        has_ended = any(flags & RecordFlag.ENDED for flags in set(event.columns.flags))
        ended = sum(1 for flags in event.columns.flags if flags & RecordFlag.ENDED) if has_ended else 0
        self.attempt.records += len(event.columns) - ended

    def _on_done(self, event: Any, now: float) -> None:
        self._end(AttemptState.DONE, "", now)

    def _on_failed(self, event: Any, now: float) -> None:
        self._end(AttemptState.REFUSED if event.refused else AttemptState.FAILED, event.reason, now)

    def _end(self, state: AttemptState, reason: str, now: float) -> None:
        attempt, self.attempt = self.attempt, None
        assert attempt is not None
        attempt.state, attempt.reason = state, reason
        self._events.append(AttemptEnded(attempt))
        if attempt.heals:
            self.phase = Phase.JOINED
            self._healing_ended(attempt, now)
            return
        self._last = attempt if state is AttemptState.DONE else _further(self._last, attempt)
        if not attempt.began or self._tries[attempt.peer] >= JOIN_TRIES_MAX:
            self._asked.add(attempt.peer)
        self.phase = Phase.CHOOSING
        if state is AttemptState.DONE:
            self._be_joined(now)
        else:
            self._choose(now)

    # -- healing -------------------------------------------------------------------------------------------------

    def _heal(self, gate: Callable[[int], Gate | None], now: float) -> None:
        peer = self._healer.due(now)
        if peer is None:
            return
        decided = gate(peer)
        if decided is None or not decided.allows_full_sync:
            self._healer.failed(peer, now)
            return
        self.phase = Phase.HEALING
        # Other members tell their connections themselves, unless they did so before we were there.
        self._begin(self._start(peer, now, heals=True), own_only=self.incomplete is None)

    def _healing_ended(self, attempt: Attempt, now: float) -> None:
        self._last = attempt
        if attempt.state is AttemptState.DONE:
            self.healed += 1
            self.incomplete = None
        else:
            self._healer.failed(attempt.peer, now)

    def _on_lost(self, event: Any, now: float) -> None:
        self.mend(event.peer, now)

    def _on_restarted(self, event: Any, now: float) -> None:
        """It began anew: what it answered in its last life does not count. What it told then, and we may have missed,
        is taken from those that may have heard it."""
        taking = self.attempt is not None and self.attempt.peer == event.peer and self.attempt.heals
        if event.missed or taking or self._healer.has(event.peer):
            for other in event.others:
                self.mend(other, now)
        self._healer.forget(event.peer)
        self._asked.discard(event.peer)

    # -- what is shown -------------------------------------------------------------------------------------------

    def report(self, names: Mapping[int, str]) -> dict[str, Any]:
        """The attempt that runs, or else how the last one went. `names` of the peers."""
        shown = self.attempt or self._last
        if shown is None:
            return dict(NO_FULL_SYNC)
        return {
            "state": shown.state.value,
            "peer": names[shown.peer],
            "attempt": shown.number,
            "records": shown.records,
            "expected": shown.expected,
            "percent": shown.percent,
            "missing": shown.missing,
            "reason": shown.reason,
            "text": shown.text(names[shown.peer]),
        }


def _further(known: Attempt | None, attempt: Attempt) -> Attempt:
    """Of two attempts without success the one that says more about what the member has now."""
    if known is not None and (known.began, known.records) > (attempt.began, attempt.records):
        return known
    return attempt


NO_FULL_SYNC: dict[str, Any] = {
    "state": "none", "peer": "", "attempt": 0, "records": 0, "expected": 0, "percent": 0, "missing": 0, "reason": "",
    "text": "",
}  # fmt: skip
"""What a member reports that never took a table."""

_OF_AN_ATTEMPT = frozenset({FullSyncBegun, TableSlice, FullSyncDone, FullSyncFailed})

_Handler = Callable[[Joining, Any, float], None]

_EVERY_PHASE: dict[type, _Handler] = {LostUpdates: Joining._on_lost, PeerRestarted: Joining._on_restarted}
_OF_THE_ATTEMPT: dict[type, _Handler] = {
    FullSyncBegun: Joining._on_begun,
    TableSlice: Joining._on_slice,
    FullSyncDone: Joining._on_done,
    FullSyncFailed: Joining._on_failed,
}

TABLE: dict[tuple[Phase, type], _Handler] = {
    **{(phase, event): handler for phase in Phase for event, handler in _EVERY_PHASE.items()},
    **{(p, Sources): Joining._on_sources for p in (Phase.CHOOSING, Phase.WAITING, Phase.TAKING)},
    **{(p, event): handler for p in (Phase.TAKING, Phase.HEALING) for event, handler in _OF_THE_ATTEMPT.items()},
}


def describe() -> list[tuple[str, str, str]]:
    """The table for people: (phase, event, handler)."""
    return [(phase.value, event.__name__, handler.__name__.lstrip("_")) for (phase, event), handler in TABLE.items()]


__all__ = [
    "NO_FULL_SYNC",
    "TABLE",
    "Attempt",
    "AttemptEnded",
    "AttemptState",
    "Begin",
    "Joining",
    "Phase",
    "Sources",
    "describe",
]  # fmt: skip
