"""Clients of file transfers that block, each in a thread of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from labs.traffic.stdio_commands import say, serve_commands
from labs.traffic.transfers import FileClient, Heard, Transfers


class BlockingClient(Protocol):
    """A `FileClient` whose calls block."""

    lasting: bool

    def log_in(self) -> None: ...
    def announce(self) -> None: ...
    def fetch(self, heard: Heard) -> bytes: ...
    def log_out(self) -> None: ...
    def drop(self) -> None:
        """End its connections at once, without a farewell. Raises nothing."""


class _Threaded:
    """Calls a blocking client in a thread."""

    def __init__(self, client: BlockingClient, threads: ThreadPoolExecutor) -> None:
        self.lasting = client.lasting
        self.drop = client.drop
        self._client = client
        self._threads = threads

    async def log_in(self) -> None:
        await self._call(self._client.log_in)

    async def announce(self) -> None:
        await self._call(self._client.announce)

    async def fetch(self, heard: Heard) -> bytes:
        data: bytes = await self._call(self._client.fetch, heard)
        return data

    async def log_out(self) -> None:
        await self._call(self._client.log_out)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def threaded(orders: dict[str, Any], make: Callable[[], BlockingClient]) -> Transfers:
    """As many clients as are ordered. The threads end with the last client, or with the process."""
    threads = ThreadPoolExecutor(orders["count"])

    def client() -> FileClient:
        return _Threaded(make(), threads)

    return Transfers(orders, client, time.monotonic)


async def serve(orders: dict[str, Any], make: Callable[[], BlockingClient]) -> None:
    """As the client process of a workload."""
    transfers = threaded(orders, make)
    say({"milestone": "ready"})
    await serve_commands(transfers.commands())
    transfers.close()
