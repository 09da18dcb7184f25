"""What a lab's steps do one after the other to members, workloads and services: what cannot come next is told. Pure.

Only what the file itself says counts: a member that dies by itself is not foreseen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from labs.procedure.steps import Block
from labs.procedure.verbs import VERBS, Life, Step
from labs.traffic.workload import AnyWorkload, Flood

Say = Callable[[str, str], None]
_HOW = {
    Life.STOPPED: "start it in an earlier step", Life.RUNNING: "remove it from this step",
    Life.PAUSED: "resume it in an earlier step", Life.OFF: "power_on brings it back",
}  # fmt: skip


class Lives:
    """The state of things as the steps go on."""

    def __init__(self, members: Iterable[str], workloads: Mapping[str, AnyWorkload], say: Say) -> None:
        self._members = dict.fromkeys(members, Life.STOPPED)
        self._workloads = workloads
        self._opened: Counter[str] = Counter()
        self._blocks: set[tuple[frozenset[str], tuple[str, int]]] = set()
        self._say = say

    def follow(self, steps: Iterable[Step]) -> None:
        """Go through the steps in order; what cannot be done is added to the problems."""
        for step in steps:
            if VERBS[step.verb].wants:
                self._deed(step)
            elif isinstance(step.what, Block):
                self._block(step)
            else:
                self._workload(step)

    def _deed(self, step: Step) -> None:
        verb = VERBS[step.verb]
        for member in step.what.targets(self._members):
            state = self._members.get(member)
            if state is None:
                continue  # a name that does not exist is told elsewhere
            if state not in verb.wants:
                self._say(f"{step.where}.{step.verb}", f"{member} is {state} here; {_HOW[state]}")
            self._members[member] = verb.leaves or state
        if step.verb == "failover" and not step.what.members_named() and Life.RUNNING not in self._members.values():
            self._say(f"{step.where}.failover", "no member is running here; start two in an earlier step")

    def _workload(self, step: Step) -> None:
        key = f"{step.where}.{step.verb}"
        for name in step.what.workloads_named():
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

