"""TFTP in the simulated world: the client and the server of the real workload, on a host's UDP.

Both repeat and give up as `tftpy` does, whose ways are theirs: a lost packet costs the client a third of its patience
or the server a second, whichever comes first; three waits in a row are the end.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

from labs.simulation.stack import Socket, Stack
from labs.traffic.transfers import Heard, content, patience_of

BLOCK = 512
TRIES = 3
RETRANSMIT_S = 1.0
REQUEST = b"\0\x01file\0octet\0"
_DATA, _ACK = b"\0\x03", b"\0\x04"


class SimulatedTftpClient:
    """A `FileClient`: each transfer is a conversation of its own."""

    lasting = False

    def __init__(self, stack: Stack, orders: dict[str, Any]) -> None:
        self._stack = stack
        self._address = ip_address(orders["address"]).packed
        self._port: int = orders["port"]
        self._timeout_s = patience_of(orders) / TRIES

    async def fetch(self, heard: Heard) -> bytes:
        arrived: asyncio.Queue[tuple[bytes, int]] = asyncio.Queue()
        socket = self._stack.socket(lambda data, _, port: arrived.put_nowait((data, port)))
        try:
            return await self._fetch(socket, arrived, heard)
        finally:
            socket.close()

    async def _fetch(self, socket: Socket, arrived: asyncio.Queue[tuple[bytes, int]], heard: Heard) -> bytes:
        parts: list[bytes] = []
        last, port, waits = REQUEST, 0, 0
        socket.send(last, self._address, self._port)
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    data, sender = await arrived.get()
            except TimeoutError:
                waits += 1
                if waits >= TRIES:
                    raise
                socket.send(last, self._address, port or self._port)
                continue
            heard()
            waits, port = 0, port or sender
            if data[:2] != _DATA:
                raise ConnectionRefusedError(f"not a block: {data[:40]!r}")
            number = int.from_bytes(data[2:4])
            if number > len(parts) + 1:
                raise ConnectionRefusedError(f"block {number} instead of {len(parts) + 1}")
            last = _ACK + data[2:4]
            socket.send(last, self._address, port)
            if number == len(parts) + 1:
                parts.append(data[4:])
                if len(data) < 4 + BLOCK:
                    return b"".join(parts)

    async def log_in(self) -> None:
        """Nothing to do: TFTP has no login."""

    async def announce(self) -> None:
        """Nothing to do: TFTP announces no data connection."""

    async def log_out(self) -> None:
        """Nothing to do: TFTP has no logout."""

    def drop(self) -> None:
        """Nothing to do: each conversation ends by itself."""


class SimulatedTftpServer:
    """Answers each request from a new port."""

    def __init__(self, stack: Stack, orders: dict[str, Any]) -> None:
        """Listening. Raises `OSError`."""
        self.stack = stack
        self.data = content(orders["size"])
        self.known: set[tuple[bytes, int]] = set()
        """Clients with a conversation under way: their request is not taken twice."""
        stack.socket(self._request, orders["port"])

    def _request(self, data: bytes, address: bytes, port: int) -> None:
        if data[:2] == REQUEST[:2] and (address, port) not in self.known:
            self.known.add((address, port))
            _Sending(self, address, port)


class _Sending:
    """One conversation: the block that waits for its ACK."""

    def __init__(self, server: SimulatedTftpServer, address: bytes, port: int) -> None:
        self._server = server
        self._client = (address, port)
        self._socket = server.stack.socket(self._heard)
        self._block = 0
        self._waits = 0
        self._heard_at = server.stack.world.now
        self._next()
        self._look_later()

    def _next(self) -> None:
        self._block += 1
        self._send()

    def _send(self) -> None:
        begin = (self._block - 1) * BLOCK
        data = _DATA + self._block.to_bytes(2) + self._server.data[begin : begin + BLOCK]
        self._socket.send(data, *self._client)

    def _heard(self, data: bytes, address: bytes, port: int) -> None:
        self._heard_at, self._waits = self._server.stack.world.now, 0
        if data[:2] == _ACK and int.from_bytes(data[2:4]) == self._block:
            if self._block * BLOCK > len(self._server.data):
                self._end()
            else:
                self._next()

    def _look_later(self) -> None:
        world = self._server.stack.world
        world.at(self._heard_at + RETRANSMIT_S * (self._waits + 1), _Sending._look, self)

    def _look(self) -> None:
        if not self._block:
            return
        if self._server.stack.world.now >= self._heard_at + RETRANSMIT_S * (self._waits + 1):
            self._waits += 1
            if self._waits >= TRIES:
                self._end()
                return
            self._send()
        self._look_later()

    def _end(self) -> None:
        self._block = 0
        self._socket.close()
        self._server.known.discard(self._client)
