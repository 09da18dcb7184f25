"""Rates, sizes, shares and services as people write them: `1mbit`, `512kB`, `20%`, `tcp/443`. Pure.

A rate or a size without a unit is refused, as a duration is: nobody should have to guess bits or bytes.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator

RATE_UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
"""Bits a second, as `tc` writes them."""
SIZE_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "KiB": 2**10, "MiB": 2**20}
SERVICES = {"FW1": ("tcp", 256)}
"""Services between members by their names in the field."""

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")

Way = Literal["both", "in", "out"]
"""Of a link: into the node, out of it, or both."""


def parse_rate(text: object) -> int:
    """Bits a second."""
    return _parse(text, RATE_UNITS, "rate", "1mbit or 256kbit")


def parse_size(text: object) -> int:
    """Bytes."""
    return _parse(text, SIZE_UNITS, "size", "1MB or 64KiB")


def _parse(text: object, units: dict[str, int], noun: str, examples: str) -> int:
    found = _NUMBER.fullmatch(text.strip()) if isinstance(text, str) else None
    value = float(found[1]) * units.get(found[2], 0) if found else 0.0
    if value < 1:
        raise ValueError(f"{text!r} is no {noun}; write a number with its unit ({', '.join(units)}), such as "
                         f"{examples}")
    return round(value)


def parse_share(text: object) -> float:
    """`20%` and `0.2` are 0.2; more than nothing, at most everything."""
    if isinstance(text, str):
        found = _PERCENT.fullmatch(text.strip())
        value = float(found[1]) / 100 if found else _float(text)
    else:
        value = float(text) if isinstance(text, int | float) and not isinstance(text, bool) else 0.0
    if not 0 < value <= 1:
        raise ValueError(f"{text!r} is no share; write one over 0 and up to 100%, such as 20% or 0.2")
    return value


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def parse_service(service: object) -> tuple[str, int]:
    """`tcp/443` -> tcp, 443; `FW1` -> tcp, 256."""
    text = str(service)
    if text in SERVICES:
        return SERVICES[text]
    protocol, _, port = text.partition("/")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    if protocol not in ("tcp", "udp") or not 1 <= number <= 65535:
        raise ValueError(f"{service!r} is no service; write {', '.join(SERVICES)}, or tcp or udp with a port from 1 to "
                         "65535, such as tcp/443")
    return protocol, number


def format_rate(bits: int) -> str:
    for unit, size in reversed(RATE_UNITS.items()):
        if bits >= size:
            return f"{bits / size:g}{unit}"
    return f"{bits}bit"


Rate = Annotated[int, BeforeValidator(parse_rate)]
Size = Annotated[int, BeforeValidator(parse_size)]
Portion = Annotated[float, BeforeValidator(parse_share)]
