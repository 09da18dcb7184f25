"""A ground and workloads that are not there: what the runner needs, under the test's control and without privileges."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fwnode.control.compare import pack
from fwnode.firewall.connection import Connection
from labs.network.errors import ControlError
from labs.network.members import MemberSettings
from labs.procedure.document import Entry
from labs.procedure.model import LabFile, load
from labs.procedure.runner import Runner
from labs.traffic.fates import Fate, Tally

RATE = 1000.0


DEEDS = frozenset({"cut", "restore", "limit", "unlimit", "lose", "unlose", "delay", "undelay", "block", "unblock",
                   "pause", "resume"})  # fmt: skip


class FakeGround:
    """Members that are Active in the order in which they run; the first running one is the active one."""

    def __init__(self, members: list[str]) -> None:
        self.world = {"world": "fake"}
        self.rate = RATE
        self.epoch = time.monotonic()
        self.members = {name: MemberSettings() for name in members}
        self.calls: list[str] = []
        self.running: list[str] = []
        self.stillborn: set[str] = set()
        """Members that end by themselves as soon as they have started."""
        self.down: set[str] = set()
        self.figures: dict[str, dict[str, Any]] = {name: {} for name in members}
        self.told: dict[str, list[dict[str, Any]]] = {name: [] for name in members}
        self.tables: dict[str, list[Connection]] = {}
        self.faults: list[tuple[Any, ...]] = []

    async def start(self, member: str) -> None:
        self.calls.append(f"start {member}")
        if member not in self.stillborn:
            self.running.append(member)

    async def stop(self, member: str) -> None:
        self._end("stop", member)

    async def kill(self, member: str) -> None:
        self._end("kill", member)

    async def power_cut(self, member: str) -> None:
        self._end("power_cut", member)

    def _end(self, how: str, member: str) -> None:
        self.calls.append(f"{how} {member}")
        if member not in self.running:
            raise ControlError(f"{member} is not running")
        self.running.remove(member)
        self.figures[member] = {}

    async def power_on(self, member: str) -> None:
        await self.start(member)

    async def upgrade(self, member: str, release: str) -> None:
        self.calls.append(f"upgrade {member} {release}")
        self.members[member].release = release
        self.running.append(member)

    def __getattr__(self, deed: str) -> Any:
        """Every deed done to wires, and those to paused members, only leave their call behind."""
        if deed not in DEEDS:
            raise AttributeError(deed)

        async def do(*arguments: Any, **how: Any) -> None:
            self.calls.append(" ".join([deed, *map(str, arguments)]))
            self.faults.append((deed, *arguments, *how.values()))

        return do

    async def control(self, member: str, command: str, **arguments: Any) -> Any:
        if member not in self.running:
            raise ControlError(f"{member} is not running")
        if command == "status":
            return self.status(member)
        if command == "keys":
            return pack(self.tables.get(member, []), 0.0)
        self.calls.append(f"{command} {member} {arguments}" if arguments else f"{command} {member}")
        if command == "down":
            self.down.add(member)
        if command == "up":
            self.down.discard(member)
        return None

    def status(self, member: str) -> dict[str, Any]:
        able = [name for name in self.running if name not in self.down]
        state = "Down" if member in self.down else "Active" if able and able[0] == member else "Standby"
        peers = {peer: {"status": "OK", "exchange": "full"} for peer in self.members if peer != member}
        return {"ready": True, "state": state, "sync": {"status": "OK", "peers": peers}, **self.figures[member]}

    async def events(self, member: str) -> AsyncIterator[dict[str, Any]]:
        for event in self.told[member]:
            yield event


class FakeLoad:
    def __init__(self, count: int) -> None:
        self.count = count
        self.calls: list[str] = []
        self.fate = Fate.SURVIVED
        self.finished = False

    async def start(self) -> None:
        self.calls.append("start")

    async def open(self) -> dict[str, Any]:
        self.calls.append("open")
        self.finished = False
        return {"opened": self.count, "failed": 0}

    async def announce(self) -> dict[str, Any]:
        self.calls.append("announce")
        return {"announced": self.count, "failed": 0}

    async def transfer(self, wait: bool) -> dict[str, Any]:
        self.calls.append(f"transfer {wait}")
        return {"transferred" if wait else "started": self.count, "failed": 0}

    async def speak(self) -> dict[str, Any]:
        self.calls.append("speak")
        return {"spoke": self.count, "answered": self.count, "failed": 0}

    async def reconnect(self, which: str, share: float) -> dict[str, Any]:
        self.calls.append(f"reconnect {which} {share}")
        return {"opened": self.count, "failed": 1}

    async def finish(self) -> Tally:
        self.finished = True
        return await self.report()

    async def report(self) -> Tally:
        tally = Tally(sessions=self.count)
        if self.finished:
            tally.fates[self.fate] = self.count
        else:
            tally.open = self.count
        return tally

    async def close(self) -> None:
        self.calls.append("close")


DATABASE = {"database": {"kind": "sessions", "port": 1521, "count": 3}}


def lab_file(folder: Path, steps: list[Any], expect: list[Any] | None = None, **more: Any) -> LabFile:
    path = folder / "lab.yaml"
    path.write_text(
        json.dumps(  # JSON is YAML, and has no aliases
            {
                "title": "a lab",
                "shows": "something",
                "clock": {"rate": RATE},
                "members": {"fw1": {"release": "R77.30"}, "fw2": {"release": "R77.30"}},
                "policy": {"name": "p", "rules": [{"name": "all", "action": "accept"}]},
                "workloads": DATABASE,
                "steps": steps,
                "expect": expect or [],
                **more,
            }
        )
    )
    return load(path)


class World:
    """A run on the fakes."""

    def __init__(self, folder: Path, steps: list[Any], expect: list[Any] | None = None, **more: Any) -> None:
        self.file = lab_file(folder, steps, expect, **more)
        self.ground = FakeGround(list(self.file.members))
        self.load = FakeLoad(3)
        self.told: list[Entry] = []
        self.runner = Runner(self.file, self.ground, lambda _: self.load, self.told.append, time.monotonic)

    def run(self) -> dict[str, Any]:
        async def go() -> dict[str, Any]:
            document = await self.runner.run()
            await self.runner.close()
            return document

        return asyncio.run(go())

    def texts(self, kind: str) -> list[str]:
        return [entry.text for entry in self.told if entry.kind == kind]
