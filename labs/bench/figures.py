"""A figure of the benchmark: what ours reached, what the peer reached, and their ratio. Pure arithmetic and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

COLUMNS = ("figure", "ours", "peer", "unit", "better", "ratio", "rounds", "spread")


@dataclass(frozen=True)
class Row:
    """One figure; `ours` and `peer` are medians over the rounds, `ratio` is ours to the peer's.

    `spread` is how far the rounds' ratios lie apart: (largest - smallest) / median. A peer that was not measured is
    None, and so is the ratio; `peer_name` then says why, and `spread` is that of our own figures.
    """

    figure: str
    ours: float
    peer: float | None
    peer_name: str
    unit: str
    ratio: float | None
    better: str
    """"higher" for rates, "lower" for times and sizes."""
    rounds: int
    spread: float


def compare(
    figure: str, ours: list[float], peer: list[float], *, peer_name: str, unit: str, better: str = "higher"
) -> Row:
    """The row of rounds measured in turn: `ours[i]` and `peer[i]` belong to the same round. `peer` has no zeros."""
    ratios = [o / p for o, p in zip(ours, peer, strict=True)]
    middle, spread = median(ratios), _spread(ratios)
    return Row(figure, median(ours), median(peer), peer_name, unit, middle, better, len(ratios), spread)


def alone(figure: str, ours: list[float], *, peer_name: str, unit: str, better: str) -> Row:
    """The row of a figure whose peer was not measured; `peer_name` names it and says what is missing."""
    return Row(figure, median(ours), None, peer_name, unit, None, better, len(ours), _spread(ours))


def per(total: float, count: int) -> float:
    """`total` for each of `count`; of none, nothing."""
    return total / count if count else 0.0


def cells(row: Row) -> list[str]:
    """The row as `fwlab bench` shows it, under `COLUMNS`."""
    peer, ratio = ("-" if figure is None else f"{figure:.2f}" for figure in (row.peer, row.ratio))
    return [row.figure, f"{row.ours:.2f}", peer, row.unit, row.better, ratio, str(row.rounds), f"{row.spread:.0%}"]


def peers(rows: list[Row]) -> list[str]:
    """Against what the rows were measured, in lines below them."""
    names = {row.peer_name for row in rows}
    return [f"peer: {name}" for name in names] if len(names) == 1 else [f"{r.figure}: {r.peer_name}" for r in rows]


def _spread(figures: list[float]) -> float:
    middle = median(figures)
    return (max(figures) - min(figures)) / middle if middle else 0.0


def document(machine: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """What `fwlab bench --json` writes."""
    return {"machine": machine, "rows": [asdict(row) for row in rows]}
