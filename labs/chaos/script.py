"""The steps of a chaos lab as far as they are written, and what they leave: what members are, what is open, what is
broken. Pure.

What a member can be told next is read from the table of verbs.
"""

from __future__ import annotations

import random
from typing import Any

from labs.chaos.choices import lab_time
from labs.procedure.references import VERBS_OF
from labs.procedure.verbs import VERBS, Life

SPANS_SHARE = 0.1
"""Of the steps, those that come at a moment of a span, which the seed of the run chooses."""
UNDO = {"cut": "restore", "limit": "unlimit", "lose": "unlose", "delay": "undelay"}
OPENED_AGAIN = ("flood", "ping", "short")
"""Kinds of workloads that open as many again at each time; others are opened once."""


class Script:
    """`lab` is the rest of the file."""

    def __init__(self, source: random.Random, lab: dict[str, Any]) -> None:
        self.random = source
        self.lab = lab
        self.rate = float(lab["clock"]["rate"])
        self.kinds = {name: str(workload["kind"]) for name, workload in lab["workloads"].items()}
        self.members = list(lab["members"])
        self.states = dict.fromkeys(self.members, Life.STOPPED)
        self.faults: dict[tuple[str, str], None] = {}
        """The verb, and the link; in the order in which they were made."""
        self.steps: list[dict[str, Any]] = []
        self._opened = dict.fromkeys(self.kinds, 0)

    def step(self, verb: str, arguments: Any) -> None:
        step = {verb: arguments}
        if verb != "wait" and self.random.random() < SPANS_SHARE:
            step["after"] = f"{lab_time(0.05, self.rate)}..{lab_time(1.0, self.rate)}"
        self.steps.append(step)

    def wait(self, wall_s: float) -> None:
        self.step("wait", lab_time(wall_s, self.rate))

    # -- members

    def of(self, state: Life) -> list[str]:
        return [member for member, was in self.states.items() if was == state]

    def able(self, verb: str) -> list[str]:
        return [member for member, state in self.states.items() if state in VERBS[verb].wants]

    def to_members(self, verb: str, members: list[str], **arguments: Any) -> None:
        """One step for all of them; with arguments, for one."""
        names: Any = members if len(members) > 1 else members[0]
        self.step(verb, {"member": names, **arguments} if arguments else names)
        for member in members:
            self.states[member] = VERBS[verb].leaves or self.states[member]

    # -- wires

    def break_link(self, verb: str, link: str, **how: str) -> None:
        """Once of a kind on each link."""
        if (verb, link) not in self.faults:
            self.step(verb, {"links": link, **how})
            self.faults[verb, link] = None

    def mend_link(self, verb: str, link: str) -> None:
        del self.faults[verb, link]
        self.step(UNDO[verb], link)

    # -- workloads

    def opened(self) -> list[str]:
        return [name for name, times in self._opened.items() if times]

    def add_workload(self, name: str, workload: dict[str, Any], **service: Any) -> None:
        """One more in the lab, which its policy accepts as this service."""
        self.lab["workloads"][name] = workload
        self.lab["policy"]["services"][name] = {"port": workload["port"], **service}
        self.lab["policy"]["rules"][0]["service"].append(name)
        self.kinds[name] = str(workload["kind"])
        self._opened[name] = 0

    def can_open(self) -> list[str]:
        return [n for n, times in self._opened.items() if times < 1 + (self.kinds[n] in OPENED_AGAIN)]

    def open(self, name: str) -> None:
        self._opened[name] += 1
        self.step("open", name)

    def begin_connections(self, *kinds: str) -> None:
        """A workload of these kinds begins, or connects anew; where there is none, whatever can be opened."""
        can_open, opened = self.can_open(), self.opened()
        if able := [name for name in can_open if self.kinds[name] in kinds]:
            self.open(self.random.choice(able))
        elif able := [n for n in opened if self.kinds[n] in kinds and "reconnect" in VERBS_OF[self.kinds[n]]]:
            self.step("reconnect", {"workload": self.random.choice(able), "which": "all"})
        elif can_open:
            self.open(self.random.choice(can_open))
