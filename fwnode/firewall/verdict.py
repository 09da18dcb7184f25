"""What becomes of a packet: verdicts, reasons for drops, and the log's entries. Values only; nothing here decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple


class Hook(IntEnum):
    """Where the kernel met the packet (netfilter's numbers)."""

    INPUT = 1
    FORWARD = 2
    OUTPUT = 3


class DropReason(Enum):
    """Why a packet was dropped."""

    MALFORMED = "the headers cannot be read"
    NOT_ACTIVE = "this member does not process traffic now"
    OUT_OF_STATE = "no connection, and the packet does not start one"
    SYN_ON_ESTABLISHED = "SYN packet on established connection"
    POLICY = "the rule base does not accept it"
    REJECTED = "the rule base rejects it, and the sender is told"
    FRAGMENT = "a fragment whose first was not accepted or not seen, or of an inspected control connection"
    TABLE_FULL = "the connections table is at its limit"
    ANNOUNCEMENT = "a control connection announces a data connection that it may not"
    OTHER_MEMBER = "another member processes this packet (load sharing)"
    SYNC_LOAD = "a new connection, while sync is under load"

    __hash__ = object.__hash__
    """There is one of each. An enumeration's own is slow, and every packet that is dropped is counted by its reason."""


class Verdict(NamedTuple):
    """`reply` is a packet to send to the source (a reject), empty otherwise."""

    accept: bool
    reason: DropReason | None = None
    reply: bytes = b""
    hold: bool = False
    """Accepted, but only once the active peers know what it changed (flush and ack)."""
    mark: int = 0
    """Mark that the packet gets on its way."""


ACCEPT = Verdict(True)
HOLD = Verdict(True, hold=True)
DROP = {reason: Verdict(False, reason) for reason in DropReason}


class LogEntry(NamedTuple):
    """One entry of the log, unformatted: it is formatted when somebody reads it."""

    number: int
    at: float
    reason: DropReason | None
    hook: int
    key: bytes
    detail: int
    """`Packet.detail`: TCP flags, or ICMP type."""
    rule: int
    text: str


@dataclass
class FirewallCounters:
    """Packets by what became of them, and connections that they began, since the start."""

    accepted: int = 0
    dropped: int = 0
    local: int = 0
    """Of all of them, packets from or to the member itself."""
    created: int = 0
    learned: int = 0
    drops: dict[DropReason, int] = field(default_factory=lambda: dict.fromkeys(DropReason, 0))
