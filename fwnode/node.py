"""The composition root: one member process.

Reads the configuration, wires firewall, cluster and sync engine to the queue, the wires and the control socket, and
runs one loop. Decides nothing itself: packets go to `Firewall.decide`, heartbeats to `Cluster`, sync messages to
`SyncEngine`; what they answer is carried out here.
"""

from __future__ import annotations

import logging
import os
import select
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fwnode import process, splits
from fwnode.clock import LabClock, wall_now, wire_now
from fwnode.cluster.membership import Cluster, Event, MemberState, PeerChanged, StateChanged
from fwnode.cluster.split_brain import PossibleSplit, SplitBrain
from fwnode.cluster.stopping import GracefulStop, Step
from fwnode.configuration import InterfaceModel, MemberConfig, load, load_releases
from fwnode.control.commands import Commands
from fwnode.control.server import ControlServer
from fwnode.control.watching import streams
from fwnode.datapath.addresses import VirtualAddress, place_on_loopback, prepare_kernel
from fwnode.datapath.interfaces import LinkStates
from fwnode.datapath.queue import HEADER_BYTES, PAYLOAD_BYTES, Overruns, PacketQueue
from fwnode.datapath.replies import Replies
from fwnode.datapath.rules import INSPECTION_QUEUE_NUMBER, QUEUE_NUMBER, DivertError, divert, remove
from fwnode.datapath.sharing import SHARING_QUEUE_NUMBER, undo
from fwnode.files import FileError
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.parameters import ParameterError, Parameters
from fwnode.firewall.policy import Policy
from fwnode.firewall.verdict import Verdict
from fwnode.guard import Guard
from fwnode.kept_policy import CONFIGURED, KeptPolicy, Loaded
from fwnode.links.datagrams import Datagrams, Wire
from fwnode.messages import Messages
from fwnode.neighbours import Neighbours
from fwnode.printable import printable
from fwnode.sharing import LoadSharing
from fwnode.sync import Synchroniser
from syncproto.errors import SyncError
from syncproto.joining import Joining
from syncproto.limits import SYNC_TICK_S
from syncproto.message import Heartbeat, Message
from syncproto.session import State as SessionState

EVENTS_MAX = 1_000
"""Events that a member remembers for those who ask later."""

log = logging.getLogger("fwnode")


class Node:
    """One member. Raises `FileError`, `DivertError` or `OSError` when it cannot start."""

    def __init__(self, config: MemberConfig, directory: Path, state: Path | None = None) -> None:
        self.config = config
        self.directory = directory
        self.started_at = wire_now()
        self.clock = LabClock(config.clock.rate, config.clock.epoch)
        if problem := self.clock.problem():
            raise FileError([f"clock.epoch: {problem}"])
        self.compatibility = load_releases(config.releases, directory)
        try:
            self.release = self.compatibility.release(config.release)
        except SyncError as error:
            raise FileError([f"release: {error}"]) from error
        self.kept = KeptPolicy((state or config.control_path.parent) / f"{config.member}.policy", config, directory)
        loaded = self.kept.load()
        policy, self.policy_origin = loaded.policy, loaded.origin
        self.parameters = Parameters(self.release.defaults)
        for name, value in config.parameters.items():
            self.parameters.set(name, value)
        self.firewall = Firewall(
            config.member,
            policy,
            self.parameters,
            control_addresses=frozenset(
                a.ip.packed for i in config.cluster.interfaces for own in i.members.values() for a in own
            ),
            virtual_addresses=frozenset(v.ip.packed for i in config.cluster.interfaces for v in i.virtual),
            timer_floor=self.clock.floor,
            bucket_width=max(1.0, self.clock.floor / 10),
            tick_s=SYNC_TICK_S * self.clock.rate,
            number=config.number,
        )
        now = wire_now()
        self.incarnation = time.monotonic_ns()
        """Grows from start to start, whatever the wall clock says; a machine that boots has been silent for longer than
        peers need to believe a smaller one."""
        joining = Joining()
        self.cluster = Cluster(
            config.number,
            config.peers,
            config.release,
            self.compatibility.newer,
            now=now,
            heartbeat_s=self.parameters["fwha_heartbeat_ms"] / 1000,
            dead_timeout_s=self.parameters["fwha_dead_timeout_ms"] / 1000,
            load_sharing=config.cluster.load_sharing,
            joining=joining,
        )
        self.sharing: LoadSharing | None = None
        self.cluster.policy_name = policy.name
        self.key = config.key.encode() or None
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS_MAX)
        self.events_number = 0
        self.guard = Guard(partial(self.event, "failure"), wire_now)
        tell = partial(self.event, "sync")
        self.messages = Messages(config.cluster.id, config.number, self.incarnation, self.key, tell)
        self._resting: list[int] = []
        """Sources that failed; they are looked at again at the next tick."""
        self._next_tick = self._next_expiry = now
        self._graceful = GracefulStop()
        self.stop_requested = False
        """Set by a signal; looked at once a turn, so that nothing is interrupted half-way."""
        self._selector = selectors.EpollSelector()
        self._poll = select.epoll()
        """The packets' queues, and the selector of everything else, which costs more: a packet does not wait for it."""
        self._open_edges()
        self._tell_policy(loaded)
        self.sync = Synchroniser(
            self,
            config,
            self.compatibility,
            self.firewall,
            self.clock,
            self._selector,
            joining,
            incarnation=self.incarnation,
            key=self.key,
            now=now,
        )

    # -- the edges -----------------------------------------------------------------------------------------------

    def _open_edges(self) -> None:
        interfaces = self.config.cluster.interfaces
        sync = self.config.sync_interface
        prepare_kernel([i.kernel_name for i in interfaces])
        self._replies = Replies()
        self._divert(self.firewall.policy)
        place_on_loopback([VirtualAddress(i.kernel_name, v) for i in interfaces for v in i.virtual])
        self.queues = [
            self._open_queue(QUEUE_NUMBER, self.firewall.decide, HEADER_BYTES),
            self._open_queue(INSPECTION_QUEUE_NUMBER, self.firewall.decide_inspected, PAYLOAD_BYTES),
        ]
        macs: dict[str, bytes] = {}
        if self.config.cluster.load_sharing:
            self.sharing = LoadSharing(self.config)
            self.firewall.sharing = self.sharing.decision
            macs = self.sharing.macs
            if self.sharing.hands_on:
                self.queues.append(self._open_queue(SHARING_QUEUE_NUMBER, self.sharing.decide_whose, HEADER_BYTES))
        self._poll.register(self._selector, select.EPOLLIN)
        self.neighbours = Neighbours(interfaces, macs, self._selector)
        self.datagrams = Datagrams(self.config.wires(), sync.name if sync else "")
        for wire in self.datagrams.wires:
            self._watch(wire.socket, partial(self._receive_datagrams, wire))
        self._links = LinkStates()
        tell = partial(self.event, "control")
        handle = Commands(self).handle
        self.control = ControlServer(self.config.control_path, self._selector, handle, streams(self), tell)

    def _open_queue(self, number: int, decide: Callable[[bytes, int, float], Verdict], copied: int) -> PacketQueue:
        queue = PacketQueue(number, decide, self._packet_time, self._replies.send, self._hold,
                            partial(self.guard.failed, "a decision about a packet"), copied)  # fmt: skip
        self._poll.register(queue, select.EPOLLIN)
        return queue

    def _divert(self, policy: Policy) -> None:
        """The kernel sends us the packets, those of services that this policy inspects with their payload."""
        interfaces = self.config.cluster.interfaces
        peers = [str(i.members[peer][0].ip) for i in interfaces for peer in self.config.peers.values()]
        divert([i.kernel_name for i in interfaces], peers, list(policy.inspected.values()))

    def overruns(self) -> Overruns:
        """Packets lost in front of us, in all queues."""
        return Overruns(*map(sum, zip(*(queue.overruns() for queue in self.queues), strict=True)))

    def _watch(self, source: Any, callback: Callable[[int], None], events: int = selectors.EVENT_READ) -> None:
        self._selector.register(source, events, callback)

    def _hold(self, queue: PacketQueue, packet_id: int) -> bool:
        """Whether a packet that changed the table is to wait for the other active members."""
        return self.sync.held.hold((queue, packet_id), wire_now(), others=bool(self.active_peers()))

    def active_peers(self) -> list[int]:
        """Peers that process traffic, too, and hear of our updates."""
        state = self.sync.engine.state
        return [n for n, peer in self.cluster.peers.items() if peer.state.forwards and state(n) is SessionState.OPEN]

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until a stop was requested and is done."""
        wakeup = self._next_tick
        # The last guard: what could not be done is tried again at a tick, and packets are served meanwhile.
        while not self.guard.run("a turn of the loop", self._serve, wakeup):
            wakeup = wire_now() + SYNC_TICK_S
        self.guard.run("the end", self._close)

    def _serve(self, wakeup: float) -> None:
        """The loop: wait for packets and others, at first until `wakeup`."""
        queues = {queue.fileno(): queue.run for queue in self.queues}
        now = wire_now()
        while not (self.stop_requested and self._stop(now)):
            only_packets = True
            for descriptor, _ in self._poll.poll(max(0.0, wakeup - now)):
                run_queue = queues.get(descriptor)
                if run_queue is not None:
                    try:
                        run_queue()
                    except Exception as error:
                        self._rest(descriptor, "a packet queue", error)
                    continue
                only_packets = False
                self._serve_others(descriptor)
            now = self._look_at_time()
            if only_packets and now < wakeup and not self.sync.held.unflushed:
                continue  # the next packet may wait already, and nothing else has happened
            if now >= self._next_expiry:
                self._expire(now)
            if now >= self._next_tick:
                self._tick(now)
            self._advance(now)
            wakeup, now = self._next_wakeup(), wire_now()

    def _serve_others(self, descriptor: int) -> None:
        """Everybody but the packets."""
        self._look_at_time()
        for key, mask in self._selector.select(0):
            try:
                key.data(mask)
            except Exception as error:
                self._rest(descriptor, "an answer to the network or the control socket", error)

    def _rest(self, descriptor: int, what: str, error: Exception) -> None:
        """It may fail again at once, and for ever: it has to wait until the next tick."""
        self.guard.failed(what, error)
        if descriptor not in self._resting:
            self._poll.unregister(descriptor)
            self._resting.append(descriptor)

    def _look_at_time(self) -> float:
        """Wire time, before anything is done at it: this member may not have run for so long that others forward."""
        now = wire_now()
        if now >= self.cluster.overdue_at:
            self.guard.run("waking up", self._woke, now)
        return now

    def _packet_time(self) -> float:
        """Lab time for the decisions on a batch of packets."""
        return self.clock.at(self._look_at_time())

    def _woke(self, now: float) -> None:
        """Nothing that waits from before may go on; what peers said meanwhile tells no longer what they do now."""
        self.cluster.woke(now)
        self._drain_cluster(now)
        for queue in self.queues:
            queue.refuse_waiting()
        self.sync.woke()
        for wire in self.datagrams.wires:
            for data in self.datagrams.receive_all(wire):
                self._receive_datagram(wire, data, now, stale=True)

    def _stop(self, now: float) -> bool:
        """In good order (`cluster.stopping`): the peers learn what this one knows, then that it leaves. True = done."""
        step = self._graceful.next(self.sync.settled, now)
        if step is Step.LEAVE:
            self.cluster.leave(now)
            self._drain_cluster(now)
            self.guard.run("the last updates", self.sync.flush, now, self.datagrams)
            return self._stop(now)
        if step is Step.END:
            self.guard.run("the farewell", self._send_heartbeat, self.cluster.leave(now))
        return step is Step.END

    def _next_wakeup(self) -> float:
        wakeups = [self._next_tick, self._next_expiry, self.cluster.next_wakeup(), self.sync.next_wakeup()]
        return min(w for w in wakeups if w is not None)

    def _tick(self, now: float) -> None:
        """Every sync tick: what changed goes out."""
        self._next_tick = now + SYNC_TICK_S
        while self._resting:
            self._poll.register(self._resting.pop(), select.EPOLLIN)
        run = self.guard.run
        for interface in self.config.cluster.interfaces:
            run("the check of an interface", self._check_interface, interface, now)
        if self.sharing is not None:
            run("the routes of load sharing", self.sharing.restore_routes, now)
        if not self.cluster.listening(now):  # it may be about to hear that its connections are another's
            run("delta sync", self.sync.flush, now, self.datagrams)
        self.cluster.split_brains.own_figures(len(self.firewall.connections), self.firewall.counters.created)
        run("the control socket", self.control.on_tick)

    def _check_interface(self, interface: InterfaceModel, now: float) -> None:
        was_up = self.cluster.interfaces.get(interface.name, True)
        is_up = self._links.is_up(interface.kernel_name)
        self.cluster.set_interface(interface.name, is_up, now)
        if is_up and not was_up and self.sharing is not None:
            self.sharing.interface_is_back()

    def _expire(self, now: float) -> None:
        """What is over goes away; if it is much, the rest in the next turn, so that packets come between."""
        self._next_expiry = now + SYNC_TICK_S
        if self.firewall.expire(self.clock.now()):
            self._next_expiry = now

    def _advance(self, now: float) -> None:
        """Give every protocol object the time, and carry out what they want: state first, then addresses."""
        run = self.guard.run
        self.cluster.on_wakeup(now)
        run("synchronisation", self.sync.advance, now, self.datagrams)
        self._drain_cluster(now)
        if self.cluster.announcing.due(now):
            run("the announcement of addresses", self.neighbours.announce)
        heartbeat = self.cluster.outgoing(now)
        if heartbeat is not None:
            run("a heartbeat", self._send_heartbeat, heartbeat)

    # -- cluster -------------------------------------------------------------------------------------------------

    def _send_heartbeat(self, heartbeat: Heartbeat) -> None:
        lab_now = self.clock.now()
        heartbeat = replace(heartbeat, cluster_time=self.firewall.connections.cluster_time.at(lab_now))
        if data := self.encode(heartbeat):
            self.datagrams.send_everywhere(data, self.peer_refused)

    def peer_refused(self, peer: int) -> None:
        """A peer's machine said that nobody listens there."""
        self.cluster.peer_refused(peer, wire_now())

    def encode(self, message: Message) -> bytes:
        """Nothing where it cannot be said."""
        try:
            return self.messages.encode(message)
        except SyncError as error:
            self.guard.failed("a message to the peers", error)
            return b""

    def _receive_datagrams(self, wire: Wire, _mask: int) -> None:
        now = wire_now()
        for data in self.datagrams.receive(wire, self.peer_refused):
            self._receive_datagram(wire, data, now)

    def _receive_datagram(self, wire: Wire, data: bytes, now: float, *, stale: bool = False) -> None:
        """`stale`: it may have come long ago, so it does not tell what its sender does now."""
        envelope = self.messages.read(data, wire)
        if envelope is None:
            return
        if wire.sync and not stale:
            self.cluster.sync_network.heard(wire.peer, now)
        if not isinstance(envelope.message, Heartbeat):
            self.sync.receive(envelope, now)
        elif not stale:
            self.firewall.connections.cluster_time.heard(envelope.message.cluster_time, self.clock.now())
            self.cluster.receive_heartbeat(envelope.sender, envelope.incarnation, envelope.message, now)

    def _drain_cluster(self, now: float) -> None:
        while (event := self.cluster.next_event()) is not None:
            self.guard.run("a change in the cluster", self._carry_out, event, now)

    def _carry_out(self, event: Event, now: float) -> None:
        if isinstance(event, StateChanged):
            self._state_changed(event)
        elif isinstance(event, PeerChanged):
            self._peer_changed(event, now)
        elif isinstance(event, SplitBrain | PossibleSplit):
            self.event("log", splits.words(event, self.config.peers[event.peer]), peer=self.config.peers[event.peer])
        else:
            self.sync.reach_changed(event, now)

    def _state_changed(self, event: StateChanged) -> None:
        # State first, then address: what peers sent was applied before this; now neighbours may send packets here.
        self.firewall.forwarding = event.new.forwards
        if event.new.forwards and not event.old.forwards:
            self.firewall.connections.visit_all()  # peers must hear of what this member sees from now on
        self.event("state", f"{event.old.label} -> {event.new.label}: {event.reason}", state=event.new.label)
        if event.new.forwards and not event.old.forwards and (lacks := self.sync.lacks()):
            self.event("log", f"{event.new.label} although its full sync was incomplete: {lacks}")
        self._share_out()
        self._answer()

    def _answer(self) -> None:
        """Answer for the virtual addresses where this member is to."""
        self.neighbours.answer(self.firewall.forwarding and (self.sharing is None or self.sharing.answers))

    def _share_out(self) -> bool:
        """In load sharing: the active members share all packets out among themselves. True when that has changed."""
        return self.sharing is not None and self.sharing.set_active(self.cluster.active_members())

    def _peer_changed(self, event: PeerChanged, now: float) -> None:
        name = self.config.peers[event.peer]
        reason = f": {event.reason}" if event.reason else ""
        self.event("peer", f"{name} is {event.new.label}{reason}", peer=name, state=event.new.label)
        if self._share_out():
            self._answer()
        if event.new is MemberState.LOST:
            self.sync.engine.peer_lost(event.peer, now)
        elif event.old is MemberState.LOST:
            self.sync.engine.peer_found(event.peer, now)

    def full_sync_ended(self) -> None:
        """The first full sync is over, one way or another: the cluster may go on."""
        self.cluster.on_wakeup(wire_now())

    # -- operator ------------------------------------------------------------------------------------------------

    def set_parameter(self, name: str, value: int) -> None:
        """Until the member stops. Raises `ParameterError`, and changes nothing, when it is not legal."""
        self.parameters.set_running(name, value)
        self.cluster.heartbeat_s = self.parameters["fwha_heartbeat_ms"] / 1000
        self.cluster.dead_timeout_s = self.parameters["fwha_dead_timeout_ms"] / 1000
        self.sync.parameters_changed(wire_now())
        self.event("parameter", f"kernel parameter {name} is now {self.parameters[name]}")

    def _tell_policy(self, loaded: Loaded) -> None:
        """At the start: when it is not simply the configuration's."""
        if loaded.problem:
            self.event("policy", loaded.problem)
        if loaded.problem or loaded.origin != CONFIGURED:
            self.event("policy", f"policy {loaded.policy.name} is loaded, {loaded.origin}")

    def install_policy(self, policy: Policy) -> None:
        """Raises `DivertError`, and changes nothing, when the kernel refuses the rules that the policy needs."""
        if policy.inspected != self.firewall.policy.inspected:
            self._divert(policy)
        self.firewall.install(policy)
        self.cluster.policy_name = policy.name
        self.event("policy", f"policy {policy.name} installed: {len(policy.rules)} rules")

    def event(self, kind: str, text: str, **details: Any) -> None:
        """Something that an operator would want to know; kept, logged, and sent to those who follow."""
        event = {
            "at": wall_now(),
            "lab_time": self.clock.now(),
            "member": self.config.member,
            "kind": kind,
            "text": text,
            **details,
        }
        self.events.append(event)
        self.events_number += 1
        log.info("%s: %s", kind, printable(text))

    def _close(self) -> None:
        self.control.close()
        for queue in self.queues:
            queue.close()
        self.neighbours.close()
        self.datagrams.close()
        self.sync.close()
        self._replies.close()
        self._links.close()


def main() -> None:
    """`fwnode --config FILE`: run one member until SIGTERM. Exit 2: the configuration; 4: the machine."""
    options = process.arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if options.remove_rules:
        remove()
        undo()
        return
    try:
        config = load(options.config)
        if options.check:
            config.load_policy(options.config.parent)
            load_releases(config.releases, options.config.parent).release(config.release)
            return
        process.raise_file_limit()
        node = Node(config, options.config.parent, options.state)
    except (FileError, ParameterError, SyncError) as error:
        print(f"fwnode: {error}", file=sys.stderr)
        sys.exit(2)
    except (DivertError, OSError) as error:
        print(f"fwnode: cannot start: {error}. It needs CAP_NET_ADMIN and NFQUEUE; see `fwlab doctor`", file=sys.stderr)
        sys.exit(4)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(node, "stop_requested", True))
    process.spare_what_lives_long()
    node.run()


if __name__ == "__main__":
    os.umask(0o077)
    main()
