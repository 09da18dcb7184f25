"""The streams of full syncs in the simulated world: TCP between members, moved as `fwnode.links.full_sync` moves it.

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
from fwnode.firewall.packet import TCP
from fwnode.member import Member
from labs.simulation.kernel import Kernel
from labs.simulation.segments import ACK, RST, SYN, ends_of, turned
from labs.simulation.tcp import CLOSED, SYN_SENT, Connection
from labs.simulation.tcp_sender import Sender
from syncproto.errors import SyncError
from syncproto.release import Compatibility

CHUNK_BYTES = 16_384
"""As `fwnode.links.stream`: handed to the protocol object at once."""
SEND_BUFFER_BYTES = 256 << 10
"""What the kernel takes of a stream that its peer has not acknowledged. Linux lets it grow with the connection; this is
where it is on a fast link."""
BYTE_S = 30e-9
"""Seconds of work for a byte of a slice, at either end: half a millisecond for a chunk."""
FIRST_PORT = 32_768
_PORTS = 28_232
_FLAGS = 13
"""Offset of a TCP header's flags."""


class Process(Protocol):
    """The life of the member whose streams these are."""

    over: bool
    member: Member

    def works(self, seconds: float) -> None:
        """It is at something for so long."""

    def soon(self) -> None:
        """There is something to do."""


class _Stream:
    """One connection and the protocol object at our end of it; what its TCP calls (`labs.simulation.tcp`)."""

    connection: Connection

    def __init__(self, streams: FullSyncStreams, end: FullSyncEnd, accepted: bool) -> None:
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


class FullSyncStreams:
    """Those of one life of a member."""

    def __init__(
        self, machine: Kernel, life: Process, config: MemberConfig, compatibility: Compatibility
    ) -> None:
        self.machine = machine
        self.life = life
        self.streams: list[_Stream] = []
        self._config = config
        self._interface = config.sync_interface
        self._port = compatibility.release(config.release).full_sync_port
        self._connections: dict[bytes, Connection] = {}
        self._opened = 0
        machine.register(TCP, self._receive)

    # -- for the life ---------------------------------------------------------------------------------------------

    def open(self, peer: int, port: int, end: FullSyncEnd) -> None:
        assert self._interface is not None
        own = self._config.own_addresses(self._interface)[0].ip.packed
        other = self._interface.members[self._config.peers[peer]][0].ip.packed
        number = FIRST_PORT + self._opened % _PORTS
        self._opened += 1
        ends = ends_of(own, other, number, port)
        stream = _Stream(self, end, accepted=False)
        self.streams.append(stream)
        stream.connection = Connection.connect(self, ends, self._initial(), stream, self.machine.world.now)
        stream.connection.tell_sent = True
        self._connections[ends] = stream.connection

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

    # -- streams --------------------------------------------------------------------------------------------------

    def _serve(self, stream: _Stream, now: float) -> None:
        if now < stream.resume_at:
            return
        stream.resume_at = 0.0
        connection, end = stream.connection, stream.end
        if connection.state is not SYN_SENT and connection.pending < SEND_BUFFER_BYTES and not end.failed:
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

    # -- the kernel's TCP -----------------------------------------------------------------------------------------

    def _initial(self) -> int:
        return self.machine.world.random.getrandbits(32)

    def _receive(self, packet: bytes) -> None:
        if packet[0] >= 0x60 or self.life.over:
            self.machine.reset(packet)
            return
        at = (packet[0] & 15) << 2
        ends = turned(packet[12:20] + packet[at : at + 4])
        connection = self._connections.get(ends)
        now = self.machine.world.now
        if connection is not None:
            connection.receive(packet, at, now)
        elif packet[at + _FLAGS] & (SYN | ACK | RST) == SYN and self._listens(ends):
            self._connections[ends] = Connection.answer(self, ends, self._initial(), packet, at, now)
        else:
            self.machine.reset(packet)

    def _listens(self, ends: bytes) -> bool:
        if self._interface is None:
            return False
        own = self._config.own_addresses(self._interface)[0].ip.packed
        return ends[0:4] == own and int.from_bytes(ends[8:10]) == self._port

    def send(self, packet: bytes) -> None:
        self.machine.send_ip(packet)

    def arm(self, when: float, connection: Sender) -> None:
        self.machine.world.at(when, self._wake, connection)

    def _wake(self, connection: Connection) -> None:
        if not self.life.over:
            connection.on_wakeup(self.machine.world.now)

    def established(self, connection: Connection) -> None:
        """Somebody has connected."""
        address = str(ip_address(connection.ends[4:8]))
        end = self.life.member.accept_stream(address, self.machine.wire())
        if end is None:
            connection.close(self.machine.world.now)
            return
        stream = connection.application = _Stream(self, end, accepted=True)
        stream.connection = connection
        connection.tell_sent = True
        self.streams.append(stream)
        self.life.soon()

    def gone(self, connection: Sender) -> None:
        self._connections.pop(connection.ends, None)

