"""Time in which nothing happens is leapt over: `wait: 24h` costs what happens on that day.

Members talk all the time: heartbeats, ticks, looks at links. Where they have only done that for a while, and would go
on with it, the world's clock moves on and their wire time does not, so that for them their last heartbeats are as fresh
as they were; lab time goes on with the world, and a leap ends before anything is due in it. What a member knows and
says afterwards is what it would have known and said, but for how long it says it has been in its state.

Something happens where an event was told, a packet was forwarded, a connection came or went, or an update of the sync
protocol was said; where something of chance is done to a link; and whenever the heap holds anything but turns of
members' loops, and looks at members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heapify
from math import inf
from typing import Any

from labs.simulation.loop import World
from labs.simulation.member_life import MemberLife
from labs.simulation.member_machine import MemberMachine
from labs.simulation.observer import Observer
from labs.simulation.wires import Impairment, Interface

QUIET_LOOKS = 6
"""Looks in a row without an event, some 6 s: longer than anything that a cluster does about a change, such as the last
announcement of addresses after 4 s."""
STILL_LOOKS = 2
"""Looks in a row without packets, connections and updates: some sync ticks and acknowledgements."""
MARGIN_S = 2.0
"""A leap ends so long before something is due."""
LEAST_S = 5.0
"""Shorter leaps are not made: looking for them would cost more than they save."""


class Leaps:
    """Of one world; `look` is for `World.leap`."""

    def __init__(self, world: World, machines: list[MemberMachine], links: Mapping[str, Interface]) -> None:
        self._world = world
        self._machines = machines
        self._links = links
        self._events = -1
        self._quiet = 0
        self._moved: list[Any] = []
        self._still = 0
        self._not_before = 0.0
        self.leapt_s = 0.0

    def look(self, until: float) -> None:
        """Leap towards `until`, where that can be done."""
        events, moved = len(self._world.events), [(m.forwarded, m.life and _said(m.life)) for m in self._machines]
        self._quiet = self._quiet + 1 if events == self._events else 0
        self._still = self._still + 1 if moved == self._moved else 0
        self._events, self._moved = events, moved
        if self._quiet < QUIET_LOOKS or self._still < STILL_LOOKS or self._world.now < self._not_before:
            return
        if not self._is_calm():
            return
        self._leap(min(until, self._next_of_others(), self._next_in_lab_time()) - MARGIN_S)

    def _is_calm(self) -> bool:
        """Nobody is frozen or behind, and no link does anything by chance or late."""
        lives = [machine.life for machine in self._machines if machine.life is not None]
        if any(life.is_busy() or _waits(life) for life in lives):
            return False
        return all(_is_plain(link.inward) and _is_plain(link.outward) for link in self._links.values())

    def _next_of_others(self) -> float:
        """When something is due that is no turn of a member's loop."""
        return min((when for when, _, function, _ in self._world.heap if not _is_turn(function)), default=inf)

    def _next_in_lab_time(self) -> float:
        """When the first connection may end."""
        ends = [(machine, machine.life.member) for machine in self._machines if machine.life is not None]
        return min((machine.world_time(member.clock.epoch + member.firewall.connections.next_end() / member.clock.rate)
                    for machine, member in ends), default=inf)  # fmt: skip

    def _leap(self, to: float) -> None:
        world, by_s = self._world, to - self._world.now
        if by_s < LEAST_S:
            self._not_before = to
            return
        world.heap[:] = [(when + by_s, number, function, argument + by_s) if _is_turn(function)
                         else (when, number, function, argument)
                         for when, number, function, argument in world.heap]  # fmt: skip
        heapify(world.heap)
        world.now += by_s
        for machine in self._machines:
            machine.leap(by_s)
        self.leapt_s += by_s


def _said(life: MemberLife) -> tuple[Any, ...]:
    """What a member that does anything does not say twice."""
    engine = life.member.engine
    counters = vars(engine.counters()).values()
    return id(life), len(life.member.firewall.connections), engine.sequence, *counters


def _waits(life: MemberLife) -> bool:
    """For an acknowledgement, or for a connection that was announced."""
    member = life.member
    return bool(member.engine.unacknowledged() or member.firewall.connections.expected.entries)


def _is_turn(function: Callable[[Any], object]) -> bool:
    """Of a member's loop, or of who looks at members; both are told when they are due."""
    return getattr(function, "__func__", None) in (MemberLife._turn, Observer.look)


def _is_plain(way: Impairment) -> bool:
    return bool(way.harmless or way.cut)

