"""A machine that runs a member: its kernel, which forwards, queues, and goes on when the process is gone.

Packets between others meet the hook FORWARD, what is for the machine itself INPUT, what it sends OUTPUT, as
`fwnode.datapath.rules` sets the real kernel up: the cluster protocol and its "port unreachable" pass beneath. The rules
outlive the process, so a machine whose member has died forwards nothing. Lives are `labs.simulation.member_life`:
`start`, `kill`, `pause` and `resume`; the wires of a power cut are `labs.simulation.simulated_faults`.

Each machine has a clock of its own: `offset_s` and `drift` are set before the start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fwnode.cluster.decision_function import multicast_mac
from fwnode.configuration import MemberConfig
from fwnode.firewall.packet import ICMP, UDP
from fwnode.loaded_policy import CONFIGURED, Loaded, installed_by_hand
from fwnode.policy_file import build_policy
from labs.simulation.ip_packets import (
    NET_UNREACHABLE,
    PORT_UNREACHABLE,
    TIME_EXCEEDED,
    ends,
    ip_packet,
    less_ttl,
    payload_of,
    protocol_of,
)
from labs.simulation.loop import START_S, World
from labs.simulation.machine import Machine
from labs.simulation.member_life import FORWARD, INPUT, OUTPUT, PREROUTING, MemberLife
from labs.simulation.neighbour_table import Neighbour
from labs.simulation.stack import Stack
from labs.simulation.wires import BROADCAST, IP, NEIGHBOUR, Interface, Neighbourly
from syncproto.release import Compatibility

CLUSTER_PORT = 8116
DATE_AT_START = 1_767_225_600.0
"""The wall clock when a world begins: 1 January 2026, so that a run does not depend on the day."""
_UNREACHABLE = {(3, 3): "port", (3, 1): "host", (3, 0): "host"}


class MemberMachine(Machine):
    """`life` is the member's process; None where none runs."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.offset_s = 0.0
        self.drift = 1.0
        """Seconds that this machine's clock makes of one."""
        self._leapt_s = 0.0
        self.life: MemberLife | None = None
        self.virtual: dict[str, list[bytes]] = {}
        """By interface."""
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []
        """Hear of every event of the member, of all its lives."""
        self.on_end: list[Callable[[], None]] = []
        """Called when the process has ended, however; each once."""
        self.watch: Callable[[bytes], None] | None = None
        """Sees every packet that this machine forwards."""
        self.forwarded = 0
        self._prepared = False
        """The rules of a member are there: everything goes through its queue."""
        self._macs: dict[str, bytes] = {}
        """What is answered for the virtual addresses, by interface, where it is not the interface's own MAC."""
        self._members: dict[tuple[str, int], dict[int, bytes]] = {}
        """Other members' addresses, by interface and length: number -> address."""
        self._ways: dict[tuple[int, str], tuple[bytes, bytes]] = {}
        self._peers: dict[bytes, tuple[int, str]] = {}
        """Whose address this is, and on which interface."""
        self._kept: tuple[str, dict[str, Any], str] | None = None
        """The rule base that was installed by hand: what was configured then, the rule base, and where it is from."""
        self.stack = Stack(self)
        self.register(UDP, self._receive_udp)
        self.register(ICMP, self._receive_icmp)

    # -- time -----------------------------------------------------------------------------------------------------

    def wire(self) -> float:
        """This machine's monotonic clock."""
        return self.world.now * self.drift + self.offset_s

    def world_time(self, wire: float) -> float:
        return (wire - self.offset_s) / self.drift

    def date(self) -> float:
        """This machine's wall clock."""
        return DATE_AT_START + self.wire() + self._leapt_s - START_S

    def leap(self, by_s: float) -> None:
        """The world's time goes on by so much, and this machine's monotonic clock does not."""
        self.offset_s -= by_s * self.drift
        self._leapt_s += by_s * self.drift
        if self.life is not None:
            self.life.leap(by_s)

    # -- lives ----------------------------------------------------------------------------------------------------

    def start(self, config: MemberConfig, compatibility: Compatibility) -> None:
        """A new process. `config.clock.epoch` is in this machine's wire time. Raises `FileError` for a rule base that
        is not in order."""
        assert self.life is None, f"{self.name} runs already"
        loaded = self._load(config)
        self._prepare(config)
        self.world.tell(self.name, f"the process starts, release {config.release}")
        self.life = MemberLife(self, config, compatibility, loaded)

    def kill(self) -> None:
        """The process is gone without a word; its kernel goes on."""
        self.ended("killed")

    def power_off(self) -> None:
        """The process is gone, and what the kernel knew. Take the links down before (`SimulatedFaults.power`)."""
        if self.life is not None:
            self.ended("without power")
        for interface in self.interfaces.values():
            self.neighbours.forget(interface)

    def pause(self) -> None:
        if self.life is not None:
            self.life.pause()
            self.world.tell(self.name, "the process is paused")

    def resume(self) -> None:
        if self.life is not None:
            self.world.tell(self.name, "the process goes on")
            self.life.resume()

    def ended(self, how: str) -> None:
        """The process has ended."""
        if self.life is not None:
            self.life.end()
            self.life = None
            self.stack.end()
        self.world.tell(self.name, f"the process has ended: {how}")
        waiting, self.on_end = self.on_end, []
        for hear in waiting:
            hear()

    def told(self, event: Mapping[str, Any]) -> None:
        """An event of the member."""
        self.world.tell(self.name, f"{event['kind']}: {event['text']}")
        for listener in self.listeners:
            listener(event)

    def _load(self, config: MemberConfig) -> Loaded:
        """The rule base, as `fwnode.kept_policy` finds it: the kept one, unless another is configured since."""
        document, where = config.policy_document(Path())
        members, problem = frozenset(config.members), ""
        if self._kept is not None:
            configured, policy, source = self._kept
            if configured == json.dumps(document, sort_keys=True, default=str):
                return Loaded(build_policy(policy, "the kept rule base", members), f"{source}, kept across the restart")
            self._kept = None
            problem = f"the rule base {source}, is forgotten: the configuration's own has changed since"
        return Loaded(build_policy(document, where, members), CONFIGURED, problem)

    def keep_policy(self, config: MemberConfig, policy: dict[str, Any], file: str, at: float) -> None:
        document, _ = config.policy_document(Path())
        self._kept = (json.dumps(document, sort_keys=True, default=str), policy, installed_by_hand(file, at))

    def _prepare(self, config: MemberConfig) -> None:
        """The kernel, as a member that starts finds or makes it."""
        self._prepared = True
        mode, peers = config.cluster.mode, config.peers
        for interface in config.cluster.interfaces:
            name, own = interface.name, config.own_addresses(interface)[0].ip.packed
            self.virtual[name] = [address.ip.packed for address in interface.virtual]
            self.addresses.update(self.virtual[name])
            if mode == "load-sharing-multicast" and interface.virtual:
                self._macs[name] = multicast_mac(interface.virtual)
            for number, peer in peers.items():
                for address in interface.members[peer]:
                    packed = address.ip.packed
                    self._members.setdefault((name, len(packed)), {})[number] = packed
                first = interface.members[peer][0].ip.packed
                self._ways[number, name] = (own, first)
                self._peers[first] = (number, name)

    # -- packets that come ----------------------------------------------------------------------------------------

    def receive_ip(self, packet: bytes, interface: Interface) -> None:
        if packet[0] < 0x60:
            destination, hops, groups = packet[16:20], packet[8], 0xE0
        else:
            destination, hops, groups = packet[24:40], packet[7], 0xFF
        life = self.life
        if destination in self.addresses:
            self._receive_local(packet, destination, interface)
        elif life is None or destination[0] >= groups:
            return  # the rules are closed when nobody listens, and no group is forwarded
        elif hops <= 1:
            self.refuse(packet, TIME_EXCEEDED)
        else:
            life.receive_packet(packet, PREROUTING if life.hands_on else FORWARD, destination, interface)

    def _receive_local(self, packet: bytes, destination: bytes, interface: Interface) -> None:
        if self.blocked and self._is_blocked(packet):
            return
        if not self._prepared or self._is_beneath(packet):
            self.deliver(packet)
        elif self.life is not None:
            self.life.receive_packet(packet, INPUT, destination, interface)

    def _is_beneath(self, packet: bytes) -> bool:
        """Whether no rule base is asked: the cluster protocol, and "port unreachable" between members."""
        if packet[0] >= 0x60:
            return False
        at = (packet[0] & 15) << 2
        if packet[9] == UDP:
            return packet[at + 2 : at + 4] == _CLUSTER_PORT
        if packet[9] == ICMP:
            return packet[at] == 3 and packet[at + 1] == 3 and not self._peers.keys().isdisjoint(ends(packet))
        return False

    # -- packets that go on ---------------------------------------------------------------------------------------

    def go_on(self, packet: bytes, hook: int, destination: bytes, when: float) -> None:
        """A packet that was accepted, when the process has said so."""
        if hook == FORWARD:
            hop = self._hops.get(destination)
            if hop is not None and when < hop.fresh_until:
                self.forwarded += 1
                if self.watch is not None:
                    self.watch(packet)
                interface = hop.interface
                interface.send((hop.mac, interface.mac, IP, less_ttl(packet)), when)
            else:
                self.world.at(when, self._forward_slowly, packet)
        else:
            self.world.at(when, self.deliver if hook == INPUT else self.send_beneath, packet)

    def hand_on(self, packet: bytes, member: int, interface: Interface | None, when: float) -> None:
        """A packet that is another member's share, to that one's own address, out of the interface that it came in."""
        assert interface is not None
        address = self._members.get((interface.name, 4 if packet[0] < 0x60 else 16), {}).get(member)
        if address is None:
            return
        hop, fewer = self.neighbours.entry(interface, address), less_ttl(packet)
        if when < hop.fresh_until:
            interface.send((hop.mac, interface.mac, IP, fewer), when)
        else:
            self.world.at(when, self._use, (hop, fewer))

    def _use(self, what: tuple[Neighbour, bytes]) -> None:
        hop, packet = what
        if self.world.now < hop.fresh_until:
            self._to_neighbour(packet, hop)
        else:
            self.neighbours.use(hop, packet)

    def _forward_slowly(self, packet: bytes) -> None:
        """To a neighbour that must be asked for, or is not there."""
        _, destination = ends(packet)
        hop = self._hops.get(destination) or self.hop_to(destination)
        if hop is None:
            self.refuse(packet, NET_UNREACHABLE)
        else:
            self.forwarded += 1
            if self.watch is not None:
                self.watch(packet)
            self._use((hop, less_ttl(packet)))

    def send_ip(self, packet: bytes) -> None:
        """A packet of the machine's own: the rule base is asked."""
        _, destination = ends(packet)
        if not self._prepared or destination in self.addresses or self._is_beneath(packet):
            self.send_beneath(packet)
        elif self.life is not None:
            self.life.receive_packet(packet, OUTPUT, destination, None)

    def send_beneath(self, packet: bytes) -> None:
        """A packet of the machine's own that no rule base is asked about."""
        super().send_ip(packet)

    # -- the cluster protocol -------------------------------------------------------------------------------------

    def send_datagram(self, peer: int, interface: str, data: bytes) -> None:
        own, other = self._ways[peer, interface]
        length = (8 + len(data)).to_bytes(2)
        self.send_beneath(ip_packet(own, other, UDP, _CLUSTER_PORT * 2 + length + bytes(2) + data))

    def _receive_udp(self, packet: bytes) -> None:
        at = (packet[0] & 15) << 2 if packet[0] < 0x60 else 40
        way = self._peers.get(packet[12:16]) if packet[0] < 0x60 else None
        if self.life is None or way is None or packet[at : at + 4] != _CLUSTER_PORT * 2:
            self.refuse(packet, PORT_UNREACHABLE)
        else:
            self.life.receive_datagram(*way, packet[at + 8 :])

    def _receive_icmp(self, packet: bytes) -> None:
        """An error about a datagram of the cluster protocol is the process's, all else the transport's."""
        body = payload_of(packet)
        what, about = _UNREACHABLE.get((body[0], body[1])), body[8:]
        if len(about) < 28 or protocol_of(about) != UDP or payload_of(about)[2:4] != _CLUSTER_PORT:
            self.stack.receive_icmp(packet)
            return
        way = self._peers.get(about[16:20])
        if what is None or self.life is None or way is None:
            return
        if what == "port":
            self.life.refused(way[0])
        else:
            self.life.not_sent(way[1], "EHOSTUNREACH")

    # -- the virtual addresses ------------------------------------------------------------------------------------

    def overhear(self, message: Neighbourly, interface: Interface) -> None:
        if self.life is not None and message.is_request and message.wanted in self.virtual.get(interface.name, ()):
            self.life.overhear(message, interface)

    def tell_virtual(self, interface: Interface, address: bytes, asked: Neighbourly | None) -> None:
        """The address is here: to who has asked, or (None) to everybody."""
        mac = self._macs.get(interface.name, interface.mac)
        if asked is not None:
            to, message = asked.mac, Neighbourly(False, mac, address, asked.sender, raw=True)
        else:
            # Of ARP a question that its sender answers, as `fwnode.datapath.address_keeper` announces.
            to, message = BROADCAST, Neighbourly(len(address) == 4, mac, address, address, to_all=True, raw=True)
        interface.send((to, interface.mac, NEIGHBOUR, message), self.world.now)

    def ask_virtual(self, interface: Interface, address: bytes) -> None:
        """A probe, from nobody: whose is the address?"""
        message = Neighbourly(True, interface.mac, b"", address, raw=True)
        interface.send((BROADCAST, interface.mac, NEIGHBOUR, message), self.world.now)


_CLUSTER_PORT = CLUSTER_PORT.to_bytes(2)
