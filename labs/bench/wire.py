"""What a record costs on the sync network: delta sync of new connections, and a full sync of the same table.

Runs inside a lab's namespaces. A round is a fresh pair for each address family: new connections are offered through
the active member while its sync interface is captured; then the other member starts anew and fetches the whole table.
The figures come from the frames, not from the members' counters: they are what was really sent. They depend on the
offered rate, for a datagram holds what changed within one sync tick, up to its size.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from subprocess import PIPE
from typing import Any, Literal

from labs.bench.figures import Row, alone
from labs.bench.pairs import POLICY
from labs.bench.progress import Progress
from labs.bench.ways import ACTIVE, STANDBY
from labs.bench.wire_frames import DeltaTraffic, StreamTraffic, delta_traffic, frames, stream_traffic
from labs.network import capture
from labs.network.errors import LabError
from labs.network.lab import Lab
from labs.network.members import MemberSettings
from labs.network.topology import load_topology
from labs.procedure.step_server import answering
from labs.traffic.driver import Traffic, TrafficError, spawned
from labs.traffic.workload import Flood

CONNECTIONS = 20_000
"""New connections of one measurement."""
RATE = 4_000.0
"""Of them, a second of wall time: 400 a sync tick, several full datagrams."""
FAMILIES: tuple[Literal["ipv4", "ipv6"], ...] = ("ipv4", "ipv6")
NO_PEER = "none; what a record of ours costs is counted, and nobody else's"
_PORT = 9000
_SETTLE_S = 30.0
"""Wall seconds for the peer to have everything and for the last acknowledgement to come."""
_POLL_S = 0.1


@dataclass(frozen=True)
class Measured:
    """One family in one round."""

    arrived: int
    """New connections that passed the firewall."""
    delta: DeltaTraffic
    stream: StreamTraffic


def steps(rounds: int) -> int:
    return rounds * len(FAMILIES)


async def measure(rounds: int, progress: Progress, connections: int = CONNECTIONS) -> list[Row]:
    """Four rows for each address family. Raises `LabError` when a measurement fails."""
    measured: dict[str, list[Measured]] = {family: [] for family in FAMILIES}
    for number in range(rounds):
        for family in FAMILIES:
            progress.begins(f"records on the wire, {family}")
            one = await _round(family, connections)
            measured[family].append(one)
            progress.done(f"round {number + 1} of {rounds}, {family}: " + describe(one))
    return [row for family in FAMILIES for row in rows(family, measured[family], NO_PEER)]


def describe(one: Measured) -> str:
    """One measurement in a line."""
    delta, stream = one.delta, one.stream
    return (
        f"{one.arrived} new connections; delta sync {delta.records} records in {delta.datagrams} datagrams, "
        f"{delta.repeated} sent again; full sync {stream.records} records in {stream.stream_bytes} bytes"
    )


def rows(family: str, measured: list[Measured], against: str) -> list[Row]:
    """The rows of one address family. `against`: the peer's name, which says that there is none."""

    def row(name: str, unit: str, ours: list[float], better: str = "lower") -> Row:
        return alone(f"{name}_{family}", ours, peer_name=against, unit=unit, better=better)

    deltas = [one.delta for one in measured]
    return [
        row("bytes_per_record", "byte", [delta.bytes_per_record for delta in deltas]),
        row("wire_bytes_per_record", "byte", [delta.wire_bytes_per_record for delta in deltas]),
        row("records_per_datagram", "record", [delta.records_per_datagram for delta in deltas], "higher"),
        row("full_bytes_per_record", "byte", [one.stream.bytes_per_record for one in measured]),
    ]


async def _round(family: Literal["ipv4", "ipv6"], connections: int) -> Measured:
    members = {name: MemberSettings(started=name == ACTIVE, policy=POLICY) for name in (ACTIVE, STANDBY)}
    async with answering(Lab(load_topology("pair"), members, name="bench")) as lab:
        cluster = lab.topology.cluster.id
        await lab.start(ACTIVE)
        await lab.start(STANDBY)
        await _until(lab, "sync is not OK", lambda ours, _: ours["sync"]["status"] == "OK")

        arrived = 0

        async def open_all() -> None:
            nonlocal arrived
            arrived = await _flood(lab, family, connections)
            await _until(lab, "the peer does not have every connection", _caught_up)

        delta = delta_traffic(frames(await _captured(lab, open_all)), cluster)
        if not arrived or delta.records < arrived:
            raise LabError(f"{arrived} of {connections} new connections passed {ACTIVE}, and its sync network carried "
                           f"{delta.records} records of them")  # fmt: skip
        await lab.stop(STANDBY)

        async def fetch() -> None:
            await lab.start(STANDBY)
            await _until(lab, "full sync is not complete", lambda _, theirs: theirs["full_sync"]["state"] == "done")

        stream = stream_traffic(frames(await _captured(lab, fetch)), cluster)
        if not stream.records:
            raise LabError(f"{STANDBY} started anew and no full sync was seen on the sync network")
    return Measured(arrived, delta, stream)


def _caught_up(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    counters = ours["counters"]
    return ours["connections"] == theirs["connections"] and not counters["backlog"] and not counters["unacknowledged"]


async def _until(lab: Lab, complaint: str, holds: Callable[[dict[str, Any], dict[str, Any]], bool]) -> None:
    """Wait until the `status` answers of the active member and of its peer are as wanted."""
    deadline = time.monotonic() + _SETTLE_S
    while not holds(await lab.control(ACTIVE, "status"), await lab.control(STANDBY, "status")):
        if time.monotonic() > deadline:
            raise LabError(f"{complaint} after {_SETTLE_S:g} s")
        await asyncio.sleep(_POLL_S)


async def _flood(lab: Lab, family: Literal["ipv4", "ipv6"], connections: int) -> int:
    """Offer new connections through the active member; how many arrived at the server."""
    flood = Flood(kind="flood", port=_PORT, rate=RATE, count=connections, family=family)
    version = 6 if family == "ipv6" else 4
    address = next(str(a) for a in lab.topology.hosts["server"].addresses if a.version == version)
    traffic = Traffic("bench", flood, begin=spawned(lab.spawn), client="client", server="server", address=address,
                      rate=lab.rate, epoch=lab.epoch)  # fmt: skip
    try:
        await traffic.start()
        await traffic.open()
        return int((await traffic.finish()).figures["arrived"])
    except TrafficError as error:
        raise LabError(str(error)) from None
    finally:
        await traffic.close()


async def _captured(lab: Lab, deed: Callable[[], Awaitable[None]]) -> bytes:
    """What passes the active member's sync interface during the deed. `LabError` when the kernel dropped some of it."""
    interface = next(name for name, switch in lab.topology.switches.items() if switch.sync)
    with tempfile.TemporaryFile(dir=lab.directory) as target:  # in the lab's own /run: gone with it
        argv = [sys.executable, "-I", str(capture.__file__), interface]
        process = await lab.spawn(ACTIVE, argv, stdout=target, stderr=PIPE)
        assert process.stderr is not None
        if b"capturing on" not in (line := await process.stderr.readline()):
            raise LabError(f"the sync network cannot be captured: {line.decode(errors='replace').strip()}")
        await deed()
        process.terminate()
        said = (await process.communicate())[1].decode(errors="replace").strip()
        if process.returncode or ", 0 dropped" not in said:
            raise LabError(f"the capture of the sync network is not whole: {said}")
        target.seek(0)
        return target.read()
