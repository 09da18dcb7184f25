"""What the firewall itself answers: the packets with which a rejected one is refused, sent as they are."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from fwnode.datapath.rules import OWN_MARK


class Replies:
    """Sends from raw sockets, with a mark, so that no rule base is asked. Raises `OSError` where it may not."""

    def __init__(self) -> None:
        self._raw = {
            4: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
            6: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW),
        }
        for raw in self._raw.values():
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, OWN_MARK)

    def send(self, packet: bytes) -> None:
        """Send this IP packet. One that cannot be sent is dropped."""
        version = packet[0] >> 4
        if version == 4:
            where: Any = (socket.inet_ntop(socket.AF_INET, packet[16:20]), 0)
        else:
            where = (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0)
        with contextlib.suppress(OSError):  # no route to the sender: it will have to time out
            self._raw[version].sendto(packet, where)

    def close(self) -> None:
        for raw in self._raw.values():
            raw.close()
