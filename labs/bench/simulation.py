"""What the simulated world achieves on one core of this machine. There is no peer: nothing else runs the same member.

`simulated_packets`: packets that a client sends through an active member to a server, in an established connection
each. `simulated_hours`: hours of lab time of a whole lab of the catalogue, its members, workloads and steps included.
`simulated_100k` and `simulated_100k_memory`: the same lab with 100,000 connections (`labs.bench.large_upgrade`), once.
"""

from __future__ import annotations

import asyncio
from functools import cache
from time import perf_counter

from fwnode.configuration import MemberConfig, load_releases
from labs.bench.figures import Row, alone
from labs.bench.large_upgrade import LAB, Taken, by_a_process
from labs.bench.progress import Progress
from labs.network.errors import LabError
from labs.network.members import MemberSettings, member_configuration
from labs.network.topology import load_topology
from labs.procedure.catalog import find
from labs.procedure.model import LabFile, load
from labs.simulation.ip_packets import UDP
from labs.simulation.loop import World
from labs.simulation.member_machine import MemberMachine
from labs.simulation.run import simulate
from labs.simulation.segments import datagram, ends_of
from labs.simulation.simulated_network import SimulatedNetwork, build

PACKETS = 100_000
BURST, BURST_EVERY_S = 10, 1e-4
"""100,000 packets a second of virtual time, which a member forwards without a queue."""
CONNECTIONS = 100
LARGE_CONNECTIONS = 100_000
MEBIBYTE = 1 << 20
PEER = "none: nothing else runs the same member"


def steps(rounds: int) -> int:
    return 2 * rounds + 1


async def measure(rounds: int, progress: Progress) -> list[Row]:
    """All rows. Raises `LabError`."""
    packets, hours = list[float](), list[float]()
    for number in range(1, rounds + 1):
        progress.begins("simulated packets")
        packets.append(await asyncio.to_thread(packets_a_second, number))
        progress.done(f"round {number} of {rounds}: {packets[-1]:,.0f} simulated packets a second")
        progress.begins(f"{LAB}, simulated")
        hours.append(await asyncio.to_thread(hours_a_second, number))
        progress.done(f"round {number} of {rounds}: {hours[-1]:.1f} hours of {LAB} a second")
    progress.begins(f"{LAB} with {LARGE_CONNECTIONS:,} connections, simulated (a minute or two)")
    large = await asyncio.to_thread(by_a_process, LARGE_CONNECTIONS)
    progress.done(f"{LAB} with {LARGE_CONNECTIONS:,} connections: {large.seconds:.0f} s, {_mebibytes(large):,.0f} MiB")
    return [
        alone("simulated_packets", packets, peer_name=PEER, unit="packets/s", better="higher"),
        alone("simulated_hours", hours, peer_name=PEER, unit="h/s", better="higher"),
        alone("simulated_100k", [large.seconds], peer_name=PEER, unit="s", better="lower"),
        alone("simulated_100k_memory", [_mebibytes(large)], peer_name=PEER, unit="MiB", better="lower"),
    ]


def _mebibytes(taken: Taken) -> float:
    return taken.bytes / MEBIBYTE


def packets_a_second(seed: int) -> float:
    """Of work, from the client's `send_ip` to the server's receiver."""
    world = World(seed)
    network = _pair(world)
    client, server = (network.machines[name] for name in ("client", "server"))
    source, destination = (network.topology.hosts[name].addresses[0].packed for name in ("client", "server"))
    packets = [datagram(ends_of(source, destination, 1024 + n, 7000), bytes(100)) for n in range(CONNECTIONS)]
    arrived: list[bytes] = []
    server.register(UDP, arrived.append)

    def burst(left: int) -> None:
        for packet in packets[left % BURST :: BURST]:
            client.send_ip(packet)
        if left:
            world.at(world.now + BURST_EVERY_S, burst, left - 1)

    burst(CONNECTIONS // BURST)  # every connection is known from here on, and every neighbour
    world.run(world.now + 1.0)
    arrived.clear()
    begin = perf_counter()
    burst(PACKETS // BURST - 1)
    world.run(world.now + PACKETS / BURST * BURST_EVERY_S + 0.1)
    took_s = perf_counter() - begin
    if len(arrived) != PACKETS:
        raise LabError(f"of {PACKETS:,} simulated packets {len(arrived):,} arrived")
    return PACKETS / took_s


def hours_a_second(seed: int) -> float:
    """Hours of lab time of the whole lab, by seconds of work."""
    begin = perf_counter()
    document = simulate(_lab(), seed)
    took_s = perf_counter() - begin
    if document["verdict"] != "pass":
        raise LabError(f"{LAB}, simulated with seed {seed}, ended with {document['verdict']}")
    return float(document["lab_seconds"]) / 3600 / took_s


@cache
def _lab() -> LabFile:
    return load(find(LAB), LAB)


def _pair(world: World) -> SimulatedNetwork:
    """Two members that have settled, between a client and a server."""
    topology = load_topology("pair")
    network = build(topology, world, MemberMachine)
    for name in topology.members:
        machine = network.machines[name]
        assert isinstance(machine, MemberMachine)
        document = member_configuration(topology, name, MemberSettings(), epoch=machine.wire())
        machine.start(MemberConfig.model_validate(document), load_releases(""))
    world.run(world.now + 2.0)
    return network
