"""Full sync's TCP connections (port 256 of the active member): bytes between a socket and a protocol object.

The protocol object (`syncproto.full`) takes bytes and time and gives bytes; this module moves them, non-blocking, and
never holds more than one chunk.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios

from fwnode.edges import FullSyncEnd

CHUNK_BYTES = 16_384
"""Read at once: some 250 records, half a millisecond. Packets wait meanwhile, and come first again afterwards."""
BACKLOG = 4
_SIOCOUTQ = termios.TIOCOUTQ
"""How many bytes the kernel keeps that the other side has not acknowledged."""


class FullSyncStream:
    """One TCP connection and the protocol object at our end of it."""

    def __init__(self, connection: socket.socket, end: FullSyncEnd, *, accepted: bool = False) -> None:
        self.socket = connection
        self.end = end
        self.accepted = accepted
        """The other side has connected: it asks for the table."""
        self.resume_at = 0.0
        """Nothing is sent before this wire time."""
        self._unsent = b""
        self._kept = 0

    @property
    def over(self) -> bool:
        """Whether it can be closed: its end has failed, or has finished and everything was sent."""
        return (self.end.finished or bool(self.end.failed)) and not self._unsent

    def on_readable(self, now: float) -> None:
        """Take one chunk of what has come."""
        try:
            data = self.socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.end.connection_lost(error.strerror or str(error))
            return
        if not data:
            self.end.connection_lost("Connection terminated by remote member")
            return
        self.end.receive_data(data, now)

    def pump(self, now: float) -> bool:
        """Send one chunk of what there is; True when there is more, or no room: watch the socket for room. An end that
        has failed waits for no room: TCP would try for minutes, and might come through when nobody waits for it."""
        if not self._unsent:
            self._unsent = self.end.outgoing(now)
            if not self._unsent:
                return False
        try:
            sent = self.socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            if self.end.failed:
                self._unsent = b""
            return not self.end.failed
        except OSError as error:
            self.end.connection_lost(error.strerror or str(error))
            self._unsent = b""
            return False
        self._unsent = self._unsent[sent:]
        return True

    def drains(self) -> bool:
        """Whether what the kernel keeps of ours has changed since the last question. On a slow link it sends for a long
        time what we gave it at once, and takes nothing more meanwhile."""
        try:
            (kept,) = struct.unpack("i", fcntl.ioctl(self.socket, _SIOCOUTQ, bytes(4)))
        except OSError:
            return False
        before, self._kept = self._kept, int(kept)
        return self._kept != before

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def listen(address: str, port: int) -> socket.socket:
    """A listening socket for full sync. Raises `OSError`."""
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(BACKLOG)
    except OSError:
        server.close()
        raise
    return server


def connect(own: str, peer: str, port: int) -> socket.socket:
    """A connection under way; writable or in error when it is decided. Raises `OSError` where it cannot be begun."""
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        stream.bind((own, 0))
    except OSError:
        stream.close()
        raise
    stream.connect_ex((peer, port))
    return stream
