"""A figure of the benchmark: what ours reached, what the peer reached, and their ratio. Pure arithmetic and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")

COLUMNS = ("figure", "ours", "peer", "unit", "better", "ratio", "rounds", "spread")
FIGURES = (
    "tcp_stream", "udp_64b", "round_trip", "new_connections", "lookup_growth", "expiry_growth", "full_sync_100k",
    "full_sync_1m_p99", "failover_default", "failover_fast", "memory_active", "memory_standby",
)  # fmt: skip
"""Those that compare us with a peer. What `wire` counts has none, and is kept apart."""
SIMULATED = ("simulated_packets", "simulated_hours", "simulated_100k", "simulated_100k_memory")
"""Those of the simulated world. They have no peer."""
_DIGITS = 3


@dataclass(frozen=True)
class Row:
    """One figure; `ours` and `peer` are medians over the rounds, `ratio` is ours to the peer's. What could not be
    measured here has no rounds, and `ours` is None.

    `spread` is how far the rounds' ratios lie apart: (largest - smallest) / median. A peer that was not measured is
    None, and so is the ratio; `peer_name` then says why, and `spread` is that of our own figures.
    """

    figure: str
    ours: float | None
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


def against(
    figure: str, ours: list[float], theirs: list[float], *, peer_name: str, lacking: str, unit: str, better: str
) -> Row:
    """`compare`, or `alone` where the peer was not measured: `lacking` then says why."""
    if lacking:
        return alone(figure, ours, peer_name=f"{peer_name}: {lacking}", unit=unit, better=better)
    return compare(figure, ours, theirs, peer_name=peer_name, unit=unit, better=better)


def unmeasured(figure: str, *, peer_name: str, unit: str, better: str) -> Row:
    """The row of a figure that cannot be measured here, in no round; `peer_name` says what is missing."""
    return Row(figure, None, None, peer_name, unit, None, better, 0, 0.0)


def in_turn(sides: Sequence[T], number: int) -> Sequence[T]:
    """What is measured in round `number`, in this order: what drifts shall not always meet the same side first."""
    return sides if number % 2 == 0 else sides[::-1]


def per(total: float, count: int) -> float:
    """`total` for each of `count`; of none, nothing."""
    return total / count if count else 0.0


def readable(figure: float | None) -> str:
    """Three digits that say something, whole thousands in groups: `0.176`, `17.9`, `247,706`; `-` for nothing."""
    if figure is None:
        return "-"
    if abs(figure) >= 100:
        return f"{figure:,.0f}"
    return f"{figure:#.{_DIGITS}g}"


def cells(row: Row) -> list[str]:
    """The row as `fwlab bench` shows it, under `COLUMNS`."""
    figures = [readable(row.ours), readable(row.peer)]
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
    return [row.figure, *figures, row.unit, row.better, ratio, str(row.rounds), f"{row.spread:.0%}"]


def peers(rows: list[Row]) -> list[str]:
    """Against what the rows were measured, in lines below them."""
    figures: dict[str, list[str]] = {}
    for row in rows:
        figures.setdefault(row.peer_name, []).append(row.figure)
    if len(figures) == 1:
        return [f"peer: {name}" for name in figures]
    return [f"{', '.join(those)}: against {name}" for name, those in figures.items()]


def _spread(figures: list[float]) -> float:
    middle = median(figures)
    return (max(figures) - min(figures)) / middle if middle else 0.0


def document(machine: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """What `fwlab bench --json` writes."""
    compared = [asdict(row) for row in rows if row.figure in FIGURES]
    counted = [asdict(row) for row in rows if row.figure not in FIGURES + SIMULATED]
    simulated = [asdict(row) for row in rows if row.figure in SIMULATED]
    return {"machine": machine, "rows": compared, "wire": counted, "simulation": simulated}
