"""What the size of the table costs: a packet's look-up and a connection's end, among 1,000 and among 1,000,000.

A process of its own (the large table fills half a gigabyte) builds both tables packet by packet, decides on packets and
lets connections expire; nothing is on a wire. Either table is asked for the same: packets of the same number of
connections, in the large table far apart from each other; and the end of as many connections that began one after the
other. So the figures compare the table's size, not how well the processor's caches fit. What it costs where no cache
helps, packets and ends of connections at random, is told beside them.

Orders are numbers on the command line; the answer is a line of JSON for each round (`Costs`).
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from subprocess import PIPE

from fwnode.firewall.connection import Connection
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.packet import UDP
from fwnode.firewall.parameters import Parameters
from fwnode.firewall.tcp import State
from fwnode.firewall.verdict import Hook
from fwnode.policy_file import build_policy
from labs.bench.figures import Row, compare
from labs.bench.pairs import POLICY
from labs.bench.progress import Progress
from labs.bench.udp_frames import frames
from labs.network.errors import LabError

SMALL, LARGE = 1_000, 1_000_000
IN_USE = 1_000
"""Connections that packets are met of, and that end in one round."""
TURNS = 100
"""Packets of each of them in one round."""
BATCH = 32
"""Packets that are decided on one after the other, as a member takes them from its queue."""
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
    argv = [sys.executable, "-m", __name__, str(rounds), str(large)]
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


class Table:
    """A firewall with `size` connections, and between them some that end: those of a round at the same time."""

    def __init__(self, size: int, rounds: int) -> None:
        parameters = Parameters()
        parameters.set("connections_limit", 2 * size + 2 * rounds * IN_USE)
        parameters.set("udp_timeout", 86_400)
        self._firewall = Firewall("fw1", build_policy(POLICY, "policy"), parameters)
        self._firewall.forwarding = True
        self._size = size
        self._now = 1.0
        self._spread: list[bytes] = []
        in_a_row, at_random = ([100.0 * (n + 1) for n in range(begin, 2 * rounds, 2)] for begin in (0, 1))
        each = size // IN_USE
        for number, frame in enumerate(frames(bytes(6), bytes(6), _SOURCE, _DESTINATION, 0, size)):
            packet = frame[ETHERNET_HEADER:]
            self._meet(packet)
            if number % each == 0:
                self._spread.append(packet)
                for timeout in at_random:
                    self._add_ending(timeout)
            if number == size // 2:
                for timeout in in_a_row:
                    for _ in range(IN_USE):
                        self._add_ending(timeout)
        self._firewall.connections.take_updates(self._now)
        for packet in self._spread:  # the first packet after an announcement has more to do
            self._meet(packet)

    def _meet(self, packet: bytes) -> None:
        if not self._firewall.decide(packet, Hook.FORWARD, self._now).accept:
            raise LabError("the firewall drops what it shall be measured with")

    def _add_ending(self, timeout: float) -> None:
        number = len(self._firewall.connections)
        key = bytes((UDP, 203, 0, 113, 1, 203, 0, 113, 2)) + number.to_bytes(4, "big")
        self._firewall.connections.add(Connection(key, State.NONE, timeout, timeout, self._now), self._now)

    def packet(self) -> float:
        """Nanoseconds a packet: each connection of those that are spread over the table has one in turn."""
        return self._decide(self._spread * TURNS)

    def random_packet(self) -> float:
        """Nanoseconds a packet, of connections all over the table."""
        numbers = random.Random(self._now).choices(range(self._size), k=IN_USE * TURNS)
        one = {n: next(frames(bytes(6), bytes(6), _SOURCE, _DESTINATION, n, 1))[ETHERNET_HEADER:] for n in numbers}
        packets = [one[n] for n in numbers]
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
        """Nanoseconds for each of the connections whose time comes next: at first those that began one after the
        other, then those that began all over the table; and so in each round."""
        self._now += 100.0
        before = len(self._firewall.connections)
        begin = time.perf_counter_ns()
        while self._firewall.expire(self._now):
            pass
        took = time.perf_counter_ns() - begin
        ended = before - len(self._firewall.connections)
        if ended != IN_USE:
            raise LabError(f"{ended} connections ended, not {IN_USE}")
        return took / ended


def main(rounds: int, large: int) -> None:
    gc.disable()
    tables = [Table(SMALL, rounds), Table(large, rounds)]
    gc.freeze()
    for _ in range(rounds):
        small_lookup, large_lookup = (table.packet() for table in tables)
        random_lookup = tables[1].random_packet()
        small_end, large_end = (table.end() for table in tables)
        _, random_end = (table.end() for table in tables)
        costs = Costs(small_lookup, large_lookup, random_lookup, small_end, large_end, random_end)
        print(json.dumps(asdict(costs)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
