"""One connection, as the member that holds it knows it. Times are lab seconds."""

from __future__ import annotations

from math import inf

from syncproto.columns import Columns
from syncproto.record import OWNER_SHIFT, Op, Record, RecordFlag

from .audience import NOBODY_HEARD
from .inspection import Inspector
from .tcp import State
from .tellers import NOBODY, Teller

# Plain numbers: arithmetic of flags is slow.
_LEARNED, _DATA = int(RecordFlag.LEARNED), int(RecordFlag.DATA)


class Connection:
    """One connection. `key` runs in the initiator's direction; `expires` and `refresh_at` are lab seconds."""

    __slots__ = (
        "born",
        "bucket",
        "expires",
        "generation",
        "inspector",
        "key",
        "learned",
        "origin",
        "owned",
        "parent",
        "peers_until",
        "pending",
        "refresh_at",
        "revision",
        "row",
        "rule",
        "service",
        "session_timeout",
        "state",
        "sync_at",
        "timeout",
        "told",
    )

    def __init__(self, key: bytes, state: State, timeout: float, session_timeout: float, born: float) -> None:
        self.key = key
        self.state = state
        self.timeout = timeout
        """Seconds it may be idle in its present state."""
        self.session_timeout = session_timeout
        """Seconds it may be idle once established."""
        self.born = born
        self.revision = 0
        self.expires = 0.0
        """Of a copy: when its owner said that it ends."""
        self.peers_until = 0.0
        """When it ends as far as peers were told."""
        self.refresh_at = 0.0
        """When the next packet has more to do than move `expires`: announce, take over, match again."""
        self.rule = 0
        self.service = ""
        self.parent = b""
        """Key of the control connection that announced this one; empty for what is no data connection."""
        self.inspector: Inspector | None = None
        """Of a control connection, on the member that forwards it."""
        self.learned = False
        self.owned = True
        self.origin = NOBODY
        """Of a copy: the peer that owns it, as far as is known."""
        self.sync_at = -inf
        """Peers hear of it from this time on (lab seconds); infinity: never."""
        self.generation = 0
        """Which installed policy it was matched with."""
        self.pending: Op | None = None
        """What peers have not been told yet."""
        self.told = 0
        """Not 0: peers may hold an entry of this key, so they must hear of its end. `Audience` knows the number."""
        self.bucket = -1
        self.row = -1
        """Its place in the table; -1 when it is in none."""

    @property
    def flags(self) -> int:
        """As they travel."""
        return (
            (_LEARNED if self.learned else 0)
            | (_DATA if self.parent else 0)
            | (0 if self.owned else self.origin.number << OWNER_SHIFT)
        )

    def left(self, now: float) -> float:
        """Seconds until it ends."""
        left = self.expires - now
        return left if left > 0.0 else 0.0

    def take(self, record: Record, owner: Teller, member: int) -> None:
        """What a peer said of it, but for its state and its end. `owner`: whose it is; `member`: in whose table."""
        self.session_timeout = record.timeout_s
        self.revision = record.revision
        self.rule = record.rule
        self.service = record.service
        self.parent = record.parent
        self.learned = bool(record.flags & _LEARNED)
        own = record.flags >> OWNER_SHIFT == member != 0
        if not (self.owned and own):  # a copy of our own does not take it from us
            self.owned = False
            self.inspector = None  # packets go another way now: what was followed here is out of date
            self.origin = owner
        self.told = self.told or NOBODY_HEARD

    def record(self, now: float) -> Record:
        """The connection as it travels."""
        return Record(
            self.key, int(self.state), self.left(now), self.session_timeout, self.rule, self.service, self.flags,
            self.born, self.revision, self.parent,
        )  # fmt: skip


def columns_of(connections: list[Connection], now: float) -> Columns:
    """The connections as they travel together."""
    return Columns(
        key=[c.key for c in connections],
        state=[c.state for c in connections],
        ttl_s=[c.left(now) for c in connections],
        timeout_s=[c.session_timeout for c in connections],
        rule=[c.rule for c in connections],
        service=[c.service for c in connections],
        flags=[c.flags for c in connections],
        born=[c.born for c in connections],
        revision=[c.revision for c in connections],
        parent=[c.parent for c in connections],
    )
