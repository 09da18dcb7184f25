"""A flood in the simulated world: the packets of the real one, sent straight from the client's machine, counted as they
arrive at the server's. No connection, task or timer belongs to a single packet of them.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

from labs.simulation.ip_packets import TCP, UDP
from labs.simulation.segments import ACK, SYN, bare_segment, read_segment, syn_options, turned
from labs.simulation.stack import INITIAL_STEP, Stack
from labs.simulation.tcp_connection import SYN_WINDOW
from labs.simulation.tcp_sender import RTO_INITIAL_S
from labs.traffic.flood_client import BATCH_S, FloodSender
from labs.traffic.flood_server import BACKLOG

HALF_OPEN_S = 3.0
"""A SYN that nobody completes is kept for so long, and its SYN-ACK is sent twice (TCP_SYNCNT is 1)."""
_NUMBER = {"tcp": TCP, "udp": UDP}


class SimulatedFloodSender(FloodSender):
    """The packets of a flood, sent by a simulated machine."""

    def __init__(self, stack: Stack, orders: dict[str, Any]) -> None:
        target = ip_address(orders["address"])
        source = ip_address(stack.machine.source_for(target.packed))
        super().__init__(orders, str(source), lambda: stack.world.now)
        self._stack = stack
        self._target = target.packed
        if orders["protocol"] == "tcp":
            stack.filters.append(self._is_answer)

    async def _send_all(self) -> None:
        send = self._stack.send
        while self.offered < self._wanted:
            due = self._due()
            for packet in self.packets[self.offered : due]:
                send(packet)
            self.offered = due
            await asyncio.sleep(BATCH_S)
        self._due()

    def _is_answer(self, packet: bytes) -> bool:
        """What comes from the server's ports is not shown to this host's TCP, which would answer with a RST."""
        if packet[0] < 0x60:
            at, source, protocol = 20, packet[12:16], packet[9]
        else:
            at, source, protocol = 40, packet[8:24], packet[6]
        return source == self._target and protocol == TCP and int.from_bytes(packet[at : at + 2]) in self.ports


class FloodCounter:
    """The server's ports: UDP that nobody reads, or TCP that answers each SYN; and the distinct connections so far."""

    missed = 0

    def __init__(self, stack: Stack, orders: dict[str, Any]) -> None:
        self.flows: set[bytes] = set()
        self._stack = stack
        self._protocol = _NUMBER[orders["protocol"]]
        self._ports = {port.to_bytes(2) for port in range(orders["port"], orders["port"] + orders["server_ports"])}
        self._is_ipv6 = orders["family"] == "ipv6"
        self._half_open = 0
        self._initial = 0
        stack.filters.append(self._take)

    def look(self) -> int:
        return len(self.flows)

    def _take(self, packet: bytes) -> bool:
        if packet[0] < 0x60:
            at, protocol, is_ours = 20, packet[9], not self._is_ipv6
        else:
            at, protocol, is_ours = 40, packet[6], self._is_ipv6
        if not is_ours or protocol != self._protocol or packet[at + 2 : at + 4] not in self._ports:
            return False
        self.flows.add(packet[at : at + 4])
        if protocol == TCP:
            self._answer(packet, at)
        return True

    def _answer(self, packet: bytes, at: int) -> None:
        sequence, _, bits, _ = read_segment(packet, at + 4)
        if bits & (SYN | ACK) != SYN:
            return
        self._initial += INITIAL_STEP
        ends = turned(packet[12:24] if at == 20 else packet[8:44])
        reply = bare_segment(ends, self._initial, sequence + 1, SYN | ACK, SYN_WINDOW, syn_options())
        self._stack.send(reply)
        if self._half_open < BACKLOG:  # of the others nothing is kept (SYN cookies)
            self._half_open += 1
            world = self._stack.world
            world.at(world.now + RTO_INITIAL_S, self._stack.send, reply)
            world.at(world.now + HALF_OPEN_S, self._forget)

    def _forget(self, _: object) -> None:
        self._half_open -= 1
