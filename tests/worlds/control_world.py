"""A control socket in a test: the server, turn by turn, and callers that send bytes and read what has come."""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fwnode.control.server import ControlServer

Handle = Callable[[str, dict[str, Any], Any], Any]


class Peer:
    """One caller's end of the socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.path = path
        self._read = b""
        self.closed = False

    def connect(self) -> Peer:
        self.socket.connect(str(self.path))
        return self

    def ask(self, command: str, **arguments: Any) -> None:
        self.send(json.dumps({"command": command, "arguments": arguments}).encode() + b"\n")

    def send(self, data: bytes) -> None:
        assert self.socket.send(data) == len(data), "it fits the kernel's buffer"

    def lines(self) -> list[Any]:
        """What has come since, as far as it is there."""
        while not self.closed:
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            self.closed = not data
            self._read += data
        *lines, self._read = self._read.split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self.socket.close()


class World:
    """A server and its callers; `requests` counts what each command was asked."""

    def __init__(self, folder: Path, handle: Handle, **given: Any) -> None:
        self.path = folder / "fw1.sock"
        self.selector = selectors.EpollSelector()
        self.requests = 0
        self.peers: list[Peer] = []

        def counted(command: str, arguments: dict[str, Any], caller: Any) -> Any:
            self.requests += 1
            return handle(command, arguments, caller)

        self.server = ControlServer(self.path, self.selector, counted, **given)

    def peer(self) -> Peer:
        made = Peer(self.path)
        self.peers.append(made)
        return made

    def connected(self, count: int = 1) -> list[Peer]:
        """So many callers that were let in, or turned away."""
        made = []
        for _ in range(count):
            made.append(self.peer().connect())
            self.idle()
        return made

    def turn(self) -> int:
        """One turn of the member's loop; how many requests it began."""
        before = self.requests
        for key, mask in self.selector.select(0):
            key.data(mask)
        return self.requests - before

    def idle(self, at_most: int = 10_000) -> int:
        """Turns until nothing is ready any more; fails when there is no end of it."""
        for turns in range(at_most):
            if not self.selector.select(0):
                return turns
            self.turn()
        raise AssertionError(f"the server had something to do in each of {at_most} turns")

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.server.close()
        self.selector.close()
