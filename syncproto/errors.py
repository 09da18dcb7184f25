"""The protocol's one exception, and the reasons for which anything is refused.

A drop is counted by its `Reason`, so an operator (and a test) sees why, not only that. This module knows nothing of
messages or peers.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum


class Reason(Enum):
    """Why something was refused. The value is what counters and logs show."""

    # Bytes that are not a frame of ours
    MALFORMED = "malformed"
    TRAILING_BYTES = "trailing bytes"
    TOO_LONG = "too long"
    TOO_DEEP = "nested too deep"
    WRONG_LENGTH = "wrong length"
    BAD_FIELD = "bad field"
    BAD_RECORD = "bad record"
    # Frames that are not for us, or not from this version of the protocol
    WRONG_VERSION = "wrong protocol version"
    WRONG_CLUSTER = "wrong cluster"
    BAD_AUTHENTICATION = "bad authentication"
    UNKNOWN_KIND = "unknown kind"
    UNKNOWN_SCHEMA = "unknown schema"
    # Well-formed messages that a session refuses
    UNKNOWN_PEER = "unknown peer"
    STALE_INCARNATION = "stale incarnation"
    GATE_CLOSED = "gate closed"
    UNEXPECTED = "unexpected in this state"
    ILLEGAL_SEQUENCE = "illegal sequence number"
    # Calls and files
    BAD_RELEASES = "bad table of releases"
    UNKNOWN_RELEASE = "unknown release"


class SyncError(Exception):
    """Refused: `reason` for counting, the text for people, `problems` when a file has several."""

    def __init__(self, reason: Reason, text: str, problems: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.reason = reason
        self.problems: tuple[str, ...] = tuple(problems) or (text,)
