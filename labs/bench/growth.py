"""What the size of the table costs: a packet's look-up and a connection's end, among 1,000 and among 1,000,000.

A process of its own (the large table fills half a gigabyte) builds both tables packet by packet, decides on packets and
lets connections expire; nothing is on a wire. Either table is asked for the same: packets of a thousand connections, in
the large table far apart from each other; and the end of a thousand that began one after the other. Who has been idle
until his end is in no cache, so the processor's caches are swept before. The cost for connections that are picked at
random, in whatever order, is told beside the figures.

Orders are numbers on the command line; the answer is a line of JSON for each round (`Costs`).
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from subprocess import PIPE

from fwnode.firewall.connection import Connection
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.packet import UDP
from fwnode.firewall.parameters import Parameters
from fwnode.firewall.table import ENDED_MAX
from fwnode.firewall.tcp_states import ConnectionState
from fwnode.firewall.verdict import Hook
from fwnode.policy_file import build_policy
from labs.bench.figures import Row, compare
from labs.bench.pairs import POLICY
from labs.bench.progress import Progress
from labs.bench.udp_frames import frames
from labs.network.errors import LabError
from labs.python import python_command

SMALL, LARGE = 1_000, 1_000_000
IN_USE = 1_000
"""Connections that packets are met of, and that end in one round."""
TURNS = 100
"""Packets of each of them in one round."""
BATCH = 32
"""Packets that are decided on one after the other, as a member takes them from its queue."""
LIFE_S = 100.0
"""Lab seconds after which those end that are to end in a round."""
CACHES_BYTES = 128 << 20
"""More than the processor's caches hold."""
ETHERNET_HEADER = 14
_SOURCE, _DESTINATION = "192.0.2.100", "198.51.100.100"
_BUILD_S = 120.0
"""Seconds for the first answer."""


@dataclass(frozen=True)
class Costs:
    """Nanoseconds a packet, and a connection that ends; of the small table and of the large one."""

    small_lookup: float
    large_lookup: float
    large_random_lookup: float
    small_end: float
    large_end: float
    large_random_end: float


def steps(rounds: int) -> int:
    return rounds


async def measure(rounds: int, progress: Progress, large: int = LARGE) -> list[Row]:
    """The rows `lookup_growth` and `expiry_growth`. Raises `LabError`."""
    progress.begins(f"a table of {large:,} connections")
    argv = python_command(__name__, str(rounds), str(large))
    process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE)
    assert process.stdout is not None
    costs = []
    try:
        async with asyncio.timeout(_BUILD_S):
            while line := await process.stdout.readline():
                costs.append(Costs(**json.loads(line)))
                progress.done(f"round {len(costs)} of {rounds}, {describe(costs[-1])}")
    except TimeoutError:
        process.kill()
        raise LabError(f"the table is not measured after {_BUILD_S:g} s") from None
    if await process.wait():
        raise LabError("the measurement of the table failed")

    def row(name: str, ours: list[float], peer: list[float]) -> Row:
        against = f"the same among {SMALL:,} connections, for {large:,}"
        return compare(name, ours, peer, peer_name=against, unit="ns", better="lower")

    return [
        row("lookup_growth", [c.large_lookup for c in costs], [c.small_lookup for c in costs]),
        row("expiry_growth", [c.large_end for c in costs], [c.small_end for c in costs]),
    ]


def describe(costs: Costs) -> str:
    return (
        f"small and large table: a packet {costs.small_lookup:.0f} and {costs.large_lookup:.0f} ns "
        f"(at random {costs.large_random_lookup:.0f}), an end {costs.small_end:.0f} and {costs.large_end:.0f} ns "
        f"(at random {costs.large_random_end:.0f})"
    )


# -- in a process of its own -------------------------------------------------------------------------------------------


class FilledFirewall:
    """A firewall with `size` connections that stay."""

    def __init__(self, size: int) -> None:
        parameters = Parameters()
        parameters.set("connections_limit", 2 * size + IN_USE)
        parameters.set("udp_timeout", 86_400)
        self._firewall = Firewall("fw1", build_policy(POLICY, "policy"), parameters)
        self._firewall.forwarding = True
        self._size = size
        self._now = 1.0
        self._choice = random.Random(size)
        for packet in self._packets(0, size):
            self._meet(packet)
        self._firewall.connections.take_updates(self._now)
        self._spread = [packet for n in range(0, size, size // IN_USE) for packet in self._packets(n, 1)]
        self._spread += list(map(_answer, self._spread))
        for packet in self._spread:  # the first packet after an announcement has more to do
            self._meet(packet)
        for _ in range(ENDED_MAX // IN_USE + 1):  # as one that runs for long: it remembers all the ends that it can
            self._end_some()
            self._expire()

    def _packets(self, first: int, count: int) -> Iterator[bytes]:
        made = frames(bytes(6), bytes(6), _SOURCE, _DESTINATION, first, count)
        return (frame[ETHERNET_HEADER:] for frame in made)

    def _at_random(self, count: int) -> list[bytes]:
        return [next(self._packets(n, 1)) for n in self._choice.choices(range(self._size), k=count)]

    def _meet(self, packet: bytes) -> None:
        if not self._firewall.decide(packet, Hook.FORWARD, self._now).accept:
            raise LabError("the firewall drops what it shall be measured with")

    def packet(self) -> float:
        """Nanoseconds a packet: each connection of those that are spread over the table in turn, asked and answered."""
        return self._decide(self._spread * (TURNS // 2))

    def random_packet(self) -> float:
        """Nanoseconds a packet, of connections all over the table."""
        packets = self._at_random(IN_USE * TURNS)
        for packet in packets:
            self._meet(packet)
        return self._decide(packets)

    def _decide(self, packets: list[bytes]) -> float:
        decide, now, hook = self._firewall.decide, self._now, Hook.FORWARD
        took = 0
        for first in range(0, len(packets), BATCH):
            # As from the queue: the packet's bytes were written a moment ago.
            batch = [packet[:1] + packet[1:] for packet in packets[first : first + BATCH]]
            begin = time.perf_counter_ns()
            for packet in batch:
                decide(packet, hook, now)
            took += time.perf_counter_ns() - begin
        return took / len(packets)

    def end(self) -> float:
        """Nanoseconds for each of some connections that begin one after the other, and end after a while."""
        self._end_some()
        _sweep_caches()
        return self._expire()

    def _end_some(self) -> None:
        """Connections that the next call of `_expire` ends."""
        table = self._firewall.connections
        for number in range(IN_USE):
            key = bytes((UDP, 203, 0, 113, 1, 203, 0, 113, 2)) + number.to_bytes(4, "big")
            table.add(Connection(key, ConnectionState.NONE, LIFE_S, LIFE_S, self._now), self._now)
        table.take_updates(self._now)

    def random_end(self) -> float:
        """Nanoseconds for each of as many connections all over the table; they are there again afterwards."""
        table = self._firewall.connections
        packets = list(dict.fromkeys(self._at_random(2 * IN_USE)))[:IN_USE]
        for packet in packets:
            connection = table.find(packet[9:10] + packet[12:24])
            assert connection is not None
            connection.timeout = LIFE_S
            table.refresh(connection, self._now)
        _sweep_caches()
        took = self._expire()
        for packet in packets:
            self._meet(packet)
        table.take_updates(self._now)
        return took

    def _expire(self) -> float:
        before = len(self._firewall.connections)
        self._now += 2 * LIFE_S
        begin = time.perf_counter_ns()
        while self._firewall.expire(self._now):
            pass
        took = time.perf_counter_ns() - begin
        ended = before - len(self._firewall.connections)
        if ended != IN_USE:
            raise LabError(f"{ended} connections ended, not {IN_USE}")
        return took / ended


def _answer(packet: bytes) -> bytes:
    """A packet in the other direction."""
    return packet[:12] + packet[16:20] + packet[12:16] + packet[22:24] + packet[20:22] + packet[24:]


def _sweep_caches() -> None:
    """Nothing that was used before is in the processor's caches any more."""
    swept = bytearray(CACHES_BYTES)
    swept[:] = bytes(CACHES_BYTES)


def main(rounds: int, large: int) -> None:
    gc.disable()
    small_table, large_table = FilledFirewall(SMALL), FilledFirewall(large)
    gc.freeze()
    for _ in range(rounds):
        costs = Costs(
            small_lookup=small_table.packet(), large_lookup=large_table.packet(),
            large_random_lookup=large_table.random_packet(),
            small_end=small_table.end(), large_end=large_table.end(), large_random_end=large_table.random_end(),
        )  # fmt: skip
        print(json.dumps(asdict(costs)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
