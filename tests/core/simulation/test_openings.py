"""A client that opens many sessions at a time, in virtual time."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from labs.simulation.loop import VirtualLoop, World
from labs.traffic.host import Host, ProtocolFactory
from labs.traffic.session_client import OPENINGS_AT_ONCE, SessionClient


class SlowNetwork:
    """Each connection takes a second, and is refused then."""

    def __init__(self) -> None:
        self.under_way = self.most = self.begun = 0

    async def connect(self, factory: ProtocolFactory, address: str, port: int) -> None:
        self.begun += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(1.0)
        self.under_way -= 1
        raise ConnectionRefusedError

    async def listen(self, factory: ProtocolFactory, address: str, port: int, backlog: int) -> None: ...


def test_a_thousand_openings_are_under_way_at_once_and_the_next_begins_when_one_is_over() -> None:
    network, world = SlowNetwork(), World()
    orders: dict[str, Any] = {
        "name": "many", "kind": "sessions", "count": 2 * OPENINGS_AT_ONCE + 500, "open_rate": 1e9, "patience": 60.0,
        "think": [1.0, 2.0], "address": "192.0.2.1", "port": 80, "clock": {"rate": 1.0, "epoch": 0.0}, "idle": True,
    }  # fmt: skip

    async def main() -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        return await SessionClient(orders, Host(loop.time, loop.call_later, network, Random(1))).open()

    start = world.now
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(world)) as runner:
        opened = runner.run(main())
    assert (network.begun, network.most) == (orders["count"], OPENINGS_AT_ONCE)
    assert opened == {"opened": 0, "failed": orders["count"]}
    assert 3.0 <= world.now - start < 3.1
