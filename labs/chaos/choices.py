"""What the makers of labs choose with. Pure."""

from __future__ import annotations

import random
from typing import TypeVar

T = TypeVar("T")


def pick(source: random.Random, weights: dict[T, int]) -> T:
    """One of the keys, as often as its weight says."""
    return source.choices(list(weights), weights=list(weights.values()))[0]


def lab_time(wall_s: float, rate: float) -> str:
    """A duration of wall time, as a lab file with this rate writes it."""
    return f"{wall_s * rate:.3f}".rstrip("0").rstrip(".") + "s"
