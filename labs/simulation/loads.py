"""Workloads in the simulated world: the runner's `Load` on two simulated hosts.

It is the real one's (`labs.traffic.driver.Traffic`), with the real clients' and servers' own code as far as they do not
block; only its two processes are other: commands to them are calls. What depends on chance (think times) comes from
the world's seed and the workload's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from labs.simulation.flood import FloodCounter, SimulatedFloodSender
from labs.simulation.ftp import SimulatedFtpClient, SimulatedFtpServer
from labs.simulation.ip_packets import packed
from labs.simulation.loop import World
from labs.simulation.machine import Machine
from labs.simulation.stack import Stack
from labs.simulation.tftp import SimulatedTftpClient, SimulatedTftpServer
from labs.simulation.transports import HostNetwork
from labs.traffic.driver import Traffic, TrafficError
from labs.traffic.flood_server import FloodServer
from labs.traffic.host import Host
from labs.traffic.ping_client import Pinger
from labs.traffic.session_client import SessionClient
from labs.traffic.session_server import SessionServer
from labs.traffic.stdio_commands import Command
from labs.traffic.transfers import Transfers
from labs.traffic.workload import AnyWorkload


class Loads:
    """Makes workloads between the machines of a world. One for a run: it holds the hosts' transport."""

    def __init__(self, machines: dict[str, Machine], *, rate: float, epoch: float) -> None:
        self._machines = machines
        self._rate = rate
        self._epoch = epoch
        self._stacks: dict[str, Stack] = {}

    def stack(self, node: str) -> Stack:
        """A host's transport; a host has one."""
        if node not in self._stacks:
            self._stacks[node] = Stack(self._machines[node])
        return self._stacks[node]

    def load(self, name: str, workload: AnyWorkload, *, client: str, server: str, address: str) -> Traffic:
        """One workload between two hosts: the runner's `Load`."""
        return Traffic(name, workload, begin=self._begin, client=client, server=server, address=address,
                       rate=self._rate, epoch=self._epoch)  # fmt: skip

    async def _begin(self, node: str, part: str, told: dict[str, Any]) -> SimulatedProcess:
        what = f"the {part.replace('_', ' ')} of workload {told['name']!r} at {node}"
        try:
            commands = await PARTS[part](self.stack(node), told)
        except OSError as error:
            raise TrafficError(f"{what} did not start: port {told.get('port')}: {error.strerror}") from error
        return SimulatedProcess(what, commands)


class SimulatedProcess:
    """What stands for one of the two processes of a workload."""

    def __init__(self, what: str, commands: dict[str, Command]) -> None:
        self._what = what
        self._commands = commands

    async def command(self, do: str, **arguments: Any) -> Any:
        try:
            return await self._commands[do](**arguments)
        except Exception as error:
            raise TrafficError(f"{self._what}: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """The world ends with the run."""


class WorldTimer:
    """A call to come. Not asyncio's: there may be some for each of 100,000 sessions."""

    __slots__ = ("_argument", "_function")

    def __init__(self, function: Callable[[Any], object] | None, argument: Any) -> None:
        self._function = function
        self._argument = argument

    def cancel(self) -> None:
        self._function = self._argument = None

    def fire(self) -> None:
        if self._function is not None:
            self._function(self._argument)


def simulated_host(stack: Stack, name: str) -> Host:
    """What a client or server of a workload of this name runs on."""
    world: World = stack.world

    def clock() -> float:
        return world.now

    def later(delay_s: float, function: Callable[[Any], object], argument: Any) -> WorldTimer:
        timer = WorldTimer(function, argument)
        world.at(world.now + delay_s, WorldTimer.fire, timer)
        return timer

    return Host(clock, later, HostNetwork(stack), Random(f"{world.seed} {name}"))


# -- the parts of workloads


async def _client(stack: Stack, orders: dict[str, Any]) -> dict[str, Command]:
    return SessionClient(orders, simulated_host(stack, orders["name"])).commands()


async def _server(stack: Stack, orders: dict[str, Any]) -> dict[str, Command]:
    server = SessionServer(orders, simulated_host(stack, orders["name"]))
    await server.listen()
    return server.commands()


async def _ftp_client(stack: Stack, orders: dict[str, Any]) -> dict[str, Command]:
    return Transfers(orders, lambda: SimulatedFtpClient(stack, orders), lambda: stack.world.now).commands()


async def _ftp_server(stack: Stack, orders: dict[str, Any]) -> dict[str, Command]:
    SimulatedFtpServer(stack, orders)
    return {}


async def _tftp_client(stack: Stack, orders: dict[str, Any]) -> dict[str, Command]:
    return Transfers(orders, lambda: SimulatedTftpClient(stack, orders), lambda: stack.world.now).commands()


async def _tftp_server(stack: Stack, orders: dict[str, Any]) -> dict[str, Command]:
    SimulatedTftpServer(stack, orders)
    return {}


async def _ping_client(stack: Stack, orders: dict[str, Any]) -> dict[str, Command]:
    target = packed(orders["address"])

    async def exchange(patience_s: float) -> bool:
        """As `ping` does: a reply, an error about the request, or nothing for so long."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        identifier = stack.ping(target, waiter.set_result)
        try:
            async with asyncio.timeout(patience_s):
                return await waiter
        except TimeoutError:
            return False
        finally:
            stack.forget_ping(identifier)

    return Pinger(orders, exchange, lambda: stack.world.now).commands()


async def _flood_client(stack: Stack, orders: dict[str, Any]) -> dict[str, Command]:
    return SimulatedFloodSender(stack, orders).commands()


async def _flood_server(stack: Stack, orders: dict[str, Any]) -> dict[str, Command]:
    return FloodServer(FloodCounter(stack, orders), lambda: stack.world.now).commands()


PARTS: dict[str, Callable[[Stack, dict[str, Any]], Awaitable[dict[str, Command]]]] = {
    "session_client": _client, "session_server": _server, "ftp_client": _ftp_client, "ftp_server": _ftp_server,
    "tftp_client": _tftp_client, "tftp_server": _tftp_server, "ping_client": _ping_client,
    "flood_client": _flood_client, "flood_server": _flood_server,
}  # fmt: skip
