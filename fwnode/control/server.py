"""The member's control socket. Moves lines; what a command does is the node's business."""

from __future__ import annotations

import contextlib
import json
import logging
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

REQUEST_MAX = 1 << 20
"""Bytes of one request; a policy of thousands of rules fits."""
BACKLOG_MAX = 4 << 20
"""Bytes that wait for a slow follower before it is cut off."""

log = logging.getLogger("fwnode")

Handler = Callable[[str, dict[str, Any], "Client"], Any]


class ControlError(Exception):
    """A request that cannot be done; the message goes to the operator."""


class Client:
    """One caller."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.received = b""
        self.unsent = b""
        self.following: set[str] = set()
        """Streams that it listens to: `events`, `log`."""

    def send(self, message: dict[str, Any]) -> None:
        self.unsent += _encode(message)


class ControlServer:
    """Listens at `path`; `handle(command, arguments, client)` returns the result or raises `ControlError`.

    A stale socket file of a member that died is replaced; that of a living one is an error (`OSError`).
    """

    def __init__(self, path: Path, selector: selectors.BaseSelector, handle: Handler) -> None:
        self.path = path
        self._selector = selector
        self._handle = handle
        self.clients: list[Client] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if _answers(path):
            raise OSError(f"{path}: another process answers here; is this member running already?")
        path.unlink(missing_ok=True)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._socket.listen()
        selector.register(self._socket, selectors.EVENT_READ, self._accept)

    def _accept(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = self._socket.accept()
            connection.setblocking(False)
            client = Client(connection)
            self.clients.append(client)
            self._selector.register(connection, selectors.EVENT_READ, lambda mask: self._serve(client, mask))

    def _serve(self, client: Client, mask: int) -> None:
        if mask & selectors.EVENT_READ and not self._read(client):
            self._forget(client)
            return
        self.flush(client)

    def _read(self, client: Client) -> bool:
        try:
            data = client.socket.recv(65_536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        client.received += data
        *lines, client.received = client.received.split(b"\n")
        for line in lines:
            self._answer(client, line)
        return bool(data) and len(client.received) <= REQUEST_MAX

    def _answer(self, client: Client, line: bytes) -> None:
        try:
            request = json.loads(line)
            command, arguments = request["command"], request.get("arguments") or {}
            if not isinstance(command, str) or not isinstance(arguments, dict):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            client.send({"ok": False, "error": 'not a request: send {"command": "…", "arguments": {…}} on one line'})
            return
        before = len(client.unsent)
        try:
            answer = _encode({"ok": True, "result": self._handle(command, arguments, client)})
        except ControlError as error:
            client.send({"ok": False, "error": str(error)})
            return
        except Exception as error:  # a mistake in showing something must not take the firewall down
            log.exception("control request %r", line)
            client.send({"ok": False, "error": f"internal error in the member: {error!r}; its log has the details"})
            return
        # Whatever the handler queued for a follower comes after the answer.
        client.unsent = client.unsent[:before] + answer + client.unsent[before:]

    def publish(self, stream: str, event: dict[str, Any]) -> None:
        """To every caller that follows `stream`."""
        for client in list(self.clients):
            if stream in client.following:
                client.send({"event": event})
                self.flush(client)

    def flush(self, client: Client) -> None:
        try:
            if client.unsent:
                client.unsent = client.unsent[client.socket.send(client.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._forget(client)
            return
        if len(client.unsent) > BACKLOG_MAX:
            self._forget(client)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        key = self._selector.get_key(client.socket)
        if key.events != wanted:
            self._selector.modify(client.socket, wanted, key.data)

    def _forget(self, client: Client) -> None:
        if client in self.clients:
            self.clients.remove(client)
            self._selector.unregister(client.socket)
            client.socket.close()

    def close(self) -> None:
        for client in list(self.clients):
            self.flush(client)
            self._forget(client)
        self._selector.unregister(self._socket)
        self._socket.close()
        self.path.unlink(missing_ok=True)


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
