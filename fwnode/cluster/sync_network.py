"""What passes on the sync network between this member and each peer, in each direction.

Heartbeats cross every network, so a peer that is there is no sign that sync reaches it. What counts is what is heard on
the sync network itself: whether any datagram of the peer came there, and whether the peer says, in its heartbeats over
whatever network, that it hears this member there. Both are known without any traffic. Pure; driven by `membership`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from syncproto.events import TIMED_OUT

SILENT_HEARTBEATS = 5
"""Heartbeat intervals of silence on the sync network, at the least, before a peer is not heard there; and for so many
it must say that it does not hear this member. Three may be lost, as at a start; one that comes back says so late."""


@dataclass(frozen=True)
class Reach:
    """One peer: whether it hears this member on the sync network, and this member it."""

    sends: bool = True
    receives: bool = True

    @property
    def whole(self) -> bool:
        return self.sends and self.receives

    def __str__(self) -> str:
        """The product's words (`fw ctl pstat`)."""
        return f"{_able(self.sends)} to send / {_able(self.receives)} to receive"


def _able(able: bool) -> str:
    return "Able" if able else "Unable"


WHOLE = Reach()


def status_with(status: str, reach: Reach) -> str:
    """A peer's sync status, `OK` or the reason why it is off, where not everything passes on the sync network."""
    return status if reach.whole else f"Off - {TIMED_OUT}: {reach}"


def summary(statuses: Mapping[str, str], peers: int) -> str:
    """One line about the sync with the peers that are there, of so many: the worst, by name where there are several."""
    troubled = [name for name, status in statuses.items() if status != "OK"]
    if not troubled:
        return "OK" if statuses else "Off - no other member is there"
    worst = min(troubled, key=lambda name: TIMED_OUT not in statuses[name])
    return f"{statuses[worst]} ({worst})" if peers > 1 else statuses[worst]


@dataclass(frozen=True)
class ReachChanged:
    """Something passes no longer on the sync network, or passes again."""

    peer: int
    reach: Reach
    network: str = ""
    """The users' network that it is about, if it is not the sync network (`user_networks`)."""


@dataclass
class _Peer:
    heard_at: float
    unheard_since: float | None = None
    """Since when it says that it does not hear this member; None = it does not say so."""
    reach: Reach = WHOLE


class SyncNetwork:
    """A peer that has just appeared counts as heard: it has the time that it takes to find out."""

    def __init__(self, peers: Iterable[int], now: float) -> None:
        self._peers = {number: _Peer(now) for number in peers}

    def reach(self, peer: int) -> Reach:
        return self._peers[peer].reach

    def reaches(self) -> Iterator[tuple[int, Reach]]:
        """Of every peer."""
        return ((number, peer.reach) for number, peer in self._peers.items())

    def heard(self, peer: int, now: float) -> None:
        """A datagram of this peer came over the sync network."""
        known = self._peers.get(peer)
        if known is not None:
            known.heard_at = now

    def told(self, peer: int, hears_us: bool, now: float) -> None:
        """A heartbeat says whether the peer hears this member on the sync network."""
        known = self._peers[peer]
        if hears_us:
            known.unheard_since = None
        elif known.unheard_since is None:
            known.unheard_since = now

    def forget(self, peer: int, now: float) -> None:
        """The peer has gone or come: nothing is known of what passes."""
        self._peers[peer] = _Peer(now)

    def hears(self, now: float, silence_s: float) -> list[int]:
        """Peers that are heard: what a heartbeat says of them."""
        return [number for number, peer in self._peers.items() if now < peer.heard_at + silence_s]

    def look(self, peer: int, now: float, silence_s: float, patience_s: float) -> ReachChanged | None:
        """Decide anew about a peer that is there."""
        known = self._peers[peer]
        sends = known.unheard_since is None or now < known.unheard_since + patience_s
        reach = Reach(sends, now < known.heard_at + silence_s)
        if reach == known.reach:
            return None
        known.reach = reach
        return ReachChanged(peer, reach)
