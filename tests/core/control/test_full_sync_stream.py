"""Full sync's TCP streams on real sockets."""

from __future__ import annotations

import contextlib
import select
import socket
from types import SimpleNamespace

from fwnode.links.stream import FullSyncStream


def test_what_the_kernel_still_sends_counts_as_moving() -> None:
    """Its buffer is full: nothing can be given to it, and yet the other side gets on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
    with sender, receiver:
        sender.setblocking(False)
        stream = FullSyncStream(sender, SimpleNamespace())  # type: ignore[arg-type]
        assert not stream.drains()
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.send(bytes(65536))
        assert stream.drains()
        while stream.drains():
            select.select([], [], [], 0.05)  # what is under way arrives; then the receiver takes nothing
        while not stream.drains():
            receiver.recv(1 << 20)
