"""Blocking of new connections under load: when updates go unacknowledged, what fills the sync channel is refused.

The measure is the product's: updates sent since the last one that every operating peer has acknowledged, against
`fw_sync_buffer_threshold` percent of the sending queue, rounded up (80 % of 512: 410 are allowed, 411 are load). Load
ends when the queue is back at or under the threshold; the product documents no hysteresis, and this lab has none.

Pure: who counts the updates calls `update`, who decides on a packet asks `refuses`. Knows nothing of packets or peers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from math import ceil

from .packet import ICMP, ICMPV6, TCP, UDP
from .parameters import Parameters

ENABLED = 0
"""The value of `fw_sync_block_new_conns` that enables blocking; -1 (0xFFFFFFFF) disables it. As in the product."""


class ConnectionKind(IntFlag):
    """Kinds of new connections, as `fw_sync_allowed_protocols` adds them up. OTHER has no flag: never allowed."""

    OTHER = 0
    ICMP = 1
    TCP = 2
    UDP = 4
    TCP_DATA = 8
    UDP_DATA = 16


_KINDS = {TCP: ConnectionKind.TCP, UDP: ConnectionKind.UDP, ICMP: ConnectionKind.ICMP, ICMPV6: ConnectionKind.ICMP}
_DATA_KINDS = {TCP: ConnectionKind.TCP_DATA, UDP: ConnectionKind.UDP_DATA}


def kind_of(protocol: int, announced: bool) -> ConnectionKind:
    """A new connection's kind; `announced`: it is the data connection of a control connection."""
    return (_DATA_KINDS if announced else _KINDS).get(protocol, ConnectionKind.OTHER)


@dataclass(frozen=True)
class LoadChanged:
    """The sync channel became heavily loaded, or is no longer. `blocking`: new connections are refused meanwhile."""

    heavy: bool
    blocking: bool
    unacknowledged: int
    threshold: int


class SyncLoad:
    """Whether the sync channel is heavily loaded, and what that means for a new connection. Times are wire seconds."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self.unacknowledged = 0
        self.heavy = False
        self.blocking = False
        self.episodes = 0
        """How often blocking has begun."""
        self._blocked_s = 0.0
        self._since = 0.0

    @property
    def threshold(self) -> int:
        """Unacknowledged updates that are still no load."""
        size = self._parameters["fw_sync_sending_queue_size"]
        return ceil(self._parameters["fw_sync_buffer_threshold"] * size / 100)

    def blocked_s(self, now: float) -> float:
        """Seconds in which new connections were refused, the present episode included."""
        return self._blocked_s + (now - self._since if self.blocking else 0.0)

    def update(self, unacknowledged: int, now: float) -> LoadChanged | None:
        """So many updates wait for their ACK now; to be called after each change of it, and of the parameters."""
        self.unacknowledged = unacknowledged
        threshold = self.threshold
        heavy = unacknowledged > threshold
        blocking = heavy and self._parameters["fw_sync_block_new_conns"] == ENABLED
        if heavy is self.heavy and blocking is self.blocking:
            return None
        if blocking and not self.blocking:
            self.episodes += 1
            self._since = now
        elif self.blocking and not blocking:
            self._blocked_s += now - self._since
        self.heavy, self.blocking = heavy, blocking
        return LoadChanged(heavy, blocking, unacknowledged, threshold)

    def refuses(self, kind: ConnectionKind) -> bool:
        """Whether a new connection of this kind is to be dropped now."""
        return self.blocking and not kind & self._parameters["fw_sync_allowed_protocols"]

    def reset(self, now: float) -> None:
        """Start counting anew."""
        self.episodes, self._blocked_s, self._since = int(self.blocking), 0.0, now
