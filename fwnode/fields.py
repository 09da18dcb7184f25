"""What people write into files, one rule each: names, durations, ports, networks and addresses, as pydantic fields.

A name is text that a terminal and a message can carry; how long it may be is the wire's business (`syncproto.limits`).
Every number has bounds. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from fwnode.explain import shown
from syncproto.limits import AUTHENTICATION_KEY_MAX, NAME_MAX, SERVICE_NAME_MAX

DURATION_MIN_S = 0.001
"""Shortest duration that is longer than nothing, seconds. Lab's own: what a loop's timer can tell apart."""
DURATION_MAX_S = 3650 * 86_400.0
"""Longest duration that people may write, seconds: ten years. Lab's own; a message carries 317 years."""
CLOCK_RATE_MIN, CLOCK_RATE_MAX = 0.001, 100_000.0
"""Seconds of lab time in a second of wall time. Lab's own."""
INTERFACE_NAME_MAX = 15
"""Bytes of an interface's name: the kernel's IFNAMSIZ less the final NUL."""
MEMBERS_MAX = 5
"""Members of a ClusterXL cluster (claim B1)."""
MEMBER_NAME_MAX = 40
"""Bytes of a member's name, which also names its socket and its log. Lab's own."""
NAMES_MAX = 10_000
"""Names in one list, such as the sources of a rule. Lab's own."""
SOCKET_PATH_MAX = 107
"""Bytes of a unix socket's path: the kernel's 108 less the final NUL."""

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)"
_PART = re.compile(_NUMBER + r"\s*(ms|s|min|m|h|d)")
_WHOLE = re.compile(rf"(?:{_NUMBER}\s*(?:ms|s|min|m|h|d)\s*)+")
_HOW = "write a number with its unit (ms, s, m, h, d), such as 25s, 24h or 90d"
_INTERFACE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{INTERFACE_NAME_MAX - 1}}}")
_MEMBER = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MEMBER_NAME_MAX - 1}}}")
RESERVED_INTERFACES = frozenset({"lo", "all", "default"})
"""The kernel's own interface, and the words that its settings use for every interface."""
RESERVED_MEMBERS = frozenset({"supervisor"})
"""A lab's supervisor answers on a socket of this name."""


def name_of(longest: int, shortest: int = 1) -> Callable[[str], str]:
    """A check for text that can be shown on a line and has so many UTF-8 bytes at most."""

    def check(text: str) -> str:
        if text.isascii() and text.isprintable() and shortest <= len(text) <= longest:
            return text
        if not text.isprintable():
            raise ValueError(f"{shown(text)} has characters that cannot be shown; write letters, digits and signs")
        size = len(text.encode())
        if not shortest <= size <= longest:
            raise ValueError(f"{shown(text)} has {size} bytes; write {shortest} to {longest}, which is what a message "
                             "between members carries")  # fmt: skip
        return text

    return check


def interface_name(name: str) -> str:
    """A name that the kernel takes for an interface."""
    if not _INTERFACE.fullmatch(name) or name in RESERVED_INTERFACES:
        raise ValueError(f"{shown(name)} cannot name an interface; write up to {INTERFACE_NAME_MAX} letters, digits, "
                         f"'.', '_' and '-', and not {', '.join(sorted(RESERVED_INTERFACES))}")  # fmt: skip
    return name


def member_name(name: str) -> str:
    """A name that a member may have."""
    if not _MEMBER.fullmatch(name) or name in RESERVED_MEMBERS:
        raise ValueError(f"{shown(name)} cannot name a member; write up to {MEMBER_NAME_MAX} letters, digits, '.', "
                         f"'_' and '-', and not {', '.join(sorted(RESERVED_MEMBERS))}")  # fmt: skip
    return name


def parse_duration(text: object) -> float:
    """Seconds of a duration written with its unit: `24h`, `25s`, `100ms`, `90d`, `1h30m`. Raises `ValueError`."""
    if isinstance(text, float | int) and not isinstance(text, bool):
        raise ValueError(f"{shown(text)} has no unit; {_HOW}")
    if not isinstance(text, str) or not _WHOLE.fullmatch(text.strip()):
        raise ValueError(f"{shown(text)} is no duration; {_HOW}")
    seconds = sum(float(number) * UNITS_S[unit] for number, unit in _PART.findall(text))
    if seconds and not DURATION_MIN_S <= seconds <= DURATION_MAX_S:
        raise ValueError(f"{shown(text)} is out of bounds; write 0s, or {DURATION_MIN_S * 1000:g}ms to "
                         f"{DURATION_MAX_S / 86_400:g}d")  # fmt: skip
    return seconds


def parse_ports(value: object) -> tuple[int, int]:
    """`80` or `8000-8010`: first and last port."""
    first, dash, last = str(value).partition("-")
    found = [_port(text) for text in ((first, last) if dash else (first,))]
    if isinstance(value, bool) or None in found:
        raise ValueError(f"{shown(value)} is not a port; write 80 or 8000-8010")
    low, high = found[0] or 0, found[-1] or 0
    if not 0 < low <= high < 65_536:
        raise ValueError(f"{shown(value)} is not a port range within 1 to 65535")
    return low, high


def _port(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else None


def no_flag(value: object) -> object:
    """YAML reads `yes` and `on` as true, and pydantic true as 1."""
    if isinstance(value, bool):
        raise ValueError(f"{shown(value)} is no number; write one in digits")
    return value


def one_or_many(value: object) -> object:
    """A single text stands for a list of one."""
    return [value] if isinstance(value, str) else value


def _written_as(parse: Callable[[Any], Any], noun: str, example: str) -> Callable[[object], Any]:
    """Texts only: a bare number would be an address, too."""

    def check(value: object) -> Any:
        try:
            if not isinstance(value, str):
                raise ValueError("it is no text")
            if "%" in value:
                raise ValueError("an address has no zone here")
            return parse(value)
        except ValueError as error:
            why = "" if len(str(error)) > 80 or "does not appear" in str(error) else f": {error}"
            raise ValueError(f"{shown(value)} is not {noun}{why}; write it as {example}") from None

    return check


parse_network = _written_as(ip_network, "a network or address", "192.0.2.0/24")
parse_address = _written_as(ip_address, "an IP address", "192.0.2.1 or 2001:db8::1")
parse_interface = _written_as(ip_interface, "an address with its prefix", "192.0.2.1/24")

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
IPInterface = IPv4Interface | IPv6Interface
"""An address with the prefix length of its network."""

WholeNumber = Annotated[int, BeforeValidator(no_flag)]
RealNumber = Annotated[float, BeforeValidator(no_flag)]
Name = Annotated[str, AfterValidator(name_of(NAME_MAX))]
"""Of a policy, a release, a rule's objects: what a message carries."""
Label = Annotated[str, AfterValidator(name_of(NAME_MAX, shortest=0))]
"""A name that may be left empty."""
ServiceName = Annotated[str, AfterValidator(name_of(SERVICE_NAME_MAX))]
AuthenticationKey = Annotated[str, AfterValidator(name_of(AUTHENTICATION_KEY_MAX, shortest=0))]
InterfaceName = Annotated[str, AfterValidator(interface_name)]
MemberName = Annotated[str, AfterValidator(member_name)]
Names = Annotated[list[Name], Field(max_length=NAMES_MAX), BeforeValidator(one_or_many)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Lasting = Annotated[Duration, Field(gt=0)]
"""A duration that is longer than nothing."""
Ports = Annotated[tuple[int, int], BeforeValidator(parse_ports)]
Network = Annotated[IPNetwork, BeforeValidator(parse_network)]
Address = Annotated[IPAddress, BeforeValidator(parse_address)]
InterfaceAddress = Annotated[IPInterface, BeforeValidator(parse_interface)]
