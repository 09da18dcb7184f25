"""The steps of a chaos lab: deeds and faults in an order that can be, and a calm end. Pure.

What a member can be told next is read from the table of verbs.
Every fault is taken away at the end, and what was stopped may be started again, so that the members have time to agree:
then there is something to compare.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from labs.chaos.choices import lab_time, pick
from labs.procedure.references import VERBS_OF
from labs.procedure.verbs import VERBS, Life
from labs.traffic.workload import KINDS

STEPS_MOST = 14
"""Deeds and faults of one lab, besides its beginning and its end."""
CALM_S = 9.0
"""Wall seconds of quiet at the end: a member that starts in it listens and takes a table; what was owed is sent."""
START_S = 1.5
"""Wall seconds in which members that start become what they will be."""
SPANS_SHARE = 0.1
"""Of the steps, those that come at a moment of a span, which the seed of the run chooses."""
UNDO = {"cut": "restore", "limit": "unlimit", "lose": "unlose", "delay": "undelay"}
LIFE_DEEDS = {
    "start": 6, "stop": 4, "kill": 6, "power_cut": 4, "power_on": 5, "upgrade": 6, "pause": 5, "resume": 8,
    "down": 5, "up": 5, "failover": 4,
}  # fmt: skip
FAULTS = {"cut": 6, "limit": 3, "lose": 5, "delay": 3}
OTHERS = {"workload": 16, "undo": 8, "policy": 5, "set": 4, "block": 2}
SET_RUNNING: dict[str, tuple[int, ...]] = {
    "fw_allow_out_of_state_tcp": (0, 1), "fw_sync_block_new_conns": (0, -1), "fw_sync_buffer_threshold": (1, 2, 80),
    "fw_sync_allowed_protocols": (0, 24, 31), "fwlab_sync_heal": (0, 1), "fwlab_sync_flush_and_ack": (0, 1),
    "connections_limit": (20, 1_000_000),
}  # fmt: skip


class Procedure:
    """`lab` is the rest of the file; `pair` are the older and the newer release of this lab."""

    def __init__(self, source: random.Random, lab: dict[str, Any], pair: tuple[str, str]) -> None:
        self._random = source
        self._lab = lab
        self._pair = pair
        self._rate = float(lab["clock"]["rate"])
        self._kinds = {name: str(workload["kind"]) for name, workload in lab["workloads"].items()}
        self._members = list(lab["members"])
        self._states = dict.fromkeys(self._members, Life.STOPPED)
        self._opened = dict.fromkeys(self._kinds, 0)
        self._faults: dict[tuple[str, str], None] = {}  # the verb, and the link; in the order in which they were made
        self._blocks: dict[tuple[str, str], None] = {}
        self._found: list[dict[str, Any]] = []

    def steps(self) -> list[dict[str, Any]]:
        self._begin()
        for _ in range(self._random.randint(3, STEPS_MOST)):
            self._something()
            if self._random.random() < 0.7:
                self._wait(self._random.choice((0.05, 0.2, 0.5, 1.0, 2.0, 4.0)) * self._random.uniform(0.5, 1.5))
        self._calm()
        return self._found

    def _step(self, verb: str, arguments: Any) -> None:
        step = {verb: arguments}
        if verb != "wait" and self._random.random() < SPANS_SHARE:
            step["after"] = f"{lab_time(0.05, self._rate)}..{lab_time(1.0, self._rate)}"
        self._found.append(step)

    def _wait(self, wall_s: float) -> None:
        self._step("wait", lab_time(wall_s, self._rate))

    # -- the beginning and the end

    def _begin(self) -> None:
        """All members at once, or some of them later than the first workloads."""
        together = self._random.random() < 0.6
        self._deed("start", self._members if together else self._members[:-1])
        self._wait(START_S * self._random.uniform(0.3, 2.0))
        for name in self._kinds:
            if self._random.random() < 0.8:
                self._open(name)
        if not together and self._random.random() < 0.6:  # a table takes its time to come, and changes meanwhile
            slow = self._random.choice([("delay", {"by": "300ms"}), ("limit", {"rate": "20kbit"})])
            self._step(slow[0], {"links": "sync", **slow[1]})
            self._faults[slow[0], "sync"] = None
            self._deed("start", self._members[-1:])

    def _calm(self) -> None:
        for member in self._members:
            if self._states[member] == Life.PAUSED:
                self._deed("resume", [member])
        while self._faults:
            self._undo()
        for between, service in list(self._blocks):
            self._unblock(between, service)
        if self._random.random() < 0.7:
            for member in self._members:
                if self._states[member] in (Life.STOPPED, Life.OFF):
                    self._deed("start" if self._states[member] == Life.STOPPED else "power_on", [member])
        workloads = self._lab["workloads"]
        endless = [n for n in self._open_ones() if self._kinds[n] == "short" and "count" not in workloads[n]]
        if endless:
            self._step("finish", endless)
        self._wait(CALM_S)

    # -- one deed

    def _something(self) -> None:
        able: dict[str, int] = {**OTHERS, **FAULTS}
        if not self._open_ones() and not self._can_open():
            del able["workload"]
        if not self._faults and not self._blocks:
            del able["undo"]
        able |= {verb: often for verb, often in LIFE_DEEDS.items() if self._able(verb)}
        if not self._of(Life.RUNNING):
            del able["set"]
        verb = pick(self._random, able)
        if verb in LIFE_DEEDS:
            self._deed(verb, [self._random.choice(self._able(verb))])
        elif verb in FAULTS:
            self._fault(verb)
        else:
            deeds: dict[str, Callable[[], None]] = {
                "workload": self._workload, "undo": self._undo_one, "policy": self._policy, "set": self._set,
                "block": self._block,
            }  # fmt: skip
            deeds[verb]()

    def _of(self, state: Life) -> list[str]:
        return [member for member, was in self._states.items() if was == state]

    def _able(self, verb: str) -> list[str]:
        return [member for member, state in self._states.items() if state in VERBS[verb].wants]

    def _deed(self, verb: str, members: list[str]) -> None:
        after = VERBS[verb].leaves
        if verb == "upgrade":
            release = self._pair[1] if self._random.random() < 0.8 else self._pair[0]
            self._step("upgrade", {"member": members[0], "release": release})
        elif verb == "failover":
            self._step("failover", members[0] if self._random.random() < 0.75 else {})
        else:
            self._step(verb, members if len(members) > 1 else members[0])
        for member in members:
            self._states[member] = after or self._states[member]

    # -- wires

    def _links(self) -> list[str]:
        """Those of the members, the sync network more often, and whole switches."""
        of_members = [f"{member}-{switch}" for member in self._members for switch in ("lan", "wan", "sync", "sync")]
        return [*of_members, "sync", "sync", "lan", "wan"]

    def _fault(self, verb: str) -> None:
        link = self._random.choice(self._links())
        if (verb, link) in self._faults:
            return
        what: dict[str, Any] = {"links": link}
        if verb == "limit":
            what["rate"] = self._random.choice(["20kbit", "100kbit", "1mbit"])
        elif verb == "lose":
            what["share"] = self._random.choice(["5%", "20%", "50%", "90%"])
        elif verb == "delay":
            what["by"] = self._random.choice(["5ms", "50ms", "300ms"])
        if verb != "limit" and "-" in link and self._random.random() < 0.5:
            what["way"] = self._random.choice(["in", "out"])
        self._step(verb, what)
        self._faults[verb, link] = None

    def _undo(self) -> None:
        verb, link = next(iter(self._faults))
        del self._faults[verb, link]
        self._step(UNDO[verb], link)

    def _undo_one(self) -> None:
        if self._blocks and (not self._faults or self._random.random() < 0.3):
            self._unblock(*next(iter(self._blocks)))
        else:
            self._undo()

    def _block(self) -> None:
        between = self._random.sample(self._members, 2)
        if (blocked := (",".join(sorted(between)), "FW1")) not in self._blocks:
            self._blocks[blocked] = None
            self._step("block", {"between": sorted(between), "service": "FW1"})

    def _unblock(self, between: str, service: str) -> None:
        del self._blocks[between, service]
        self._step("unblock", {"between": between.split(","), "service": service})

    # -- policy and parameters

    def _policy(self) -> None:
        able = [member for member, state in self._states.items() if state in VERBS["policy"].wants]
        if not able:
            return
        members = able if self._random.random() < 0.5 else [self._random.choice(able)]
        self._step("policy", {"members": members, "patch": self._patch(members)})

    def _patch(self, members: list[str]) -> dict[str, Any]:
        policy = self._lab["policy"]
        accepting, cleanup = policy["rules"][0], policy["rules"][-1]
        kind = pick(self._random, {"same": 2, "fewer": 4, "learn": 4, "control": 1, "keep": 1})
        if kind == "learn":
            return {"out_of_state": {"drop_tcp": True, "exceptions": members}}
        if kind == "control":
            return {"implied_rules": {"control_connections": False}}
        if kind == "fewer":
            dropped = self._random.choice(accepting["service"])
            rule = {"name": "dropped", "service": dropped, "action": self._random.choice(["drop", "reject"])}
            patch: dict[str, Any] = {"name": "stricter", "rules": [rule, accepting, cleanup]}
            if self._random.random() < 0.4:
                patch["out_of_state"] = {"drop_tcp": False}
            return patch
        return {"name": "again", **({"on_install": "keep"} if kind == "keep" else {})}

    def _set(self) -> None:
        name = self._random.choice(list(SET_RUNNING))
        value = self._random.choice(SET_RUNNING[name])
        self._step("set", {"member": self._random.choice(self._of(Life.RUNNING)), name: value})

    # -- workloads

    def _open_ones(self) -> list[str]:
        return [name for name, times in self._opened.items() if times]

    def _can_open(self) -> list[str]:
        """Each once; those that open as many again at each time, a second time."""
        twice = ("flood", "ping", "short")
        return [n for n, times in self._opened.items() if times < 1 + (self._kinds[n] in twice)]

    def _open(self, name: str) -> None:
        self._opened[name] += 1
        self._step("open", name)

    def _workload(self) -> None:
        able = [("open", name) for name in self._can_open()]
        for name in self._open_ones():
            verbs = VERBS_OF[self._kinds[name]] - {"open", "finish"}
            able += [(verb, name) for verb in sorted(verbs)]
        if not able:
            return
        verb, name = self._random.choice(able)
        if verb == "open":
            self._open(name)
        elif verb == "reconnect":
            which = self._random.choice(["all", "ended"])
            self._step("reconnect", {"workload": name, "which": which})
        else:
            self._step(verb, name)


assert set(VERBS_OF) == set(KINDS)
