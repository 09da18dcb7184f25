"""What callers of a member may follow: its events, and its log as they read it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fwnode.clock import LabClock
from fwnode.control.streams import Stream
from fwnode.firewall.packet import ICMP, ICMPV6, TCP, describe_key, flag_names
from fwnode.firewall.verdict import Hook, LogEntry, Reason

if TYPE_CHECKING:
    from fwnode.node import Node


def streams(node: Node) -> dict[str, Stream[Any]]:
    """The streams of a member, by name."""
    log = node.firewall.log
    return {
        "events": Stream(node.events, lambda: node.events_number, dict),
        "log": Stream(log, lambda: node.firewall.log_number, partial(log_line, clock=node.clock)),
    }


def log_line(entry: LogEntry, clock: LabClock) -> dict[str, Any]:
    """A log entry for people and programs."""
    text = entry.text
    protocol = entry.key[0] if entry.key else 0
    if protocol == TCP and entry.reason is not Reason.FRAGMENT:
        text += f"; tcp_flags: {flag_names(entry.detail)}"
    elif protocol in (ICMP, ICMPV6) and entry.reason is not Reason.FRAGMENT:
        text += f"; icmp_type: {entry.detail}"
    return {
        "number": entry.number,
        "at": clock.wall(entry.at),
        "lab_time": entry.at,
        "action": "drop" if entry.reason else "accept",
        "reason": entry.reason.name if entry.reason else "",
        "hook": Hook(entry.hook).name.lower(),
        "connection": describe_key(entry.key) if entry.key else "",
        "rule": entry.rule,
        "text": text,
    }
