"""The cluster protocol's datagrams: UDP 8116, one connected socket for each peer on each interface.

Connected, because the kernel then tells us when a peer's machine answers that nobody listens there: its process has
died although its machine lives.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

PORT = 8116
RECEIVE_BUFFER_BYTES = 4 << 20
"""Asked for; holds a burst of about two thousand full datagrams while the loop is at its packets."""
UDP_PAYLOAD_MAX = 65_535
TURN_MAX = 256
"""Datagrams read in a row before the loop may look elsewhere."""
WAITING_MAX = 16_384
"""More of the smallest datagrams than a receive buffer holds."""


@dataclass(frozen=True)
class PeerSocket:
    """One socket: to `peer` over `interface`."""

    peer: int
    interface: str
    sync: bool
    """Whether this is the sync network."""
    socket: socket.socket


class Datagrams:
    """`addresses`: own address and each peer's, by interface. Raises `OSError` when the port is taken."""

    def __init__(self, addresses: Mapping[str, tuple[str, Mapping[int, str]]], sync_interface: str) -> None:
        # Of the sync network alone, as `syncstat` shows them.
        self.sent_bytes = 0
        self.received_bytes = 0
        self.errors: Counter[str] = Counter()
        """What the kernel said of datagrams that it did not send, or that did not get there: by interface and error."""
        self.wires: list[PeerSocket] = []
        for interface, (own, peers) in addresses.items():
            for peer, address in peers.items():
                self.wires.append(PeerSocket(peer, interface, interface == sync_interface, _connected(own, address)))
        self._ways = {(wire.peer, wire.interface): wire for wire in self.wires}

    def send(self, peer: int, interface: str, data: bytes, refused: Callable[[int], None]) -> None:
        """To one peer over one interface; `refused` hears whose machine has nobody listening."""
        wire = self._ways[peer, interface]
        try:
            wire.socket.send(data)
            if wire.sync:
                self.sent_bytes += len(data)
        except ConnectionRefusedError:
            # The error belongs to an earlier datagram; this one was not sent.
            refused(wire.peer)
        except OSError as error:
            self._count(wire, error)  # no route, link down, too large, buffer full: as if lost on the wire

    def _count(self, wire: PeerSocket, error: OSError) -> None:
        self.errors[f"{wire.interface}: {errno.errorcode.get(error.errno or 0, str(error))}"] += 1

    def receive(self, wire: PeerSocket, refused: Callable[[int], None]) -> Iterator[bytes]:
        """What waits at this socket, at most `TURN_MAX` datagrams; `refused` hears whose machine has nobody
        listening."""
        for _ in range(TURN_MAX):
            try:
                data = wire.socket.recv(UDP_PAYLOAD_MAX)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                refused(wire.peer)
                continue
            except OSError as error:
                self._count(wire, error)
                return
            if wire.sync:
                self.received_bytes += len(data)
            yield data

    def receive_all(self, wire: PeerSocket) -> list[bytes]:
        """Everything that waits, as much as a receive buffer holds. Refusals are ignored: they may be old."""
        waiting: list[bytes] = []
        while len(waiting) < WAITING_MAX and (more := list(self.receive(wire, lambda _peer: None))):
            waiting += more
        return waiting

    def close(self) -> None:
        """Close every socket."""
        for wire in self.wires:
            wire.socket.close()


def _connected(own: str, peer: str) -> socket.socket:
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        link.bind((own, PORT))
        link.connect((peer, PORT))
    except OSError:
        link.close()
        raise
    return link
