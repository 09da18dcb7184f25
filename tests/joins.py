"""For tests of members that join: a table that is worth taking, over a sync link that is slow enough to interfere."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import Any

from harness import UpLab, until

from fwnode.control.client import MemberError

CONNECTIONS = 1500
SLOW = "rate=150kbit"
"""So many connections take some five seconds."""


def keep_udp(lab: UpLab, *members: str) -> None:
    for member in members:
        lab.fwctl(member, "ctl", "set", "int", "udp_timeout", "3600")


def fill(lab: UpLab, *members: str, count: int = CONNECTIONS) -> None:
    """So many connections, known to all these members."""
    keep_udp(lab, *members)
    opener = lab.udp()
    until(lambda: _more(lab, opener, members, count), f"{members} know {count} connections", 60)


def _more(lab: UpLab, opener, members: tuple[str, ...], count: int) -> bool:
    known = [lab.control(member)["connections"] for member in members]
    if max(known) < count:
        opener.open(min(100, count - max(known)))
    return min(known) >= count


@contextmanager
def starting(lab: UpLab, member: str):
    """The member starts in the background, until this ends."""
    line = [sys.executable, "-m", "labs.cli", "do", "--lab", lab.name, "start", f"member={member}"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.communicate(timeout=200)


def answers(lab: UpLab, member: str) -> dict[str, Any]:
    """Its status; nothing while it does not answer."""
    try:
        return dict(lab.control(member))
    except (OSError, MemberError):
        return {}


def becomes(lab: UpLab, member: str, state: str) -> dict[str, Any]:
    """Its status, once it is in this state."""
    return until(lambda: (s := answers(lab, member)).get("state") == state and s, f"{member} is {state}", 60)


def under_way(lab: UpLab, member: str) -> None:
    """Wait until part of the table has come, but not all."""
    status = until(lambda: (s := answers(lab, member)) and s["counters"]["full_records_received"] and s,
                   f"{member} takes the table")  # fmt: skip
    assert status["state"] == "Initializing"
    assert status["counters"]["full_records_received"] < CONNECTIONS


def told(lab: UpLab, member: str) -> list[str]:
    return [event["text"] for event in lab.events(member)]
