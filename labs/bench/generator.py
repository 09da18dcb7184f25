"""The load generator: prepared frames out of the client's interface in batches, and what arrives at the server counted.

One process in the client's namespace, with a second socket in the server's. Frames are sent with `sendmmsg` from
memory that was filled once; arrivals are counted by the kernel (a packet socket's statistics), so that neither end
costs more than a system call a batch. At most `WINDOW` packets are on their way at a time: what is offered follows
what gets through, nothing overflows a queue that is longer than the window, and what does not arrive is really lost.

Orders are JSON on the command line; the answer is one line of JSON (`Offered`).
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import PIPE

from labs.bench.udp_frames import DESTINATION_FIRST, frames, only_from
from labs.network.errors import LabError
from labs.network.lab import Lab
from labs.python import python_command

BATCH = 64
"""Frames in one `sendmmsg`."""
WINDOW = 4_096
"""Packets on their way at a time: fewer than any queue on it holds."""
WAIT_S = 0.0002
"""Seconds to wait where the window is full."""
LOST_AFTER_S = 1.0
"""Where nothing arrives for so long, what is still on its way is lost."""
ANSWER_S = 180.0
_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_QDISC_BYPASS = 263, 6, 20
_SO_ATTACH_FILTER = 26


@dataclass(frozen=True)
class Orders:
    """What to offer: `count` packets over `flows` flows, in turn; with `seconds` no longer than that. `rate` is packets
    a second at most; 0: as fast as it goes."""

    interface: str
    gateway: str
    source: str
    destination: str
    server_namespace: str
    server_interface: str
    flows: int
    count: int = 0
    seconds: float = 0.0
    rate: float = 0.0


@dataclass(frozen=True)
class Offered:
    """What came of it. `begin` and `end` are CLOCK_MONOTONIC seconds: the first packet sent, the last one seen."""

    sent: int
    arrived: int
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    @property
    def lost(self) -> int:
        return self.sent - self.arrived


async def offer(lab: Lab, *, flows: int, count: int = 0, seconds: float = 0.0, rate: float = 0.0) -> Offered:
    """Offer packets from the lab's client to its server, by way of the cluster's virtual address. Raises `LabError`."""
    client, server = lab.topology.hosts["client"], lab.topology.hosts["server"]
    orders = Orders(
        interface=client.switch,
        gateway=str(next(a for a in lab.topology.switches[client.switch].virtual if a.version == 4)),
        source=str(next(a for a in client.addresses if a.version == 4)),
        destination=str(next(a for a in server.addresses if a.version == 4)),
        server_namespace=lab.namespace("server"),
        server_interface=server.switch,
        flows=flows, count=count, seconds=seconds, rate=rate,
    )  # fmt: skip
    return await run(lab, orders)


async def silence(lab: Lab) -> None:
    """The server's kernel shall not answer what nobody there listens for. Arrivals are counted before this rule."""
    ports = f"{DESTINATION_FIRST}:"
    drop = ["iptables", "-w", "-t", "raw", "-I", "PREROUTING", "-p", "udp", "--dport", ports, "-j", "DROP"]
    if await (await lab.spawn("server", drop)).wait():
        raise LabError("the server's answers cannot be silenced")


async def run(lab: Lab, orders: Orders) -> Offered:
    argv = python_command("labs.bench.generator", json.dumps(asdict(orders)))
    process = await lab.spawn("client", argv, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(ANSWER_S):
            answer, complaint = await process.communicate()
    except TimeoutError:
        process.kill()
        raise LabError(f"the load generator did not end within {ANSWER_S:g} s") from None
    if process.returncode:
        raise LabError(f"the load generator failed: {complaint.decode(errors='replace').strip()}")
    return Offered(**json.loads(answer))


# -- in the client's namespace -----------------------------------------------------------------------------------------


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("vector", ctypes.c_void_p),
        ("vectors", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )  # fmt: skip


class _Message(ctypes.Structure):
    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.c_char_p))


_libc = ctypes.CDLL(None, use_errno=True)


class FrameSender:
    """Sends prepared frames, again from the beginning when they have all been sent."""

    def __init__(self, interface: str, prepared: list[bytes]) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        self._socket.bind((interface, 0))
        self._count = len(prepared)
        self._next = 0
        size = len(prepared[0])
        self._memory = ctypes.create_string_buffer(b"".join(prepared))
        base = ctypes.addressof(self._memory)
        self._vectors = (_Vector * self._count)(*(_Vector(base + n * size, size) for n in range(self._count)))
        first = ctypes.addressof(self._vectors)
        self._messages = (_Message * self._count)()
        for number, message in enumerate(self._messages):
            message.header.vector = first + number * ctypes.sizeof(_Vector)
            message.header.vectors = 1
        self._first = ctypes.addressof(self._messages)

    def send(self, count: int) -> int:
        """Send up to `count` frames; how many went. Raises `OSError`."""
        count = min(count, self._count - self._next)
        where = ctypes.c_void_p(self._first + self._next * ctypes.sizeof(_Message))
        sent = int(_libc.sendmmsg(self._socket.fileno(), where, count, 0))
        if sent < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._next = (self._next + sent) % self._count
        return sent


class Arrivals:
    """Counts UDP packets from `source` on an interface of another namespace. Nobody reads them: the kernel counts."""

    def __init__(self, namespace: str, interface: str, source: str) -> None:
        with Path("/proc/self/ns/net").open() as own, Path(namespace).open() as other:
            self._enter(other.fileno())
            try:
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            finally:
                self._enter(own.fileno())
        program = b"".join(struct.pack("=HBBI", *line) for line in only_from(source))
        filter_ = _Program(len(program) // 8, program)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(filter_))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        self._socket.bind((interface, _ETH_P_ALL))
        self.since()

    @staticmethod
    def _enter(namespace: int) -> None:
        if _libc.setns(namespace, _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def since(self) -> int:
        """How many came since the last call."""
        packets, _ = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(packets)


def _offer(orders: Orders) -> Offered:
    arrivals = Arrivals(orders.server_namespace, orders.server_interface, orders.source)
    gateway, own = _mac_of(orders.gateway), _own_mac(orders.interface)
    prepared = frames(gateway, own, orders.source, orders.destination, 0, orders.flows)
    sender = FrameSender(orders.interface, list(prepared))
    wanted = orders.count or sys.maxsize
    sent = arrived = 0
    begin = end = time.monotonic()
    until = begin + orders.seconds if orders.seconds else float("inf")
    while True:
        now = time.monotonic()
        if now >= until:
            wanted = sent
        due = min(wanted, int((now - begin) * orders.rate) + 1) if orders.rate else wanted
        room = min(due - sent, WINDOW - (sent - arrived), BATCH)
        if room > 0:
            sent += sender.send(room)
        if room < BATCH:
            came = arrivals.since()
            arrived += came
            if came:
                end = time.monotonic()
            if arrived >= wanted or now - max(end, begin) > LOST_AFTER_S:
                break
            if not came:
                time.sleep(WAIT_S)
    return Offered(sent, arrived, begin, end)


def _own_mac(interface: str) -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as probe:
        probe.bind((interface, 0))
        return bytes(probe.getsockname()[4])


def _mac_of(gateway: str) -> bytes:
    """The gateway's MAC as the kernel has it, after it was made to ask for it."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
            probe.sendto(b"", (gateway, 9))
        for line in Path("/proc/net/arp").read_text().splitlines()[1:]:
            address, _, flags, mac, *_ = line.split()
            if address == gateway and int(flags, 16) & 2:
                return bytes.fromhex(mac.replace(":", ""))
        time.sleep(0.01)
    raise OSError(f"{gateway} does not answer ARP: is a member active?")


if __name__ == "__main__":
    try:
        print(json.dumps(asdict(_offer(Orders(**json.loads(sys.argv[1]))))))
    except OSError as error:
        sys.exit(str(error))
