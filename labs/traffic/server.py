"""The server process of a workload: `python -m labs.traffic.server ORDERS`, orders as JSON.

It answers. Where the workload says that the server speaks first, it also asks, and then the fates are its to tell.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from labs.traffic.conversation import Asker, Conversation
from labs.traffic.fates import Session
from labs.traffic.process import raise_file_limit, say, serve_commands

BACKLOG = 4096


class ServerSide(Conversation):
    """A session whose other end left in order is finished, not reset."""

    def eof_received(self) -> bool | None:
        if self.session is not None:
            self.asker.retire(self)
        return None


class Server:
    def __init__(self, orders: dict[str, Any]) -> None:
        self.orders = orders
        self.asks = orders.get("speaks_first") == "server"
        self.asker = Asker(orders)

    async def listen(self, any_address: str) -> None:
        await asyncio.get_running_loop().create_server(
            lambda: ServerSide(self.asker, self._question), any_address, self.orders["port"], backlog=BACKLOG
        )

    def _question(self, conversation: Conversation, number: int, sequence: int) -> None:
        if self.asks and sequence == 0 and conversation.session is None:
            session = Session(number, began_at=time.monotonic())
            session.opened(session.began_at)
            self.asker.adopt(conversation, session)
            self.asker.ponder(conversation)

    async def speak(self) -> dict[str, Any]:
        return await self.asker.speak(self.orders.get("open_rate", 0.0))

    async def finish(self) -> dict[str, Any]:
        return await self.asker.finish(self.orders.get("open_rate", 0.0))

    async def report(self, without: list[int]) -> dict[str, Any]:
        return self.asker.report(frozenset(without))


async def main(orders: dict[str, Any]) -> None:
    server = Server(orders)
    try:
        await server.listen("::" if orders["family"] == "ipv6" else "0.0.0.0")
    except OSError as error:
        say({"milestone": "failed", "error": f"cannot listen on port {orders['port']}: {error}"})
        return
    say({"milestone": "ready"})
    await serve_commands({"speak": server.speak, "finish": server.finish, "report": server.report})


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(main(json.loads(sys.argv[1])))
