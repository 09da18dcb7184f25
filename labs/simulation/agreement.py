"""Whether two runs of a lab, one on real packets and one simulated, say the same. Pure.

Compared are the verdict, what became of each expectation, the fates of each workload's sessions, which reasons of drops
occur, the order of states that each member went through, and each takeover. What may differ has a name here, and a
reason. Where the worlds differ otherwise, the simulator is taken to be wrong until it is shown that it is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
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
    "packets": "as counters; so does how many packets were dropped, where some were",
    "connections": "short connections are opened at a pace, and some more of them in a longer run",
}
"""Figures that are not compared, and why. (Expectations about them are: a lab says how much is enough.)"""
FLOOD_SHARE = 0.05
"""Of a flood's connections so many may have another fate: how many find a slow link full, or sync under load, is a
matter of the moment at which an ACK comes. Real runs are up to 2 % from each other, and a busy machine's more."""
ENDLESS_SESSIONS_SHARE, ENDLESS_FATES = 0.1, 0.2
"""Of a workload that goes on until it is told to end: by so much its number of sessions may differ, which is one of
time (up to 1.5 % between real runs that a busy machine made longer), and so may the share of a fate: which of some
hundred come while sync is under load (real runs: 4 %, seeds: 12 %)."""
ONE_WORLD: Mapping[str, str] = {
    "NOT_ACTIVE": "packets under way when a member gives way: a switch has brought them to it before it knows better",
    "POLICY": "an answer whose question passed the other member just before a takeover meets one that learns, and "
              "that no rule lets in from outside: with 430 questions a second, one in two real runs, fewer simulated",
}  # fmt: skip
"""Reasons of drops that may occur in one world only, `ONE_WORLD_MAX` times at most: they are those of packets that are
under way at a moment, which is longer on a busy machine."""
ONE_WORLD_MAX = 5
TAKEOVER = ("former", "taker", "former_release", "release", "cause", "exchange", "state")
"""What is compared of a takeover, besides whether the taker knew all connections, some, or none."""


def differences(real: Document, simulated: Document, endless: Collection[str] = ()) -> list[str]:
    """What the two documents say differently, a line each. `endless`: the workloads that have no number of sessions."""
    return [*_verdicts(real, simulated), *_fates(real, simulated, endless), *_drops(real, simulated),
            *_states(real, simulated), *_takeovers(real, simulated)]  # fmt: skip


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


def _fates(real: Document, simulated: Document, endless: Collection[str]) -> Iterator[str]:
    for name, figures in real["workloads"].items():
        other = simulated["workloads"][name]
        alike = _alike_endless if name in endless else _alike_flood if figures["kind"] == "flood" else _alike
        differing = [fate for fate in ("sessions", *map(str, Fate), "open") if not alike(figures, other, fate)]
        yield from (f"workload {name}: {figures[fate]} {fate} really, {other[fate]} simulated" for fate in differing)


def _alike(real: Document, simulated: Document, fate: str) -> bool:
    return bool(real[fate] == simulated[fate])


def _alike_flood(real: Document, simulated: Document, fate: str) -> bool:
    apart = 0.0 if fate == "sessions" else FLOOD_SHARE * real["sessions"]
    return bool(abs(real[fate] - simulated[fate]) <= apart)


def _alike_endless(real: Document, simulated: Document, fate: str) -> bool:
    if fate == "sessions":
        return bool(abs(real[fate] - simulated[fate]) <= ENDLESS_SESSIONS_SHARE * real[fate])
    shares = [world[fate] / max(1, world["sessions"]) for world in (real, simulated)]
    return bool(shares[0]) == bool(shares[1]) and abs(shares[0] - shares[1]) <= ENDLESS_FATES


def _drops(real: Document, simulated: Document) -> Iterator[str]:
    for member, counts in real["drops"].items():
        other = simulated["drops"][member]
        for reason in sorted(counts.keys() | other.keys()):
            there, here = counts.get(reason, 0), other.get(reason, 0)
            allowed = ONE_WORLD_MAX if reason in ONE_WORLD else 0
            if bool(there) != bool(here) and there + here > allowed:
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


def _takeovers(real: Document, simulated: Document) -> Iterator[str]:
    there, here = [[_takeover(one) for one in world["takeovers"]] for world in (real, simulated)]
    if there != here:
        yield f"takeovers: {'; '.join(there) or 'none'} really, {'; '.join(here) or 'none'} simulated"


def _takeover(found: Mapping[str, Any]) -> str:
    known, of = found["taker_connections"], found["former_connections"]
    knew = "none" if not known else "some" if known < of else "all"
    return " ".join([*(str(found[key]) for key in TAKEOVER), f"knew {knew}"])
