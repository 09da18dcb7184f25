"""Wires: the interfaces of machines, the links behind them with what is wrong with them, and switches.

A frame is a tuple `(destination MAC, source MAC, kind, payload)`. Kind `IP`: the payload is the packet's bytes. Kind
`NEIGHBOUR`: ARP or neighbour discovery, the payload is a `Neighbourly`.

A link has two ways, as `labs.network.faults` makes them on real links: what its node sends meets cut, loss and delay,
then the node's end of the rate limit; what comes to the node meets the switch's end of the limit first. ARP is no IP
packet, and meets the limit alone; so does what a process sends and sees of neighbour discovery by a packet socket. A
link that is down carries nothing, and loses what its queues hold. On a link with nothing wrong a frame costs one event:
its arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappush
from typing import Any, NamedTuple, Protocol

from labs.quantities import LIMIT_BURST_MIN_BYTES, LIMIT_BURST_S
from labs.simulation.loop import World

IP, NEIGHBOUR = 0, 1
Frame = tuple[bytes, bytes, int, Any]
BROADCAST = b"\xff" * 6

WIRE_S = 10e-6
"""Seconds from one node over a switch to another. Measured on the reference machine with veth pairs and a bridge: 8 to
12 µs."""
ETHERNET_BYTES = 14
NEIGHBOUR_BYTES = {4: 42, 16: 86}
"""Length of an ARP or neighbour discovery frame, by address length."""
LIMIT_QUEUE_S = 0.150
"""What a limited link holds before it drops, as in `labs.network.faults`."""


class Neighbourly(NamedTuple):
    """An ARP packet, or a neighbour solicitation or advertisement."""

    is_request: bool
    mac: bytes
    """The sender's, as it is to be learned."""
    sender: bytes
    """Whose MAC that is; empty where nobody's (a probe)."""
    wanted: bytes
    """Whose MAC is asked for. The sender's own: it announces itself."""
    to_all: bool = False
    """A reply that nobody has asked for, or that goes to everybody."""
    raw: bool = False
    """Sent by a process through a packet socket."""


class InterfaceOwner(Protocol):
    """A machine, as its interfaces see it."""

    def receive_ip(self, packet: bytes, interface: Interface) -> None: ...
    def receive_neighbour(self, message: Neighbourly, interface: Interface) -> None: ...
    def overhear(self, message: Neighbourly, interface: Interface) -> None: ...
    def carrier_changed(self, interface: Interface) -> None: ...


@dataclass
class Impairment:
    """What happens to IP packets one way of a link."""

    cut: bool = False
    loss: float = 0.0
    """Share of packets."""
    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Up to so much later besides, at random: packets overtake each other."""
    duplication: float = 0.0
    """Share of packets that come twice."""
    reordering: float = 0.0
    """Share of packets that are kept back by `REORDERED_S`, while others pass."""

    @property
    def harmless(self) -> bool:
        """Whether nothing is wrong."""
        return self == _HARMLESS


_HARMLESS = Impairment()
REORDERED_S = 0.002
"""Seconds by which a reordered packet comes late: some packets of a busy link overtake it. Lab's own."""


class Bucket:
    """A token bucket with a short queue, as tc's tbf: arithmetic, no event for a packet that waits."""

    __slots__ = ("burst_s", "full_at", "queue_s", "rate")

    def __init__(self, rate: int) -> None:
        """`rate`: bits a second."""
        burst = max(LIMIT_BURST_MIN_BYTES * 8.0, rate * LIMIT_BURST_S)
        self.rate = rate
        self.burst_s = burst / rate
        self.queue_s = LIMIT_QUEUE_S + self.burst_s
        self.full_at = 0.0
        """When the bucket will be full again if nothing more is sent."""

    def leaves_at(self, length: int, now: float) -> float | None:
        """When a frame of so many bytes that comes now has passed; None: the queue is full, and it is dropped."""
        takes_s = length * 8 / self.rate
        leaves = max(now, self.full_at + takes_s - self.burst_s)
        if leaves - now + takes_s > self.queue_s and leaves > now:
            return None
        self.full_at = max(self.full_at, leaves) + takes_s
        return leaves


class Interface:
    """A machine's interface and the link from it to its switch. `inward` and `outward` are seen from the machine."""

    def __init__(self, world: World, name: str, link: str, mac: bytes, machine: InterfaceOwner, switch: Switch) -> None:
        self.world = world
        self.name = name
        self.link = link
        self.mac = mac
        self.machine = machine
        self.switch = switch
        self.addresses: list[bytes] = []
        """The machine's own addresses here."""
        self.networks: list[tuple[int, int, int]] = []
        """Length of addresses, network and mask as numbers."""
        self.up = True
        self.inward = Impairment()
        self.outward = Impairment()
        self.rate: int | None = None
        self.lost = 0
        """Frames that did not get through: faults and full queues."""
        self._out_bucket: Bucket | None = None
        self._in_bucket: Bucket | None = None
        self._out_plain = self.in_plain = True
        self._held: dict[int, tuple[Callable[[Frame], None], Frame]] = {}
        """Frames that a delay keeps, by number, and what is done with each then."""
        self._number = 0
        switch.ports.append(self)

    # -- what is wrong with the link ------------------------------------------------------------------------------

    def set_up(self, up: bool) -> None:
        """The link at its switch's side: down, nothing passes, and the machine sees that it has no carrier."""
        if up == self.up:
            return
        self.up = up
        if not up:
            self.switch.forget(self)
        self.world.tell(self.link, "up" if up else "down")
        self.changed()
        self.machine.carrier_changed(self)

    def limit(self, rate: int | None) -> None:
        """So many bits a second in both directions; None: no limit."""
        self.rate = rate
        self._out_bucket, self._in_bucket = (Bucket(rate), Bucket(rate)) if rate else (None, None)
        self.changed()

    def changed(self) -> None:
        """Call this after a change of `inward` or `outward`."""
        self._out_plain = self.up and self.outward.harmless and self._out_bucket is None
        self.in_plain = self.up and self.inward.harmless and self._in_bucket is None

    def let_go(self) -> None:
        """Frames that a delay keeps go on now."""
        held, self._held = self._held, {}
        for then, frame in held.values():
            then(frame)

    # -- out of the machine ---------------------------------------------------------------------------------------

    def send(self, frame: Frame, when: float) -> None:
        """The machine sends; `when`: now, or a little later, when it has done its work."""
        if self._out_plain:
            self.switch.carry(frame, self, when + WIRE_S)
        elif when > self.world.now:
            heappush(self.world.heap, (when, next(self.world.order), self._send_faulty, frame))
        else:
            self._send_faulty(frame)

    def _send_faulty(self, frame: Frame) -> None:
        if self.outward.harmless or _is_beside_ip(frame):
            self._limit_out(frame)
        else:
            self._impair(self.outward, frame, self._limit_out)

    def _limit_out(self, frame: Frame) -> None:
        if self._out_bucket is None:
            self._to_switch(frame)
        else:
            self._queue(self._out_bucket, frame, self._to_switch)

    def _to_switch(self, frame: Frame) -> None:
        if self.up:
            self.switch.carry(frame, self, self.world.now + WIRE_S)
        else:
            self.lost += 1

    # -- into the machine -----------------------------------------------------------------------------------------

    def limit_in(self, frame: Frame) -> None:
        """What the switch sends to a link with something wrong; where all is well, that is `receive`."""
        if self._in_bucket is None:
            self._into_machine(frame)
        else:
            self._queue(self._in_bucket, frame, self._into_machine)

    def _into_machine(self, frame: Frame) -> None:
        if not self.up:
            self.lost += 1
        elif self.inward.harmless or (frame[2] == NEIGHBOUR and len(frame[3].wanted) == 4):
            self.receive(frame)
        elif frame[2] == NEIGHBOUR:
            self.machine.overhear(frame[3], self)
            self._impair(self.inward, frame, self._tell_kernel)
        else:
            self._impair(self.inward, frame, self.receive)

    def receive(self, frame: Frame) -> None:
        """A frame at the machine's network card."""
        to = frame[0]
        if to != self.mac and not to[0] & 1:
            return  # flooded, and another machine's
        if frame[2] == IP:
            if self.world.packets is not None:
                self.world.packets.append((self.world.now, self.link, frame[3]))
            self.machine.receive_ip(frame[3], self)
        else:
            self.machine.overhear(frame[3], self)
            self.machine.receive_neighbour(frame[3], self)

    def _tell_kernel(self, frame: Frame) -> None:
        self.machine.receive_neighbour(frame[3], self)

    # -- the parts of a way ---------------------------------------------------------------------------------------

    def _queue(self, bucket: Bucket, frame: Frame, then: Callable[[Frame], None]) -> None:
        now = self.world.now
        leaves = bucket.leaves_at(frame_bytes(frame), now)
        if leaves is None:
            self.lost += 1
        elif leaves > now:
            self.world.at(leaves, then, frame)
        else:
            then(frame)

    def _impair(self, way: Impairment, frame: Frame, then: Callable[[Frame], None]) -> None:
        chance = self.world.random.random
        if way.cut or (way.loss and chance() < way.loss):
            self.lost += 1
            return
        for _ in range(1 + (way.duplication > 0 and chance() < way.duplication)):
            late = way.delay_s
            if way.jitter_s:
                late += way.jitter_s * chance()
            if way.reordering and chance() < way.reordering:
                late += REORDERED_S
            if late:
                self._number += 1
                self._held[self._number] = (then, frame)
                self.world.at(self.world.now + late, self._go_on, self._number)
            else:
                then(frame)

    def _go_on(self, number: int) -> None:
        held = self._held.pop(number, None)
        if held is not None:
            held[0](held[1])


class Switch:
    """Learns who is where; floods multicast, broadcast and what it does not know."""

    __slots__ = ("_table", "name", "ports", "world")

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.ports: list[Interface] = []
        self._table: dict[bytes, Interface] = {}

    def carry(self, frame: Frame, sender: Interface, when: float) -> None:
        """From the port of `sender`; `when` it will be at the machines that it goes to."""
        table = self._table
        source = frame[1]
        if table.get(source) is not sender:
            table[source] = sender
        to = table.get(frame[0])
        world = self.world
        if to is not None:
            if to is not sender:
                then = to.receive if to.in_plain else to.limit_in
                heappush(world.heap, (when, next(world.order), then, frame))
            return
        for port in self.ports:
            if port is not sender and port.up:
                then = port.receive if port.in_plain else port.limit_in
                heappush(world.heap, (when, next(world.order), then, frame))

    def forget(self, port: Interface) -> None:
        """The port is down: what was learned there is not known any more."""
        self._table = {mac: at for mac, at in self._table.items() if at is not port}


def frame_bytes(frame: Frame) -> int:
    """Length of a frame on the wire."""
    if frame[2] == IP:
        return ETHERNET_BYTES + len(frame[3])
    return NEIGHBOUR_BYTES[len(frame[3].wanted)]


def _is_beside_ip(frame: Frame) -> bool:
    """ARP, and what passes by the kernel's IP layer."""
    return frame[2] == NEIGHBOUR and (len(frame[3].wanted) == 4 or frame[3].raw)
