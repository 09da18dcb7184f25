"""Control connections that announce data connections: what a packet of one says, in the light of those before it.

An inspector belongs to one connection on the member that forwards it. It is not synchronised: after a failover the new
member follows from the first segment that it sees. What was announced is synchronised (`announced`). This module
knows nothing of the table, the rule base or time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from .announcements import Announcement, AnnouncementRefused, ftp_command, ftp_reply, sip_message, tftp_request
from .lines import LineFollower
from .packet import ACK, SYN, TCP, UDP, Packet

INSPECTED_PROTOCOLS = {"ftp": TCP, "tftp": UDP, "sip": UDP}
"""What can be inspected, and the protocol of its control connection."""
ANSWERS_MAX = 32
"""Commands that may wait for their answer. Lab's own; clients send one at a time."""
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


class Dialogue(NamedTuple):
    """Which command an FTP server's next reply answers: it answers all of them, in their order (RFC 959, 5.4)."""

    known: bool = False
    """Nothing was missed since a moment at which no command waited."""
    waiting: tuple[bytes, ...] = ()
    """For each command without a last reply the code that would announce something; empty for most."""
    within: bytes = b""
    """Code of a reply over several lines whose last line has not come."""

    def with_command(self, line: bytes) -> Dialogue:
        """The dialogue after this command of the client."""
        words = line.split()
        if not self.known or not words:
            return self
        if len(self.waiting) >= ANSWERS_MAX:
            return Dialogue()
        return self._replace(waiting=(*self.waiting, _ANSWER.get(words[0].upper(), b"")))

    def with_reply(self, line: bytes) -> tuple[Dialogue, bool]:
        """And whether the line is the reply that announces what the command asked for."""
        code, mark = line[:3], line[3:4]
        if self.within:
            if code != self.within or mark != b" ":
                return self, False  # text, which may repeat anything, such as a file's name
        elif not (len(code) == 3 and code.isdigit() and mark in b"- "):
            return self, False
        elif mark == b"-":
            return self._replace(within=code), False
        after = self._replace(within=b"")
        if code.startswith(b"1") or not (self.known and self.waiting):
            return after, False
        return after._replace(waiting=self.waiting[1:]), code == self.waiting[0]


class FtpInspector(Inspector):
    """Follows commands and replies. A reply opens nothing that was not asked for: where something of the talk was
    missed, replies count again from the next command on that finds both ends at rest."""

    __slots__ = ("_commands", "_dialogue", "_replies")

    def __init__(self, client: bytes, server: bytes) -> None:
        super().__init__(client, server)
        self._commands = LineFollower()
        self._replies = LineFollower()
        self._dialogue = Dialogue()

    def see(self, packet: Packet, data: bytes, from_client: bool) -> list[Announcement]:
        at = packet.header_length
        sequence, acknowledged = int.from_bytes(data[at + 4 : at + 8]), int.from_bytes(data[at + 8 : at + 12])
        own, other = (self._commands, self._replies) if from_client else (self._replies, self._commands)
        losses = own.losses + other.losses
        if packet.flags & ACK:
            other.acknowledged(acknowledged)
        if packet.flags & SYN:
            sequence += 1
            own.start(sequence)
        payload, length = _payload(packet, data, (data[at + 12] >> 4) * 4)
        position, dialogue = own.position(), self._dialogue
        begins_with_reply = not from_client and not own.begun and not other.begun
        at_rest = from_client and length > 0 and own.rests_at(sequence) and other.rests_at(acknowledged)
        lines = own.feed(sequence, payload, length)
        if own.losses + other.losses != losses:
            self._dialogue = Dialogue()
        elif at_rest and not dialogue.known and not dialogue.within:
            self._dialogue = Dialogue(known=True)
        elif begins_with_reply and lines:  # after a failover: the command went through the other member
            self._dialogue = Dialogue(known=True, waiting=(lines[0][:3],))
        read = self._read_command if from_client else self._read_reply
        try:
            return [found for line in lines if (found := read(line))]
        except AnnouncementRefused:
            # The packet is dropped, so it will come again, and must be refused again.
            own.go_back(position)
            self._dialogue = dialogue
            raise

    def _read_command(self, line: bytes) -> Announcement | None:
        self._dialogue = self._dialogue.with_command(line)
        return ftp_command(line, self.client, self.server)

    def _read_reply(self, line: bytes) -> Announcement | None:
        self._dialogue, asked_for = self._dialogue.with_reply(line)
        return ftp_reply(line, self.client, self.server) if asked_for else None


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
