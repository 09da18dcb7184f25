"""The client process of a flood: packets that were prepared beforehand, sent at a rate through a raw socket.

Nobody answers what comes back. For TCP the kernel would answer a SYN-ACK with RST, for it knows nothing of our SYN: a
rule in this node drops what comes from the flood's server ports.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from labs.traffic.fates import Tally
from labs.traffic.flood_packets import packets
from labs.traffic.stdio_commands import Command, say, serve_commands

BATCH_S = 0.005
"""Wall seconds between two batches of packets."""


class FloodSender(ABC):
    """What is offered, and how much of it is sent by now. `source`: our own address towards the server."""

    def __init__(self, orders: dict[str, Any], source: str, clock: Callable[[], float]) -> None:
        self.orders = orders
        self.ports = range(orders["port"], orders["port"] + orders["server_ports"])
        self.packets = list(packets(source, orders["address"], orders["protocol"], self.ports,
                                    orders["count"] * orders["rounds"]))  # fmt: skip
        self.offered = self._wanted = 0
        self.seconds = self._seconds_before = 0.0
        self._clock = clock
        self._began_at = 0.0
        self._first = 0
        self._sending: asyncio.Task[None] | None = None

    # -- commands

    def commands(self) -> dict[str, Command]:
        return {"open": self.open, "finish": self.finish, "report": self.report}

    async def open(self) -> dict[str, Any]:
        if self._wanted == len(self.packets):
            raise ValueError("this flood was offered already; give it more rounds, or write another workload")
        if self._sending is not None:
            await self._sending
        self._wanted += self.orders["count"]
        self._began_at, self._seconds_before, self._first = self._clock(), self.seconds, self.offered
        self._sending = asyncio.create_task(self._send_all())
        return {"opened": 0, "failed": 0}

    async def finish(self) -> dict[str, Any]:
        if self._sending is not None:
            await self._sending
        return await self.report()

    async def report(self) -> dict[str, Any]:
        tally = Tally(sessions=self.offered)
        tally.figures = {"offered": self.offered, "arrived": 0, "seconds": round(self.seconds, 3)}
        return {"tally": tally.as_json(), "unopened": []}

    # -- sending

    @abstractmethod
    async def _send_all(self) -> None:
        """What is due every `BATCH_S`, until all of it is offered."""

    def _due(self) -> int:
        """How much is to have been offered by now; the time is told."""
        self.seconds = self._seconds_before + (passed := self._clock() - self._began_at)
        return min(self._wanted, self._first + int(passed * self.orders["rate"]) + 1)


class RawFloodSender(FloodSender):
    """Through a raw socket of this machine, in a thread."""

    def __init__(self, orders: dict[str, Any]) -> None:
        self.family = socket.AF_INET6 if orders["family"] == "ipv6" else socket.AF_INET
        with socket.socket(self.family, socket.SOCK_DGRAM) as probe:
            probe.connect((orders["address"], orders["port"]))
            source = str(probe.getsockname()[0])
        super().__init__(orders, source, time.monotonic)

    async def _send_all(self) -> None:
        await asyncio.to_thread(self._send)

    def _send(self) -> None:
        where = (self.orders["address"], 0)
        with socket.socket(self.family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:  # the header is ours
            while self.offered < self._wanted:
                due = self._due()
                for packet in self.packets[self.offered : due]:
                    sender.sendto(packet, where)
                self.offered = due
                time.sleep(BATCH_S)
            self._due()

    # -- the rule

    def silence(self, action: str) -> None:
        """What comes from the server's ports is not shown to this kernel's TCP."""
        tool = "ip6tables" if self.family == socket.AF_INET6 else "iptables"
        subprocess.run([tool, "-w", "-t", "raw", action, "PREROUTING", "-p", "tcp", "-s", self.orders["address"],
                        "--sport", f"{self.ports[0]}:{self.ports[-1]}", "-j", "DROP"], check=True)  # fmt: skip


async def main(orders: dict[str, Any]) -> None:
    try:
        flood = RawFloodSender(orders)
        if orders["protocol"] == "tcp":
            flood.silence("-I")
    except (OSError, subprocess.CalledProcessError) as error:
        say({"milestone": "failed", "error": f"cannot prepare its packets: {error}"})
        return
    say({"milestone": "ready"})
    await serve_commands(flood.commands())
    if orders["protocol"] == "tcp":
        flood.silence("-D")


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
