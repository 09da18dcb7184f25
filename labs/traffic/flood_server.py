"""The server process of a flood: it counts the distinct connections that arrive.

The packets land in a ring of the kernel's that has room for all of them, so that none is missed however late this
process looks. UDP sockets that nobody reads are bound to the ports, so that no ICMP error goes back; TCP listens, and
its kernel answers each SYN.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import mmap
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from fwnode.node_process import raise_file_limit
from labs.traffic.fates import Tally
from labs.traffic.flood_packets import flow, packet_filter
from labs.traffic.stdio_commands import Command, say, serve_commands

FRAME_BYTES = 256
"""Of the ring, for one packet: the kernel's header (some 80 bytes), then ours (60 at most)."""
BLOCK_BYTES = 65_536
SPARE_FRAMES = 8_192
"""For packets that come twice."""
BACKLOG = 4_096
SETTLED_S = 1.0
"""Wall seconds without another arrival until the count stands."""
POLL_S = 0.05

_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_SOL_PACKET, _PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION, _PACKET_IGNORE_OUTGOING = 263, 5, 6, 10, 23
_TPACKET_V2 = 1
_SO_ATTACH_FILTER = 26
_TP_STATUS_USER = 1


class Ring:
    """A packet socket whose packets the kernel writes into memory that we share. They stay there: it never wraps."""

    def __init__(self, ipv6: bool, protocol: str, ports: range, count: int) -> None:
        frames_a_block = BLOCK_BYTES // FRAME_BYTES
        blocks = -(-(count + SPARE_FRAMES) // frames_a_block)
        self.frames = blocks * frames_a_block
        ether = _ETH_P_IPV6 if ipv6 else _ETH_P_IP
        # On every interface from the start; what comes before the ring is there does not get into it.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ether))
        program = packet_filter(ipv6, protocol, ports)
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *item) for item in program))
        fprog = struct.pack("HP", len(program), ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        ring = struct.pack("IIII", BLOCK_BYTES, blocks, FRAME_BYTES, self.frames)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, ring)
        self._memory = mmap.mmap(self._socket.fileno(), blocks * BLOCK_BYTES)
        self._read = 0
        self.missed = 0
        self.flows: set[bytes] = set()

    def look(self) -> int:
        """Distinct connections so far."""
        while self._read < self.frames:
            begin = self._read * FRAME_BYTES
            status, _, captured, _, network = struct.unpack_from("IIIHH", self._memory, begin)
            if not status & _TP_STATUS_USER:
                break
            at = begin + network
            self.flows.add(flow(self._memory[at : at + captured]))
            self._read += 1
        _, missed = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self.missed += missed  # the kernel begins to count anew with each question
        return len(self.flows)


class FloodReceiver(Protocol):
    """What has room for every packet of the flood that arrives."""

    missed: int
    """Packets for which it had none after all."""

    def look(self) -> int:
        """Distinct connections so far."""


class FloodServer:
    """Counts the connections of a flood, as the commands of its server process."""

    def __init__(self, receiver: FloodReceiver, clock: Callable[[], float]) -> None:
        self.receiver = receiver
        self._clock = clock

    def commands(self) -> dict[str, Command]:
        return {"finish": self.finish, "report": self.report}

    async def finish(self, offered: int) -> dict[str, Any]:
        """When every connection that was offered has arrived, or no other one has for a while."""
        seen, since = self.receiver.look(), self._clock()
        while seen < offered and self._clock() - since < SETTLED_S:
            await asyncio.sleep(POLL_S)
            before, seen = seen, self.receiver.look()
            if seen != before:
                since = self._clock()
        if self.receiver.missed:
            raise OverflowError(f"{self.receiver.missed} packets came for which the receiver had no room")
        return await self.report([])

    async def report(self, without: list[int]) -> dict[str, Any]:
        tally = Tally()
        tally.figures = {"arrived": self.receiver.look()}
        return tally.as_json()


class FloodPorts:
    """The flood's ports, bound, and the ring in front of them."""

    def __init__(self, orders: dict[str, Any]) -> None:
        ports = range(orders["port"], orders["port"] + orders["server_ports"])
        ipv6 = orders["family"] == "ipv6"
        self.ring = Ring(ipv6, orders["protocol"], ports, orders["count"] * orders["rounds"])
        kind = socket.SOCK_DGRAM if orders["protocol"] == "udp" else socket.SOCK_STREAM
        self.sockets = [self._bound("::" if ipv6 else "0.0.0.0", port, ipv6, kind) for port in ports]

    @staticmethod
    def _bound(address: str, port: int, ipv6: bool, kind: socket.SocketKind) -> socket.socket:
        bound = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, kind)
        try:
            if ipv6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address, port))
            if kind == socket.SOCK_STREAM:
                bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)  # nobody will answer: ask once more only
                bound.listen(BACKLOG)
            else:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        except OSError as error:
            raise OSError(f"cannot listen on port {port}: {error}") from None
        return bound


async def main(orders: dict[str, Any]) -> None:
    try:
        ports = FloodPorts(orders)
    except OSError as error:
        say({"milestone": "failed", "error": str(error)})
        return
    say({"milestone": "ready"})
    await serve_commands(FloodServer(ports.ring, time.monotonic).commands())


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(main(json.loads(sys.argv[1])))
