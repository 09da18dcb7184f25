"""Failover: the longest silence of a real ping through the cluster when the active member dies.

Ours is killed with SIGKILL. Nothing is forwarded from then on, since nobody listens at its queue; its machine lives
and says so. keepalived's master is killed and cut off from its wires as well, since its kernel would go on forwarding.
What a power cut costs our pair is told beside the figures: only the dead timer notices it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from itertools import pairwise
from subprocess import PIPE

from labs.bench.figures import Row, against, in_turn
from labs.bench.keepalived import KeepalivedPair, missing, peer
from labs.bench.pairs import daemons, members, until
from labs.bench.progress import Progress
from labs.bench.ways import ACTIVE, STANDBY
from labs.network.errors import LabError
from labs.network.lab import Lab

INTERVAL_S = 0.01
BEFORE_S = 1.0
"""Seconds of answers before the active dies, and after the other one has taken over."""
TAKEOVER_S = 15.0
TIMERS: dict[str, tuple[dict[str, int], float]] = {
    "failover_default": ({}, 1.0),
    "failover_fast": ({"fwha_heartbeat_ms": 10, "fwha_dead_timeout_ms": 50}, 0.1),
}
"""Figure -> our members' parameters, and seconds between keepalived's adverts."""


def steps(rounds: int) -> int:
    return len(TIMERS) * (1 + rounds * (1 if missing() else 2))


async def measure(rounds: int, progress: Progress) -> list[Row]:
    """The rows `failover_default` and `failover_fast`. Raises `LabError`."""
    return [await figure(name, rounds, progress) for name in TIMERS]


async def figure(name: str, rounds: int, progress: Progress) -> Row:
    """The row of one of them."""
    parameters, advert_s = TIMERS[name]
    lacking = missing()
    progress.begins(f"{name}, the members")
    silence = await _ours(parameters, power_cut=True)
    progress.done(f"{name}, a power cut of the active member: {silence:.3f} s")
    ours: list[float] = []
    theirs: list[float] = []
    sides: list[tuple[str, Callable[[], Awaitable[float]], list[float]]] = [
        ("the members", lambda: _ours(parameters), ours)
    ]
    if not lacking:
        sides.append(("keepalived", lambda: _theirs(advert_s), theirs))
    for number in range(rounds):
        for side, measure_side, figures in in_turn(sides, number):
            progress.begins(f"{name}, {side}")
            figures.append(await measure_side())
            progress.done(f"{name}, round {number + 1} of {rounds}, {side}: {figures[-1]:.3f} s")
    return against(name, ours, theirs, peer_name=peer(advert_s), lacking=lacking, unit="s", better="lower")


async def _ours(parameters: dict[str, int], power_cut: bool = False) -> float:
    async with members(ACTIVE, STANDBY, **parameters) as lab:

        async def is_active() -> bool:
            return str((await lab.control(STANDBY, "status"))["state"]).startswith("Active")

        async def die() -> None:
            await (lab.power_cut(ACTIVE) if power_cut else lab.kill(ACTIVE))

        return await _silence(lab, die, is_active)


async def _theirs(advert_s: float) -> float:
    async with daemons(addresses=False) as (lab, pair), KeepalivedPair(lab, pair, advert_s) as keepalived:

        async def die() -> None:
            await asyncio.gather(keepalived.kill(ACTIVE), lab.power_cut(ACTIVE))

        return await _silence(lab, die, lambda: keepalived.is_master(STANDBY))


async def _silence(
    lab: Lab, die: Callable[[], Awaitable[None]], has_taken_over: Callable[[], Awaitable[bool]]
) -> float:
    """Seconds without an answer around the deed. `LabError` when the other one does not take over."""
    address = next(str(a) for a in lab.topology.hosts["server"].addresses if a.version == 4)
    argv = ["ping", "-n", "-D", "-i", str(INTERVAL_S), address]
    ping = await lab.spawn("client", argv, stdout=PIPE)
    try:
        await asyncio.sleep(BEFORE_S)
        if await has_taken_over():
            raise LabError(f"{STANDBY} is active before {ACTIVE} has died")
        await die()
        await until(has_taken_over, f"{STANDBY} has not taken over", TAKEOVER_S)
        await asyncio.sleep(BEFORE_S)
        ping.terminate()
        said, _ = await ping.communicate()
    finally:
        if ping.returncode is None:
            ping.kill()
            await ping.wait()
    return longest_silence(said.decode(errors="replace"))


def longest_silence(said: str) -> float:
    """The longest time between two answers, of what `ping -D` prints. `LabError` when there are none on one side."""
    at = [float(time) for time in re.findall(r"^\[(\d+\.\d+)\] \d+ bytes from .* icmp_seq=\d+", said, re.M)]
    if len(at) < 2:
        raise LabError(f"ping got no answers: {said.strip()[-200:]}")
    return max(later - earlier for earlier, later in pairwise(at))
