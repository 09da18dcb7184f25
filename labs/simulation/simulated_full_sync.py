"""The streams of full syncs in the simulated world: TCP between members, moved as `fwnode.links.full_sync_streams`
moves it.

Segments are the machine's own traffic: its firewall lets them through or not, and a machine whose process is gone
answers nobody. A slice takes modelled time, and packets come first: the member says when the next one may follow.
"""

from __future__ import annotations

import os
from ipaddress import ip_address
from math import inf
from typing import Protocol

from fwnode.configuration import MemberConfig
from fwnode.edges import FullSyncEnd
from fwnode.member import Member
from labs.simulation.kernel import Kernel
from labs.simulation.loop import World
from labs.simulation.tcp_connection import CLOSED, SYN_SENT, TcpConnection
from labs.simulation.tcp_receiver import Application
from syncproto.errors import SyncError
from syncproto.release import Compatibility

CHUNK_BYTES = 16_384
"""As `fwnode.links.stream`: handed to the protocol object at once."""
SEND_BUFFER_BYTES = 256 << 10
"""What the kernel takes of a stream that its peer has not acknowledged. Linux lets it grow with the connection; this is
where it is on a fast link."""
BYTE_S = 30e-9
"""Seconds of work for a byte of a slice, at either end: half a millisecond for a chunk."""


class StreamOwner(Protocol):
    """The life of the member whose streams these are."""

    member: Member

    def works(self, seconds: float) -> None:
        """It is at something for so long."""

    def soon(self) -> None:
        """There is something to do."""


class _Stream:
    """One connection and the protocol object at our end of it; what its TCP calls."""

    connection: TcpConnection

    def __init__(self, streams: SimulatedFullSyncStreams, end: FullSyncEnd, accepted: bool) -> None:
        self._streams = streams
        self.end = end
        self.accepted = accepted
        self.resume_at = 0.0
        """Nothing is sent before this wire time."""
        self.kept = 0

    def opened(self) -> None:
        self._streams.life.soon()

    def received(self, data: bytes) -> None:
        streams = self._streams
        for begin in range(0, len(data), CHUNK_BYTES):
            streams.life.works(BYTE_S * min(CHUNK_BYTES, len(data) - begin))
            self.end.receive_data(data[begin : begin + CHUNK_BYTES], streams.machine.wire())
        streams.life.soon()

    def ended(self) -> None:
        self.lost("Connection terminated by remote member")

    def sent(self) -> None:
        self._streams.life.soon()

    def closed(self, error: int) -> None:
        self.lost(os.strerror(error))

    def lost(self, reason: str) -> None:
        if self in self._streams.streams:
            self.end.connection_lost(reason)
            self._streams.life.soon()


class _Refused:
    """Somebody who is no member: the connection is closed at once."""

    def __init__(self, connection: TcpConnection, world: World) -> None:
        self._connection = connection
        self._world = world

    def opened(self) -> None:
        self._connection.close(self._world.now)

    def received(self, data: bytes) -> None: ...
    def ended(self) -> None: ...
    def sent(self) -> None: ...
    def closed(self, error: int) -> None: ...


class SimulatedFullSyncStreams:
    """Those of one life of a member."""

    def __init__(
        self, machine: Kernel, life: StreamOwner, config: MemberConfig, compatibility: Compatibility
    ) -> None:
        self.machine = machine
        self.life = life
        self.streams: list[_Stream] = []
        self._config = config
        self._interface = config.sync_interface
        if self._interface is not None:
            own = config.own_addresses(self._interface)[0].ip.packed
            machine.stack.listen(own, compatibility.release(config.release).full_sync_port, self._accept)

    # -- for the life ---------------------------------------------------------------------------------------------

    def open(self, peer: int, port: int, end: FullSyncEnd) -> None:
        """Connect; what comes of it, the end hears. Raises `OSError` where it cannot be begun."""
        assert self._interface is not None
        other = self._interface.members[self._config.peers[peer]][0].ip.packed
        stream = _Stream(self, end, accepted=False)
        stream.connection = self.machine.stack.connect(other, port, stream)
        stream.connection.tell_sent = True
        self.streams.append(stream)

    def advance(self, now: float) -> None:
        """After the member had the time: send what there is, and close what is over."""
        for stream in list(self.streams):
            self._serve(stream, now)

    def next_wakeup(self) -> float:
        return min((s.resume_at for s in self.streams if s.resume_at), default=inf)

    def drains(self, end: FullSyncEnd) -> bool:
        """Whether what the kernel keeps of this end's stream has changed since the last question."""
        for stream in self.streams:
            if stream.end is end:
                before, stream.kept = stream.kept, stream.connection.pending
                return stream.kept != before
        return False

    def refuse_waiting(self) -> None:
        for stream in [s for s in self.streams if s.accepted]:
            self._remove(stream)

    def _accept(self, connection: TcpConnection) -> Application:
        """Somebody has connected."""
        address = str(ip_address(connection.ends[4:8]))
        end = self.life.member.accept_stream(address, self.machine.wire())
        if end is None:
            return _Refused(connection, self.machine.world)
        stream = _Stream(self, end, accepted=True)
        stream.connection = connection
        connection.tell_sent = True
        self.streams.append(stream)
        return stream

    # -- streams --------------------------------------------------------------------------------------------------

    def _serve(self, stream: _Stream, now: float) -> None:
        if now < stream.resume_at:
            return
        stream.resume_at = 0.0
        connection, end = stream.connection, stream.end
        if connection.state is not SYN_SENT and connection.pending < SEND_BUFFER_BYTES:  # a failed end says why
            data = b""
            try:
                data = end.outgoing(now)
            except SyncError as error:  # a record that no message carries
                end.connection_lost(str(error))
            if data and connection.state is not CLOSED:
                self.life.works(BYTE_S * len(data))
                connection.write(data, self.machine.world.now)
                pause = self.life.member.full_sync_pause(now)
                stream.resume_at = now + max(pause, BYTE_S * len(data))
        if (end.finished or end.failed) and not stream.resume_at:
            self._remove(stream)
            self.life.member.stream_ended(end, now)

    def _remove(self, stream: _Stream) -> None:
        self.streams.remove(stream)
        if stream.connection.state is not CLOSED:
            stream.connection.close(self.machine.world.now)
