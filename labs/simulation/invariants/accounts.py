"""Invariants about counters, limits and failures: what a member counts adds up, and what it keeps has room."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from fwnode.core import EVENTS_MAX
from fwnode.firewall.firewall import LOG_MAX
from fwnode.firewall.holding import HELD_MAX
from fwnode.firewall.load import ENABLED
from labs.simulation.invariants.look import Invariant, Look, MemberLook
from labs.simulation.member_life import QUEUE_LENGTH_MAX
from syncproto.limits import BACKLOG_UPDATES_MAX


class CountsAddUp(Invariant):
    name = "counts-add-up"
    sentence = "A packet that is forwarded was accepted, a drop has one reason, and a session one fate."
    source = "README: why a packet was dropped; design: every drop carries a reason and is counted"

    def look(self, look: Look) -> Iterator[str]:
        for member in look.running():
            counters = member.firewall.counters
            by_reason = sum(counters.drops.values())
            if by_reason != counters.dropped:
                yield f"{member.name} dropped {counters.dropped} packets, {by_reason} of them for a reason"
            sent_on = member.forwarded - member.forwarded_before
            if sent_on > counters.accepted:
                yield f"{member.name} has forwarded {sent_on} packets, and accepted {counters.accepted}"
            table = member.firewall.connections
            if not 0 <= table.learned <= len(table) <= table.peak:
                yield f"{member.name} has {len(table)} connections, {table.learned} learned, {table.peak} at the peak"
        for name, (sessions, fates) in look.sessions.items():
            if sessions != fates:
                yield f"{name} has {sessions} sessions and {fates} fates"


class InsideCaps(Invariant):
    name = "inside-caps"
    sentence = "Queues and tables hold no more than their limits."
    source = "README: kernel parameters; syncproto.limits"

    def __init__(self) -> None:
        self._connections: dict[tuple[int, int], tuple[int, int]] = {}
        """Of a life: connections at the last look, and the limit then."""

    def look(self, look: Look) -> Iterator[str]:
        for member in look.running():
            yield from self._table(member)
            for what, has, most in _sizes(member) if look.second else ():
                if has > most:
                    yield f"{member.name}: {what} holds {has}, and {most} is the limit"

    def _table(self, member: MemberLook) -> Iterator[str]:
        """The limit can be set lower than what is there: then nothing is added from the next look on."""
        life, has = (member.number, member.life), len(member.firewall.connections)
        most = member.firewall.parameters["connections_limit"]
        had, most_then = self._connections.get(life, (0, most))
        if has > most == most_then and has > had:
            yield f"{member.name}: the connections table holds {has}, and {most} is the limit"
        self._connections[life] = (has, most)


def _sizes(member: MemberLook) -> Iterator[tuple[str, int, int]]:
    parameters, engine, firewall = member.firewall.parameters, member.engine, member.firewall
    counters = engine.counters()
    yield "the sending queue", counters.sending_queue, parameters["fw_sync_sending_queue_size"]
    receiving = parameters["fw_sync_recv_queue_size"] * max(1, len(engine.peers))
    yield "the receiving queues", counters.receiving_queue, receiving
    yield "the backlog of updates", counters.backlog, BACKLOG_UPDATES_MAX
    yield "the packets' queue", member.queued, QUEUE_LENGTH_MAX
    yield "packets that wait for an ACK", member.held, HELD_MAX
    yield "the log", len(firewall.log), LOG_MAX
    yield "the events", member.events, EVENTS_MAX


class LoadMeasured(Invariant):
    name = "load-measured"
    sentence = "Sync is under load, and blocks if it is to, exactly while more updates than the threshold lack an ACK."
    source = "clusterxl.md 2: `more than 410`, that is 80 % of 512, rounded up"

    def __init__(self) -> None:
        self._stale: dict[int, tuple[int, int, int]] = {}

    def look(self, look: Look) -> Iterator[str]:
        for member in look.running():
            parameters, load = member.firewall.parameters, member.firewall.load
            size, percent = parameters["fw_sync_sending_queue_size"], parameters["fw_sync_buffer_threshold"]
            behind, threshold = load.unacknowledged, ceil(percent * size / 100)
            # What an ACK changed is told at the next turn of the loop; more may be sent between two looks.
            stale = (behind, member.engine.unacknowledged(), member.engine.sequence)
            if behind != stale[1] and self._stale.get(member.number) == stale:
                yield f"{member.name} goes by {behind} unacknowledged updates, and there are {stale[1]}"
            self._stale[member.number] = stale
            if load.heavy is not (behind > threshold):
                word = "is" if load.heavy else "is not"
                yield f"{member.name} {word} under load with {behind} unacknowledged updates; {threshold} are allowed"
            if load.blocking is not (load.heavy and parameters["fw_sync_block_new_conns"] == ENABLED):
                yield f"{member.name}: blocking is {load.blocking} while load is {load.heavy}"


class NoFailure(Invariant):
    name = "no-failure"
    sentence = "Nothing that a member's loop calls fails."
    source = "ARCHITECTURE.md: the loop goes on, and counts what failed"

    def __init__(self) -> None:
        self._told: set[tuple[int, int]] = set()

    def look(self, look: Look) -> Iterator[str]:
        for member in look.members:
            if member.failures and (member.number, member.life) not in self._told:
                self._told.add((member.number, member.life))
                yield f"{member.name}: {', '.join(f'{what} ({times})' for what, times in member.failures.items())}"
