"""What an invariant sees: one moment of a simulated run, as values and the members' own pure objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import ClassVar

from fwnode.cluster.membership import MemberState
from fwnode.firewall.firewall import Firewall
from syncproto.engine import SyncEngine
from syncproto.release import Gate

WALKED_MOST = 5_000
"""Connections of a member that a walk through its table looks at: a millisecond or two. Of a larger one the oldest."""


@dataclass(slots=True)
class MemberLook:
    """One member that has been started, as of now. Times are wire time."""

    name: str
    number: int
    release: str
    life: int
    """Number of its start: what was remembered of a former life says nothing about this one."""
    runs_since: float | None
    """Since when its process runs without a break; None: it does not (it was stopped or killed, is paused, has no
    power)."""
    away_since: float
    """Where it does not run: since when."""
    whole_since: float | None
    """Since when no fault is on any of its wires; None: there is one."""
    state: MemberState
    changed_at: float
    """When the state became this one."""
    problems: tuple[str, ...]
    heard_at: Mapping[int, float]
    """When each peer was heard last, by number."""
    heartbeat_s: float
    dead_timeout_s: float
    answers: bool
    """Whether its machine answers for the virtual addresses."""
    answered_early: bool
    """Whether it has begun to answer since the look before, while the member could not decide on packets."""
    forwarded: int
    """Packets of others that its machine has sent on, in all its lives."""
    forwarded_before: int
    """Of them, those of its former lives."""
    unfounded: bytes
    """The first packet that was sent on since the look before, if it had neither rule nor connection (`may_pass`)."""
    queued: int
    """Packets that wait in its machine's queue for a verdict."""
    held: int
    """Packets that wait for other members' ACK (flush and ack)."""
    lab_now: float
    firewall: Firewall
    engine: SyncEngine
    reached: Callable[[int], bool]
    """Whether everything passes on the sync network, both ways, as it says about a peer."""
    joined: bool
    """It has taken a whole table in this life, of which nothing is missing, or was there before all others."""
    failures: Mapping[str, int]
    events: int

    @property
    def runs(self) -> bool:
        return self.runs_since is not None

    @property
    def forwards(self) -> bool:
        """Whether it sends packets of others on, as far as its firewall is concerned."""
        return self.runs_since is not None and self.firewall.forwarding

    @property
    def idle_since(self) -> float | None:
        """Since when it is not to send anything on; None: it may."""
        if self.runs_since is None:
            return self.away_since
        return None if self.firewall.forwarding else max(self.changed_at, self.runs_since)


@dataclass(slots=True)
class Look:
    """The cluster as of now."""

    now: float
    load_sharing: bool
    members: list[MemberLook]
    gate: Callable[[str, str], Gate]
    """What two releases may exchange."""
    second: bool = True
    """A second has passed since the last look with this: time for what walks through tables."""
    sessions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By workload, at the end of a run: sessions, and the sum of their fates."""

    def running(self) -> list[MemberLook]:
        return [member for member in self.members if member.runs_since is not None]

    def pairs(self) -> Iterator[tuple[MemberLook, MemberLook]]:
        """Every two members that run."""
        return combinations(self.running(), 2)


class Invariant:
    """One that must hold at every look of a run. `look` yields what breaks it, in an operator's words.

    An instance belongs to one run: it may remember what it saw.
    """

    name: ClassVar[str]
    sentence: ClassVar[str]
    source: ClassVar[str]
    """Who says that it must be so."""

    def look(self, look: Look) -> Iterator[str]:
        raise NotImplementedError
