"""A machine on the wires: interfaces, addresses of both families, routes, and what a kernel answers by itself.

A host sends with `send_ip` and gets what is for it through `register`. A kernel's own answers: echo replies, "port
unreachable" and RST where nobody has registered, "host unreachable" where no neighbour answers, "time exceeded". The
machine that runs a member is `labs.simulation.member_machine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Interface, IPv6Interface

from fwnode.firewall.packet import MalformedPacket, parse
from fwnode.firewall.reject import rejection
from labs.simulation.ip_packets import (
    HOST_UNREACHABLE,
    ICMP,
    ICMPV6,
    NET_UNREACHABLE,
    PORT_UNREACHABLE,
    TCP,
    UDP,
    ends,
    icmp_error,
    icmp_message,
    payload_of,
    protocol_of,
)
from labs.simulation.loop import World
from labs.simulation.neighbour_table import Neighbour, NeighbourTable
from labs.simulation.wires import BROADCAST, IP, NEIGHBOUR, Interface, Neighbourly, Switch

Receive = Callable[[bytes], object]
"""Takes a whole IP packet."""

ERROR_EVERY_S = 1.0
ERRORS_AT_ONCE = 6
"""Linux: icmp_ratelimit, XRLIM_BURST_FACTOR; ICMP errors to one machine."""
_ECHO = {ICMP: (8, 0), ICMPV6: (128, 129)}
_LOOPBACK = (bytes((127, 0, 0, 1)), bytes(15) + b"\x01")


class Machine:
    """A host. Nothing is forwarded."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.interfaces: dict[str, Interface] = {}
        self.addresses: set[bytes] = set(_LOOPBACK)
        """What is delivered here. Only asked for members, never walked over."""
        self.neighbours = NeighbourTable(world, self._to_neighbour, self._host_unreachable)
        self._gateways: dict[int, tuple[Interface, bytes]] = {}
        """By length of addresses."""
        self._hops: dict[bytes, Neighbour] = {}
        """Destination -> the next machine on the way to it."""
        self._receivers: dict[int, Receive] = {}
        self._errors: dict[bytes, tuple[float, float]] = {}
        """To whom ICMP errors went: how many more may go at once, as of when."""
        self.blocked: list[tuple[frozenset[bytes], int, int]] = []
        """Packets for this machine that are dropped: sources, protocol, and the port on either side."""

    # -- what it is -----------------------------------------------------------------------------------------------

    def plug(
        self, switch: Switch, name: str, link: str, mac: bytes, addresses: Iterable[IPv4Interface | IPv6Interface]
    ) -> Interface:
        """A new interface with a link to a switch."""
        interface = Interface(self.world, name, link, mac, self, switch)
        for address in addresses:
            interface.addresses.append(address.ip.packed)
            self.addresses.add(address.ip.packed)
            network = address.network
            interface.networks.append((network.max_prefixlen // 8, int(network.network_address), int(network.netmask)))
        self.interfaces[name] = interface
        return interface

    def set_gateway(self, interface: Interface, address: bytes) -> None:
        """The default route of the address's family."""
        self._gateways[len(address)] = (interface, address)
        self._hops.clear()

    def register(self, protocol: int, receive: Receive) -> None:
        """From now on `receive` gets the IP packets of this protocol that are for this machine. Of ICMP, echo requests
        are answered here and not handed over."""
        self._receivers[protocol] = receive

    # -- out ------------------------------------------------------------------------------------------------------

    def send_ip(self, packet: bytes) -> None:
        """Route a packet of this machine."""
        hop = self._hops.get(packet[16:20] if packet[0] < 0x60 else packet[24:40])
        now = self.world.now
        if hop is not None and now < hop.fresh_until:
            interface = hop.interface
            interface.send((hop.mac, interface.mac, IP, packet), now)
        else:
            self._route(packet)

    def _route(self, packet: bytes) -> None:
        _, destination = ends(packet)
        if destination in self.addresses:
            self.world.at(self.world.now, self.deliver, packet)
            return
        hop = self._hops.get(destination) or self.hop_to(destination)
        if hop is None:
            self.refuse(packet, NET_UNREACHABLE)
        else:
            self.neighbours.use(hop, packet)

    def hop_to(self, destination: bytes) -> Neighbour | None:
        """The next machine on the way; None: there is no route."""
        found = self.interface_to(destination)
        if found is not None:
            hop = self.neighbours.entry(found, destination)
        elif len(destination) in self._gateways:
            hop = self.neighbours.entry(*self._gateways[len(destination)])
        else:
            return None
        self._hops[destination] = hop
        return hop

    def interface_to(self, destination: bytes) -> Interface | None:
        """The interface in whose network the address lies."""
        length, number = len(destination), int.from_bytes(destination)
        for interface in self.interfaces.values():
            for family, network, mask in interface.networks:
                if family == length and number & mask == network:
                    return interface
        return None

    def source_for(self, destination: bytes) -> bytes:
        """The address from which this machine speaks to another; empty where there is no way."""
        if destination in self.addresses:
            return destination
        hop = self._hops.get(destination) or self.hop_to(destination)
        if hop is None:
            return b""
        return next((a for a in hop.interface.addresses if len(a) == len(destination)), b"")

    def confirm(self, destination: bytes) -> None:
        """The transport has seen that packets to there arrive."""
        hop = self._hops.get(destination)
        if hop is not None:
            hop.confirmed_at = self.world.now

    def _to_neighbour(self, packet: bytes, hop: Neighbour) -> None:
        hop.interface.send((hop.mac, hop.interface.mac, IP, packet), self.world.now)

    # -- in -------------------------------------------------------------------------------------------------------

    def receive_ip(self, packet: bytes, interface: Interface) -> None:
        """A packet from the wire."""
        if (packet[16:20] if packet[0] < 0x60 else packet[24:40]) in self.addresses:
            self.deliver(packet)

    def deliver(self, packet: bytes) -> None:
        """A packet that is for this machine."""
        if self.blocked and self._is_blocked(packet):
            return
        if packet[0] < 0x60:
            protocol, at = packet[9], (packet[0] & 15) << 2
        else:
            protocol, at = packet[6], 40
        if protocol in _ECHO and packet[at] == _ECHO[protocol][0]:
            self._answer_echo(packet)
            return
        receive = self._receivers.get(protocol)
        if receive is not None:
            receive(packet)
        elif protocol == UDP:
            self.refuse(packet, PORT_UNREACHABLE)
        elif protocol == TCP:
            self.reset(packet)

    def _is_blocked(self, packet: bytes) -> bool:
        source, protocol, body = ends(packet)[0], protocol_of(packet), payload_of(packet)
        ports = (int.from_bytes(body[0:2]), int.from_bytes(body[2:4]))
        return any(source in sources and protocol == of and port in ports for sources, of, port in self.blocked)

    # -- what a kernel says by itself -----------------------------------------------------------------------------

    def refuse(self, packet: bytes, reason: str) -> None:
        """An ICMP error to the packet's sender, which may be this machine itself."""
        source, destination = ends(packet)
        speaker = destination if destination in self.addresses else self.source_for(source)
        if speaker and self._may_complain(source) and (error := icmp_error(packet, speaker, reason)):
            self.answer(error)

    def _may_complain(self, to: bytes) -> bool:
        if to in self.addresses:
            return True
        now = self.world.now
        left, since = self._errors.get(to, (float(ERRORS_AT_ONCE), now))
        left = min(ERRORS_AT_ONCE, left + (now - since) / ERROR_EVERY_S)
        self._errors[to] = (left - 1 if left >= 1 else left, now)
        return left >= 1

    def reset(self, packet: bytes) -> None:
        """A RST to a segment that no connection here knows."""
        try:
            reply = rejection(parse(packet), packet)
        except MalformedPacket:
            return
        if reply:
            self.answer(reply)

    def answer(self, packet: bytes) -> None:
        """Send what the kernel says by itself."""
        self.send_ip(packet)

    def _host_unreachable(self, packet: bytes) -> None:
        self.refuse(packet, HOST_UNREACHABLE)

    def _answer_echo(self, packet: bytes) -> None:
        source, destination = ends(packet)
        body = payload_of(packet)
        reply = icmp_message(destination, source, _ECHO[protocol_of(packet)][1], 0, body[4:])
        self.answer(reply)

    # -- neighbours -----------------------------------------------------------------------------------------------

    def receive_neighbour(self, message: Neighbourly, interface: Interface) -> None:
        """The kernel's part: it answers for the interface's own addresses, and learns."""
        asked_me = message.is_request and message.wanted in interface.addresses and message.sender != message.wanted
        self.neighbours.learn(message, interface, asked_me=asked_me)
        if asked_me:
            if message.sender:
                to, reply = message.mac, Neighbourly(False, interface.mac, message.wanted, message.sender)
            else:  # a probe: the answer goes to everybody
                to, reply = BROADCAST, Neighbourly(False, interface.mac, message.wanted, message.wanted, to_all=True)
            interface.send((to, interface.mac, NEIGHBOUR, reply), self.world.now)

    def overhear(self, message: Neighbourly, interface: Interface) -> None:
        """What a process sees through a packet socket; a host runs none that looks."""

    def carrier_changed(self, interface: Interface) -> None:
        if not interface.up:
            self.neighbours.forget(interface)
