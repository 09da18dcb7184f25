"""What a client or server runs on: time, timers, a network, and chance. The running asyncio loop is one, a simulated
host another (`labs.simulation.loads`); neither can be told from the other by what it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class Timer(Protocol):
    """A call to come, which can be called off."""

    def cancel(self) -> None: ...


class TcpNetwork(Protocol):
    """TCP. Both raise `OSError`."""

    async def connect(self, factory: ProtocolFactory, address: str, port: int) -> None:
        """Until the connection is open."""

    async def listen(self, factory: ProtocolFactory, address: str, port: int, backlog: int) -> None:
        """From now on each connection to the address gets a protocol of `factory()`."""


@dataclass(frozen=True)
class Host:
    """See the module docstring."""

    clock: Callable[[], float]
    """Seconds, as of a monotonic clock."""
    later: Callable[[float, Callable[[Any], object], Any], Timer]
    """Call the function with the argument after so many seconds."""
    network: TcpNetwork
    chance: Random


class KernelNetwork:
    """The machine's own sockets, by asyncio."""

    async def connect(self, factory: ProtocolFactory, address: str, port: int) -> None:
        await asyncio.get_running_loop().create_connection(factory, address, port)

    async def listen(self, factory: ProtocolFactory, address: str, port: int, backlog: int) -> None:
        await asyncio.get_running_loop().create_server(factory, address, port, backlog=backlog)


def running_host(name: str) -> Host:
    """This process; a workload of this name has the same think times in every run."""
    loop = asyncio.get_running_loop()
    return Host(loop.time, loop.call_later, KernelNetwork(), Random(name))
