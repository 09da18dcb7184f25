"""Members in virtual time, for tests without a kernel: a small network in memory that implements `fwnode.edges.Edges`.

A machine is given something (a datagram, a packet, a command), and then its member the time, as `fwnode.node` does it.
What it sends comes `LATENCY_S` later; nothing is lost but over what was cut. A failure that a member would count and go
on with fails the test at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterable
from ipaddress import ip_address
from itertools import count
from struct import pack
from typing import Any

from fwnode.configuration import MemberConfig, load_releases
from fwnode.control.conversation import Caller
from fwnode.control.protocol import put_together
from fwnode.edges import DivertError, EdgeFigures, FullSyncEnd
from fwnode.firewall.policy import Policy
from fwnode.firewall.verdict import Hook, Verdict
from fwnode.loaded_policy import Loaded
from fwnode.member import Member
from fwnode.policy_file import build_policy

LATENCY_S = 0.001
RELEASES = load_releases("")
POLICY: dict[str, Any] = {"name": "standard", "rules": [{"action": "accept"}]}
SYN, ACK, FIN = 0x02, 0x10, 0x01


def config(name: str, members: int = 2, **given: Any) -> MemberConfig:
    """fw1, fw2, ... on `lan`, with a virtual address, and `sync`."""
    names = [f"fw{number}" for number in range(1, members + 1)]
    lan = {member: [f"192.0.2.{number}/24"] for number, member in enumerate(names, 11)}
    sync = {member: [f"203.0.113.{number}/24"] for number, member in enumerate(names, 1)}
    interfaces = [
        {"name": "lan", "virtual": ["192.0.2.1/24"], "members": lan},
        {"name": "sync", "sync": True, "members": sync},
    ]
    cluster = {"interfaces": interfaces, **given.pop("cluster", {})}
    return MemberConfig.model_validate(
        {"member": name, "release": "R77.30", "policy": POLICY, "cluster": cluster, **given}
    )


def tcp(flags: int, port: int = 40001, *, back: bool = False) -> bytes:
    """A segment of client to server, or back; only what a firewall looks at is right."""
    client, server = (ip_address(a).packed for a in ("192.0.2.100", "198.51.100.100"))
    source, destination, ports = (server, client, (80, port)) if back else (client, server, (port, 80))
    header = pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, source, destination)
    return header + pack("!HHIIBBHHH", *ports, 0, 0, 0x50, flags, 8192, 0, 0)


class Line:
    """One side of a full sync's stream."""

    def __init__(self, machine: Machine, end: FullSyncEnd, *, accepted: bool = False) -> None:
        self.machine = machine
        self.end = end
        self.accepted = accepted
        self.other: Line | None = None

    def receive(self, data: bytes) -> None:
        if self in self.machine.lines:
            self.end.receive_data(data, self.machine.world.now)

    def lost(self) -> None:
        if self in self.machine.lines:
            self.end.connection_lost("Connection terminated by remote member")

    def pump(self) -> None:
        world = self.machine.world
        while self.other is not None and (data := self.end.outgoing(world.now)):
            if "sync" not in world.cut:
                world.at(LATENCY_S, self.other.machine, self.other.receive, data)
        if self.end.finished or self.end.failed:
            self.close()
            self.machine.member.stream_ended(self.end, world.now)

    def close(self) -> None:
        self.machine.lines.remove(self)
        if self.other is not None and "sync" not in self.machine.world.cut:
            self.machine.world.at(LATENCY_S, self.other.machine, self.other.lost)


class Machine:
    """The machine of one member. What it was asked to do is kept in its attributes."""

    def __init__(self, world: World, configured: MemberConfig) -> None:
        self.world = world
        self.config = configured
        self.name, self.number = configured.member, configured.number
        self.running = True
        self.waiting: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        """What came while the process did not run."""
        self.lines: list[Line] = []
        self.answering = False
        self.announced = 0
        self.diverted: list[Policy] = []
        self.released: list[tuple[object, bool]] = []
        self.kept: list[str] = []
        self.told: list[dict[str, Any]] = []
        self.refuses_streams = 0
        """How many streams cannot be opened."""
        self.refuses_rules = False
        self.drains_until = 0.0
        """Until then the kernel still sends what it was given of full syncs."""
        loaded = Loaded(build_policy(configured.policy, "policy", frozenset(configured.members)))
        self.member = Member(configured, RELEASES, loaded, self, now=world.now, incarnation=world.next_incarnation())
        self.member.guard.fatal = True

    def turn(self, action: Callable[..., object], *arguments: Any) -> None:
        """One turn of a loop: what has come, and then the time."""
        if not self.running:
            self.waiting.append((action, arguments))
            return
        now = self.world.now
        self.member.look_at_time(now)
        action(*arguments)
        self.member.advance(now)
        for line in list(self.lines):
            line.pump()

    # -- what the member asks for --------------------------------------------------------------------------------

    def wall(self) -> float:
        return 1e9 + self.world.now

    def send(self, peer: int, interface: str, data: bytes) -> None:
        other = self.world.machines.get(peer)
        if other is not None and interface not in self.world.cut:
            self.world.at(LATENCY_S, other, other.receive, self.number, interface, data)

    def receive(self, peer: int, interface: str, data: bytes) -> None:
        self.member.receive_datagram(peer, interface, data, self.world.now)

    def answer(self, answering: bool) -> None:
        self.answering = answering

    def announce(self) -> None:
        self.announced += 1

    def divert(self, policy: Policy) -> None:
        if self.refuses_rules:
            raise DivertError("the kernel refuses the rules")
        self.diverted.append(policy)

    def restore_sharing(self) -> None: ...

    def open_stream(self, peer: int, port: int, end: FullSyncEnd) -> None:
        assert port == RELEASES.release("R77.30").full_sync_port
        if self.refuses_streams:
            self.refuses_streams -= 1
            raise OSError(99, "Cannot assign requested address")
        line = Line(self, end)
        self.lines.append(line)
        other = self.world.machines[peer]
        self.world.at(0.0, other, other.let_in, line)

    def let_in(self, line: Line) -> None:
        end = self.member.accept_stream(f"203.0.113.{line.machine.number}", self.world.now)
        assert end is not None
        line.other = Line(self, end, accepted=True)
        line.other.other = line
        self.lines.append(line.other)
        self.world.at(LATENCY_S, line.machine, line.pump)

    def drains(self, end: FullSyncEnd) -> bool:
        return self.world.now < self.drains_until

    def refuse_waiting(self, now: float) -> None:
        for line in [line for line in self.lines if line.accepted]:
            line.close()
        waiting, self.waiting = self.waiting, []
        for action, arguments in waiting:
            if action == self.receive:
                self.member.receive_datagram(*arguments, now, stale=True)

    def release(self, packet: object, accept: bool) -> None:
        self.released.append((packet, accept))

    def keep_policy(self, policy: dict[str, Any], file: str, at: float) -> Generator[None, None, None]:
        yield
        self.kept.append(file)

    def figures(self) -> EdgeFigures:
        return EdgeFigures(sent_bytes=17)

    def tell(self, event: dict[str, Any]) -> None:
        self.told.append(event)

    # -- what tests do -------------------------------------------------------------------------------------------

    def packet(self, data: bytes, hook: Hook = Hook.FORWARD) -> Verdict:
        """The verdict on a packet; one that is to wait is held under its own bytes."""
        verdicts: list[Verdict] = []

        def decide() -> None:
            verdict = self.member.decide(data, hook, self.member.clock.at(self.world.now))
            if verdict.hold and not self.member.hold(data, self.world.now):
                verdict = Verdict(True)
            verdicts.append(verdict)

        self.turn(decide)
        return verdicts[0]

    def ask(self, command: str, **arguments: Any) -> Any:
        """The whole answer to a command."""
        answers: list[Any] = []

        def answer() -> None:
            given = self.member.handle(command, arguments, Caller(self.member.handle, self.member.streams()))
            answers.append(given if isinstance(given, dict) else put_together(iter(given)))

        self.turn(answer)
        return answers[0]

    def freeze(self) -> None:
        self.running = False

    def thaw(self) -> None:
        """The process runs again, with everything that has come meanwhile before it."""
        self.running = True
        self.turn(lambda: None)
        waiting, self.waiting = self.waiting, []
        for action, arguments in waiting:
            self.turn(action, *arguments)

    def stop(self) -> None:
        """In good order; the machine stays, without a member."""
        self.member.stop_requested = True
        self.world.run_until(lambda: self.member.stop(self.world.now))
        del self.world.machines[self.number]

    @property
    def state(self) -> str:
        return self.member.cluster.state.label

    def sees(self, other: Machine) -> str:
        """The state in which this member sees another."""
        return self.member.cluster.peers[other.number].state.label

    def texts(self) -> list[str]:
        return [event["text"] for event in self.told]


class World:
    """Machines by their number, and the time. `run` and `run_until` let it pass."""

    def __init__(self, names: Iterable[str] = ("fw1", "fw2"), **given: Any) -> None:
        self.now = 1_000.0
        self.cut: set[str] = set()
        """Interfaces over which nothing comes."""
        self._heap: list[tuple[float, int, Machine, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = count()
        self._given = given
        self.machines: dict[int, Machine] = {}
        for name in names:
            self.start(name)

    def next_incarnation(self) -> int:
        return next(self._numbers) + 1

    def start(self, name: str) -> Machine:
        machine = Machine(self, config(name, **self._given))
        self.machines[machine.number] = machine
        return machine

    def at(self, after_s: float, machine: Machine, action: Callable[..., object], *arguments: Any) -> None:
        heapq.heappush(self._heap, (self.now + after_s, next(self._numbers), machine, action, arguments))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._step(until):
            pass
        self.now = until

    def run_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        until = self.now + seconds
        while not condition():
            assert self._step(until), f"not within {seconds} s of virtual time"

    def _step(self, until: float) -> bool:
        """The next thing that happens; False when that is after `until`."""
        awake = [machine for machine in self.machines.values() if machine.running]
        wakeup, machine = min(((m.member.next_wakeup(), m) for m in awake), key=lambda w: w[0], default=(until, None))
        comes = self._heap[0][0] if self._heap else until + 1.0
        if min(wakeup, comes) > until or (machine is None and not self._heap):
            return False
        self.now = max(self.now, min(wakeup, comes))
        if comes <= wakeup:
            _, _, there, action, arguments = heapq.heappop(self._heap)
            if self.machines.get(there.number) is there:
                there.turn(action, *arguments)
        elif machine is not None:
            machine.turn(lambda: None)
        return True


def alone() -> Member:
    """A member that forwards, alone, and has heard nobody."""
    made = World(["fw1"]).machines[1].member
    made.firewall.forwarding = True
    return made
