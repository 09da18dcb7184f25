"""Two members that forwarded at the same time without hearing each other: what can be known of it, and when.

While it lasts a member cannot know it: a peer that is silent may be dead or active. It only says that there may be a
split brain (`PossibleSplit`). When the two hear each other again, each tells when it forwarded last, as ages, and how
many connections it has accepted; so both find out, whichever of them has given way by then. One way may be cut alone:
then the member that hears knows at once. Pure: times are wire seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from syncproto.message import Heartbeat

SPLIT_HEARTBEATS = 5
"""Heartbeat intervals that two members must have forwarded together: a failover overlaps by one or two. Lab's own."""


@dataclass
class Activity:
    """When a member forwarded last; `ended` is None while it does."""

    began: float | None = None
    ended: float | None = None

    def set(self, forwards: bool, now: float) -> None:
        """Whether this member forwards, from now on."""
        if forwards and (self.began is None or self.ended is not None):
            self.began, self.ended = now, None
        elif not forwards and self.began is not None and self.ended is None:
            self.ended = now

    def ages(self, now: float) -> list[float]:
        """Seconds since it began, and since it ended, if it did: as heartbeats carry it."""
        if self.began is None:
            return []
        return [now - self.began] if self.ended is None else [now - self.began, now - self.ended]

    @classmethod
    def told(cls, ages: list[float], now: float) -> Activity:
        began = now - ages[0] if ages else None
        return cls(began, now - ages[1] if len(ages) > 1 else None)


@dataclass(frozen=True)
class SplitBrain:
    """This member and the peer both forwarded for so long. `over`: they do not any more."""

    peer: int
    seconds: float
    over: bool
    known: int
    """Connections that this member held when it last heard the peer: both may have forwarded their packets."""
    accepted: int
    """New connections since then, here."""
    accepted_there: int


@dataclass(frozen=True)
class PossibleSplit:
    """This member forwards, and the peer is silent: it may do so as well."""

    peer: int


@dataclass
class _Marks:
    """Figures as they were when the peer was last heard and there was no split brain."""

    known: int = 0
    accepted: int = 0
    accepted_there: int = 0
    silent: bool = False
    warned: bool = False
    apart_since: float | None = None
    """One of the two has not heard the other since then."""
    since: float | None = None
    """The present split brain began then."""
    told_to: float = -1.0
    """Until then everything has been told."""


@dataclass
class SplitBrains:
    """What one member knows of split brains with its peers."""

    peers: Iterable[int]
    load_sharing: bool
    connections: int = 0
    accepted: int = 0
    count: int = 0
    last: SplitBrain | None = None
    last_at: float = 0.0
    _marks: dict[int, _Marks] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._marks = {peer: _Marks() for peer in self.peers}

    def own_figures(self, connections: int, accepted: int) -> None:
        """So many connections this member holds now, and so many it has accepted so far."""
        self.connections, self.accepted = connections, accepted

    @property
    def possible(self) -> list[int]:
        """Peers that may be active, too."""
        return [peer for peer, marks in self._marks.items() if marks.warned]

    @property
    def present(self) -> list[int]:
        """Peers that are active, too, and do not hear this member."""
        return [peer for peer, marks in self._marks.items() if marks.since is not None]

    def silent(self, peer: int, now: float) -> None:
        marks = self._marks[peer]
        marks.silent, marks.apart_since = True, marks.apart_since or now

    def known_gone(self, peer: int) -> None:
        """The peer has left, or its process is gone: it does not forward."""
        self._marks[peer].silent = False

    def warn(self, forwards: bool) -> list[PossibleSplit]:
        """Of each silent peer once, while this member forwards."""
        fresh = [peer for peer, marks in self._marks.items() if forwards and marks.silent and not marks.warned]
        for marks in self._marks.values():
            marks.warned = forwards and marks.silent
        return [PossibleSplit(peer) for peer in fresh]

    def heard(
        self, peer: int, beat: Heartbeat, own: Activity, sees_us: bool, least_s: float, now: float
    ) -> SplitBrain | None:
        """A heartbeat; what has come to light with it."""
        marks, theirs = self._marks[peer], Activity.told(beat.active, now)
        apart_since = marks.apart_since
        marks.silent = marks.warned = False
        marks.apart_since = None if sees_us else apart_since or now
        if own.began is not None and theirs.began is not None:
            began = max(own.began, theirs.began, marks.told_to)
            if self.load_sharing:  # where both are meant to forward, unless they do not hear each other
                began = max(began, now if apart_since is None else apart_since)
            ended = min(now if own.ended is None else own.ended, now if theirs.ended is None else theirs.ended)
            lasts = own.ended is None and theirs.ended is None and not (self.load_sharing and sees_us)
            if marks.since is not None or ended - began >= least_s:
                return self._tell(peer, beat, marks.since or began, ended, lasts, now)
            if lasts:
                return None  # it may become one: the figures stay
        marks.known, marks.accepted, marks.accepted_there = self.connections, self.accepted, beat.accepted
        return None

    def _tell(
        self, peer: int, beat: Heartbeat, began: float, ended: float, lasts: bool, now: float
    ) -> SplitBrain | None:
        marks = self._marks[peer]
        fresh = marks.since is None
        self.count += fresh
        marks.since = began if lasts else None
        here, there = self.accepted - marks.accepted, beat.accepted - marks.accepted_there
        found = SplitBrain(peer, max(0.0, ended - began), not lasts, marks.known, max(0, here), max(0, there))
        self.last, self.last_at = found, now
        if not lasts:
            marks.told_to = now
        return found if fresh or not lasts else None
