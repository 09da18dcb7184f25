"""What came of many seeds: distributions, what failed where, the worst seed, and which variant loses least. Pure."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labs.procedure.settings import Settings, written
from labs.sweep.outcome import COUNTED, VERDICTS, Outcome
from labs.sweep.variants import Variant

FORMAT = 1
"""Of the document; a reader may rely on the keys of a format."""


@dataclass(frozen=True)
class Distribution:
    """Least, median, most and mean of a figure over the seeds."""

    least: float
    median: float
    most: float
    mean: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Distribution:
        if not values:
            return cls(0, 0, 0, 0)
        return cls(min(values), statistics.median(values), max(values), statistics.fmean(values))

    def as_json(self) -> dict[str, float]:
        return {"least": self.least, "median": self.median, "most": self.most, "mean": round(self.mean, 6)}


class Summary:
    """Of one variant. The order in which its outcomes came does not matter."""

    def __init__(self, lab: str, variant: Variant, outcomes: Iterable[Outcome]) -> None:
        self.lab = lab
        self.label = variant.label
        self.settings = variant.settings
        self.kinds = {name: str(workload.kind) for name, workload in variant.file.workloads.items()}
        self.outcomes = sorted(outcomes, key=lambda outcome: outcome.seed)
        self.told = [outcome for outcome in self.outcomes if outcome.workloads or outcome.verdict != "error"]
        """Those that have figures."""
        self.lost = Distribution.of([outcome.lost for outcome in self.told])
        self.slowest_s = Distribution.of([outcome.slowest_s for outcome in self.told])
        self.verdicts = {verdict: sum(o.verdict == verdict for o in self.outcomes) for verdict in VERDICTS}

    @property
    def failures(self) -> int:
        return self.verdicts["fail"] + self.verdicts["error"]

    @property
    def broken(self) -> int:
        """Seeds in which something was not as expected."""
        return self.failures + self.verdicts["warn"]

    def figure(self, workload: str, figure: str) -> list[float]:
        """Seed by seed."""
        return [outcome.workloads.get(workload, {}).get(figure, 0) for outcome in self.told]

    def figures(self, workload: str) -> list[str]:
        """Those that this workload has in any of the runs, in order."""
        known = dict.fromkeys(COUNTED) | dict.fromkeys(n for o in self.told for n in o.workloads.get(workload, {}))
        return [name for name in known if any(name in o.workloads.get(workload, {}) for o in self.told)]

    def what_failed(self) -> dict[str, list[tuple[int, str]]]:
        """What did not hold -> seeds and what each saw; what failed most often first."""
        found: dict[str, list[tuple[int, str]]] = {}
        for outcome in self.outcomes:
            for what, seen in outcome.failed.items():
                found.setdefault(what, []).append((outcome.seed, seen))
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    def is_warning(self, what: str) -> bool:
        return all(outcome.verdict == "warn" for outcome in self.outcomes if what in outcome.failed)

    @property
    def worst(self) -> Outcome | None:
        """The seed that lost most; of several the one that failed most gravely, then the slowest, then the first."""
        def badness(outcome: Outcome) -> tuple[int, int, float, int]:
            return outcome.lost, VERDICTS.index(outcome.verdict), outcome.slowest_s, -outcome.seed

        return max(self.outcomes, key=badness, default=None)

    def replay(self, seed: int) -> str:
        """The command that plays this seed again, with its whole timeline."""
        return replay_command(self.lab, self.settings, seed)

    def as_json(self) -> dict[str, Any]:
        worst = self.worst
        return {
            "settings": self.settings,
            "verdicts": self.verdicts,
            "lost": self.lost.as_json(),
            "slowest_s": self.slowest_s.as_json(),
            "workloads": {name: {"kind": kind, "figures": self._figures(name)} for name, kind in self.kinds.items()},
            "failures": [{"what": what, "seeds": [seed for seed, _ in seen], "first_seen": seen[0][1]}
                         for what, seen in self.what_failed().items()],
            "worst": None if worst is None else {"seed": worst.seed, "lost": worst.lost, "verdict": worst.verdict,
                                                 "replay": self.replay(worst.seed)},
            "runs": self._runs(),
        }  # fmt: skip

    def _figures(self, workload: str) -> dict[str, Any]:
        return {name: Distribution.of(self.figure(workload, name)).as_json() for name in self.figures(workload)}

    def _runs(self) -> dict[str, Any]:
        """Column by column, in the order of the seeds; a figure that a run does not have is null."""
        columns = {name: {figure: [o.workloads.get(name, {}).get(figure) for o in self.outcomes]
                          for figure in self.figures(name)} for name in self.kinds}  # fmt: skip
        return {"seeds": [o.seed for o in self.outcomes], "verdicts": [o.verdict for o in self.outcomes],
                "lost": [o.lost for o in self.outcomes], "workloads": columns}  # fmt: skip


def replay_command(lab: str, settings: Settings, seed: int) -> str:
    """The command line that plays one seed with these settings again."""
    sets = [word for setting in written(settings) for word in ("--set", setting)]
    return shlex.join(["fwlab", "run", lab, "--simulate", "--seed", str(seed), *sets])


def ranked(summaries: Sequence[Summary]) -> list[Summary]:
    """The variant that loses least first: on average over its seeds, then at its worst, then by what failed."""
    return sorted(summaries, key=lambda s: (s.lost.mean, s.lost.most, s.failures, s.slowest_s.median))


def document(lab: str, title: str, seeds: range, varied: Mapping[str, Sequence[Any]], summaries: Sequence[Summary], *,
             interrupted: bool, took: Mapping[str, Any]) -> dict[str, Any]:  # fmt: skip
    """All of it. `took` is about the machines that ran it; everything else depends on lab and seeds alone."""
    done = sum(len(summary.outcomes) for summary in summaries)
    best = ranked([s for s in summaries if s.outcomes])
    return {
        "format": FORMAT,
        "world": "simulated",
        "lab": lab,
        "title": title,
        "seeds": {"first": seeds[0], "last": seeds[-1]},
        "varied": {key: list(values) for key, values in varied.items()},
        "runs": {"wanted": len(seeds) * len(summaries), "done": done},
        "interrupted": interrupted,
        "loses_least": best[0].settings if len(summaries) > 1 and best else None,
        "variants": [summary.as_json() for summary in summaries],
        "took": dict(took),
    }
