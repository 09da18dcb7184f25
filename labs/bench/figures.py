"""A figure of the benchmark: what ours reached, what the peer reached, and their ratio. Pure arithmetic and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Row:
    """One comparison; `ours` and `peer` are medians over the rounds, `ratio` is ours to the peer's.

    `spread` is how far the rounds' ratios lie apart: (largest - smallest) / median.
    """

    figure: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    ratio: float
    better: str
    """"higher" for rates, "lower" for times and sizes."""
    rounds: int
    spread: float


def compare(
    figure: str, ours: list[float], peer: list[float], *, peer_name: str, unit: str, better: str = "higher"
) -> Row:
    """The row of rounds measured in turn: `ours[i]` and `peer[i]` belong to the same round. `peer` has no zeros."""
    ratios = [o / p for o, p in zip(ours, peer, strict=True)]
    middle = median(ratios)
    spread = (max(ratios) - min(ratios)) / middle if middle else 0.0
    return Row(figure, median(ours), median(peer), peer_name, unit, middle, better, len(ratios), spread)


def document(machine: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """What `fwlab bench --json` writes."""
    return {"machine": machine, "rows": [asdict(row) for row in rows]}
