"""What a member needs of the world around it: the one seam between the decisions and what carries them out.

A kernel (`fwnode.node`), a test's network and the simulator implement `Edges`. A member calls these methods while it is
given something (`fwnode.member`). None of them may wait. None calls back into the member but `send`, which may say at
once that the peer's machine refuses (`peer_refused`), and `refuse_waiting`, which hands in the datagrams that waited.
Pure: no implementation here.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fwnode.firewall.policy import Policy


class DivertError(RuntimeError):
    """The kernel refuses rules or routes; the message says what it said, and what to do."""


class FullSyncEnd(Protocol):
    """One end of a full sync, as the edge moves its bytes (`syncproto.full`): after what came was given to it, and
    whenever there is room, `outgoing` is asked for a chunk; empty = nothing now."""

    @property
    def finished(self) -> bool:
        """Close the stream when everything taken was sent."""

    @property
    def failed(self) -> str:
        """Why it failed; then, too, the stream is closed."""

    def receive_data(self, data: bytes, now: float) -> None: ...
    def outgoing(self, now: float) -> bytes: ...
    def next_wakeup(self) -> float | None: ...
    def on_wakeup(self, now: float) -> None: ...
    def connection_lost(self, reason: str) -> None: ...


@dataclass(frozen=True)
class EdgeFigures:
    """What only the edge can count."""

    lost_queue: int = 0
    """Packets lost in front of the member because its queue was full."""
    lost_socket: int = 0
    """Packets lost in front of the member because the buffer of the queue's socket was full."""
    queue_buffer_bytes: int = 0
    """Size of that buffer."""
    sent_bytes: int = 0
    """Payload of datagrams sent on the sync network."""
    received_bytes: int = 0
    """Payload of datagrams received there."""
    send_errors: Mapping[str, int] = field(default_factory=dict)
    """Datagrams that were not sent or did not get there, by interface and error."""


class Edges(Protocol):
    """Times are wire seconds (monotonic). `packet` is whatever the edge gave to `Member.hold`."""

    def wall(self) -> float:
        """The wall clock, for dates that people read."""

    def send(self, peer: int, interface: str, data: bytes) -> None:
        """A datagram of the cluster protocol to a peer over one interface, by the configuration's name of it."""

    def answer(self, answering: bool) -> None:
        """From now on answer for the virtual addresses (ARP, neighbour discovery), or do not."""

    def announce(self) -> None:
        """Tell the neighbours who has the virtual addresses."""

    def divert(self, policy: Policy) -> None:
        """Let the kernel send us the packets, those of services that this policy inspects with their payload. Raises
        `DivertError`, and changes nothing."""

    def restore_sharing(self) -> None:
        """Make load sharing's routes anew: an interface was down. Raises `DivertError`; it is tried again."""

    def open_stream(self, peer: int, port: int, end: FullSyncEnd) -> None:
        """Full sync: connect to the peer over the sync network, and move bytes between the stream and `end`; when it is
        over, close it and call `Member.stream_ended`. Raises `OSError` where that cannot be begun."""

    def drains(self, end: FullSyncEnd) -> bool:
        """Whether what the stream of this end was given is still on its way, so that the other side gets on."""

    def refuse_waiting(self, now: float) -> None:
        """This member did not run, and others may have taken over. What waits from before goes no further: packets that
        were decided on and not let go are dropped, streams that wait to be accepted, and accepted ones, are closed
        (without `stream_ended`), and datagrams that waited are handed in as `stale`."""

    def release(self, packet: object, accept: bool) -> None:
        """A packet that was held goes on, or is dropped."""

    def keep_policy(self, policy: dict[str, Any], file: str, at: float) -> Generator[None, None, None]:
        """Write down the rule base that was installed at the wall time `at`, in steps of some milliseconds. Raises
        `OSError`."""

    def figures(self) -> EdgeFigures:
        """The counts so far."""

    def tell(self, event: dict[str, Any]) -> None:
        """Something that an operator would want to know; the member keeps it itself."""
