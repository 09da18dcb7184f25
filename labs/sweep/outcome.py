"""What came of one seed, in few figures, from the document of its run. Pure.

It crosses from a worker to the sweep as plain data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from labs.procedure.document import OWN_ERROR
from labs.traffic.fates import FAILED, Fate

VERDICTS = ("pass", "warn", "fail", "error")
"""Of a run; `error`: it was broken off by a fault of the program, or its worker died."""
COUNTED = ("sessions", *map(str, Fate), "open")
SILENCE = "longest_silence_s"
_STEP = re.compile(r"steps\[[0-9]+\]\.[a-z_]+")


@dataclass(frozen=True)
class Outcome:
    """One seed: its verdict, what failed, and what became of the sessions."""

    seed: int
    verdict: str
    failed: dict[str, str]
    """What did not hold -> what was seen. Warnings are not among them, unless nothing else went wrong."""
    workloads: dict[str, dict[str, float]]
    """Of each workload: its sessions, their fates, the slowest answer, and what its kind counts besides."""

    @property
    def lost(self) -> int:
        """Sessions that hung, were reset or refused."""
        return int(sum(figures.get(fate, 0) for figures in self.workloads.values() for fate in FAILED))

    @property
    def slowest_s(self) -> float:
        return max((figures.get(SILENCE, 0.0) for figures in self.workloads.values()), default=0.0)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def of_document(seed: int, document: Mapping[str, Any]) -> Outcome:
    """The outcome that a run's document tells."""
    verdict = "error" if document["problem"].startswith(OWN_ERROR) else document["verdict"]
    return Outcome(seed, verdict, _failed(document),
                   {name: _figures(figures) for name, figures in document["workloads"].items()})  # fmt: skip


def of_error(seed: int, what: str) -> Outcome:
    """A seed that has no document."""
    return Outcome(seed, "error", {what.partition("\n")[0]: what}, {})


def _figures(figures: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}


def _failed(document: Mapping[str, Any]) -> dict[str, str]:
    failed = {}
    if problem := document["problem"]:
        step = _STEP.match(problem)
        failed[step[0] if step else problem] = problem
    broken = [expectation for expectation in document["expectations"] if not expectation["held"]]
    grave = [expectation for expectation in broken if not expectation["warn"]]
    for expectation in grave or (broken if not failed else []):
        at = "" if expectation["at"] == "the end" else f" (at {expectation['at']})"
        failed.setdefault(f"{expectation['text']}", f"{expectation['that']} is {expectation['seen']}, wanted "
                                                    f"{expectation['wanted']}{at}")  # fmt: skip
    return failed
