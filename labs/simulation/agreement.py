"""Whether two runs of a lab, one on real packets and one simulated, say the same. Pure.

Compared are the verdict, what became of each expectation, the fates of each workload's sessions, which reasons of drops
occur, and the order of states that each member went through. What may differ has a name here, and a reason. Where the
worlds differ otherwise, the simulator is taken to be wrong until it is shown that it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from labs.procedure.document import Document
from labs.traffic.fates import Fate

MAY_DIFFER: Mapping[str, str] = {
    "seconds": "processes start, and programs run, as fast as the machine lets them",
    "longest_silence_s": "by the machine's load, and by the moment at which a retransmission timer fires",
    "longest_open_s": "as longest_silence_s",
    "answers": "how many questions fit into a run that takes a little longer",
    "last_answer": "as answers",
    "counters": "how often something was retransmitted depends on which packet was lost",
    "packets": "as counters",
    "connections": "short connections are opened at a pace, and some more of them in a longer run",
}
"""Figures that are not compared, and why. (Expectations about them are: a lab says how much is enough.)"""
PACED = ("short", "ping")
"""Kinds of workloads that go on until they are told to end, so that their number of sessions is one of time. Of them is
compared which fates occur."""
APART_SHARE, APART_LEAST = 0.05, 3
"""Sessions of a fate may differ by this share of the workload's, or by so many: which of them spoke just before a fault
is a matter of milliseconds."""
FEW_DROPS = 20
"""A reason that does not occur in one world may occur so often in the other: packets that were under way at a takeover,
and those that a busy machine sends once more."""


def differences(real: Document, simulated: Document) -> list[str]:
    """What the two documents say differently, a line each."""
    return [*_verdicts(real, simulated), *_fates(real, simulated), *_drops(real, simulated),
            *_states(real, simulated)]  # fmt: skip


def _verdicts(real: Document, simulated: Document) -> Iterator[str]:
    if real["verdict"] != simulated["verdict"]:
        yield f"verdict: {real['verdict']} really, {simulated['verdict']} simulated ({simulated['problem']})"
    ours = {(found["text"], found["at"] == "the end"): found for found in simulated["expectations"]}
    for found in real["expectations"]:
        other = ours.get((found["text"], found["at"] == "the end"))
        if other is None:
            yield f"expectation {found['text']!r}: never judged simulated"
        elif found["held"] != other["held"]:
            yield (f"expectation {found['text']!r}: {_held(found)} really (seen: {found['seen']}), {_held(other)} "
                   f"simulated (seen: {other['seen']})")  # fmt: skip


def _held(judgement: Mapping[str, Any]) -> str:
    return "held" if judgement["held"] else "not held"


def _fates(real: Document, simulated: Document) -> Iterator[str]:
    for name, figures in real["workloads"].items():
        other = simulated["workloads"][name]
        fates = [*map(str, Fate), "open"]
        apart = max(APART_LEAST, APART_SHARE * figures["sessions"])
        if figures["kind"] in PACED:
            differing = [fate for fate in fates if bool(figures[fate]) != bool(other[fate])
                         and max(figures[fate], other[fate]) > apart]  # fmt: skip
        else:
            differing = [fate for fate in ("sessions", *fates) if abs(figures[fate] - other[fate]) > apart]
        yield from (f"workload {name}: {figures[fate]} {fate} really, {other[fate]} simulated" for fate in differing)


def _drops(real: Document, simulated: Document) -> Iterator[str]:
    for member, counts in real["drops"].items():
        other = simulated["drops"][member]
        for reason in sorted(counts.keys() | other.keys()):
            there, here = counts.get(reason, 0), other.get(reason, 0)
            if bool(there) != bool(here) and there + here > FEW_DROPS:
                yield f"drops of {member}: {there} {reason} really, {here} simulated"


def _states(real: Document, simulated: Document) -> Iterator[str]:
    for member in real["members"]:
        there, here = states(real, member), states(simulated, member)
        if there != here:
            yield f"states of {member}: {' -> '.join(there)} really, {' -> '.join(here)} simulated"


def states(document: Document, member: str) -> list[str]:
    """The states that the member went through, in order: `Initializing` begins each of its lives."""
    found: list[str] = []
    for entry in document["timeline"]:
        if entry["kind"] == "member" and entry.get("member") == member:
            old, arrow, rest = entry["text"].removeprefix(f"{member}: ").partition(" -> ")
            if arrow:
                found += [old] if old == "Initializing" else []
                found.append(rest.partition(":")[0])
    return found
