"""A member as it works by itself: firewall, cluster and synchronisation, and what they do to each other. Pure.

Bytes, packets, link states and the time come in as arguments; verdicts come out as values, everything else through
`fwnode.edges`. `fwnode.member` adds what an operator may ask it and tell it.

Whatever a member calls may fail: its `guard` counts that, and the member goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

from fwnode import split_brain_words
from fwnode.cluster.membership import Cluster, ClusterEvent, MemberState, PeerChanged, StateChanged
from fwnode.cluster.split_brain import PossibleSplit, SplitBrain
from fwnode.cluster.stopping import GracefulStop, StopStep
from fwnode.cluster.sync_network import ReachChanged
from fwnode.configuration import MemberConfig
from fwnode.edges import Edges, FullSyncEnd
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.parameters import Parameters
from fwnode.firewall.policy import Policy
from fwnode.guard import Guard
from fwnode.lab_clock import LabClock
from fwnode.load_sharing import LoadSharing
from fwnode.loaded_policy import CONFIGURED, Loaded
from fwnode.messages import Messages
from fwnode.synchronising import Synchroniser
from syncproto.engine import SyncEngine
from syncproto.errors import SyncError
from syncproto.full import FullSource
from syncproto.joining import Joining
from syncproto.limits import SYNC_TICK_S
from syncproto.message import Heartbeat, Message
from syncproto.release import Compatibility
from syncproto.session import SessionState

EVENTS_MAX = 1_000
"""Events that a member remembers for those who ask later."""
ROUTES_AGAIN_S = 1.0
"""Wire seconds after which routes that could not be made are tried again: each try takes some milliseconds."""


class Core:
    """Times are wire seconds. `look_at_time(now)` comes before anything else that is done at `now`, and once more
    before packets that were decided on are let go. `next_wakeup()` may change after every call that takes `now`."""

    def __init__(
        self,
        config: MemberConfig,
        compatibility: Compatibility,
        loaded: Loaded,
        edges: Edges,
        *,
        now: float,
        incarnation: int,
    ) -> None:
        """`incarnation` grows from start to start. Raises `SyncError` for a release that is not known."""
        self.config = config
        self.edges = edges
        self.now = self.started_at = now
        """Wire time, as it was told last."""
        self.clock = LabClock(config.clock.rate, config.clock.epoch)
        self.policy_origin = loaded.origin
        self.parameters = Parameters(compatibility.release(config.release).defaults)
        for name, value in config.parameters.items():
            self.parameters.set(name, value)
        self.firewall = self._make_firewall(loaded.policy)
        self.decide = self.firewall.decide
        """The verdict on a packet: headers, hook, lab time."""
        self.decide_inspected = self.firewall.decide_inspected
        """The same for one that comes with its payload, of a service that the policy inspects."""
        joining = Joining()
        self.cluster = Cluster(
            config.number,
            config.peers,
            config.release,
            compatibility.newer,
            now=now,
            heartbeat_s=self.parameters["fwha_heartbeat_ms"] / 1000,
            dead_timeout_s=self.parameters["fwha_dead_timeout_ms"] / 1000,
            load_sharing=config.cluster.load_sharing,
            joining=joining,
            user_networks=[interface.name for interface in config.cluster.interfaces if not interface.sync],
        )
        self.cluster.policy_name = loaded.policy.name
        self.sharing: LoadSharing | None = None
        if config.cluster.load_sharing:
            self.sharing = LoadSharing(config.cluster, config.number)
            self.firewall.sharing = self.sharing.decision
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS_MAX)
        self.events_number = 0
        self.guard = Guard(partial(self.event, "failure"), lambda: self.now)
        key = config.key.encode() or None
        self.messages = Messages(config.cluster.id, config.number, incarnation, key, partial(self.event, "sync"))
        self.stop_requested = False
        """Set by a signal or a command; `stop` then says when it is done."""
        self._graceful = GracefulStop()
        self._next_tick = self._next_expiry = now
        self._routes_due_at = inf
        self._ways = [(peer, interface.name) for interface in config.cluster.interfaces for peer in config.peers]
        self._sync_name = config.sync_interface.name if config.sync_interface else ""
        self.sync = Synchroniser(
            self, edges, config, compatibility, self.firewall, self.clock, joining, incarnation=incarnation, now=now
        )
        self._tell_policy(loaded)

    def _make_firewall(self, policy: Policy) -> Firewall:
        interfaces = self.config.cluster.interfaces
        return Firewall(
            self.config.member,
            policy,
            self.parameters,
            control_addresses=frozenset(a.ip.packed for i in interfaces for own in i.members.values() for a in own),
            virtual_addresses=frozenset(v.ip.packed for i in interfaces for v in i.virtual),
            timer_floor=self.clock.floor,
            bucket_width=max(1.0, self.clock.floor / 10),
            tick_s=SYNC_TICK_S * self.clock.rate,
            number=self.config.number,
        )

    @property
    def engine(self) -> SyncEngine:
        """The sync protocol."""
        return self.sync.engine

    @property
    def joining(self) -> Joining:
        """Whose whole table is taken."""
        return self.sync.joining

    @property
    def lab_now(self) -> float:
        """Lab time, as of the wire time that was told last."""
        return self.clock.at(self.now)

    def date(self, lab_time: float) -> float:
        """The date of a lab time, by the wall clock as it is set now."""
        return self.clock.date(lab_time, self.now, self.edges.wall())

    # -- time ----------------------------------------------------------------------------------------------------

    def look_at_time(self, now: float) -> None:
        """This member may not have run for so long that others forward; then it must not do what waited."""
        self.now = now
        if now >= self.cluster.overdue_at:
            self.guard.run("waking up", self._woke, now)

    def _woke(self, now: float) -> None:
        """Nothing that waits from before may go on; what peers said meanwhile tells no longer what they do now."""
        self.cluster.woke(now)
        self._drain_cluster(now)
        self.sync.woke(now)

    def next_wakeup(self) -> float:
        """When `advance` must be called at the latest."""
        wakeups = [self._next_tick, self._next_expiry, self.cluster.next_wakeup(), self.sync.next_wakeup()]
        return min(w for w in wakeups if w is not None)

    def advance(self, now: float) -> None:
        """Do what is due by now, and act on what was handed in since the last call: state first, then addresses."""
        self.now = now
        if now >= self._next_expiry:
            self._expire(now)
        if now >= self._next_tick:
            self._tick(now)
        run = self.guard.run
        self.cluster.on_wakeup(now)
        run("synchronisation", self.sync.advance, now)
        self._drain_cluster(now)
        if self.cluster.announcing.due(now):
            run("the announcement of addresses", self.edges.announce)
        heartbeat = self.cluster.outgoing(now)
        if heartbeat is not None:
            run("a heartbeat", self._send_heartbeat, heartbeat, now)

    def _expire(self, now: float) -> None:
        """What is over goes away; if it is much, the rest in the next turn, so that packets come between."""
        self._next_expiry = now + SYNC_TICK_S
        if self.firewall.expire(self.clock.at(now)):
            self._next_expiry = now

    def _tick(self, now: float) -> None:
        """Every sync tick: what changed goes out."""
        self._next_tick = now + SYNC_TICK_S
        if now >= self._routes_due_at:
            self._routes_due_at = now + ROUTES_AGAIN_S
            if self.guard.run("the routes of load sharing", self.edges.restore_sharing):
                self._routes_due_at = inf
        if not self.cluster.listening(now):  # it may be about to hear that its connections are another's
            self.guard.run("delta sync", self.sync.flush, now)
        self.cluster.split_brains.own_figures(len(self.firewall.connections), self.firewall.counters.created)

    def stop(self, now: float) -> bool:
        """In good order (`cluster.stopping`): the peers learn what this one knows, then that it leaves. To be called
        once a turn, besides `advance`, until it says True: done."""
        step = self._graceful.next(self.sync.settled, now)
        if step is StopStep.LEAVE:
            self.cluster.leave(now)
            self._drain_cluster(now)
            self.guard.run("the last updates", self.sync.flush, now)
            return self.stop(now)
        if step is StopStep.END:
            self.guard.run("the farewell", self._send_heartbeat, self.cluster.leave(now), now)
        return step is StopStep.END

    # -- packets -------------------------------------------------------------------------------------------------

    def hold(self, packet: object, now: float) -> bool:
        """Whether a packet that changed the table is to wait for the other active members; `Edges.release` ends it."""
        return self.sync.held.hold(packet, now, others=bool(self.active_peers()))

    def active_peers(self) -> list[int]:
        """Peers that process traffic, too, and hear of our updates."""
        state = self.sync.engine.state
        return [n for n, peer in self.cluster.peers.items() if peer.state.forwards and state(n) is SessionState.OPEN]

    # -- the network ---------------------------------------------------------------------------------------------

    def set_interface(self, name: str, is_up: bool, now: float) -> None:
        """The link state of one of this member's own interfaces, by the configuration's name; whenever it is known."""
        was_up = self.cluster.interfaces.get(name, True)
        self.cluster.set_interface(name, is_up, now)
        if is_up and not was_up and self.sharing is not None and self.sharing.hands_on:
            self._routes_due_at = -inf

    def receive_datagram(self, peer: int, interface: str, data: bytes, now: float, *, stale: bool = False) -> None:
        """What came from a peer's address over an interface. `stale`: it may have come long ago, so it does not tell
        what its sender does now."""
        sync = interface == self._sync_name
        envelope = self.messages.read(data, peer, sync=sync)
        if envelope is None:
            return
        if sync and not stale:
            self.cluster.sync_network.heard(peer, now)
        elif not stale:
            self.cluster.user_networks.heard(interface, peer, now)
        if not isinstance(envelope.message, Heartbeat):
            self.sync.receive(envelope, now)
        elif not stale:
            self.firewall.connections.cluster_time.heard(envelope.message.cluster_time, self.clock.at(now))
            self.cluster.receive_heartbeat(envelope.sender, envelope.incarnation, envelope.message, now)

    def peer_refused(self, peer: int, now: float) -> None:
        """A peer's machine said that nobody listens there."""
        self.cluster.peer_refused(peer, now)

    def accept_stream(self, address: str, now: float) -> FullSource | None:
        """Somebody has connected to the port of full sync; None: it is no member, and the stream is to be closed."""
        return self.sync.accept_stream(address, now)

    def stream_ended(self, end: FullSyncEnd, now: float) -> None:
        """The stream of this end is closed: it had finished or failed."""
        self.sync.stream_ended(end, now)
        self._drain_cluster(now)

    def full_sync_pause(self, now: float) -> float:
        """Seconds until a full sync's next slice may follow the one that was sent now."""
        return self.sync.pause(now)

    def send_sync(self, messages: Iterable[tuple[int, Message]]) -> None:
        """These messages to these peers, over the sync network and nowhere else."""
        encoded: dict[int, bytes] = {}
        for peer, message in messages:
            data = encoded.get(id(message))
            if data is None:
                data = encoded[id(message)] = self._encode(message)
            if data and self._sync_name:
                self.edges.send(peer, self._sync_name, data)

    def _send_heartbeat(self, heartbeat: Heartbeat, now: float) -> None:
        """To every peer over every interface."""
        cluster_time = self.firewall.connections.cluster_time.at(self.clock.at(now))
        if data := self._encode(replace(heartbeat, cluster_time=cluster_time)):
            for peer, interface in self._ways:
                self.edges.send(peer, interface, data)

    def _encode(self, message: Message) -> bytes:
        """Nothing where it cannot be said."""
        try:
            return self.messages.encode(message)
        except SyncError as error:
            self.guard.failed("a message to the peers", error)
            return b""

    # -- the cluster ---------------------------------------------------------------------------------------------

    def _drain_cluster(self, now: float) -> None:
        while (event := self.cluster.next_event()) is not None:
            self.guard.run("a change in the cluster", self._carry_out, event, now)

    def _carry_out(self, event: ClusterEvent, now: float) -> None:
        if isinstance(event, StateChanged):
            self._state_changed(event)
        elif isinstance(event, PeerChanged):
            self._peer_changed(event, now)
        elif isinstance(event, SplitBrain | PossibleSplit):
            name = self.config.peers[event.peer]
            self.event("log", split_brain_words.words(event, name), peer=name)
        elif event.network:
            self._network_changed(event)
        else:
            self.sync.reach_changed(event, now)

    def _network_changed(self, event: ReachChanged) -> None:
        name, again = self.config.peers[event.peer], event.reach.whole
        what = "again" if again else "though interfaces are up: hosts there may be cut off"
        self.event("log", f"{event.network}: with {name}: {event.reach} {what}", peer=name)

    def _state_changed(self, event: StateChanged) -> None:
        # State first, then address: what peers sent was applied before this; now neighbours may send packets here.
        self.firewall.forwarding = event.new.forwards
        if not event.new.forwards:
            self.sync.refuse_held()
        if event.new.forwards and not event.old.forwards:
            self.firewall.connections.visit_all()  # peers must hear of what this member sees from now on
        self.event("state", f"{event.old.label} -> {event.new.label}: {event.reason}", state=event.new.label)
        if event.new.forwards and not event.old.forwards and (lacks := self.sync.lacks()):
            self.event("log", f"{event.new.label} although its full sync was incomplete: {lacks}")
        self._share_out()
        self._answer()

    def _answer(self) -> None:
        """Answer for the virtual addresses where this member is to."""
        self.edges.answer(self.firewall.forwarding and (self.sharing is None or self.sharing.answers))

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

    def full_sync_ended(self, now: float) -> None:
        """The first full sync is over, one way or another: the cluster may go on."""
        self.cluster.on_wakeup(now)

    # -- what is told, and what is set ---------------------------------------------------------------------------

    def event(self, kind: str, text: str, **details: Any) -> None:
        """Something that an operator would want to know; kept, told, and sent to those who follow."""
        event = {
            "at": self.edges.wall(),
            "lab_time": self.lab_now,
            "member": self.config.member,
            "kind": kind,
            "text": text,
            **details,
        }
        self.events.append(event)
        self.events_number += 1
        self.edges.tell(event)

    def _tell_policy(self, loaded: Loaded) -> None:
        """At the start: when it is not simply the configuration's."""
        if loaded.problem:
            self.event("policy", loaded.problem)
        if loaded.problem or loaded.origin != CONFIGURED:
            self.event("policy", f"policy {loaded.policy.name} is loaded, {loaded.origin}")

    def set_parameter(self, name: str, value: int) -> None:
        """Until the member stops. Raises `ParameterError`, and changes nothing, when it is not legal."""
        self.parameters.set_running(name, value)
        self.cluster.heartbeat_s = self.parameters["fwha_heartbeat_ms"] / 1000
        self.cluster.dead_timeout_s = self.parameters["fwha_dead_timeout_ms"] / 1000
        self.sync.parameters_changed(self.now)
        self.event("parameter", f"kernel parameter {name} is now {self.parameters[name]}")

    def install_policy(self, policy: Policy) -> None:
        """Raises `DivertError`, and changes nothing, when the kernel refuses the rules that the policy needs."""
        if policy.inspected != self.firewall.policy.inspected:
            self.edges.divert(policy)
        self.sync.refuse_held()  # an older policy accepted it
        self.firewall.install(policy)
        self.cluster.policy_name = policy.name
        self.event("policy", f"policy {policy.name} installed: {len(policy.rules)} rules")
