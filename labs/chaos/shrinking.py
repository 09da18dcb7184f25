"""A failing lab made smaller, as long as it fails alike. Pure: `fails` runs a lab and says whether it still does.

Delta debugging on the structure of the file: steps go, in halves, then smaller and smaller parts, then one by one, then
two by two; then workloads, members, parameters and the rest of the frills; then numbers become small and times round.
Rounds follow as long as one got further. The order is fixed, so the same failure shrinks to the same lab. What the
checker of lab files does not take does not fail alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import combinations
from typing import Any

TRIES_MAX = 600
"""Runs of one shrinking. Lab's own: two or three minutes, and most end by themselves long before."""
PAIRED_STEPS_MOST = 12
"""Of more steps no pairs are tried: 66 runs. Lab's own."""

LabMapping = dict[str, Any]
Fails = Callable[[LabMapping], bool]
_DURATION = re.compile(r"([0-9.]+)s")


class Shrinking:
    """`tries` counts the runs."""

    def __init__(self, fails: Fails, tries_max: int = TRIES_MAX) -> None:
        self._fails = fails
        self._tries_max = tries_max
        self.tries = 0

    def shrink(self, lab: LabMapping) -> LabMapping:
        """The smallest lab that was found; `lab` itself when nothing of it can go."""
        smallest = deepcopy(lab)
        while True:
            before = smallest
            smallest = self._fewer_steps(smallest)
            for candidates in (_without_pairs, _without_workloads, _without_members, _plainer, _smaller):
                smallest = self._all_of(candidates, smallest)
            if smallest == before or self._spent:
                return smallest

    @property
    def _spent(self) -> bool:
        return self.tries >= self._tries_max

    def _still(self, lab: LabMapping) -> bool:
        if self._spent:
            return False
        self.tries += 1
        return self._fails(lab)

    def _fewer_steps(self, lab: LabMapping) -> LabMapping:
        """Parts of the steps go, each half as large as the ones before; from the end, where most is done for calm."""
        size = len(lab["steps"]) // 2
        while size >= 1 and not self._spent:
            end = len(lab["steps"])
            while end > 0:
                begin = max(0, end - size)
                shorter = {**lab, "steps": lab["steps"][:begin] + lab["steps"][end:]}
                if shorter["steps"] and self._still(shorter):
                    lab = shorter
                end = begin
            size //= 2
        return lab

    def _all_of(self, candidates: Callable[[LabMapping], Iterator[LabMapping]], lab: LabMapping) -> LabMapping:
        """The first candidate that fails is taken, and asked for candidates in its turn."""
        refused = 0
        while not self._spent:
            for number, candidate in enumerate(candidates(lab)):
                if number >= refused and self._still(candidate):
                    lab, refused = candidate, number
                    break
            else:
                return lab
        return lab


def _without_pairs(lab: LabMapping) -> Iterator[LabMapping]:
    """Two steps go that cannot go alone, as a stop and the start after it."""
    steps = lab["steps"]
    for one, other in combinations(range(len(steps) if len(steps) <= PAIRED_STEPS_MOST else 0), 2):
        yield {**lab, "steps": [step for number, step in enumerate(steps) if number not in (one, other)]}


def _without_workloads(lab: LabMapping) -> Iterator[LabMapping]:
    for name in lab["workloads"]:
        smaller = deepcopy(lab)
        del smaller["workloads"][name]
        smaller["steps"] = [left for step in smaller["steps"] if (left := _without(step, name))]
        yield smaller


def _without_members(lab: LabMapping) -> Iterator[LabMapping]:
    """The last member goes: names and numbers of the others stay what they are."""
    count = lab["topology"]["members"]
    if count > 2:
        smaller = deepcopy(lab)
        smaller["topology"]["members"] = count - 1
        name = f"fw{count}"
        smaller["members"].pop(name, None)
        steps = [left for step in smaller["steps"] if (left := _without(step, name))]
        smaller["steps"] = [step for step in steps if not _is_link_of(step, name)]
        yield smaller


def _without(step: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The step without the member or workload; None where nothing of it is left."""
    verb, what = next(iter(step.items()))
    if what == name:
        return None
    if isinstance(what, list):
        left = [one for one in what if one != name]
        return {**step, verb: left} if left else None
    if isinstance(what, dict):
        if name in (what.get("member"), what.get("workload"), *what.get("between", ())):
            return None
        patch = what.get("patch", {})
        exceptions = patch.get("out_of_state", {}).get("exceptions")
        if exceptions and name in exceptions:
            exceptions = [one for one in exceptions if one != name]
            what = {**what, "patch": {**patch, "out_of_state": {**patch["out_of_state"], "exceptions": exceptions}}}
        if isinstance(what.get("members"), list):
            left = [one for one in what["members"] if one != name]
            return {**step, verb: {**what, "members": left}} if left else None
        return {**step, verb: what}
    return step


def _is_link_of(step: dict[str, Any], member: str) -> bool:
    what = next(iter(step.values()))
    link = what.get("links") if isinstance(what, dict) else what
    return isinstance(link, str) and link.startswith(f"{member}-")


def _plainer(lab: LabMapping) -> Iterator[LabMapping]:
    """One frill less: a parameter, a release, a mode, a section of the policy, a word of a workload or of a step."""
    for name, member in lab["members"].items():
        for parameter in member.get("parameters", ()):
            yield _changed(lab, ("members", name, "parameters", parameter), None)
        if member.get("parameters") == {}:
            yield _changed(lab, ("members", name, "parameters"), None)
    releases = sorted({member["release"] for member in lab["members"].values()})
    if len(releases) > 1:
        smaller = deepcopy(lab)
        for member in smaller["members"].values():
            member["release"] = releases[0]
        yield smaller
    if lab["topology"].get("cluster", {}).get("mode") != "high-availability":
        yield _changed(lab, ("topology", "cluster"), {"mode": "high-availability"})
    if lab["topology"].get("cluster", {}).get("sharing"):
        yield _changed(lab, ("topology", "cluster", "sharing"), None)
    for section in ("implied_rules", "out_of_state", "on_install"):
        if section in lab["policy"]:
            yield _changed(lab, ("policy", section), None)
    for name, service in lab["policy"].get("services", {}).items():
        for word in service:
            if word not in ("protocol", "port"):
                yield _changed(lab, ("policy", "services", name, word), None)
    yield from _without_unused_services(lab)
    for name, workload in lab["workloads"].items():
        for word in workload:
            if word not in ("kind", "port", "count", "rate"):
                yield _changed(lab, ("workloads", name, word), None)
    for index, step in enumerate(lab["steps"]):
        verb, what = next(iter(step.items()))
        if "after" in step:
            yield _changed(lab, ("steps", index, "after"), None)
        if isinstance(what, dict) and "way" in what:
            yield _changed(lab, ("steps", index, verb, "way"), None)
        if verb in ("kill", "power_cut", "upgrade") and isinstance(what, str):
            yield _changed(lab, ("steps", index), {"stop": what})


def _without_unused_services(lab: LabMapping) -> Iterator[LabMapping]:
    used = set(lab["workloads"])
    rule = lab["policy"]["rules"][0]
    unused = [name for name in lab["policy"].get("services", {}) if name not in used]
    if unused or any(name not in used and name != "echo-request" for name in rule["service"]):
        smaller = deepcopy(lab)
        for name in unused:
            del smaller["policy"]["services"][name]
        left = [name for name in rule["service"] if name in used or name == "echo-request"]
        smaller["policy"]["rules"][0]["service"] = left or ["any"]
        yield smaller


def _smaller(lab: LabMapping) -> Iterator[LabMapping]:
    """One number less, or one time rounder: each at first at once, then by half."""
    for name, workload in lab["workloads"].items():
        count = workload.get("count")
        if isinstance(count, int):
            for fewer in sorted({1, count // 2} - {0, count}):
                yield _changed(lab, ("workloads", name, "count"), fewer)
    rate = lab["clock"]["rate"]
    for index, step in enumerate(lab["steps"]):
        found = _DURATION.fullmatch(str(step.get("wait", "")))
        if found:
            wall_s = float(found[1]) / rate
            for shorter in _rounder(wall_s):
                yield _changed(lab, ("steps", index, "wait"), f"{shorter * rate:g}s")


def _rounder(wall_s: float) -> list[float]:
    """Shorter waits: half of it on a grid that gets finer, and itself on that grid."""
    grid = 1.0 if wall_s > 1 else 0.1 if wall_s > 0.1 else 0.01
    half, whole = round(wall_s / 2 / grid) * grid, int(wall_s / grid) * grid
    return [round(value, 3) for value in dict.fromkeys((half, whole)) if 0 < value < wall_s - 1e-9]


def _changed(lab: LabMapping, path: tuple[Any, ...], value: Any) -> LabMapping:
    """A copy with another value at that place; None: without it."""
    smaller = deepcopy(lab)
    at: Any = smaller
    for part in path[:-1]:
        at = at[part]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return smaller
