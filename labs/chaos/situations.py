"""Situations of a chaos lab: a few deeds in a row that are hard on a cluster, and that deeds drawn one by one seldom
make. Pure.

Members are left as they come out of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labs.chaos.choices import lab_time
from labs.chaos.policies import stricter
from labs.chaos.script import Script
from labs.procedure.verbs import Life

IDLE = "idle9"
"""The name of a workload whose sessions are silent for longer than the firewall remembers them, now and then."""
IDLE_TIMEOUT_S = 2.0
"""Wall seconds for which it does; the sessions think for up to 3 s."""


@dataclass(frozen=True)
class Situation:
    act: Callable[[Script], None]
    wants: int
    """Members that have to run."""
    often: int
    one_forwards: bool = False
    """Only in high availability."""

    def can_be(self, script: Script) -> bool:
        shared = script.lab["topology"]["cluster"]["mode"] != "high-availability"
        return len(script.of(Life.RUNNING)) >= self.wants and not (self.one_forwards and shared)


def takeover_with_witnesses(script: Script) -> None:
    """The active member dies while connections begin and end; of three or more, others have heard what it told."""
    script.begin_connections("short", "flood", "sessions")
    script.wait(script.random.uniform(0.5, 2.0))
    verb = script.random.choice(["kill", "kill", "power_cut"])
    script.to_members(verb, script.of(Life.RUNNING)[:1])  # the lowest number is active most of the time
    script.wait(script.random.uniform(1.0, 4.0))


def join_with_losses(script: Script) -> None:
    """A member takes a table that comes slowly, because packets are lost, and others go on telling meanwhile."""
    if not script.of(Life.STOPPED):
        script.to_members(script.random.choice(["stop", "kill"]), script.of(Life.RUNNING)[-1:])
        script.wait(script.random.uniform(0.2, 3.0))
    script.break_link("lose", "sync", share=script.random.choice(["20%", "30%"]))
    script.begin_connections("flood", "short")
    script.wait(0.05)
    script.to_members("start", script.of(Life.STOPPED)[-1:])  # the step ends when the member has a table, or none
    script.mend_link("lose", "sync")
    script.wait(script.random.uniform(4.0, 6.0))


def rules_become_stricter(script: Script) -> None:
    """A rule ends connections on which packets go on coming, at all members at once."""
    script.begin_connections("sessions", "short")
    script.wait(script.random.uniform(0.5, 2.0))
    script.step("policy", {"members": script.of(Life.RUNNING), "patch": stricter(script)})
    script.wait(script.random.uniform(0.5, 3.0))


def left_alone_with_the_idle(script: Script) -> None:
    """Nobody hears the active member any more, and its connections are silent for almost as long as they may."""
    if IDLE not in script.kinds:
        pauses = f"{lab_time(0.3, script.rate)}..{lab_time(3.0, script.rate)}"
        workload = {"kind": "sessions", "count": 25, "port": 7900, "think": pauses,
                    "patience": lab_time(3.0, script.rate)}  # fmt: skip
        script.add_workload(IDLE, workload, protocol="tcp", session_timeout=lab_time(IDLE_TIMEOUT_S, script.rate))
        script.open(IDLE)
    script.wait(script.random.uniform(0.2, 1.0))
    running = script.of(Life.RUNNING)
    if script.random.random() < 0.3:
        script.break_link("cut", "sync")
    else:
        script.to_members(script.random.choice(["stop", "kill", "power_cut"]), running[1:])
    script.wait(script.random.uniform(6.0, 9.0))


SITUATIONS = (
    Situation(takeover_with_witnesses, wants=3, often=3), Situation(join_with_losses, wants=2, often=2),
    Situation(rules_become_stricter, wants=2, often=2),
    Situation(left_alone_with_the_idle, wants=2, often=2, one_forwards=True),
)  # fmt: skip
