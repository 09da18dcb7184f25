"""The client process of a ping workload: `ping` itself, one process an exchange, so each has its own identifier."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from labs.traffic.fates import Fate, Session, Tally
from labs.traffic.process import raise_file_limit, say, serve_commands
from labs.traffic.transfers import patience_of


class Pinger:
    def __init__(self, orders: dict[str, Any]) -> None:
        self.orders = orders
        self.patience_s = patience_of(orders)
        self.sessions: list[Session] = []
        self._stream: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Task[None]] = set()

    async def open(self) -> dict[str, Any]:
        if self._stream is None:
            self._stream = asyncio.create_task(self._send_one_by_one(self.orders["count"]))
        return {"opened": 0, "failed": 0}

    async def finish(self) -> dict[str, Any]:
        if self._stream is not None:
            if self.orders["count"] is None:
                self._stream.cancel()
            await asyncio.wait([self._stream])
            self._stream = None
        while self._waiting:
            await asyncio.wait(self._waiting)
        return await self.report()

    async def report(self) -> dict[str, Any]:
        tally = Tally.of(self.sessions)
        tally.figures = {"sent": tally.sessions, "answered": tally.fates[Fate.FINISHED]}
        return {"tally": tally.as_json(), "unopened": []}

    async def _send_one_by_one(self, count: int | None) -> None:
        """So many, or for ever."""
        begin, index = time.monotonic(), 0
        while count is None or index < count:
            await asyncio.sleep(max(0.0, index / self.orders["rate"] - (time.monotonic() - begin)))
            index += 1
            session = Session(len(self.sessions), began_at=time.monotonic())
            self.sessions.append(session)
            task = asyncio.create_task(self._exchange(session))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _exchange(self, session: Session) -> None:
        session.ask(time.monotonic())
        process = await asyncio.create_subprocess_exec(
            "ping", "-n", "-q", "-c", "1", "-W", f"{self.patience_s:g}", self.orders["address"],
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        if await process.wait() == 0:
            session.answer(0, time.monotonic())
            session.end(Fate.FINISHED)
        else:
            session.give_up(time.monotonic())


async def main(orders: dict[str, Any]) -> None:
    pinger = Pinger(orders)
    say({"milestone": "ready"})
    await serve_commands({"open": pinger.open, "finish": pinger.finish, "report": pinger.report})


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(main(json.loads(sys.argv[1])))
