"""What a lab's steps do one after the other to members, workloads and services: what cannot come next is told. Pure.

Only what the file itself says counts: a member that dies by itself is not foreseen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from labs.procedure.steps import Block, Failover, Members, Policy, Reconnect, Set, Step, Transfer, Upgrade, Workloads
from labs.traffic.workload import AnyWorkload, Flood

Say = Callable[[str, str], None]
STOPPED, RUNNING, PAUSED, OFF = "stopped", "running", "paused", "without power"
_HOW = {
    STOPPED: "start it in an earlier step", RUNNING: "remove it from this step", PAUSED: "resume it in an earlier step",
    OFF: "power_on brings it back",
}  # fmt: skip
# verb: (the states in which it can be done, the state after it; nothing: as before)
DEEDS: dict[str, tuple[frozenset[str], str]] = {
    "start": (frozenset({STOPPED}), RUNNING),
    "stop": (frozenset({RUNNING}), STOPPED),
    "kill": (frozenset({RUNNING, PAUSED}), STOPPED),
    "power_cut": (frozenset({STOPPED, RUNNING, PAUSED}), OFF),
    "power_on": (frozenset({STOPPED, OFF}), RUNNING),
    "upgrade": (frozenset({STOPPED, RUNNING}), RUNNING),
    "pause": (frozenset({RUNNING}), PAUSED),
    "resume": (frozenset({PAUSED}), RUNNING),
    "down": (frozenset({RUNNING}), ""),
    "up": (frozenset({RUNNING}), ""),
    "set": (frozenset({RUNNING}), ""),
    "failover": (frozenset({RUNNING}), ""),
    "policy": (frozenset({STOPPED, RUNNING, OFF}), ""),
}  # fmt: skip


class Lives:
    """The state of things as the steps go on."""

    def __init__(self, members: Iterable[str], workloads: Mapping[str, AnyWorkload], say: Say) -> None:
        self._members = dict.fromkeys(members, STOPPED)
        self._workloads = workloads
        self._opened: Counter[str] = Counter()
        self._blocks: set[tuple[frozenset[str], tuple[str, int]]] = set()
        self._say = say

    def follow(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if step.verb in DEEDS:
                self._deed(step)
            elif isinstance(step.what, Block):
                self._block(step)
            elif isinstance(step.what, Workloads | Transfer | Reconnect):
                self._workload(step)

    def _deed(self, step: Step) -> None:
        able, after = DEEDS[step.verb]
        for member in members_of(step.what) or (self._members if step.verb == "policy" else []):
            state = self._members.get(member)
            if state is None:
                continue  # a name that does not exist is told elsewhere
            if state not in able:
                self._say(f"{step.where}.{step.verb}", f"{member} is {state} here; {_HOW[state]}")
            self._members[member] = after or state
        if step.verb == "failover" and not members_of(step.what) and RUNNING not in self._members.values():
            self._say(f"{step.where}.failover", "no member is running here; start two in an earlier step")

    def _workload(self, step: Step) -> None:
        key = f"{step.where}.{step.verb}"
        for name in workloads_of(step.what):
            workload = self._workloads.get(name)
            if workload is None:
                continue
            if step.verb != "open" and not self._opened[name]:
                self._say(key, f"{name} is not open here; open it in an earlier step")
            self._opened[name] += step.verb == "open"
            if isinstance(workload, Flood) and self._opened[name] == workload.rounds + 1:
                self._say(key, f"{name} is opened more often than its rounds ({workload.rounds}); raise them")

    def _block(self, step: Step) -> None:
        """A block is put once and taken away once; its rules are the same in both members, whoever is named first."""
        block = (frozenset(step.what.between), step.what.protocol_and_port)
        what = f"{step.what.service} between {' and '.join(step.what.between)}"
        if step.verb == "block":
            if block in self._blocks:
                self._say(f"{step.where}.block", f"{what} is blocked already; remove this step")
            self._blocks.add(block)
        else:
            if block not in self._blocks:
                self._say(f"{step.where}.unblock", f"{what} is not blocked here; block it in an earlier step")
            self._blocks.discard(block)


def members_of(what: Any) -> list[str]:
    """The members that a step names."""
    if isinstance(what, Block):
        return what.between
    if isinstance(what, Members | Policy):
        return what.members or []
    if isinstance(what, Set | Upgrade | Failover):
        return [what.member] if what.member else []
    return []


def workloads_of(what: Any) -> list[str]:
    """The workloads that a step names."""
    if isinstance(what, Workloads | Transfer):
        return what.workloads
    return [what.workload] if isinstance(what, Reconnect) else []
