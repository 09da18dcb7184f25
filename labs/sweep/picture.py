"""A sweep for the person at the terminal: fates as distributions, what failed and where, and pictures of both."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from labs.report.terminal import console as report_console
from labs.sweep.outcome import COUNTED, SILENCE
from labs.sweep.summary import Distribution, Summary, ranked
from labs.traffic.fates import FAILED
from labs.words import counted

BAR_WIDTH = 40
REACH_WIDTH = 20
BINS_MAX = 12
"""Lines of one picture."""
UNTOLD = ("answers", "longest_open_s")
"""Figures that say nothing of what became of a session."""
SEEDS_SHOWN = 8
FAILURES_SHOWN = 10
"""Of one variant; the JSON document has all."""


def show(summaries: Sequence[Summary], to: Console | None = None) -> None:
    out = to or report_console()
    out.print()
    if len(summaries) == 1:
        _show_alone(summaries[0], out)
        return
    _compare(summaries, out)
    for summary in summaries:
        if summary.broken:
            out.print(Text(summary.label, style="bold underline"))
            _show_failures(summary, out)


def _show_alone(summary: Summary, out: Console) -> None:
    if summary.told:
        out.print(Text(f"What became of the sessions, over {counted(len(summary.told), 'seed')}", style="bold"))
        out.print(distributions(summary))
        out.print()
    for title, values, unit in pictures(summary):
        out.print(Text(title, style="bold"))
        out.print(histogram(values, unit))
        out.print()
    if summary.broken or summary.lost.least < summary.lost.most:
        _show_failures(summary, out)


def _show_failures(summary: Summary, out: Console) -> None:
    """What failed in which seeds, and how the worst one is played again."""
    found = list(summary.what_failed().items())
    for what, seen in found[:FAILURES_SHOWN]:
        word, style = ("warning", "yellow") if summary.is_warning(what) else ("FAILED", "bold red")
        out.print(Text.assemble((f"{counted(len(seen), 'seed')} {word}  ", style), what))
        out.print(Text(f"  {named_seeds([seed for seed, _ in seen])}"))
        if seen[0][1] != what:
            out.print(Text(f"  seed {seen[0][0]}: {seen[0][1]}", style="dim"))
    if len(found) > FAILURES_SHOWN:
        out.print(Text(f"and {len(found) - FAILURES_SHOWN:,} more kinds of failure; --json has all of them"))
    if (worst := summary.worst) is not None:
        lost = f"{counted(worst.lost, 'session')} lost"
        out.print(Text(f"the worst is seed {worst.seed}: {lost}; to see it whole:", style="bold"))
        out.print(Text(f"  {summary.replay(worst.seed)}"), soft_wrap=True)
    out.print()


def distributions(summary: Summary) -> Table:
    """A line for each fate that a workload had in any of the runs."""
    table = _table("workload", "fate", right=("least", "median", "most", "mean"))
    for workload in summary.kinds:
        first = True
        for figure in summary.figures(workload):
            values = summary.figure(workload, figure)
            if figure in UNTOLD or (figure in COUNTED and not any(values)):
                continue
            name, digits = ("slowest answer, s", 2) if figure == SILENCE else (figure, 0)
            lost = figure in FAILED and any(values)
            table.add_row(Text(workload if first else ""), Text(name, style="red" if lost else ""),
                          *_cells(Distribution.of(values), digits))  # fmt: skip
            first = False
    return table


def pictures(summary: Summary) -> Iterator[tuple[str, list[float], str]]:
    """Title, values seed by seed, and their unit: of what differs from seed to seed."""
    for workload in summary.kinds:
        lost = [sum(values) for values in zip(*(summary.figure(workload, fate) for fate in FAILED), strict=True)]
        if len(set(lost)) > 1:
            yield f"Sessions of {workload} lost, and in how many seeds", lost, ""
    slowest = [round(outcome.slowest_s, 2) for outcome in summary.told]
    if len(set(slowest)) > 1:
        yield "The slowest answer of all sessions, and in how many seeds", slowest, " s"


@dataclass(frozen=True)
class Bin:
    """A line of a picture."""

    label: str
    number: int


def bins(values: Sequence[float], unit: str = "") -> list[Bin]:
    """Each value by itself where they are few, else ranges of one width, the empty ones too."""
    counts = Counter(values)
    low, high = min(counts), max(counts)
    if len(counts) <= BINS_MAX:
        digits = 0 if all(float(value).is_integer() for value in counts) else 2
        return [Bin(f"{value:,.{digits}f}{unit}", counts[value]) for value in sorted(counts)]
    width = (high - low) / BINS_MAX
    digits = 0 if width >= 10 else 1 if width >= 1 else 2
    found = Counter(min(int((value - low) / width), BINS_MAX - 1) for value in values)
    edges = [low + index * width for index in range(BINS_MAX + 1)]
    return [Bin(f"{begin:,.{digits}f} to {end:,.{digits}f}{unit}", found[index])
            for index, (begin, end) in enumerate(itertools.pairwise(edges))]  # fmt: skip


def histogram(values: Sequence[float], unit: str = "") -> Table:
    """The lines of a picture: how many seeds had which value."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    table.add_column(width=BAR_WIDTH)
    table.add_column(justify="right")
    found = bins(values, unit)
    most = max(each.number for each in found)
    for each in found:
        table.add_row(each.label, Bar(most, 0, each.number, color="cyan"), f"{each.number:,}")
    return table


def _compare(summaries: Sequence[Summary], out: Console) -> None:
    """The variants beside each other, in the order in which they were written."""
    figures = ("failed", "least lost", "median", "most", "mean", "slowest, s")
    table = _table(*summaries[0].settings, right=figures)
    most = max(summary.lost.most for summary in summaries)
    if most:
        table.add_column(f"lost, of {most:,.0f}", width=REACH_WIDTH)
    for s in summaries:
        failed = Text(f"{s.failures:,} of {len(s.outcomes):,}", style="red" if s.failures else "")
        reach = [_reach(s.lost, most)] if most else []
        table.add_row(*map(_value, s.settings.values()), failed, *_cells(s.lost), f"{s.slowest_s.median:.2f}", *reach)
    out.print(Text("Sessions lost, by variant", style="bold"))
    out.print(table)
    out.print()
    out.print(Text(least(summaries), style="bold"))
    out.print()


def _value(value: Any) -> Text:
    return Text(value if isinstance(value, str) else json.dumps(value))


def _reach(lost: Distribution, most: float) -> RenderableType:
    """From the least to the most; at least a mark where something was lost."""
    if not lost.most:
        return ""
    return Bar(most, lost.least, max(lost.most, lost.least + most / REACH_WIDTH), color="cyan")


def least(summaries: Sequence[Summary]) -> str:
    """The sentence that says which variant loses least."""
    order = ranked([summary for summary in summaries if summary.told])
    if not order:
        return "No variant was played to its end."
    first = order[0]
    alike = [summary for summary in order if summary.lost == first.lost]
    if len(alike) == len(order) > 1:
        return f"The variants lose alike: {first.lost.mean:,.1f} sessions a run. {_quickest(order)}".rstrip()
    names = " and ".join(summary.label for summary in alike)
    return (f"{names} {'lose' if len(alike) > 1 else 'loses'} least: {first.lost.mean:,.1f} sessions a run "
            f"({first.lost.most:,.0f} at most); {order[-1].label} loses most: {order[-1].lost.mean:,.1f} "
            f"({order[-1].lost.most:,.0f} at most).")  # fmt: skip


def _quickest(summaries: Sequence[Summary]) -> str:
    """Which of them keeps nobody waiting as long as the others do; nothing where they are alike."""
    waits = {summary.label: round(summary.slowest_s.median, 2) for summary in summaries}
    shortest = min(waits.values())
    if shortest == max(waits.values()):
        return ""
    names = [label for label, wait in waits.items() if wait == shortest]
    return f"The slowest answer comes soonest with {' and '.join(names)}: after {shortest:.2f} s."


def _cells(distribution: Distribution, digits: int = 0) -> list[str]:
    halves = digits or (0 if float(distribution.median).is_integer() else 1)
    return [f"{distribution.least:,.{digits}f}", f"{distribution.median:,.{halves}f}",
            f"{distribution.most:,.{digits}f}", f"{distribution.mean:,.{digits or 1}f}"]  # fmt: skip


def named_seeds(seeds: Sequence[int]) -> str:
    """`seed 3`, `seeds 1, 2, 3`; of many the first ones, and how many more there are."""
    more = f" and {len(seeds) - SEEDS_SHOWN:,} more" if len(seeds) > SEEDS_SHOWN else ""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds[:SEEDS_SHOWN]))}{more}"


def _table(*left: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in left:
        table.add_column(heading, overflow="fold")
    for heading in right:
        table.add_column(heading, justify="right")
    return table
