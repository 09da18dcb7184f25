"""The steps of a chaos lab: deeds, faults and situations in an order that can be, and a calm end. Pure.

Every fault is taken away at the end, and what was stopped may be started again, so that the members have time to agree:
then there is something to compare.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from labs.chaos.choices import pick
from labs.chaos.policies import changed
from labs.chaos.script import Script
from labs.chaos.situations import SITUATIONS
from labs.procedure.references import VERBS_OF
from labs.procedure.verbs import Life
from labs.traffic.workload import KINDS

STEPS_MOST = 14
"""Deeds, faults and situations of one lab, besides its beginning and its end."""
CALM_S = 9.0
"""Wall seconds of quiet at the end: a member that starts in it listens and takes a table; what was owed is sent."""
START_S = 1.5
"""Wall seconds in which members that start become what they will be."""
LIFE_DEEDS = {
    "start": 6, "stop": 4, "kill": 6, "power_cut": 4, "power_on": 5, "upgrade": 6, "pause": 5, "resume": 8,
    "down": 5, "up": 5, "failover": 4,
}  # fmt: skip
FAULTS = {"cut": 6, "limit": 3, "lose": 5, "delay": 3}
OTHERS = {"workload": 16, "undo": 8, "policy": 5, "set": 4, "block": 2, "situation": 12}
SET_RUNNING: dict[str, tuple[int, ...]] = {
    "fw_allow_out_of_state_tcp": (0, 1), "fw_sync_block_new_conns": (0, -1), "fw_sync_buffer_threshold": (1, 2, 80),
    "fw_sync_allowed_protocols": (0, 24, 31), "fwlab_sync_heal": (0, 1), "fwlab_sync_flush_and_ack": (0, 1),
    "connections_limit": (20, 1_000_000),
}  # fmt: skip


class Procedure:
    """`lab` is the rest of the file; `pair` are the older and the newer release of this lab."""

    def __init__(self, source: random.Random, lab: dict[str, Any], pair: tuple[str, str]) -> None:
        self._random = source
        self._pair = pair
        self._script = Script(source, lab)
        self._blocks: dict[tuple[str, str], None] = {}

    def steps(self) -> list[dict[str, Any]]:
        self._begin()
        for _ in range(self._random.randint(3, STEPS_MOST)):
            self._something()
            if self._random.random() < 0.7:
                self._script.wait(self._random.choice((0.05, 0.2, 0.5, 1.0, 2.0, 4.0)) * self._random.uniform(0.5, 1.5))
        self._calm()
        return self._script.steps

    # -- the beginning and the end

    def _begin(self) -> None:
        """All members at once, or some of them later than the first workloads."""
        script = self._script
        together = self._random.random() < 0.6
        script.to_members("start", script.members if together else script.members[:-1])
        script.wait(START_S * self._random.uniform(0.3, 2.0))
        for name in script.kinds:
            if self._random.random() < 0.8:
                script.open(name)
        if not together and self._random.random() < 0.6:  # a table takes its time to come, and changes meanwhile
            verb, how = self._random.choice([("delay", {"by": "300ms"}), ("limit", {"rate": "20kbit"})])
            script.break_link(verb, "sync", **how)
            script.to_members("start", script.members[-1:])

    def _calm(self) -> None:
        script = self._script
        for member in script.of(Life.PAUSED):
            script.to_members("resume", [member])
        for verb, link in list(script.faults):
            script.mend_link(verb, link)
        for between, service in list(self._blocks):
            self._unblock(between, service)
        if self._random.random() < 0.7:
            for member, state in script.states.items():
                if state in (Life.STOPPED, Life.OFF):
                    script.to_members("start" if state == Life.STOPPED else "power_on", [member])
        workloads = script.lab["workloads"]
        endless = [n for n in script.opened() if script.kinds[n] == "short" and "count" not in workloads[n]]
        if endless:
            script.step("finish", endless)
        script.wait(CALM_S)

    # -- one deed, or one situation

    def _something(self) -> None:
        script = self._script
        situations = {situation: situation.often for situation in SITUATIONS if situation.can_be(script)}
        able: dict[str, int] = {**OTHERS, **FAULTS}
        if not script.opened() and not script.can_open():
            del able["workload"]
        if not script.faults and not self._blocks:
            del able["undo"]
        if not situations:
            del able["situation"]
        able |= {verb: often for verb, often in LIFE_DEEDS.items() if script.able(verb)}
        if not script.of(Life.RUNNING):
            del able["set"]
        verb = pick(self._random, able)
        if verb in LIFE_DEEDS:
            self._live(verb, self._random.choice(script.able(verb)))
        elif verb in FAULTS:
            self._fault(verb)
        elif verb == "situation":
            pick(self._random, situations).act(script)
        else:
            deeds: dict[str, Callable[[], None]] = {
                "workload": self._workload, "undo": self._undo_one, "policy": self._policy, "set": self._set,
                "block": self._block,
            }  # fmt: skip
            deeds[verb]()

    def _live(self, verb: str, member: str) -> None:
        if verb == "upgrade":
            self._script.to_members(verb, [member], release=self._pair[self._random.random() < 0.8])
        elif verb == "failover" and self._random.random() >= 0.75:
            self._script.step(verb, {})
        else:
            self._script.to_members(verb, [member])

    # -- wires

    def _links(self) -> list[str]:
        """Those of the members, the sync network more often, and whole switches."""
        of_members = [f"{member}-{switch}" for member in self._script.members
                      for switch in ("lan", "wan", "sync", "sync")]  # fmt: skip
        return [*of_members, "sync", "sync", "lan", "wan"]

    def _fault(self, verb: str) -> None:
        link = self._random.choice(self._links())
        how: dict[str, str] = {}
        if verb == "limit":
            how["rate"] = self._random.choice(["20kbit", "100kbit", "1mbit"])
        elif verb == "lose":
            how["share"] = self._random.choice(["5%", "20%", "50%", "90%"])
        elif verb == "delay":
            how["by"] = self._random.choice(["5ms", "50ms", "300ms"])
        if verb != "limit" and "-" in link and self._random.random() < 0.5:
            how["way"] = self._random.choice(["in", "out"])
        self._script.break_link(verb, link, **how)

    def _undo_one(self) -> None:
        faults = self._script.faults
        if self._blocks and (not faults or self._random.random() < 0.3):
            self._unblock(*next(iter(self._blocks)))
        else:
            self._script.mend_link(*next(iter(faults)))

    def _block(self) -> None:
        between = self._random.sample(self._script.members, 2)
        if (blocked := (",".join(sorted(between)), "FW1")) not in self._blocks:
            self._blocks[blocked] = None
            self._script.step("block", {"between": sorted(between), "service": "FW1"})

    def _unblock(self, between: str, service: str) -> None:
        del self._blocks[between, service]
        self._script.step("unblock", {"between": between.split(","), "service": service})

    # -- policy and parameters

    def _policy(self) -> None:
        able = self._script.able("policy")
        if not able:
            return
        members = able if self._random.random() < 0.5 else [self._random.choice(able)]
        self._script.step("policy", {"members": members, "patch": changed(self._script, members)})

    def _set(self) -> None:
        name = self._random.choice(list(SET_RUNNING))
        value = self._random.choice(SET_RUNNING[name])
        self._script.to_members("set", [self._random.choice(self._script.of(Life.RUNNING))], **{name: value})

    # -- workloads

    def _workload(self) -> None:
        script = self._script
        able = [("open", name) for name in script.can_open()]
        for name in script.opened():
            verbs = VERBS_OF[script.kinds[name]] - {"open", "finish"}
            able += [(verb, name) for verb in sorted(verbs)]
        if not able:
            return
        verb, name = self._random.choice(able)
        if verb == "open":
            script.open(name)
        elif verb == "reconnect":
            which = self._random.choice(["all", "ended"])
            script.step("reconnect", {"workload": name, "which": which})
        else:
            script.step(verb, name)


assert set(VERBS_OF) == set(KINDS)
