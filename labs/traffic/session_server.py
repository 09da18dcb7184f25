"""The server process of a workload: `python -m labs.traffic.session_server ORDERS`, orders as JSON.

It answers. Where the workload says that the server speaks first, it also asks, and then the fates are its to tell.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from fwnode.node_process import raise_file_limit
from labs.traffic.fates import Session
from labs.traffic.host import Host, running_host
from labs.traffic.session_conversation import Asker, Conversation
from labs.traffic.stdio_commands import Command, say, serve_commands

BACKLOG = 4096


class ServerSide(Conversation):
    """A session whose other end left in order is finished, not reset."""

    __slots__ = ()

    def eof_received(self) -> bool | None:
        if self.session is not None:
            self.asker.retire(self)
        return None


class SessionServer:
    """Answers a workload's questions, as the commands of its server process."""

    def __init__(self, orders: dict[str, Any], host: Host) -> None:
        self.orders = orders
        self.host = host
        self.asks = orders.get("speaks_first") == "server"
        self.asker = Asker(orders, host)

    async def listen(self) -> None:
        """Raises `OSError`."""
        any_address = "::" if self.orders["family"] == "ipv6" else "0.0.0.0"
        await self.host.network.listen(
            lambda: ServerSide(self.asker, self._question), any_address, self.orders["port"], BACKLOG
        )

    def commands(self) -> dict[str, Command]:
        return {"speak": self.speak, "finish": self.finish, "report": self.report}

    def _question(self, conversation: Conversation, number: int, sequence: int) -> None:
        if self.asks and sequence == 0 and conversation.session is None:
            session = Session(number, began_at=self.host.clock())
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
    server = SessionServer(orders, running_host(orders["name"]))
    try:
        await server.listen()
    except OSError as error:
        say({"milestone": "failed", "error": f"cannot listen on port {orders['port']}: {error}"})
        return
    say({"milestone": "ready"})
    await serve_commands(server.commands())


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(main(json.loads(sys.argv[1])))
