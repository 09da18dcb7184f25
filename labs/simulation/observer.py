"""Watches a simulated run: looks at its members ten times a second, and asks the invariants. It changes nothing.

It reads what members and machines show; of the packets it looks at one from look to look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import inf
from typing import Any

from labs.simulation.invariants import Broken, Judge
from labs.simulation.invariants.forwarding import may_pass
from labs.simulation.invariants.look import Look, MemberLook
from labs.simulation.loop import World
from labs.simulation.member_life import MemberLife
from labs.simulation.member_machine import MemberMachine
from labs.traffic.fates import Fate
from syncproto.joining import AttemptState
from syncproto.release import Compatibility

LOOK_S = 0.1
"""Wall seconds between two looks: a sync tick, and the interval of heartbeats."""
SECOND_S = 1.0
"""And between two that walk through tables."""
OFFSET_S = 0.037
"""Looks are so far off the ticks of members that start on the tenth of a second, when what they told has arrived."""


class _Watched:
    """What is remembered of one machine from look to look."""

    def __init__(self, machine: MemberMachine, number: int, now: float) -> None:
        self.machine = machine
        self.number = number
        self.life: MemberLife | None = None
        self.lives = 0
        self.runs_since: float | None = None
        self.away_since = now
        self.whole_since: float | None = now
        self.forwarded_before = 0
        self.has_all = False
        """It has taken a whole table in this life, or nobody was there that could have had one when it began."""
        self.looked_at = False
        self.unfounded = b""
        self.answered_early = False
        machine.watch = self._sent_on

    def _sent_on(self, packet: bytes) -> None:
        """One packet from look to look is looked at, when it goes: its connection may end before the next look."""
        if not self.looked_at:
            self.looked_at = True
            life = self.machine.life
            if life is not None and not may_pass(life.member.firewall, packet):
                self.unfounded = packet

    def notice(self, now: float, others: Iterable[_Watched]) -> MemberLife | None:
        """Its life as of now, and since when it is what it is."""
        life = self.machine.life
        if life is not None and life is not self.life:
            self.life = life
            self.lives += 1
            self.runs_since = None
            self.forwarded_before = self.machine.forwarded
            self.has_all = all(other is self or other.machine.life is None for other in others)
            life.answer = partial(self._answers, life, life.answer)  # type: ignore[method-assign]
        if life is None or life.paused:
            if self.runs_since is not None:
                self.runs_since, self.away_since = None, now
        elif self.runs_since is None:
            self.runs_since = now
        if life is not None and not self.has_all:
            self.has_all = life.member.sync.full_sync["state"] == AttemptState.DONE.value
        if not self._is_whole():
            self.whole_since = None
        elif self.whole_since is None:
            self.whole_since = now
        return life

    def _answers(self, life: MemberLife, carry_out: Any, answering: bool) -> None:
        """The order of things within one event can be seen at this moment alone."""
        self.answered_early |= answering and not life.member.firewall.forwarding
        carry_out(answering)

    def _is_whole(self) -> bool:
        return all(
            interface.up and interface.rate is None and interface.inward.harmless and interface.outward.harmless
            for interface in self.machine.interfaces.values()
        )


class Observer:
    """The watch over one run. `broken` is what did not hold; `tell` hears of each when it is seen."""

    def __init__(
        self,
        world: World,
        members: Mapping[str, MemberMachine],
        compatibility: Compatibility,
        tell: Callable[[Broken], None],
        *,
        load_sharing: bool,
    ) -> None:
        self._world = world
        self._watched = [_Watched(machine, number, world.now) for number, machine in enumerate(members.values(), 1)]
        self._compatibility = compatibility
        self._tell = tell
        self._load_sharing = load_sharing
        self._judge = Judge()
        self._begun = world.now
        self._second_at = -inf
        self._looking = False

    @property
    def broken(self) -> list[Broken]:
        return self._judge.broken

    def begin(self) -> None:
        """From now on."""
        self._looking = True
        self._look_at(self._world.now + OFFSET_S)

    def end(self, document: Mapping[str, Any]) -> bool:
        """A last look, and one at what the run's document says of the workloads. Whether there is something to tell."""
        self._looking = False
        before = len(self.broken)
        workloads: Mapping[str, Mapping[str, Any]] = document["workloads"]
        fates = {name: figures["open"] + sum(figures[fate] for fate in Fate) for name, figures in workloads.items()}
        self._ask({name: (workloads[name]["sessions"], fates[name]) for name in fates}, second=True)
        return len(self.broken) > before

    def _look_at(self, when: float) -> None:
        self._world.at(when, self.look, when)

    def look(self, _when: float) -> None:
        """Time for a look. Where nothing happens it may be put off with everything (`labs.simulation.leaping`)."""
        if not self._looking:
            return
        second = self._world.now >= self._second_at
        if second:
            self._second_at = self._world.now + SECOND_S
        self._ask({}, second)
        self._look_at(self._world.now + LOOK_S)

    def _ask(self, sessions: Mapping[str, tuple[int, int]], second: bool) -> None:
        now = self._world.now
        members = list(self._members(now))
        look = Look(now, self._load_sharing, members, self._compatibility.gate, second, sessions)
        for broken in self._judge.look(look, now - self._begun):
            self._tell(broken)

    def _members(self, now: float) -> Iterable[MemberLook]:
        """Those that have been started."""
        for watched in self._watched:
            life = watched.notice(now, self._watched)
            if watched.life is not None:
                yield _shown(watched, watched.life if life is None else life)
            watched.looked_at, watched.unfounded, watched.answered_early = False, b"", False


def _shown(watched: _Watched, life: MemberLife) -> MemberLook:
    machine, member = watched.machine, life.member
    cluster, sync = member.cluster, member.sync
    return MemberLook(
        name=machine.name,
        number=watched.number,
        release=member.config.release,
        life=watched.lives,
        runs_since=watched.runs_since,
        away_since=watched.away_since,
        whole_since=watched.whole_since,
        state=cluster.state,
        changed_at=machine.world_time(cluster.changed_at),
        problems=tuple(cluster.problems()),
        heard_at={number: machine.world_time(peer.heard_at) for number, peer in cluster.peers.items()},
        heartbeat_s=cluster.heartbeat_s,
        dead_timeout_s=cluster.dead_timeout_s,
        answers=life.answering,
        answered_early=watched.answered_early,
        forwarded=machine.forwarded,
        forwarded_before=watched.forwarded_before,
        unfounded=watched.unfounded,
        queued=life.waiting,
        held=len(sync.held),
        lab_now=member.clock.at(machine.wire()),
        firewall=member.firewall,
        engine=sync.engine,
        reached=lambda peer: cluster.sync_network.reach(peer).whole,
        joined=watched.has_all and sync.joining.over and sync.joining.incomplete is None,
        failures=member.guard.failures,
        events=len(member.events),
    )
