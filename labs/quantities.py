"""Rates, sizes, shares, delays and services as people write them: `1mbit`, `512kB`, `20%`, `50ms`, `tcp/443`. Pure.

A rate or a size without a unit is refused, as a duration is: nobody should have to guess bits or bytes. Each has
bounds, the same in a lab file and in `fwlab do`.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Annotated, Literal

from pydantic import BeforeValidator

from fwnode.explain import shown
from fwnode.fields import CLOCK_RATE_MAX, CLOCK_RATE_MIN, parse_duration

RATE_MIN, RATE_MAX = 1_000, 100 * 10**9
"""Bits a second of a limited link: slower, tc rounds to another rate; faster, it refuses the bucket."""
SIZE_MAX = 2**30
"""Bytes of a size or pace. Lab's own."""
SHARE_MIN = 1e-6
"""Smallest share of packets. iptables counts in steps of 1/2^31."""
DELAY_MIN_S, DELAY_MAX_S = 0.001, 60.0
"""Wall seconds by which a link delays. Lab's own: its helper holds 65,535 packets."""

LIMIT_BURST_S = 0.01
LIMIT_BURST_MIN_BYTES = 5_000
"""The bucket of a limited link, in either world: as much as it sends in this time, and no less than so many bytes: one
smaller than a few packets would never let one of full size pass."""

RATE_UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
"""Bits a second, as `tc` writes them."""
SIZE_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "KiB": 2**10, "MiB": 2**20}
SERVICES = {"FW1": ("tcp", 256)}
"""Services between members by their names in the field."""

_NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z]+)")
_PERCENT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*%")

Way = Literal["both", "in", "out"]
"""Of a link: into the node, out of it, or both."""


def parse_rate(text: object) -> int:
    """Bits a second."""
    rate = _parse(text, RATE_UNITS, "rate", "1mbit or 256kbit")
    if not RATE_MIN <= rate <= RATE_MAX:
        raise ValueError(f"{shown(text)} is no rate that a link can have; write {format_rate(RATE_MIN)} to "
                         f"{format_rate(RATE_MAX)}")
    return rate


def parse_size(text: object) -> int:
    """Bytes."""
    size = _parse(text, SIZE_UNITS, "size", "1MB or 64KiB")
    if size > SIZE_MAX:
        raise ValueError(f"{shown(text)} is more than {SIZE_MAX:,} bytes; write less")
    return size


def _parse(text: object, units: dict[str, int], noun: str, examples: str) -> int:
    found = _NUMBER.fullmatch(text.strip()) if isinstance(text, str) else None
    value = float(found[1]) * units.get(found[2], 0) if found else 0.0
    if value < 1:
        raise ValueError(f"{shown(text)} is no {noun}; write a number with its unit ({', '.join(units)}), such as "
                         f"{examples}")
    return round(value)


def parse_share(text: object) -> float:
    """`20%` and `0.2` are 0.2; more than nothing, at most everything."""
    value = 0.0
    if isinstance(text, str):
        found = _PERCENT.fullmatch(text.strip())
        value = float(found[1]) / 100 if found else _float(text)
    elif isinstance(text, int | float) and not isinstance(text, bool) and text <= 1:
        value = float(text)
    if not SHARE_MIN <= value <= 1:
        raise ValueError(f"{shown(text)} is no share; write one from {SHARE_MIN:.4%} up to 100%, such as 20% or 0.2")
    return value


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def parse_delay(text: object) -> float:
    """Wall seconds that a link delays."""
    delay = parse_duration(text)
    if not DELAY_MIN_S <= delay <= DELAY_MAX_S:
        raise ValueError(f"{shown(text)} is no delay of a link; write {DELAY_MIN_S * 1000:g}ms to {DELAY_MAX_S:g}s")
    return delay


def parse_clock_rate(rate: float) -> float:
    """Seconds of lab time in a second of wall time."""
    if not (isfinite(rate) and CLOCK_RATE_MIN <= rate <= CLOCK_RATE_MAX):
        raise ValueError(f"{rate} is no rate of lab time; write {CLOCK_RATE_MIN:g} to {CLOCK_RATE_MAX:,.0f} seconds a "
                         "second")
    return rate


def parse_service(service: object) -> tuple[str, int]:
    """`tcp/443` -> tcp, 443; `FW1` -> tcp, 256."""
    text = str(service)
    if text in SERVICES:
        return SERVICES[text]
    protocol, _, port = text.partition("/")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    if protocol not in ("tcp", "udp") or not 1 <= number <= 65535:
        raise ValueError(f"{shown(service)} is no service; write {', '.join(SERVICES)}, or tcp or udp with a port from "
                         "1 to 65535, such as tcp/443")
    return protocol, number


def format_rate(bits: int) -> str:
    """A rate as `tc` and lab files write it: `1mbit`."""
    for unit, size in reversed(RATE_UNITS.items()):
        if bits >= size:
            return f"{bits / size:g}{unit}"
    return f"{bits}bit"


Rate = Annotated[int, BeforeValidator(parse_rate)]
Size = Annotated[int, BeforeValidator(parse_size)]
Portion = Annotated[float, BeforeValidator(parse_share)]
WireDelay = Annotated[float, BeforeValidator(parse_delay)]
