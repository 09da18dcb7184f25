"""The client process of a workload: `python -m labs.traffic.session_client ORDERS`, orders as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from fwnode.node_process import raise_file_limit
from labs.traffic.fates import FAILED, Session
from labs.traffic.host import Host, running_host
from labs.traffic.paced import Paced
from labs.traffic.session_conversation import Asker, Conversation
from labs.traffic.stdio_commands import Command, say, serve_commands

OPENINGS_AT_ONCE = 1_000


class SessionClient:
    """A workload's sessions, as the commands of its client process."""

    def __init__(self, orders: dict[str, Any], host: Host) -> None:
        self.orders = orders
        self.host = host
        self.asker = Asker(orders, host)
        if orders.get("speaks_first") == "server":
            self.asker.idle = True  # after the opening exchange, asking is the server's part
        self._sessions = 0
        self._openings: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(OPENINGS_AT_ONCE)
        self._stream: Paced | None = None
        if orders["kind"] == "short":
            self._stream = Paced(orders["rate"], orders["count"], host.clock, self._begin_opening)

    # -- commands

    async def open(self) -> dict[str, Any]:
        if self._stream is not None:
            if not self._stream.running:
                self.asker.finishing = False
            self._stream.start()
            return {"opened": 0, "failed": 0}
        return await self._open_many(self.orders["count"])

    async def speak(self) -> dict[str, Any]:
        return await self.asker.speak(self.orders.get("open_rate", 0.0))

    async def reconnect(self, which: str = "all", share: float = 1.0) -> dict[str, Any]:
        """Sessions that failed, or all, are opened again as new sessions; one that is still alive is closed first."""
        old = [
            conversation
            for conversation in self.asker.conversations.values()
            if conversation.session is not None
            and (conversation.session.fate in FAILED or (which == "all" and conversation.session.fate is None))
        ]
        old = old[: round(len(old) * share)]
        for conversation in old:
            self.asker.retire(conversation)
        return await self._open_many(len(old))

    async def finish(self) -> dict[str, Any]:
        if self._stream is not None:
            await self._stream.end()
        while self._openings:
            await asyncio.wait(self._openings)
        if self.orders.get("speaks_first") == "server":
            return await self.report()
        await self.asker.finish(self.orders.get("open_rate", 0.0))
        return await self.report()

    def commands(self) -> dict[str, Command]:
        return {"open": self.open, "speak": self.speak, "reconnect": self.reconnect, "finish": self.finish,
                "report": self.report}  # fmt: skip

    async def report(self) -> dict[str, Any]:
        """Where the server asks, only the sessions whose opening failed are the client's to tell."""
        failed = [
            number
            for number, conversation in self.asker.conversations.items()
            if conversation.session is not None and conversation.session.answers == 0
            and conversation.session.fate is not None
        ]
        if self.orders.get("speaks_first") == "server":
            others = frozenset(self.asker.conversations) - frozenset(failed)
            return {"tally": self.asker.report(without=others), "unopened": failed}
        return {"tally": self.asker.report(), "unopened": failed}

    # -- opening

    async def _open_many(self, count: int) -> dict[str, Any]:
        first = self._sessions
        begin = self.host.clock()
        for index in range(count):
            if (ahead := index / self.orders["open_rate"] - (self.host.clock() - begin)) > 0:
                await asyncio.sleep(ahead)
            await self._begin_opening()
        while self._openings:
            await asyncio.wait(self._openings)
        new = [conversation for number, conversation in self.asker.conversations.items() if number >= first]
        await self.asker.quiet(new)
        failed = sum(1 for conversation in new if conversation.session and conversation.session.fate in FAILED)
        return {"opened": len(new) - failed, "failed": failed}

    async def _begin_opening(self) -> None:
        await self._room.acquire()
        conversation = Conversation(self.asker)
        self.asker.adopt(conversation, Session(self._sessions, began_at=self.host.clock()))
        self._sessions += 1
        task = asyncio.create_task(self._open_one(conversation))
        self._openings.add(task)
        task.add_done_callback(self._opening_is_over)

    def _opening_is_over(self, task: asyncio.Task[None]) -> None:
        self._openings.discard(task)
        self._room.release()

    async def _open_one(self, conversation: Conversation) -> None:
        session = conversation.session
        assert session is not None
        try:
            async with asyncio.timeout(self.asker.patience_s):
                await self.host.network.connect(lambda: conversation, self.orders["address"], self.orders["port"])
        except OSError as error:  # TimeoutError is one
            session.fail(error, self.host.clock())
        else:
            session.opened(self.host.clock())
            if session.fate is None:
                self.asker.ask(conversation)


async def main(orders: dict[str, Any]) -> None:
    client = SessionClient(orders, running_host(orders["name"]))
    say({"milestone": "ready"})
    await serve_commands(client.commands())


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(main(json.loads(sys.argv[1])))
