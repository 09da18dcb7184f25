"""Invariants about who forwards, who answers for the virtual addresses, and what passes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from fwnode.cluster.membership import MemberState
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.packet import ECHO_REQUEST, ICMP_ERRORS, MalformedPacket, parse, reverse_key
from fwnode.firewall.policy import Action, OnInstall
from fwnode.firewall.tellers import NOBODY
from labs.simulation.invariants.look import WALKED_MOST, Invariant, Look, MemberLook

HEARD_HEARTBEATS = 3
"""Two members hear each other when the last heartbeat of either is not older than so many intervals: three may be
lost before the cluster itself concludes anything from it (`LISTEN_HEARTBEATS`)."""
BOTH_FORWARD_HEARTBEATS = 10
"""Heartbeat intervals for which two may forward while they hear each other: roles stay for three after a network went
or came back (`SETTLE_HEARTBEATS`), twice where it comes to one after the other, and the way there and back."""
BOTH_FORWARD_MIN_S = 1.0
"""And wire seconds at the least: a wire of a chaos lab keeps a heartbeat back for 0.3 s, twice."""
NONE_FORWARDS_DEAD_TIMERS = 2
"""Dead timers that may pass until a healthy member forwards: who would be next may be gone without a word, too."""
NONE_FORWARDS_MORE_S = 2.0
"""And wire seconds besides: four heartbeats of listening, three of settled roles, the heartbeats themselves at the
slowest interval of chaos (0.2 s)."""


class OneForwards(Invariant):
    name = "one-forwards"
    sentence = (
        "In high availability no two members forward for more than a second, or ten heartbeats, while they hear each "
        "other."
    )
    source = "clusterxl.md 3.1: one member is Active, the others stand by; README: election, split brain"

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], float] = {}

    def look(self, look: Look) -> Iterator[str]:
        since, self._since = self._since, {}
        if look.load_sharing:
            return
        for one, other in look.pairs():
            if not (one.forwards and other.forwards and _hear_each_other(one, other, look.now)):
                continue
            pair = (one.number, other.number)
            begun = self._since[pair] = since.get(pair, look.now)
            bound = max(BOTH_FORWARD_MIN_S, BOTH_FORWARD_HEARTBEATS * max(one.heartbeat_s, other.heartbeat_s))
            if look.now - begun > bound:
                yield (f"{one.name} ({one.state.label}) and {other.name} ({other.state.label}) have both forwarded for "
                       f"{look.now - begun:.1f} s, although they hear each other")


def _hear_each_other(one: MemberLook, other: MemberLook, now: float) -> bool:
    return all(
        now - at <= HEARD_HEARTBEATS * teller.heartbeat_s
        for at, teller in ((one.heard_at[other.number], other), (other.heard_at[one.number], one))
    )


class SomebodyForwards(Invariant):
    name = "somebody-forwards"
    sentence = "Where a healthy member exists, none forwards for no longer than two dead timers and two seconds."
    source = "clusterxl.md 3.1: a Standby waits for the active one to fail; README: heartbeats, start"

    def __init__(self) -> None:
        self._none_since: float | None = None
        self._healthy_since: dict[tuple[int, int], float] = {}

    def look(self, look: Look) -> Iterator[str]:
        was, self._healthy_since = self._healthy_since, {}
        running = look.running()
        for member in running:
            if not member.problems and member.state not in (MemberState.INITIALIZING, MemberState.DOWN):
                key = (member.number, member.life)
                self._healthy_since[key] = max(was.get(key, look.now), member.runs_since or 0.0)
        if any(member.forwards for member in running):
            self._none_since = None
            return
        if self._none_since is None:
            self._none_since = look.now
        if not self._healthy_since:
            return
        none_s = look.now - max(self._none_since, min(self._healthy_since.values()))
        bound = NONE_FORWARDS_DEAD_TIMERS * max(m.dead_timeout_s for m in running) + NONE_FORWARDS_MORE_S
        if none_s > bound:
            states = ", ".join(f"{member.name} {member.state.label}" for member in running)
            yield f"no member forwards for {none_s:.1f} s, although a healthy one is there: {states}"


class ForwardsNothing(Invariant):
    name = "forwards-nothing"
    sentence = "A member that is not to process traffic, or does not run, forwards nothing."
    source = "clusterxl.md 3.1, column `Forwards?`; README: a stopped member"

    def __init__(self) -> None:
        self._seen: dict[int, tuple[float, int]] = {}

    def look(self, look: Look) -> Iterator[str]:
        for member in look.members:
            at, forwarded = self._seen.get(member.number, (look.now, member.forwarded))
            self._seen[member.number] = look.now, member.forwarded
            idle_since = member.idle_since
            if idle_since is not None and idle_since < at and member.forwarded > forwarded:
                what = member.state.label if member.runs else "not running"
                yield f"{member.name} is {what}, and has forwarded {member.forwarded - forwarded} packets"


class StateBeforeAddress(Invariant):
    name = "state-before-address"
    sentence = "State first, then address: a member answers for virtual addresses only while it may decide on packets."
    source = "README: addresses; ARCHITECTURE.md: a member answers for the virtual address only when it can decide"

    def look(self, look: Look) -> Iterator[str]:
        for member in look.running():
            if member.answered_early or (member.answers and not member.firewall.forwarding):
                begun = "has begun to answer" if member.answered_early else "answers"
                yield f"{member.name} {begun} for the virtual addresses, and may not decide on packets yet"


class RuleOrConnection(Invariant):
    name = "rule-or-connection"
    sentence = "A packet that passes has a rule or a connection, and a connection that begins has a rule."
    source = "clusterxl.md 5.4: what is learned is checked against the policy; README: learned connection"

    def look(self, look: Look) -> Iterator[str]:
        for member in look.running():
            if member.unfounded:
                packet = member.unfounded[:60].hex()
                yield f"{member.name} has sent on a packet that has neither a rule nor a connection: {packet}"
            if look.second:
                yield from self._connections(member.firewall, member.name)

    @staticmethod
    def _connections(firewall: Firewall, name: str) -> Iterator[str]:
        """Those that began here, and were matched with the policy of now."""
        policy, generation = firewall.policy, firewall.generation
        if policy.on_install is OnInstall.KEEP:
            return
        for connection in islice(firewall.connections.entries.values(), WALKED_MOST):
            began_here = connection.owned and connection.origin is NOBODY and not connection.parent
            if not began_here or connection.generation != generation:
                continue
            match = policy.match(connection.key, ECHO_REQUEST.get(connection.key[0], -1))
            if match.action is not Action.ACCEPT:
                yield f"{name} holds a connection of its own that no rule accepts: {connection.key.hex()}"
                return


def may_pass(firewall: Firewall, data: bytes) -> bool:
    """Whether a packet that was just sent on has a connection, or a rule that accepts it or the other direction."""
    try:
        packet = parse(data)
    except MalformedPacket:
        return False
    if packet.icmp_type in ICMP_ERRORS.get(packet.protocol, ()) or (packet.fragment and not packet.first_fragment):
        return True  # follows what it is about
    if packet.key in firewall.connections:
        return True
    keys = (packet.key, reverse_key(packet.key))
    return any(firewall.policy.match(key, packet.icmp_type).action is Action.ACCEPT for key in keys)
