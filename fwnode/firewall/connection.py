"""One connection, as the member that holds it knows it. Times are lab seconds."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, ClassVar

from syncproto.columns import Columns
from syncproto.layout import compiled
from syncproto.record import FIELDS, OWNER_SHIFT, Op, Record, RecordFlag

from .audience import PEERS_MAY_KNOW
from .inspection import Inspector
from .tcp_states import ConnectionState
from .tellers import NOBODY, Teller

NEXT_PACKET = -inf
"""`refresh_at` of a connection whose next packet must take the longer way, whatever peers are told before it comes."""

# Plain numbers: arithmetic of flags is slow.
_LEARNED, _DATA = int(RecordFlag.LEARNED), int(RecordFlag.DATA)

_READ = {"state": "int(c.state)", "ttl_s": "c.left(now)", "flags": "c.flags"}
"""How a field of a record is read from connection `c` at the time `now`, where it is not just an attribute."""
_READ_TOGETHER = _READ | {"state": "c.state"}
_NOT_COPIED = ("key", "born", "state", "ttl_s", "flags")
"""Fields that `take` does not copy as they are: they never change, or mean something for more than one attribute."""


def _made_from_fields() -> dict[str, Any]:
    """The functions between a record and a connection, written out for the fields that a record has."""
    one = [_READ.get(field.name, f"c.{field.held_as}") for field in FIELDS]
    many = [f"[{_READ_TOGETHER.get(field.name, f'c.{field.held_as}')} for c in connections]" for field in FIELDS]
    copied = [f"    c.{field.held_as} = r.{field.name}" for field in FIELDS if field.name not in _NOT_COPIED]
    source = [
        "def record(c, now):", f"    return Record({', '.join(one)})",
        "def columns_of(connections, now):", f"    return Columns({', '.join(many)})",
        "def copy(c, r):", *copied,
    ]  # fmt: skip
    return compiled("\n".join(source), "connection", Record=Record, Columns=Columns)


_MADE = _made_from_fields()
_copy: Callable[[Connection, Record], None] = _MADE["copy"]
columns_of: Callable[[list[Connection], float], Columns] = _MADE["columns_of"]
"""The connections as they travel together, at a time."""

_SLOTS = (
    "born", "bucket", "expires", "generation", "inspector", "key", "learned", "origin", "owned", "parent",
    "peers_until", "pending", "refresh_at", "revision", "row", "rule", "service", "session_timeout", "state", "sync_at",
    "timeout", "told",
)  # fmt: skip
_FURTHER = [(field.held_as, field.default) for field in FIELDS if field.held_as not in (*_SLOTS, *_READ)]
"""Fields of a record that a connection only holds and tells."""


class Connection:
    """One connection. `key` runs in the initiator's direction; `expires` and `refresh_at` are lab seconds."""

    __slots__ = (*_SLOTS, *(name for name, _ in _FURTHER))

    def __init__(self, key: bytes, state: ConnectionState, timeout: float, session_timeout: float, born: float) -> None:
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
        if _FURTHER:
            for name, default in _FURTHER:
                setattr(self, name, default)

    @property
    def flags(self) -> int:
        """As they travel."""
        return (
            (_LEARNED if self.learned else 0)
            | (_DATA if self.parent else 0)
            | (0 if self.owned else self.origin.number << OWNER_SHIFT)
        )

    @property
    def revision_to_tell(self) -> int:
        """Its revision once peers have been told what they are to hear; of a copy, what its owner said."""
        return self.revision + (self.owned and self.pending is not None)

    def left(self, now: float) -> float:
        """Seconds until it ends."""
        left = self.expires - now
        return left if left > 0.0 else 0.0

    def take(self, record: Record, owner: Teller, member: int) -> None:
        """What a peer said of it, but for its state and its end. `owner`: whose it is; `member`: in whose table."""
        _copy(self, record)
        self.learned = bool(record.flags & _LEARNED)
        own = record.flags >> OWNER_SHIFT == member != 0
        if not (self.owned and own):  # a copy of our own does not take it from us
            self.owned = False
            self.inspector = None  # packets go another way now: what was followed here is out of date
            self.origin = owner
        self.told = max(self.told, PEERS_MAY_KNOW)

    record: ClassVar[Callable[[Connection, float], Record]] = _MADE["record"]
    """The connection as it travels, at a time."""
