"""Control connections that announce data connections: what a packet of one says, in the light of those before it.

An inspector belongs to one connection on the member that forwards it. It is not synchronised: after a failover the new
member follows from the first segment that it sees. What was announced is synchronised (`expectations`). This module
knows nothing of the table, the rule base or time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from .announcements import Announcement, AnnouncementRefused, ftp_command, ftp_reply, sip_message, tftp_request
from .lines import LineFollower
from .packet import ACK, SYN, TCP, UDP, Packet

INSPECTED_PROTOCOLS = {"ftp": TCP, "tftp": UDP, "sip": UDP}
"""What can be inspected, and the protocol of its control connection."""
ANSWERS_MAX = 8
"""Passive commands that may wait for their answer. Lab's own; clients send one at a time."""
UDP_HEADER_BYTES = 8
_ANSWER = {b"PASV": b"227", b"EPSV": b"229"}


class Inspector(ABC):
    """One inspected connection, from `client` to `server` (packed addresses)."""

    __slots__ = ("client", "server")

    def __init__(self, client: bytes, server: bytes) -> None:
        self.client = client
        self.server = server

    @abstractmethod
    def see(self, packet: Packet, data: bytes, from_client: bool) -> list[Announcement]:
        """What a packet of it announces. `data` is the packet, as much of it as was copied. Raises
        `AnnouncementRefused` for one that must not pass, and then remembers nothing of it."""


class FtpInspector(Inspector):
    """Follows commands and replies."""

    __slots__ = ("_asked", "_commands", "_replies")

    def __init__(self, client: bytes, server: bytes) -> None:
        super().__init__(client, server)
        self._commands = LineFollower()
        self._replies = LineFollower()
        self._asked: tuple[bytes, ...] = ()
        """Replies that the client's commands asked for."""

    def see(self, packet: Packet, data: bytes, from_client: bool) -> list[Announcement]:
        at = packet.header_length
        sequence, acknowledged = int.from_bytes(data[at + 4 : at + 8]), int.from_bytes(data[at + 8 : at + 12])
        own, other = (self._commands, self._replies) if from_client else (self._replies, self._commands)
        if packet.flags & ACK:
            other.acknowledged(acknowledged)
        if packet.flags & SYN:
            sequence += 1
            own.start(sequence)
        payload, length = _payload(packet, data, (data[at + 12] >> 4) * 4)
        position, asked = own.position(), self._asked
        read = self._read_command if from_client else self._read_reply
        try:
            return [found for line in own.feed(sequence, payload, length) if (found := read(line))]
        except AnnouncementRefused:
            # The packet is dropped, so it will come again, and must be refused again.
            own.go_back(position)
            self._asked = asked
            raise

    def _read_command(self, line: bytes) -> Announcement | None:
        answer = _ANSWER.get(line.strip()[:4].upper())
        if answer and len(self._asked) < ANSWERS_MAX:
            self._asked += (answer,)
        return ftp_command(line, self.client, self.server)

    def _read_reply(self, line: bytes) -> Announcement | None:
        answer = line[:3]
        if answer not in _ANSWER.values() or line[3:4] != b" ":
            return None
        if answer in self._asked:
            at = self._asked.index(answer)
            self._asked = self._asked[:at] + self._asked[at + 1 :]
        elif self._commands.complete:
            return None  # nobody asked for it: a reply may repeat anything, such as a file's name
        return ftp_reply(line, self.client, self.server)


class TftpInspector(Inspector):
    """A request is one datagram."""

    __slots__ = ()

    def see(self, packet: Packet, data: bytes, from_client: bool) -> list[Announcement]:
        if not from_client:
            return []
        payload, _ = _payload(packet, data, UDP_HEADER_BYTES)
        found = tftp_request(payload, self.client, self.server, packet.source_port)
        return [found] if found else []


class SipInspector(Inspector):
    """A message is one datagram; both ends announce."""

    __slots__ = ()

    def see(self, packet: Packet, data: bytes, from_client: bool) -> list[Announcement]:
        payload, length = _payload(packet, data, UDP_HEADER_BYTES)
        return sip_message(payload, len(payload) == length, packet.source, packet.destination)


_INSPECTORS: dict[str, type[Inspector]] = {"ftp": FtpInspector, "tftp": TftpInspector, "sip": SipInspector}


def inspector(kind: str, client: bytes, server: bytes) -> Inspector:
    """A new one, for a connection that is first seen now."""
    return _INSPECTORS[kind](client, server)


def _payload(packet: Packet, data: bytes, header_bytes: int) -> tuple[bytes, int]:
    """What a packet carries behind its transport header, as far as it was copied, and how long it really is."""
    if packet.family == 4:
        total = data[2] << 8 | data[3]
    else:
        total = (data[4] << 8 | data[5]) + 40
        total = 0 if total == 40 else total
    end = total or len(data)  # a segment that the kernel has not yet cut may say 0
    start = packet.header_length + header_bytes
    return data[start:end], max(0, end - start)
