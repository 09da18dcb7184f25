"""The two pairs that are compared, each in a lab of its own on the same topology: two members, and conntrackd's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from labs.bench.conntrackd import POLL_S, ConntrackdPair
from labs.bench.generator import silence
from labs.bench.ways import ACTIVE, STANDBY
from labs.network.errors import LabError
from labs.network.lab import Lab
from labs.network.members import MemberSettings
from labs.network.topology import load_topology
from labs.procedure.step_server import answering

POLICY = {"name": "open", "rules": [{"action": "accept"}]}
PARAMETERS = {"udp_timeout": 86_400, "connections_limit": 2_000_000}
"""Of our members: nothing ends while it is measured, and everything has room."""
SETTLE_S = 10.0
"""Seconds after the last progress until what has not arrived counts as lost."""


@asynccontextmanager
async def members(*started: str, **parameters: int) -> AsyncIterator[Lab]:
    """A lab with these members started and, where there are two, in sync."""
    settings = {
        name: MemberSettings(started=name in started, policy=POLICY, parameters={**PARAMETERS, **parameters})
        for name in (ACTIVE, STANDBY)
    }
    async with answering(Lab(load_topology("pair"), settings, name="bench")) as lab:
        for name in started:
            await lab.start(name)
        if len(started) > 1:
            await until(lambda: _in_sync(lab), "sync is not OK")
        await silence(lab)
        yield lab


async def held(lab: Lab, member: str) -> int:
    """Connections that the member could decide on."""
    return int((await lab.control(member, "status"))["connections"])


async def _in_sync(lab: Lab) -> bool:
    return bool((await lab.control(ACTIVE, "status"))["sync"]["status"] == "OK")


@asynccontextmanager
async def daemons(*, addresses: bool = True) -> AsyncIterator[tuple[Lab, ConntrackdPair]]:
    """A lab whose members do not run, with conntrackd in their nodes; the first has the virtual `addresses`."""
    settings = {name: MemberSettings(started=False) for name in (ACTIVE, STANDBY)}
    async with answering(Lab(load_topology("pair"), settings, name="bench")) as lab:
        await silence(lab)
        async with ConntrackdPair(lab) as pair:
            if addresses:
                await pair.hold_addresses(ACTIVE)
            yield lab, pair


async def until(holds: Callable[[], Awaitable[bool]], complaint: str, patience_s: float = 30.0) -> None:
    """Wait for it. `LabError` with the complaint when it does not come true."""
    deadline = time.monotonic() + patience_s
    while not await holds():
        if time.monotonic() > deadline:
            raise LabError(f"{complaint} after {patience_s:g} s")
        await asyncio.sleep(POLL_S)


async def reached(count: Callable[[], Awaitable[int]], wanted: int) -> tuple[int, float]:
    """Wait until as many are counted as are wanted, or no more come: how many, and when (CLOCK_MONOTONIC)."""
    best, progress_at = -1, time.monotonic()
    while True:
        counted, now = await count(), time.monotonic()
        if counted > best:
            best, progress_at = counted, now
        if counted >= wanted or now - progress_at > SETTLE_S:
            return counted, now
        await asyncio.sleep(POLL_S)
