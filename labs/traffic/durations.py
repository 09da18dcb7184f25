"""Durations as people write them in a lab file: `24h`, `25s`, `100ms`, `90d`, `1h30m`, and spreads `2s..20s`.

A number without a unit is refused: a lab's day passes in a minute, and nobody should have to guess which was meant.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from fwnode.fields import Duration, parse_duration

__all__ = ["Duration", "Spread", "format_duration", "parse_duration", "parse_spread"]


def parse_spread(text: object) -> tuple[float, float]:
    """`2s..20s`: from, to. A single duration is a spread without width."""
    if isinstance(text, str) and ".." in text:
        low, _, high = text.partition("..")
        spread = parse_duration(low), parse_duration(high)
    else:
        spread = (parse_duration(text),) * 2
    if spread[0] > spread[1]:
        raise ValueError(f"{text!r} ends before it begins; write the shorter duration first")
    return spread


def format_duration(seconds: float) -> str:
    """The largest units that say it in two parts at most: `23h 59m`, `1m 5s`, `0.35s`."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 10:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    whole = round(seconds)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, whole = divmod(whole, size)
        if amount:
            parts.append(f"{amount}{unit}")
    return " ".join(parts[:2]) or "0s"


Spread = Annotated[tuple[float, float], BeforeValidator(parse_spread)]
