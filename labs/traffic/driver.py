"""A workload as the runner holds it: its two processes, commands to both, and one account of the fates."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from labs.python import Spawn, python_command
from labs.traffic.fates import Fate, Tally
from labs.traffic.stdio_commands import LINE_MAX
from labs.traffic.workload import AnyWorkload, Flood, Ping, Sessions, orders

READY_S = 20.0
PARTS = dict.fromkeys(("sessions", "short"), ("session_client", "session_server"))
"""The client's part and the server's, of kinds that do not name theirs KIND_client and KIND_server."""


class TrafficError(Exception):
    """A traffic process did not do what it was told."""


class WorkloadProcess(Protocol):
    """One of the two processes of a workload. What it cannot do raises `TrafficError`."""

    async def command(self, do: str, **arguments: Any) -> Any: ...
    async def close(self) -> None: ...


BeginPart = Callable[[str, str, dict[str, Any]], Awaitable[WorkloadProcess]]
"""Starts a part in a node with its orders, and returns when it is ready. Raises `TrafficError`."""


def spawned(spawn: Spawn) -> BeginPart:
    """Each part is a program of its own, which `spawn` starts in a node."""

    async def begin(node: str, part: str, told: dict[str, Any]) -> WorkloadProcess:
        return await _SpawnedProcess.start(spawn, node, f"labs.traffic.{part}", told["name"], told)

    return begin


class Traffic:
    """The two processes of one workload, which `begin` starts."""

    def __init__(
        self, name: str, workload: AnyWorkload, *, begin: BeginPart, client: str, server: str, address: str,
        rate: float, epoch: float,
    ) -> None:  # fmt: skip
        self.name = name
        self.workload = workload
        self._begin = begin
        self._nodes = (client, server)
        self._orders = orders(name, workload, address=address, rate=rate, epoch=epoch)
        self._client: WorkloadProcess | None = None
        self._server: WorkloadProcess | None = None
        self._finished = False

    @property
    def _server_asks(self) -> bool:
        return isinstance(self.workload, Sessions) and self.workload.speaks_first == "server"

    @property
    def _server_tells(self) -> bool:
        """Whether a part of the account is the server's."""
        return self._server_asks or isinstance(self.workload, Flood)

    async def start(self) -> None:
        """Both processes, the server first; nothing is opened yet. A ping is answered by the server's kernel."""
        client, server = self._nodes
        kind = self.workload.kind
        of_client, of_server = PARTS.get(kind, (f"{kind}_client", f"{kind}_server"))
        if not isinstance(self.workload, Ping):
            self._server = await self._begin(server, of_server, self._orders)
        self._client = await self._begin(client, of_client, self._orders)

    async def open(self) -> dict[str, Any]:
        self._finished = False
        return dict(await self._command(self._client, "open"))

    async def speak(self) -> dict[str, Any]:
        return dict(await self._command(self._server if self._server_asks else self._client, "speak"))

    async def reconnect(self, which: str, share: float) -> dict[str, Any]:
        return dict(await self._command(self._client, "reconnect", which=which, share=share))

    async def announce(self) -> dict[str, Any]:
        return dict(await self._command(self._client, "announce"))

    async def transfer(self, wait: bool) -> dict[str, Any]:
        return dict(await self._command(self._client, "transfer", wait=wait))

    async def finish(self) -> Tally:
        mine = await self._command(self._client, "finish")
        self._finished = True
        if isinstance(self.workload, Flood):
            await self._command(self._server, "finish", offered=mine["tally"]["figures"]["offered"])
        elif self._server_asks:
            await self._command(self._server, "finish")
        return await self.report()

    async def report(self) -> Tally:
        mine = await self._command(self._client, "report")
        tally = Tally.from_json(mine["tally"])
        if self._server_tells:
            theirs = await self._command(self._server, "report", without=mine["unopened"])
            tally = tally.plus(Tally.from_json(theirs))
        return self._settled(tally) if isinstance(self.workload, Flood) else tally

    def _settled(self, tally: Tally) -> Tally:
        """Of a flood: what was offered and has not arrived is refused, once the last of it had its time."""
        arrived = int(tally.figures["arrived"])
        tally.fates[Fate.FINISHED] = arrived
        missing = max(0, tally.sessions - arrived)
        if self._finished:
            tally.fates[Fate.REFUSED] = missing
        else:
            tally.open = missing
        return tally

    async def close(self) -> None:
        for process in (self._client, self._server):
            if process is not None:
                await process.close()

    @staticmethod
    async def _command(process: WorkloadProcess | None, do: str, **arguments: Any) -> Any:
        if process is None:
            raise TrafficError("the workload was not started")
        return await process.command(do, **arguments)


class _SpawnedProcess:
    """One traffic process: requests by number, answers as they come."""

    def __init__(self, process: asyncio.subprocess.Process, what: str) -> None:
        self._process = process
        self._what = what
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._end = "has ended"
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, spawn: Spawn, node: str, module: str, name: str, told: dict[str, Any]) -> _SpawnedProcess:
        process = await spawn(
            node, python_command(module, json.dumps(told)),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_MAX,
        )  # fmt: skip
        self = cls(process, f"{module} of workload {name!r}")
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), READY_S)
            answer = json.loads(line or b"{}")
        except TimeoutError:
            answer = {"error": f"it said nothing for {READY_S:g} s"}
        except ValueError as error:
            answer = {"error": f"what it said cannot be read: {error}"}
        if answer.get("milestone") != "ready":
            await self.close()
            raise TrafficError(f"{self._what} did not start: {answer.get('error', 'it ended')}")
        self._reader = asyncio.create_task(self._read(process.stdout))
        return self

    async def command(self, do: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        if self._reader is None or self._reader.done():
            raise TrafficError(f"{self._what} {self._end}")
        number = next(self._numbers)
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": number, "do": do, **arguments}).encode() + b"\n")
        return await future

    async def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        """Until the process ends, or says what cannot be read: either way whoever waits for an answer is told."""
        try:
            while line := await stdout.readline():
                self._take(json.loads(line))
        except (ValueError, KeyError, AttributeError) as error:
            self._end = f"said what cannot be read: {error}"
        for future in self._pending.values():
            if not future.done():
                future.set_exception(TrafficError(f"{self._what} {self._end}"))
        self._pending.clear()

    def _take(self, answer: dict[str, Any]) -> None:
        future = self._pending.pop(answer.get("re", 0), None)
        if future is None or future.done():
            return
        if answer["ok"]:
            future.set_result(answer["result"])
        else:
            future.set_exception(TrafficError(f"{self._what}: {answer['error']}"))
