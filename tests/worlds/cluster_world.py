"""Two to five members in virtual time, on machines whose networks and processes can fail. Helper of these tests.

Each machine has the networks `lan`, `wan` and `sync`; heartbeats travel on each that is up at both ends. A machine
whose member is gone refuses heartbeats; one without power says nothing. Time jumps from event to event, and a member
that never goes idle fails the test.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from math import inf

from fwnode.cluster.membership import Cluster, MemberState, StateChanged
from fwnode.cluster.split_brain import PossibleSplit, SplitBrain
from fwnode.cluster.sync_network import Reach, ReachChanged
from fwnode.configuration import load_releases
from syncproto.events import FullSyncDone
from syncproto.joining import Begin, Joining
from syncproto.message import Heartbeat
from syncproto.release import Compatibility, Exchange, Gate

NETWORKS = ("lan", "wan", "sync")
LATENCY_S = 0.001
TURNS_MAX = 50
"""Turns of one member's loop without time moving on, after which it counts as spinning."""
KNOWN_WITHIN_S = 3.5
"""The dead timer, two heartbeats, and what it takes until the other end has said so for long enough."""
OPEN = Gate(Exchange.FULL, "", 2)


@cache
def releases() -> Compatibility:
    return load_releases("")


@dataclass
class Machine:
    number: int
    powered: bool = True
    release: str = "R77.30"
    cluster: Cluster | None = None
    joining: Joining = field(default_factory=Joining)
    down: set[str] = field(default_factory=set)
    """Networks that this machine is cut from."""
    frozen: bool = False
    """Its process does not run: neither time nor news reach it."""
    life: int = 0
    """Which of its processes runs; news of an earlier one are void."""
    incarnation: int = 0


class World:
    def __init__(
        self,
        members: int = 2,
        *,
        full_sync_s: float = 0.05,
        load_sharing: bool = False,
        heartbeats_s: Mapping[int, float] | None = None,
    ) -> None:
        self.now = 100.0
        self.heartbeats_s = heartbeats_s or {}
        """Of members whose interval is not the default."""
        self.load_sharing = load_sharing
        self.machines = {n: Machine(n) for n in range(1, members + 1)}
        self.severed: set[frozenset[int]] = set()
        self.deaf: set[tuple[int, int]] = set()
        """(a, b): a hears nothing of b."""
        self.no_sync: set[tuple[int, int]] = set()
        """(a, b): nothing of a reaches b over the sync network."""
        self.no_lan: set[tuple[int, int]] = set()
        """(a, b): nothing of a reaches b over `lan`."""
        self.full_sync_s = full_sync_s
        self.history: list[str] = []
        self.joins: list[tuple[int, int]] = []
        self.reaches: list[str] = []
        """What members said of the sync network, and of the users' networks."""
        self.splits: list[tuple[int, SplitBrain | PossibleSplit]] = []
        """Who told what of split brains."""
        self.announced: list[tuple[float, int, bool]] = []
        """When, who, and whether it forwarded: if not, it asked who has the virtual addresses."""
        self._queue: list[tuple[float, int, str, tuple[object, ...]]] = []
        self._order = count()
        self._start = self.now

    # -- what an operator and fate do ----------------------------------------------------------------------------

    def start(self, *numbers: int, release: str = "", step: int = 1) -> None:
        """`step`: what the incarnation grows by; below 0 where the machine's idea of the time was set back."""
        for number in numbers or self.machines:
            machine = self.machines[number]
            machine.powered = True
            machine.release = release or machine.release
            machine.life += 1
            machine.incarnation += step
            peers = {n: f"fw{n}" for n in self.machines if n != number}
            machine.joining = Joining()
            machine.cluster = Cluster(
                number, peers, machine.release, releases().newer, now=self.now,
                load_sharing=self.load_sharing, joining=machine.joining, user_networks=("lan", "wan"),
                heartbeat_s=self.heartbeats_s.get(number, 0.1),
            )  # fmt: skip
            for network in NETWORKS:
                machine.cluster.set_interface(network, network not in machine.down, self.now)
            self._turn(machine)

    def stop(self, number: int) -> None:
        """In good order: the peers are told."""
        cluster = self.cluster(number)
        farewell = cluster.leave(self.now)
        self._note(self.machines[number])
        self._broadcast(self.machines[number], farewell)
        self.machines[number].cluster = None

    def kill(self, number: int) -> None:
        """The process is gone; its machine refuses what is sent to it."""
        self.machines[number].cluster = None

    def power_cut(self, number: int) -> None:
        self.machines[number].cluster = None
        self.machines[number].powered = False

    def freeze(self, number: int) -> None:
        self.machines[number].frozen = True

    def thaw(self, number: int) -> None:
        """It runs again; what came meanwhile waits no longer."""
        machine = self.machines[number]
        machine.frozen = False
        cluster = self.cluster(number)
        if self.now >= cluster.overdue_at:
            cluster.woke(self.now)
        self._turn(machine)

    def device(self, number: int, name: str, problem: str) -> None:
        self.cluster(number).set_device(name, problem, self.now)
        self._turn(self.machines[number])

    def admin_down(self, number: int) -> None:
        self.device(number, "admin_down", "the administrator has put this member down")

    def admin_up(self, number: int) -> None:
        self.cluster(number).unregister_device("admin_down", self.now)
        self._turn(self.machines[number])

    def interface(self, number: int, network: str, up: bool) -> None:
        machine = self.machines[number]
        (machine.down.discard if up else machine.down.add)(network)
        if machine.cluster is not None:
            machine.cluster.set_interface(network, up, self.now)
            self._turn(machine)

    def partition(self, *groups: Iterable[int]) -> None:
        """Only members of one group hear each other; no argument heals everything. The links stay up."""
        together = [set(group) for group in groups]
        self.severed = {
            frozenset((a, b))
            for a in self.machines
            for b in self.machines
            if a < b and groups and not any({a, b} <= group for group in together)
        }

    # -- what is seen ------------------------------------------------------------------------------------------------

    def cluster(self, number: int) -> Cluster:
        cluster = self.machines[number].cluster
        assert cluster is not None, f"fw{number} does not run"
        return cluster

    def running(self) -> Iterator[Cluster]:
        return (m.cluster for m in self.machines.values() if m.cluster is not None)

    @property
    def states(self) -> str:
        """`1 Active, 2 Standby, 3 -`; a member that does not run has a dash."""
        labels = (f"{n} {m.cluster.state.label if m.cluster else '-'}" for n, m in self.machines.items())
        return ", ".join(labels)

    def forwarding(self) -> list[int]:
        return [c.number for c in self.running() if c.state.forwards]

    def sees(self, number: int, peer: int) -> str:
        """The state in which one member shows another."""
        cluster = self.cluster(number)
        return cluster.visible_state(cluster.peers[peer]).label

    def forget(self) -> None:
        """Begin a new history; its times count from here."""
        self.history, self._start = [], self.now

    # -- the world's clockwork -----------------------------------------------------------------------------------------

    def run(self, seconds: float) -> str:
        """Let time pass; returns the states at its end."""
        end = self.now + seconds
        while True:
            awake = [m for m in self.machines.values() if m.cluster is not None and not m.frozen]
            wakeups = [m.cluster.next_wakeup() for m in awake if m.cluster]
            next_at = min([*wakeups, *(self._queue[0][:1] if self._queue else ())], default=inf)
            if next_at > end:
                break
            self.now = max(self.now, next_at)
            self._deliver()
            for machine in self.machines.values():
                if machine.cluster and not machine.frozen and machine.cluster.next_wakeup() <= self.now:
                    self._turn(machine)
        self.now = end
        return self.states

    def _turn(self, machine: Machine) -> None:
        """What the node's loop does: give the time, take events and heartbeats, until the member is idle."""
        cluster = machine.cluster
        assert cluster is not None
        for _ in range(TURNS_MAX):
            cluster.on_wakeup(self.now)
            self._join(machine)
            self._note(machine)
            if cluster.announcing.due(self.now):
                self.announced.append((self.now, machine.number, cluster.state.forwards))
            heartbeat = cluster.outgoing(self.now)
            if heartbeat is not None:
                self._broadcast(machine, heartbeat)
            if cluster.next_wakeup() > self.now:
                return
        raise AssertionError(f"fw{machine.number} never goes idle in state {cluster.state.label}")

    def _join(self, machine: Machine) -> None:
        """What the member's synchronisation does: a full sync takes its time, and is complete."""
        machine.joining.on_wakeup(self.now, lambda peer: OPEN, False)
        while (event := machine.joining.next_event()) is not None:
            if isinstance(event, Begin):
                self.joins.append((machine.number, event.peer))
                done = FullSyncDone(event.peer, 0, event.attempt)
                self._later(self.full_sync_s, "full_sync_ended", machine.number, machine.life, done)

    def _note(self, machine: Machine) -> None:
        assert machine.cluster is not None
        while (event := machine.cluster.next_event()) is not None:
            if isinstance(event, SplitBrain | PossibleSplit):
                self.splits.append((machine.number, event))
            elif isinstance(event, StateChanged):
                at = f"{self.now - self._start:.1f}"
                self.history.append(f"{at} fw{machine.number} {event.old.label} -> {event.new.label}: {event.reason}")
            elif isinstance(event, ReachChanged):
                at = f"{self.now - self._start:.1f}"
                network = f"{event.network} " if event.network else ""
                self.reaches.append(f"{at} {network}fw{machine.number} with {event.peer}: {event.reach}")

    def _later(self, seconds: float, what: str, *arguments: object) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._order), what, arguments))

    def _broadcast(self, sender: Machine, heartbeat: Heartbeat) -> None:
        for network in NETWORKS:
            for receiver in self.machines.values():
                if receiver is not sender:
                    self._later(
                        LATENCY_S, "heartbeat", sender.number, sender.life, sender.incarnation, receiver.number,
                        network, heartbeat,
                    )  # fmt: skip

    def _deliver(self) -> None:
        while self._queue and self._queue[0][0] <= self.now:
            _, _, what, arguments = heapq.heappop(self._queue)
            getattr(self, f"_on_{what}")(*arguments)

    def _connected(self, a: int, b: int, network: str) -> bool:
        ends = self.machines[a], self.machines[b]
        return frozenset((a, b)) not in self.severed and all(m.powered and network not in m.down for m in ends)

    def _on_heartbeat(
        self, sender: int, life: int, incarnation: int, receiver: int, network: str, heartbeat: Heartbeat
    ) -> None:
        if not self._connected(sender, receiver, network) or (receiver, sender) in self.deaf:
            return
        if (sender, receiver) in {"sync": self.no_sync, "lan": self.no_lan}.get(network, ()):
            return
        there = self.machines[receiver]
        if there.frozen:
            return
        if there.cluster is not None:
            if network == "sync":
                there.cluster.sync_network.heard(sender, self.now)
            else:
                there.cluster.user_networks.heard(network, sender, self.now)
            there.cluster.receive_heartbeat(sender, incarnation, heartbeat, self.now)
            self._turn(there)
        elif not heartbeat.leaving:
            self._later(LATENCY_S, "refusal", sender, life, receiver, network)

    def _on_refusal(self, sender: int, life: int, receiver: int, network: str) -> None:
        here = self.machines[sender]
        if here.cluster is not None and here.life == life and self._connected(sender, receiver, network):
            here.cluster.peer_refused(receiver, self.now)
            self._turn(here)

    def _on_full_sync_ended(self, number: int, life: int, done: FullSyncDone) -> None:
        machine = self.machines[number]
        if machine.cluster is not None and machine.life == life:
            machine.joining.receive_event(done, self.now)
            self._turn(machine)


def reach(world: World, number: int, peer: int) -> Reach:
    return world.cluster(number).sync_network.reach(peer)


def broken(world: World, number: int, name: str = "lan") -> dict[int, Reach]:
    return world.cluster(number).user_networks.broken(name)


def pair(state: str = "1 Active, 2 Standby") -> World:
    """Two members that have been up for a while."""
    world = World(2)
    world.start()
    assert world.run(2.0) == state
    world.forget()
    return world


__all__ = ["KNOWN_WITHIN_S", "MemberState", "World", "broken", "pair", "reach", "releases"]
