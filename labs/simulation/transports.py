"""asyncio transports over a simulated host's TCP: protocols written for asyncio's own run on them unchanged.

`HostNetwork` is what a workload's client or server takes for its network, in the place of the running loop's sockets
(`labs.traffic.host`). Events come as asyncio brings them, in the same order: connection_made, data_received,
eof_received, connection_lost; the last is called by the loop where the end was our own wish.
"""

from __future__ import annotations

import asyncio
import os
from ipaddress import ip_address
from typing import Any

from labs.simulation.stack import Stack
from labs.simulation.tcp_connection import TcpConnection
from labs.traffic.host import ProtocolFactory

HIGH_WATER_BYTES = 65_536  # asyncio's own
LOW_WATER_BYTES = HIGH_WATER_BYTES // 4



class HostTransport(asyncio.Transport):
    """A connection's `Application`, which passes everything on to a protocol."""

    __slots__ = ("_closing", "_connection", "_paused", "_protocol", "_stack", "_waiter")

    _connection: TcpConnection

    def __init__(self, stack: Stack, protocol: Any, waiter: asyncio.Future[None] | None = None) -> None:
        self._stack = stack
        self._protocol = protocol
        self._waiter = waiter
        self._closing = False
        self._paused = False

    @classmethod
    def accept(cls, stack: Stack, factory: ProtocolFactory, connection: TcpConnection) -> HostTransport:
        self = cls(stack, factory())
        self._connection = connection
        return self

    def begin(self, address: bytes, port: int) -> None:
        """Connect. Raises `OSError`."""
        self._connection = self._stack.connect(address, port, self)

    def give_up(self) -> None:
        """Nobody waits for the opening any more."""
        self._waiter, self._closing = None, True
        self._connection.close(self._stack.world.now)

    # -- told by the connection

    def opened(self) -> None:
        self._protocol.connection_made(self)
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None

    def received(self, data: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(data)

    def ended(self) -> None:
        if not self._closing and not self._protocol.eof_received():
            self.close()

    def sent(self) -> None:
        if self._paused and self._connection.pending <= LOW_WATER_BYTES:
            self._paused = self._connection.tell_sent = False
            self._protocol.resume_writing()

    def closed(self, error: int) -> None:
        failure = OSError(error, os.strerror(error))
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_exception(failure)
            self._waiter = None
        elif not self._closing:
            self._closing = True
            self._protocol.connection_lost(failure)

    # -- asyncio's interface

    def write(self, data: bytes | bytearray | memoryview) -> None:
        connection = self._connection
        connection.write(bytes(data), self._stack.world.now)
        if connection.pending > HIGH_WATER_BYTES and not self._paused:
            self._paused = connection.tell_sent = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        self._connection.shut_down(self._stack.world.now)

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._connection.close(self._stack.world.now)
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        """One RST, and nothing is sent again: what asyncio does with SO_LINGER set to 0."""
        was_closing, self._closing = self._closing, True
        self._connection.abort(self._stack.world.now)
        if not was_closing:
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._closing and self._connection.reading

    def pause_reading(self) -> None:
        self._connection.pause_reading()

    def resume_reading(self) -> None:
        self._connection.resume_reading(self._stack.world.now)

    def get_write_buffer_size(self) -> int:
        return self._connection.pending

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`sockname` and `peername`; there is no socket."""
        ends = self._connection.ends
        size = (len(ends) - 4) // 2
        if name == "sockname":
            return str(ip_address(ends[:size])), int.from_bytes(ends[-4:-2])
        if name == "peername":
            return str(ip_address(ends[size : 2 * size])), int.from_bytes(ends[-2:])
        return default


async def connect(stack: Stack, factory: ProtocolFactory, address: str, port: int) -> HostTransport:
    """Until the connection is open. Raises `OSError`."""
    waiter = asyncio.get_running_loop().create_future()
    transport = HostTransport(stack, factory(), waiter)
    transport.begin(ip_address(address).packed, port)
    try:
        await waiter
    except asyncio.CancelledError:
        transport.give_up()
        raise
    return transport


def listen(stack: Stack, factory: ProtocolFactory, address: str, port: int) -> None:
    """Raises `OSError`. Every connection is accepted."""
    stack.listen(ip_address(address).packed, port, lambda connection: HostTransport.accept(stack, factory, connection))


class HostNetwork:
    """A host's TCP as a workload needs it (`labs.traffic.host.TcpNetwork`)."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    async def connect(self, factory: ProtocolFactory, address: str, port: int) -> None:
        await connect(self._stack, factory, address, port)

    async def listen(self, factory: ProtocolFactory, address: str, port: int, _backlog: int) -> None:
        listen(self._stack, factory, address, port)
