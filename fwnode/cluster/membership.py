"""Member states, critical devices and the election.

The rules of high availability, in the order in which `_elect` applies them:

1. A member is Initializing until it has listened for its peers and its first full sync has ended, whatever its end.
2. A member that hears one of an older version is Ready: it does not process traffic. The older one acts as if it did
   not hear it (to it the newer is Lost), so it stays, or becomes, active.
3. A member with a problem is Down if a healthy one is there; if none is, one of them goes on as Active Attention.
4. A healthy member stays active. If two are (a healed partition), the lower number stays.
5. With no active member the healthy one with the lowest number becomes active.

In load sharing 1 to 3 are the same, and every healthy member is active.

A peer is lost when it said that it leaves, when its machine refuses its heartbeats (the process is gone, the machine
is not), or when it has been silent for the dead timer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from math import inf

from fwnode.cluster.announcing import Announcing
from fwnode.cluster.split_brain import SPLIT_HEARTBEATS, Activity, PossibleSplit, SplitBrain, SplitBrains
from fwnode.cluster.sync_network import SILENT_HEARTBEATS, ReachChanged, SyncNetwork
from fwnode.cluster.user_networks import UserNetworks
from syncproto.joining import Joining, Sources
from syncproto.limits import LIST_MAX, STALE_AFTER_S
from syncproto.message import Heartbeat, clipped


class MemberState(IntEnum):
    """The numbers travel in heartbeats: append only."""

    INITIALIZING = 0
    ACTIVE = 1
    ACTIVE_ATTENTION = 2
    STANDBY = 3
    READY = 4
    DOWN = 5
    LOST = 6

    @property
    def label(self) -> str:
        """The state as it is shown: `Active Attention`."""
        return self.name.replace("_", " ").title()

    @property
    def forwards(self) -> bool:
        """Whether a member in this state processes traffic."""
        return self in (MemberState.ACTIVE, MemberState.ACTIVE_ATTENTION)


LISTEN_HEARTBEATS = 4
"""Heartbeat intervals that a starting member listens before it decides (three may be lost)."""

SETTLE_HEARTBEATS = 3
"""Heartbeat intervals that roles stay as they are after an interface, ours or a peer's, went down or came back: who
lost the same network, or got it back, says so in the meantime, and then a failover would gain nothing."""

INTERFACE_CHECK = "Interface Active Check"
ADMIN_DOWN = "admin_down"
POLICY = "Policy"
FULLSYNC = "Fullsync"


@dataclass(frozen=True)
class StateChanged:
    """This member's state changed."""

    old: MemberState
    new: MemberState
    reason: str


@dataclass(frozen=True)
class PeerChanged:
    """What this member sees of a peer changed."""

    peer: int
    old: MemberState
    new: MemberState
    reason: str


ClusterEvent = StateChanged | PeerChanged | ReachChanged | SplitBrain | PossibleSplit


@dataclass
class Peer:
    """What is known of one peer."""

    number: int
    name: str
    state: MemberState = MemberState.LOST
    heard_at: float = -1e9
    newest: tuple[int, int] = (0, 0)
    """Incarnation and number of the newest heartbeat."""
    heartbeat: Heartbeat | None = None
    newer: int = 0
    """1: this member is of a newer version than the peer; 0: the same, or nothing was heard; -1: older."""

    @property
    def alive(self) -> bool:
        return self.state is not MemberState.LOST


@dataclass(frozen=True)
class FailoverSeen:
    """A change of the active member, as this member saw it."""

    at: float
    former: int | None
    active: int
    reason: str


class Cluster:
    """One member's view of its cluster.

    `newer(a, b)` compares two releases' versions: -1, 0 or 1. `next_wakeup()` may change after every call that takes
    `now`. Heartbeats are due when `outgoing(now)` returns one; it goes to every peer over every interface.
    """

    def __init__(
        self,
        number: int,
        peers: Mapping[int, str],
        release: str,
        newer: Callable[[str, str], int],
        *,
        now: float,
        heartbeat_s: float = 0.1,
        dead_timeout_s: float = 2.5,
        load_sharing: bool = False,
        joining: Joining | None = None,
        user_networks: Iterable[str] = (),
    ) -> None:
        self.number = number
        self.release = release
        self.peers = {n: Peer(n, name) for n, name in peers.items()}
        self.state = MemberState.INITIALIZING
        self.reason = "starting"
        self.changed_at = now
        self.heartbeat_s = heartbeat_s
        self.dead_timeout_s = dead_timeout_s
        self.devices: dict[str, str] = {POLICY: "", INTERFACE_CHECK: "", FULLSYNC: ""}
        """Critical devices; an empty text is OK, any other says what is wrong."""
        self.interfaces: dict[str, bool] = {}
        self.policy_name = ""
        self.failovers: deque[FailoverSeen] = deque(maxlen=100)
        self.failover_count = 0
        self.load_sharing = load_sharing
        self.announcing = Announcing()
        """When the neighbours are told who has the virtual addresses: after whatever may have changed that."""
        self.split_brains = SplitBrains(self.peers, load_sharing)
        self._activity = Activity()
        self._newer = newer
        self._events: deque[ClusterEvent] = deque()
        self._listen_until = now + LISTEN_HEARTBEATS * heartbeat_s
        self._next_heartbeat = now
        self._spoke_at = now
        self.overdue_at = inf
        """When peers take this member for lost if they hear no more of it. A member that finds itself beyond has not
        run: before anything else it must be told so (`woke`), for others may forward now."""
        self._heartbeat_number = 0
        self._settled_at = now
        self._joining = joining or Joining()
        """Told who could be joined; says when the first full sync is over."""
        self._active_seen: int | None = None
        self._leaving = False
        self.sync_network = SyncNetwork(peers, now)
        self._hears_on_sync = list(peers)
        self.user_networks = UserNetworks(user_networks, peers, now)
        self._unheard: list[str] = []

    # -- what comes in -------------------------------------------------------------------------------------------

    def receive_heartbeat(self, number: int, incarnation: int, heartbeat: Heartbeat, now: float) -> None:
        """A peer's heartbeat, at its arrival. One that is older than the newest known is ignored."""
        peer = self.peers.get(number)
        if peer is None or self._is_late(peer, incarnation, heartbeat.number, now):
            return
        is_news = peer.newest != (incarnation, heartbeat.number)  # not the same over another network
        peer.newest = (incarnation, heartbeat.number)
        peer.heard_at = now
        if peer.heartbeat is not None and peer.heartbeat.problems != heartbeat.problems:
            self._settled_at = now + SETTLE_HEARTBEATS * self.heartbeat_s
        self.failover_count = max(self.failover_count, heartbeat.failovers)
        if heartbeat.leaving:
            self.split_brains.known_gone(number)
            self._peer_is(peer, MemberState.LOST, "it was stopped", now)
            return
        if peer.heartbeat is None or (self.number in peer.heartbeat.sees) != (self.number in heartbeat.sees):
            self.announcing.begin(now)  # it may have answered for the addresses while it did not hear us
        if peer.heartbeat is None or peer.heartbeat.release != heartbeat.release:
            peer.newer = self._compare(heartbeat.release)
        if is_news and self.number not in heartbeat.sees and not self._leaving:
            self._next_heartbeat = now  # it may listen for less than this member's interval, and then decide
        peer.heartbeat = heartbeat
        least_s, sees_us = SPLIT_HEARTBEATS * self.heartbeat_s, self.number in heartbeat.sees
        split = self.split_brains.heard(number, heartbeat, self._activity, sees_us, least_s, now)
        if split is not None:
            self._events.append(split)
        self.sync_network.told(number, self.number in heartbeat.hears_on_sync, now)
        self.user_networks.told(number, self.number, heartbeat.unheard, now)
        try:
            state = MemberState(heartbeat.state)
        except ValueError:
            state = MemberState.DOWN
        self._peer_is(peer, state, "; ".join(heartbeat.problems), now)

    @staticmethod
    def _is_late(peer: Peer, incarnation: int, number: int, now: float) -> bool:
        """It was sent before one that has come already, and waited on another network; a smaller incarnation may also
        be a new life with another idea of the time, once the known one is silent."""
        if incarnation < peer.newest[0]:
            return now - peer.heard_at < STALE_AFTER_S
        return (incarnation, number) < peer.newest

    def peer_refused(self, number: int, now: float) -> None:
        """The peer's machine said that nobody listens on the cluster port there.

        It may be late news of a member that has just been started; one whose heartbeats come in time is there.
        """
        peer = self.peers.get(number)
        if peer is not None and peer.alive and now - peer.heard_at > 1.5 * self.heartbeat_s:
            self.split_brains.known_gone(number)
            self._peer_is(peer, MemberState.LOST, "its process is gone, its machine refuses heartbeats", now)

    def set_device(self, name: str, problem: str, now: float) -> None:
        """A critical device reports; an empty `problem` is OK."""
        if self.devices.get(name, "") != problem or name not in self.devices:
            self.devices[name] = problem
            self._elect(now)

    def unregister_device(self, name: str, now: float) -> None:
        if self.devices.pop(name, None):
            self._elect(now)

    def set_interface(self, name: str, up: bool, now: float) -> None:
        """The link state of one of this member's own interfaces."""
        if self.interfaces.get(name, up) != up:
            self._settled_at = now + SETTLE_HEARTBEATS * self.heartbeat_s
            self.announcing.begin(now)  # neighbours on it may have learned another member's address meanwhile
        self.interfaces[name] = up
        down = sorted(n for n, is_up in self.interfaces.items() if not is_up)
        self.set_device(INTERFACE_CHECK, f"interface {', '.join(down)} is down" if down else "", now)

    def woke(self, now: float) -> None:
        """The member did not run until now: it was frozen, or got no processor, for longer than its peers wait. It
        listens for them like one that starts, but keeps its table; what they said before now must not reach it."""
        if self._leaving:
            return
        for peer in self.peers.values():
            if peer.alive:
                reason = "it could not be heard while this member did not run"
                self._events.append(PeerChanged(peer.number, peer.state, MemberState.LOST, reason))
                peer.state = MemberState.LOST
        self._listen_until = now + LISTEN_HEARTBEATS * self.heartbeat_s
        self._activity.set(False, self._spoke_at)
        reason = f"this member did not run for {now - self._spoke_at:.1f} s, and listens for the others"
        self._become(MemberState.INITIALIZING, reason, now)
        self._speaks(now)

    def listening(self, now: float) -> bool:
        """Whether what the peers do is not known yet."""
        return now < self._listen_until

    def leave(self, now: float) -> Heartbeat:
        """The member stops in good order. There will be no other heartbeat than this one, which tells the peers."""
        self._leaving = True
        self.overdue_at = inf
        self._become(MemberState.DOWN, "stopped", now)
        self._next_heartbeat = self.overdue_at = inf
        return self._heartbeat(now)

    # -- time ----------------------------------------------------------------------------------------------------

    def next_wakeup(self) -> float:
        """When `on_wakeup` and `outgoing` are to be called at the latest."""
        deadlines = [p.heard_at + self.dead_timeout_s for p in self.peers.values() if p.alive]
        # What else waits is looked at with every heartbeat.
        return min([self._next_heartbeat, self.announcing.next_wakeup(), *deadlines])

    def on_wakeup(self, now: float) -> None:
        """The time is `now`: peers that are silent for too long are lost, roles that have settled are taken."""
        self._hears_on_sync = self.sync_network.hears(now, self._sync_silence_s)
        for peer in self.peers.values():
            if peer.alive and now >= peer.heard_at + self.dead_timeout_s:
                self.split_brains.silent(peer.number, now)
                self._peer_is(peer, MemberState.LOST, f"silent for {self.dead_timeout_s:g} s", now)
            elif peer.alive:
                self._look_at_sync(peer, now)
        if now >= self._next_heartbeat:
            self._look_at_user_networks(now)
        self._elect(now)
        self._events += self.split_brains.warn(self.state.forwards and not self.devices.get(INTERFACE_CHECK))

    def _look_at_sync(self, peer: Peer, now: float) -> None:
        patience_s = SILENT_HEARTBEATS * self.heartbeat_s
        changed = self.sync_network.look(peer.number, now, self._sync_silence_s, patience_s)
        if changed is not None:
            self._events.append(changed)

    def _look_at_user_networks(self, now: float) -> None:
        alive = [peer for peer in self.peers.values() if peer.alive]
        for peer in alive:
            if self.devices[INTERFACE_CHECK] or self._interfaces_fail(peer):
                self.user_networks.forget(peer.number, now)  # why nothing passes there is known, and told
            patience_s = SILENT_HEARTBEATS * self.heartbeat_s
            self._events += self.user_networks.look(peer.number, now, self._sync_silence_s, patience_s)
        unheard = self.user_networks.unheard([peer.number for peer in alive], now, self._sync_silence_s)
        self._unheard = unheard[:LIST_MAX]

    @staticmethod
    def _interfaces_fail(peer: Peer) -> bool:
        problems = peer.heartbeat.problems if peer.heartbeat else []
        return any(problem.startswith(INTERFACE_CHECK) for problem in problems)

    @property
    def _sync_silence_s(self) -> float:
        """So long nothing of a peer is heard on a network before it counts as not heard there. A little longer
        than the dead timer: a peer that is silent everywhere is lost, and no more is to be said."""
        return max(self.dead_timeout_s, SILENT_HEARTBEATS * self.heartbeat_s) + 2 * self.heartbeat_s

    def active_members(self) -> list[int]:
        """Numbers of the members that process traffic, as this one sees it: of its own version, or older ones."""
        active = [p.number for p in self.peers.values() if p.state.forwards and p.newer >= 0]
        return [*active, self.number] if self.state.forwards else active

    # -- what goes out -------------------------------------------------------------------------------------------

    def outgoing(self, now: float) -> Heartbeat | None:
        """The heartbeat, when one is due."""
        if now < self._next_heartbeat or self._leaving:
            return None
        self._next_heartbeat = now + self.heartbeat_s
        self._speaks(now)
        return self._heartbeat(now)

    def _speaks(self, now: float) -> None:
        self._spoke_at = now
        if self.peers:
            self.overdue_at = now + max(self.dead_timeout_s, 2 * self.heartbeat_s)

    def _heartbeat(self, now: float) -> Heartbeat:
        self._heartbeat_number += 1
        return Heartbeat(
            state=int(self.state),
            release=self.release,
            policy=clipped(self.policy_name),
            problems=[clipped(problem) for problem in self.problems()[:LIST_MAX]],
            sees=[p.number for p in self.peers.values() if p.alive],
            leaving=self._leaving,
            number=self._heartbeat_number,
            hears_on_sync=self._hears_on_sync,
            failovers=self.failover_count,
            active=self._activity.ages(now),
            accepted=self.split_brains.accepted,
            unheard=self._unheard,
        )

    def next_event(self) -> ClusterEvent | None:
        return self._events.popleft() if self._events else None

    def problems(self) -> list[str]:
        return [f"{name}: {problem}" for name, problem in self.devices.items() if problem]

    def visible_state(self, peer: Peer) -> MemberState:
        """What this member shows of a peer: one of a newer version is as good as lost to it."""
        return MemberState.LOST if peer.newer < 0 else peer.state

    # -- the election --------------------------------------------------------------------------------------------

    def _compare(self, release: str) -> int:
        """1: this member is of a newer version than this release; 0: the same; -1: older."""
        return self._newer(self.release, release)

    def _peer_is(self, peer: Peer, state: MemberState, reason: str, now: float) -> None:
        if peer.state is not state:
            if MemberState.LOST in (peer.state, state):
                self.sync_network.forget(peer.number, now)
                self.user_networks.forget(peer.number, now)
            self._events.append(PeerChanged(peer.number, peer.state, state, reason))
            peer.state = state
            self.announcing.begin(now)
        self._elect(now)

    def _elect(self, now: float) -> None:
        if self._leaving:
            return
        state, reason = self._choose(now)
        self._become(state, reason, now)
        self._note_failover(now)

    def _become(self, state: MemberState, reason: str, now: float) -> None:
        if state is self.state:
            return
        self._events.append(StateChanged(self.state, state, reason))
        self.state, self.reason, self.changed_at = state, reason, now
        self.announcing.begin(now)
        self._activity.set(state.forwards, now)
        self._next_heartbeat = now  # peers hear of it at once

    def _choose(self, now: float) -> tuple[MemberState, str]:
        alive = [p for p in self.peers.values() if p.state is not MemberState.LOST]
        older = [p for p in alive if p.newer > 0]
        equal = [p for p in alive if p.newer == 0]
        if not self._has_joined(equal, older, now):
            return MemberState.INITIALIZING, self.reason
        older = [p for p in older if p.state is not MemberState.INITIALIZING]
        if older:
            release = older[0].heartbeat.release if older[0].heartbeat else "?"
            return MemberState.READY, f"member {older[0].name} runs the older version {release}"
        problems = self.problems()
        active = [p for p in equal if p.state.forwards]
        healthy = [p for p in equal if not self._troubled(p) and p.state in _CANDIDATES]
        if problems:
            if self.state.forwards and now < self._settled_at and self._only_interfaces_fail():
                return self.state, self.reason
            return self._choose_troubled("; ".join(problems), active, healthy, equal)
        if self.load_sharing:
            return MemberState.ACTIVE, self.reason if self.state is MemberState.ACTIVE else "it takes its share"
        if active and not self.state.forwards and now < self._settled_at:
            return MemberState.STANDBY, f"there is already an active member ({active[0].name})"
        return self._choose_healthy(active, healthy)

    def _has_joined(self, equal: list[Peer], older: list[Peer], now: float) -> bool:
        """Past Initializing: it has listened, and taken what an active peer had to give."""
        if self.state is not MemberState.INITIALIZING:
            return True
        if now < self._listen_until:
            return False
        sources = tuple(p.number for p in equal + older if p.state.forwards)
        first = older + [p for p in equal if p.number < self.number]
        # One that is Initializing will be active in a moment, and can be joined then.
        more_to_come = any(p.state is MemberState.INITIALIZING for p in first)
        if self._joining.over:
            return bool(sources) or not more_to_come  # one that did not run for a while keeps its table
        self._joining.receive_event(Sources(sources, more_to_come), now)
        return self._joining.over

    def _only_interfaces_fail(self) -> bool:
        return not any(problem for name, problem in self.devices.items() if name != INTERFACE_CHECK)

    def _troubled(self, peer: Peer) -> bool:
        return bool(peer.heartbeat and peer.heartbeat.problems)

    def _choose_troubled(
        self, reason: str, active: list[Peer], healthy: list[Peer], equal: list[Peer]
    ) -> tuple[MemberState, str]:
        if healthy:
            return MemberState.DOWN, reason
        rivals = active if self.state.forwards else (active or [p for p in equal if p.state in _RUNNING])
        chosen = not any(p.number < self.number for p in rivals) if rivals else True
        if not self.state.forwards and active:
            chosen = False
        if chosen:
            return MemberState.ACTIVE_ATTENTION, f"{reason}; no other member is better"
        return MemberState.DOWN, reason

    def _choose_healthy(self, active: list[Peer], healthy: list[Peer]) -> tuple[MemberState, str]:
        # One that is Active in spite of a problem still settles: it becomes Down or Active Attention by itself.
        well = [p for p in active if p.state is MemberState.ACTIVE]
        if well and not (self.state.forwards and all(self.number < p.number for p in well)):
            return MemberState.STANDBY, f"there is already an active member ({well[0].name})"
        if self.state is MemberState.ACTIVE:
            return MemberState.ACTIVE, self.reason
        rivals = [p for p in healthy if p.number < self.number and not p.state.forwards]
        if rivals and not self.state.forwards:
            return MemberState.STANDBY, f"member {rivals[0].name} comes first"
        if self.state is MemberState.ACTIVE_ATTENTION:
            return MemberState.ACTIVE, "the problem has been resolved"
        return MemberState.ACTIVE, self._why_active(active)

    def _why_active(self, active: list[Peer]) -> str:
        if active:
            return f"member {active[0].name} has a problem"
        former = self.peers.get(self._active_seen or 0)
        if former is None or former.newer < 0:
            return "no other member is active"
        how = "was lost" if not former.alive else f"is {former.state.label}"
        return f"member {former.name} {how}"

    def _note_failover(self, now: float) -> None:
        if self.load_sharing:
            return  # there is no "the" active member
        active = self.number if self.state.forwards else None
        if active is None:
            active = next((p.number for p in self.peers.values() if p.state.forwards), None)
        if active is None or active == self._active_seen:
            return
        if self._active_seen is not None:
            self.failover_count += active == self.number  # who takes over counts, the others hear of it
            ours = self.number in (active, self._active_seen)
            reason = self.reason if ours else f"member {self.peers[active].name} became active"
            self.failovers.append(FailoverSeen(now, self._active_seen, active, reason))
        self._active_seen = active


_CANDIDATES = frozenset({MemberState.ACTIVE, MemberState.STANDBY, MemberState.READY})
_RUNNING = frozenset({MemberState.ACTIVE, MemberState.STANDBY, MemberState.READY, MemberState.DOWN})
