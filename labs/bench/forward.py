"""What one member forwards: a TCP stream, small packets, and a round trip, each through its queue and through a peer.

All of it in one lab with one member, whose kernel forwards by other rules while a peer is measured (`labs.bench.ways`).
Each round measures all of a figure's ways; every other round begins with the peer: what drifts, drifts for both.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from statistics import median
from subprocess import PIPE

from labs.bench.accept_all import PACKAGES, accepting, compiled
from labs.bench.figures import Row, against, compare, in_turn, unmeasured
from labs.bench.generator import offer
from labs.bench.pairs import members
from labs.bench.progress import Progress
from labs.bench.round_trips import echo, round_trips
from labs.bench.ways import ACTIVE, ForwardingWay, take
from labs.network.errors import LabError
from labs.network.lab import Lab

STREAM_S = 3
"""Seconds of one TCP stream; iperf3 takes whole ones."""
SMALL_S = 2.0
"""Seconds of small packets."""
FLOWS = 64
ROUND_TRIPS = 1_000
"""Of one probe; each of a way's probes may find its processes on other processors."""
PROBES = 10
"""Of each way in one round, in turn with those of the others."""
TRIES = 3
"""A measurement that lost packets does not count; so often it is tried."""
PORT = 5201
_ANSWER_MARGIN_S = 20.0

Measure = Callable[[Lab], Awaitable[float]]


# -- a TCP stream --------------------------------------------------------------------------------------------------


def stream_steps(rounds: int) -> int:
    return 1 + 2 * rounds if shutil.which("iperf3") else 0


async def measure_stream(rounds: int, progress: Progress, seconds: int = STREAM_S) -> list[Row]:
    """The row `tcp_stream`, of a real iperf3. Raises `LabError`."""
    if shutil.which("iperf3") is None:
        name = f"{ForwardingWay.CONNTRACK.value}: iperf3 is not installed (package iperf3)"
        return [unmeasured("tcp_stream", peer_name=name, unit="Gbit/s", better="higher")]
    async with members(ACTIVE) as lab:
        ours, kernel = await _rates(lab, rounds, progress, "Gbit/s", lambda lab: _stream(lab, seconds))
    return [compare("tcp_stream", ours, kernel, peer_name=ForwardingWay.CONNTRACK.value, unit="Gbit/s")]


async def _rates(lab: Lab, rounds: int, progress: Progress, unit: str, measure: Measure) -> tuple[list[float], ...]:
    """Rates of the member and of the kernel with conntrack rules. First, what the wires and the sender reach alone."""
    figures: dict[ForwardingWay, list[float]] = {way: [] for way in ForwardingWay}
    compared = [ForwardingWay.MEMBER, ForwardingWay.CONNTRACK]
    order = [(0, ForwardingWay.PLAIN)] + [(n + 1, way) for n in range(rounds) for way in in_turn(compared, n)]
    for number, way in order:
        progress.begins(f"{unit}, {way.value}")
        await take(lab, way)
        figures[way].append(await measure(lab))
        when = f"round {number} of {rounds}" if number else "the limit of the sender"
        progress.done(f"{when}, {way.value}: {figures[way][-1]:,.6g} {unit}")
    return figures[ForwardingWay.MEMBER], figures[ForwardingWay.CONNTRACK]


async def _stream(lab: Lab, seconds: int) -> float:
    """Gbit/s that arrive in one iperf3 run."""
    address = next(str(a) for a in lab.topology.hosts["server"].addresses if a.version == 4)
    serve = ["iperf3", "--server", "--port", str(PORT), "--one-off", "--forceflush"]
    server = await lab.spawn("server", serve, stdout=PIPE)
    assert server.stdout is not None
    try:
        async with asyncio.timeout(seconds + _ANSWER_MARGIN_S):
            while b"listening" not in (line := await server.stdout.readline()):
                if not line:
                    raise LabError("iperf3 does not start as a server")
            ask = ["iperf3", "--client", address, "--port", str(PORT), "--time", str(seconds), "--json"]
            client = await lab.spawn("client", ask, stdout=PIPE)
            text, _ = await client.communicate()
            await server.wait()  # it serves one client, and ends by itself
    except TimeoutError:  # the lab ends what is left of it
        raise LabError("iperf3 does not come to an end; does the member forward?") from None
    result = json.loads(text)
    if "error" in result:
        raise LabError(f"iperf3: {result['error']}")
    return float(result["end"]["sum_received"]["bits_per_second"]) / 1e9


# -- small packets -------------------------------------------------------------------------------------------------


def small_steps(rounds: int) -> int:
    return 1 + 2 * rounds


async def measure_small(rounds: int, progress: Progress, seconds: float = SMALL_S) -> list[Row]:
    """The row `udp_64b`: established flows, none of whose packets are lost. Raises `LabError`."""
    async with members(ACTIVE) as lab:
        ours, kernel = await _rates(lab, rounds, progress, "packets/s", lambda lab: _small(lab, seconds))
    return [compare("udp_64b", ours, kernel, peer_name=ForwardingWay.CONNTRACK.value, unit="packets/s")]


async def _small(lab: Lab, seconds: float) -> float:
    await offer(lab, flows=FLOWS, count=4 * FLOWS)  # the flows are known from here on
    lost = 0
    for _ in range(TRIES):
        offered = await offer(lab, flows=FLOWS, seconds=seconds)
        if not offered.lost:
            return offered.arrived / offered.seconds
        lost = offered.lost
    raise LabError(f"{lost} of the small packets were lost, in each of {TRIES} tries")


# -- a round trip --------------------------------------------------------------------------------------------------


def trip_steps(rounds: int) -> int:
    return 3 * rounds


async def measure_trip(rounds: int, progress: Progress, count: int = ROUND_TRIPS, probes: int = PROBES) -> list[Row]:
    """The row `round_trip`: what each way adds to the median through the kernel without a rule. Raises `LabError`."""
    added: dict[ForwardingWay, list[float]] = {ForwardingWay.MEMBER: [], ForwardingWay.OTHER_QUEUE: []}
    async with members(ACTIVE) as lab:
        program = await compiled(lab)
        ways = [ForwardingWay.PLAIN, ForwardingWay.MEMBER, *([ForwardingWay.OTHER_QUEUE] if program else [])]
        listener = accepting(lab, program) if program else nullcontext()
        async with listener, echo(lab):
            for number in range(rounds):
                progress.begins("round trips")
                trips: dict[ForwardingWay, list[float]] = {way: [] for way in ways}
                for turn in range(probes):
                    for way in in_turn(ways, turn):
                        trips[way] += await _trips(lab, way, count)
                took = {way: median(those) for way, those in trips.items()}
                for way in ways[1:]:
                    added[way].append(took[way] - took[ForwardingWay.PLAIN])
                for way in ways:
                    progress.done(f"round {number + 1} of {rounds}, {way.value}: {took[way]:.1f} µs")
    name = ForwardingWay.OTHER_QUEUE.value
    lacking = "" if program else f"cannot be compiled (packages {PACKAGES})"
    ours, peer = added[ForwardingWay.MEMBER], added[ForwardingWay.OTHER_QUEUE]
    return [against("round_trip", ours, peer, peer_name=name, lacking=lacking, unit="µs", better="lower")]


async def _trips(lab: Lab, way: ForwardingWay, count: int) -> list[float]:
    """Microseconds of each round trip."""
    await take(lab, way)
    return [trip.took for trip in await round_trips(lab, count=count)]
