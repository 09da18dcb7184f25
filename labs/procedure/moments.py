"""The moments of a run's steps: a span such as `after: 10s..20s` and the run's seed give one. Pure.

A step's moment depends on its number and the seed alone: a seed gives the same moments in either world, and a span that
is written elsewhere in the file moves no other.
"""

from __future__ import annotations

import hashlib

from labs.traffic.durations import format_duration

SEED_MAX = 10**12
"""Largest seed of a run. Lab's own: one that a person can type."""
SEEDS_MAX = 1_000_000
"""Seeds of one command. Lab's own: their outcomes are kept in memory."""

Span = tuple[float, float]


def moment(span: Span, seed: int, index: int) -> float:
    """Seconds of lab time to wait before step number `index`; over many seeds they are spread evenly over the span."""
    low, high = span
    digest = hashlib.blake2b(f"moment {seed} {index}".encode(), digest_size=8).digest()
    return low + (high - low) * (int.from_bytes(digest, "big") / 2**64)


def moment_words(span: Span, drawn_s: float) -> str:
    """What stands before a step's own words: `after 13s (10s..20s): `; nothing where it does not wait."""
    low, high = span
    if not high:
        return ""
    of = "" if low == high else f" ({format_duration(low)}..{format_duration(high)})"
    return f"after {format_duration(drawn_s)}{of}: "
