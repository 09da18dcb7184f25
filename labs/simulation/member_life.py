"""One life of a member's process in the simulated world: the member, and the edges that it is given.

As `fwnode.node` does in the kernel's world, this gives the member (`fwnode.member`) what comes and the time, carries
out what it asks for (`fwnode.edges`), and decides nothing. Work takes modelled time: while the process is at it, or is
paused, packets and datagrams wait in the kernel's queues, which are as long as the real ones.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Generator
from math import inf
from typing import Any, cast

from fwnode.configuration import MemberConfig
from fwnode.control import protocol
from fwnode.control.conversation import Caller
from fwnode.edges import EdgeFigures, FullSyncEnd
from fwnode.firewall.policy import Policy
from fwnode.firewall.verdict import ACCEPT, Verdict
from fwnode.loaded_policy import Loaded
from fwnode.member import Member
from labs.simulation.kernel import Kernel
from labs.simulation.simulated_full_sync import SimulatedFullSyncStreams
from labs.simulation.wires import Interface, Neighbourly
from syncproto.release import Compatibility

PACKET_S = 4.3e-6
"""Seconds of a decision, with its share of the batch's system calls: 230,000 packets a second, measured with the
forwarding benchmark on the reference machine. So are the figures below."""
DATAGRAM_S = 40e-6
"""Of a datagram of the cluster protocol: read, check, decode."""
DATAGRAM_BYTE_S = 0.15e-6
"""Besides, for each of its bytes: about 10 µs for an update that is applied."""
SEND_S, SEND_BYTE_S = 15e-6, 0.1e-6
"""Of a datagram that is sent, and of its bytes: with the two above, 57,000 new connections a second and their updates
keep a pair as busy as they do there."""
TURN_S = 60e-6
"""Of a turn of the loop that does more than packets: timers, what is due, a heartbeat."""
SLICE_S = 0.5e-3
"""Work up to this far ahead is done at once, and its effect is sent when it is due: less than a tenth of a tick. What
comes to a process that is busier than that waits in a queue, where it can be lost, or come too late."""
QUEUE_LENGTH_MAX = 16_384
"""Packets that the kernel keeps for the process, as `fwnode.datapath.queue` asks it to."""
BATCH = 32
"""Waiting packets decided in a row."""
LOOK_S = 0.1
"""As `fwnode.node` looks at link states."""
SOCKET_BYTES = 425_984
"""Receive buffer of a datagram socket: twice `net.core.rmem_max` of a kernel that nobody has tuned."""
SOCKET_OVERHEAD_BYTES = 768
"""What the kernel counts besides for each datagram."""
ASKED_MAX = 256
"""Questions of neighbours that wait in a packet socket. Lab's own: more than a lab has hosts."""
PROGRESS_S = 1e-6
"""Two turns are so far apart at least, so that time goes on."""

PREROUTING, INPUT, FORWARD, OUTPUT = 0, 1, 2, 3
"""Hooks, by netfilter's numbers. A packet that is accepted before routing meets FORWARD next."""
Held = tuple[bytes, int, bytes, Interface | None]
"""A packet on its way: bytes, hook, destination, and the interface that it came in through."""


class MemberLife:
    """Implements `fwnode.edges.Edges`. `machine` is where it runs."""

    def __init__(
        self, machine: Kernel, config: MemberConfig, compatibility: Compatibility, loaded: Loaded
    ) -> None:
        self._machine = machine
        self._world = machine.world
        self._config = config
        self.paused = False
        self.over = False
        """It has ended, however: nothing is done any more."""
        self.answering = self._has_answered = False
        self._free_at = self._world.now
        """When the process has done what it is at."""
        self._packets: deque[Held] = deque()
        """Packets that wait for a decision."""
        self._inbox: deque[tuple[Callable[[Any], None], Any]] = deque()
        """What else waits, in the order in which it came."""
        self._questions_waiting = 0
        self._socket_bytes: Counter[tuple[int, str]] = Counter()
        self._pumping = False
        self._armed = inf
        self._lost_queue = self._lost_socket = 0
        self._sent_bytes = self._received_bytes = 0
        self._send_errors: Counter[str] = Counter()
        self._inspected: dict[int, frozenset[bytes]] = {}
        """Ports of inspected services as they stand in packets, by protocol."""
        sync = config.sync_interface
        self._sync_name = sync.name if sync else ""
        now = self._next_look = machine.wire()
        self.member = Member(config, compatibility, loaded, self, now=now, incarnation=int(now * 1e9))
        self._decide, self._decide_inspected = self.member.decide, self.member.decide_inspected
        self._epoch, self._rate = self.member.clock.epoch, self.member.clock.rate
        self._sharing = self.member.sharing
        self.hands_on = self._sharing is not None and self._sharing.hands_on
        self.divert(self.member.firewall.policy)
        self.streams = SimulatedFullSyncStreams(machine, self, config, compatibility)
        self._turn_at(self._world.now)

    # -- time -----------------------------------------------------------------------------------------------------

    def _turn_at(self, when: float) -> None:
        """The loop has something to do then, at the latest."""
        if when < self._armed:
            self._armed = when
            self._world.at(when, self._turn, when)

    def works(self, seconds: float) -> None:
        """The process is at something for so long."""
        self._free_at = max(self._free_at, self._world.now) + seconds

    def soon(self) -> None:
        """The loop has something to do, when it has done what it is at."""
        self._turn_at(max(self._free_at, self._world.now))

    def _turn(self, when: float) -> None:
        if when != self._armed or self.over:
            return
        self._armed = inf
        if self.paused:
            return
        member, now = self.member, self._machine.wire()
        self.works(TURN_S)
        member.look_at_time(now)
        if now >= self._next_look:
            self._next_look = now + LOOK_S
            for name, interface in self._machine.interfaces.items():
                member.set_interface(name, interface.up, now)
        member.advance(now)
        self.streams.advance(now)
        if member.stop_requested and member.stop(now):
            self._machine.ended("stopped")
            return
        wakeup = min(self._next_look, member.next_wakeup(), self.streams.next_wakeup())
        self._turn_at(max(self._machine.world_time(wakeup), self._world.now + PROGRESS_S))

    def leap(self, by_s: float) -> None:
        """Nothing happens for so long (`labs.simulation.leaping`): lab time goes on, and wire time stands."""
        clock = self.member.clock
        clock.epoch -= by_s * self._machine.drift
        self._epoch = clock.epoch
        self._armed += by_s

    def pause(self) -> None:
        """The process does not run any more; its kernel goes on taking what comes."""
        self.paused = True

    def resume(self) -> None:
        """It goes on where it was, with what has waited."""
        self.paused = False
        self.works(0.0)
        self._turn_at(self._world.now)
        self._pump_at(self._world.now)

    @property
    def waiting(self) -> int:
        """Packets that wait for a verdict."""
        return len(self._packets)

    def end(self) -> None:
        self.over = True
        self._packets.clear()
        self._inbox.clear()

    # -- work that waits ------------------------------------------------------------------------------------------

    def is_busy(self) -> bool:
        waits = bool(self._inbox or self._packets)
        return waits or self.paused or self._free_at > self._world.now + SLICE_S

    def _wait(self, function: Callable[[Any], None], argument: Any) -> None:
        self._inbox.append((function, argument))
        self._pump_at(self._free_at)

    def _pump_at(self, when: float) -> None:
        if not self._pumping and not self.paused and (self._packets or self._inbox):
            self._pumping = True
            self._world.at(when, self._pump)

    def _pump(self, _: object) -> None:
        """Everything else that waits, then some packets: neither keeps the other waiting for long."""
        self._pumping = False
        if self.over or self.paused:
            return
        self.member.look_at_time(self._machine.wire())
        waiting, self._inbox = self._inbox, deque()
        for function, argument in waiting:
            function(argument)
        packets = self._packets
        for _packet in range(min(BATCH, len(packets))):
            self._judge(*packets.popleft())
        self._pump_at(self._free_at)

    # -- packets --------------------------------------------------------------------------------------------------

    def receive_packet(self, packet: bytes, hook: int, destination: bytes, interface: Interface | None) -> None:
        """The kernel queues a packet for a decision."""
        if self._packets or self.paused or self._free_at > self._world.now + SLICE_S:
            if len(self._packets) >= QUEUE_LENGTH_MAX:
                self._lost_queue += 1
            else:
                self._packets.append((packet, hook, destination, interface))
                self._pump_at(self._free_at)
        else:
            self._judge(packet, hook, destination, interface)

    def _judge(self, packet: bytes, hook: int, destination: bytes, interface: Interface | None) -> None:
        machine, now, leaves = self._machine, self._world.now, self._free_at
        self._free_at = leaves = (leaves if leaves > now else now) + PACKET_S
        decide = self._decide
        if hook == PREROUTING:
            if member := self._whose(packet):
                machine.hand_on(packet, member, interface, leaves)
            else:
                self._judge(packet, FORWARD, destination, interface)
            return
        if self._inspected and hook == FORWARD and self._is_inspected(packet):
            decide = self._decide_inspected
        try:
            verdict = decide(packet, hook, (now * machine.drift + machine.offset_s - self._epoch) * self._rate)
        except Exception as error:  # as the kernel's edge: a packet that could not be decided on is dropped
            self.member.guard.failed("a decision about a packet", error)
            return
        if verdict is ACCEPT:
            machine.go_on(packet, hook, destination, leaves)
        else:
            self._settle(verdict, (packet, hook, destination, interface), leaves)

    def _settle(self, verdict: Verdict, what: Held, leaves: float) -> None:
        if verdict.hold and self.member.hold(what, self._machine.wire()):
            self._turn_at(leaves)  # what it changed is told at once
        elif verdict.accept:
            self._machine.go_on(what[0], what[1], what[2], leaves)
        elif verdict.reply:
            self._world.at(leaves, self._machine.send_beneath, verdict.reply)

    def _is_inspected(self, packet: bytes) -> bool:
        protocol, at = (packet[9], (packet[0] & 15) << 2) if packet[0] < 0x60 else (packet[6], 40)
        ports = self._inspected.get(protocol)
        return ports is not None and (packet[at : at + 2] in ports or packet[at + 2 : at + 4] in ports)

    def _whose(self, packet: bytes) -> int:
        """In load sharing by unicast: the number of the member that this packet is handed on to; 0: none."""
        assert self._sharing is not None
        return self._sharing.decide_whose(packet, 0, 0.0).mark & 0xFF

    # -- datagrams of the cluster protocol ------------------------------------------------------------------------

    def receive_datagram(self, peer: int, interface: str, data: bytes) -> None:
        if self._inbox or self.paused or self._free_at > self._world.now + SLICE_S:
            taken = len(data) + SOCKET_OVERHEAD_BYTES
            if self._socket_bytes[peer, interface] + taken <= SOCKET_BYTES:
                self._socket_bytes[peer, interface] += taken
                self._wait(self._take_waiting, (peer, interface, data))
            return
        self._take(peer, interface, data)

    def _take_waiting(self, what: tuple[int, str, bytes]) -> None:
        peer, interface, data = what
        self._socket_bytes[peer, interface] -= len(data) + SOCKET_OVERHEAD_BYTES
        self._take(peer, interface, data)

    def _take(self, peer: int, interface: str, data: bytes) -> None:
        if interface == self._sync_name:
            self._received_bytes += len(data)
        self.works(DATAGRAM_S + DATAGRAM_BYTE_S * len(data))
        now = self._machine.wire()
        self.member.guard.run("an answer to the network", self._hand_in, peer, interface, data, now, False)
        self.soon()

    def _hand_in(self, peer: int, interface: str, data: bytes, now: float, stale: bool) -> None:
        self.member.receive_datagram(peer, interface, data, now, stale=stale)

    def refused(self, peer: int) -> None:
        """A peer's machine has said that nobody listens there."""
        if not self.paused:
            self.member.peer_refused(peer, self._machine.wire())
            self.soon()

    def not_sent(self, interface: str, error: str) -> None:
        self._send_errors[f"{interface}: {error}"] += 1

    # -- neighbours -----------------------------------------------------------------------------------------------

    def overhear(self, message: Neighbourly, interface: Interface) -> None:
        """A question about the virtual addresses, at the process's packet socket."""
        if not self.paused:
            self._answer_neighbour((message, interface))
        elif self._questions_waiting < ASKED_MAX:
            self._questions_waiting += 1
            self._wait(self._answer_late, (message, interface))

    def _answer_late(self, what: tuple[Neighbourly, Interface]) -> None:
        self._questions_waiting -= 1
        self._answer_neighbour(what)

    def _answer_neighbour(self, what: tuple[Neighbourly, Interface]) -> None:
        if self.answering:
            message, interface = what
            self._machine.tell_virtual(interface, message.wanted, message if message.sender else None)

    # -- the operator ---------------------------------------------------------------------------------------------

    def request(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """A request to the control socket, answered as a caller of the real one gets it. Raises `RequestError`."""
        member, caller = self.member, Caller(self.member.handle, self.member.streams())
        member.look_at_time(self._machine.wire())
        result: Any = None
        for part in protocol.requests(command, arguments or {}):
            message = json.loads(json.dumps(part))
            answer = member.handle(message["command"], message["arguments"], caller)
            parts = [answer] if isinstance(answer, dict) else [*answer]
            result = protocol.put_together(iter(json.loads(json.dumps(parts))))
        self.soon()
        return result

    # -- what the member asks for (`fwnode.edges.Edges`) ----------------------------------------------------------

    def wall(self) -> float:
        return self._machine.date()

    def send(self, peer: int, interface: str, data: bytes) -> None:
        if interface == self._sync_name:
            self._sent_bytes += len(data)
        self.works(SEND_S + SEND_BYTE_S * len(data))
        self._machine.send_datagram(peer, interface, data)

    def answer(self, answering: bool) -> None:
        self.answering = answering
        self._has_answered |= answering

    def announce(self) -> None:
        for interface, addresses in self._machine.virtual.items():
            for address in addresses:
                if self.answering:
                    self._machine.tell_virtual(self._machine.interfaces[interface], address, None)
                elif self._has_answered:
                    self._machine.ask_virtual(self._machine.interfaces[interface], address)

    def divert(self, policy: Policy) -> None:
        ports: dict[int, set[bytes]] = {}
        for service in policy.inspected.values():
            assert service.protocol is not None
            for low, high in service.ports:
                of = ports.setdefault(service.protocol, set())
                of.update(port.to_bytes(2) for port in range(low, high + 1))
        self._inspected = {protocol: frozenset(of) for protocol, of in ports.items()}

    def restore_sharing(self) -> None:
        """Nothing is lost here when an interface goes down."""

    def open_stream(self, peer: int, port: int, end: FullSyncEnd) -> None:
        self.streams.open(peer, port, end)

    def drains(self, end: FullSyncEnd) -> bool:
        return self.streams.drains(end)

    def refuse_waiting(self, now: float) -> None:
        self.streams.refuse_waiting()
        waiting, self._inbox = self._inbox, deque()
        for function, argument in waiting:
            if function == self._take_waiting:
                peer, interface, data = argument
                self._socket_bytes[peer, interface] -= len(data) + SOCKET_OVERHEAD_BYTES
                self._hand_in(peer, interface, data, now, True)
            else:
                self._inbox.append((function, argument))

    def release(self, packet: object, accept: bool) -> None:
        data, hook, destination, _ = cast(Held, packet)
        if accept:
            self._machine.go_on(data, hook, destination, max(self._free_at, self._world.now))

    def keep_policy(self, policy: dict[str, Any], file: str, at: float) -> Generator[None, None, None]:
        yield
        self._machine.keep_policy(self._config, policy, file, at)

    def figures(self) -> EdgeFigures:
        return EdgeFigures(
            lost_queue=self._lost_queue,
            lost_socket=self._lost_socket,
            queue_buffer_bytes=SOCKET_BYTES,
            sent_bytes=self._sent_bytes,
            received_bytes=self._received_bytes,
            send_errors=self._send_errors,
        )

    def tell(self, event: dict[str, Any]) -> None:
        self._machine.told(event)

