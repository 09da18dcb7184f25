"""What callers of a member may follow: its events, and its log as they read it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fwnode.control.streams import Stream
from fwnode.core import Core
from fwnode.firewall.packet import ICMP, ICMPV6, TCP, describe_key, flag_names
from fwnode.firewall.verdict import DropReason, Hook, LogEntry


def streams(member: Core) -> dict[str, Stream[Any]]:
    """The streams of a member, by name."""
    firewall = member.firewall
    return {
        "events": Stream(member.events, lambda: member.events_number, dict),
        "log": Stream(firewall.log, lambda: firewall.log_number, partial(log_line, date=member.date)),
    }


def log_line(entry: LogEntry, date: Callable[[float], float]) -> dict[str, Any]:
    """A log entry for people and programs; `date` gives that of a lab time."""
    text = entry.text
    protocol = entry.key[0] if entry.key else 0
    if protocol == TCP and entry.reason is not DropReason.FRAGMENT:
        text += f"; tcp_flags: {flag_names(entry.detail)}"
    elif protocol in (ICMP, ICMPV6) and entry.reason is not DropReason.FRAGMENT:
        text += f"; icmp_type: {entry.detail}"
    return {
        "number": entry.number,
        "at": date(entry.at),
        "lab_time": entry.at,
        "action": "drop" if entry.reason else "accept",
        "reason": entry.reason.name if entry.reason else "",
        "hook": Hook(entry.hook).name.lower(),
        "connection": describe_key(entry.key) if entry.key else "",
        "rule": entry.rule,
        "text": text,
    }
