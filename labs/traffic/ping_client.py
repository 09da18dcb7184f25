"""The client process of a ping workload: `ping` itself, one process an exchange, so each has its own identifier."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from fwnode.node_process import raise_file_limit
from labs.traffic.fates import Fate, Session, Tally
from labs.traffic.paced import Paced
from labs.traffic.stdio_commands import Command, say, serve_commands
from labs.traffic.transfers import patience_of

Echo = Callable[[float], Awaitable[bool]]
"""One echo exchange: whether the reply came within so many seconds."""


class Pinger:
    """The exchanges of a workload, as the commands of its client process."""

    def __init__(self, orders: dict[str, Any], exchange: Echo, clock: Callable[[], float]) -> None:
        self.patience_s = patience_of(orders)
        self._exchange = exchange
        self._clock = clock
        self.sessions: list[Session] = []
        self._stream = Paced(orders["rate"], orders["count"], clock, self._begin)
        self._waiting: set[asyncio.Task[None]] = set()

    def commands(self) -> dict[str, Command]:
        return {"open": self.open, "finish": self.finish, "report": self.report}

    async def open(self) -> dict[str, Any]:
        self._stream.start()
        return {"opened": 0, "failed": 0}

    async def finish(self) -> dict[str, Any]:
        await self._stream.end()
        while self._waiting:
            await asyncio.wait(self._waiting)
        return await self.report()

    async def report(self) -> dict[str, Any]:
        tally = Tally.of(self.sessions)
        tally.figures = {"sent": tally.sessions, "answered": tally.fates[Fate.FINISHED]}
        return {"tally": tally.as_json(), "unopened": []}

    async def _begin(self) -> None:
        session = Session(len(self.sessions), began_at=self._clock())
        self.sessions.append(session)
        task = asyncio.create_task(self._ping(session))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _ping(self, session: Session) -> None:
        session.ask(self._clock())
        if await self._exchange(self.patience_s):
            session.answer(0, self._clock())
            session.end(Fate.FINISHED)
        else:
            session.give_up(self._clock())


def program(address: str) -> Echo:
    """The machine's own `ping`."""

    async def exchange(patience_s: float) -> bool:
        process = await asyncio.create_subprocess_exec(
            "ping", "-n", "-q", "-c", "1", "-W", f"{patience_s:g}", address,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        return await process.wait() == 0

    return exchange


async def main(orders: dict[str, Any]) -> None:
    pinger = Pinger(orders, program(orders["address"]), asyncio.get_running_loop().time)
    say({"milestone": "ready"})
    await serve_commands(pinger.commands())


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(main(json.loads(sys.argv[1])))
