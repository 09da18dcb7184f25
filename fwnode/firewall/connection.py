"""Connections, their table, and their expiry. Knows nothing of rules, packets' bytes or the network.

The table holds each connection under both of its keys: the entry itself, and a link for the other direction, as the
product's table does. Changes that peers must hear of are collected as the connection's *current* state until
`take_updates` empties them: ten changes in one sync tick are one update.

Times are lab seconds. A connection that came by sync belongs to the member that forwards its packets; only the owner
announces its end. A copy outlives its owner's entry by a grace, because refreshes are rare (a few a timeout).
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from math import ceil

from syncproto.record import Op, Record, RecordFlag, Update

from .expectations import Expectations
from .inspection import Inspector
from .packet import reverse_key
from .tcp import START_STATES, State

REFRESHES_PER_TIMEOUT = 3
"""A connection with traffic is announced again this often within its timeout, so that copies don't expire."""
COPY_GRACE = 0.5
"""Share of its timeout by which a synchronised copy outlives its last announcement: more than one missed refresh."""

# Plain numbers: arithmetic of flags is slow.
_LEARNED, _DATA, _EXPECTED = int(RecordFlag.LEARNED), int(RecordFlag.DATA), int(RecordFlag.EXPECTED)


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
        "owned",
        "parent",
        "pending",
        "refresh_at",
        "reverse",
        "revision",
        "rule",
        "service",
        "session_timeout",
        "state",
        "timeout",
        "told",
    )

    def __init__(self, key: bytes, state: State, timeout: float, session_timeout: float, born: float) -> None:
        self.key = key
        self.reverse = reverse_key(key)
        self.state = state
        self.timeout = timeout
        """Seconds it may be idle in its present state."""
        self.session_timeout = session_timeout
        """Seconds it may be idle once established."""
        self.born = born
        self.revision = 0
        self.expires = 0.0
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
        self.generation = 0
        """Which installed policy it was matched with."""
        self.pending: Op | None = None
        """What peers have not been told yet."""
        self.told = False
        """Peers may hold an entry of this key, so they must hear of its end."""
        self.bucket = -1

    def record(self, now: float) -> Record:
        """The connection as it travels."""
        return Record(
            key=self.key,
            state=int(self.state),
            ttl_s=max(0.0, self.expires - now),
            timeout_s=self.session_timeout,
            rule=self.rule,
            service=self.service,
            flags=(_LEARNED if self.learned else 0) | (_DATA if self.parent else 0),
            born=self.born,
            revision=self.revision,
            parent=self.parent,
        )


class ConnectionTable:
    """All connections of a member. `timer_floor` is the shortest time any entry lives (lab seconds)."""

    def __init__(self, timer_floor: float = 0.0, bucket_width: float = 1.0) -> None:
        self.entries: dict[bytes, Connection] = {}
        self.peak = 0
        self.learned = 0
        self.expected = Expectations(timer_floor)
        """Data connections that control connections of this table have announced."""
        self._floor = timer_floor
        self._width = bucket_width
        self._changed: dict[bytes, Connection] = {}
        self._deleted: dict[bytes, Connection] = {}
        self._buckets: dict[int, list[Connection]] = {}
        self._due: list[int] = []

    def __len__(self) -> int:
        return len(self.entries) // 2

    def __iter__(self) -> Iterator[Connection]:
        return (c for key, c in self.entries.items() if key == c.key)

    def lifetime(self, timeout: float) -> float:
        """`timeout`, but never under the floor: what a timer of that length really lasts."""
        return timeout if timeout > self._floor else self._floor

    def add(self, connection: Connection, now: float) -> None:
        """A connection that this member decided on. One with the same key is replaced."""
        old = self.entries.get(connection.key)
        if old is not None:
            if old.born >= connection.born:  # two members' clocks may differ; peers must take it as the newer one
                connection.born, connection.revision = old.born, old.revision + 1
            self._drop(old)
            self.expected.parent_ended(old.key, tell=True)
            if old.key == connection.key:
                connection.told = old.told
            elif old.told:
                self._deleted[old.key] = old
        self._put(connection)
        self.refresh(connection, now)
        self.announce(connection, Op.SET)

    def _put(self, connection: Connection) -> None:
        self.entries[connection.key] = connection
        self.entries[connection.reverse] = connection
        if self._deleted.pop(connection.key, None) is not None:
            connection.told = True
        self.learned += connection.learned
        if len(self.entries) // 2 > self.peak:
            self.peak = len(self.entries) // 2

    def _drop(self, connection: Connection) -> None:
        self.entries.pop(connection.key, None)
        self.entries.pop(connection.reverse, None)
        self._changed.pop(connection.key, None)
        self.learned -= connection.learned
        connection.bucket = -1

    def remove(self, connection: Connection) -> None:
        """The connection ended here; peers that heard of it are told."""
        self._drop(connection)
        self.expected.parent_ended(connection.key, tell=connection.owned)
        if connection.owned and connection.told:
            self._deleted[connection.key] = connection

    def refresh(self, connection: Connection, now: float) -> None:
        """A packet moved its end away; after a change of `timeout` this must be called."""
        connection.expires = now + self.lifetime(connection.timeout)
        bucket = ceil(connection.expires / self._width)
        if connection.bucket < 0 or bucket < connection.bucket:
            self._schedule(connection, bucket)

    def _schedule(self, connection: Connection, bucket: int) -> None:
        connection.bucket = bucket
        waiting = self._buckets.get(bucket)
        if waiting is None:
            self._buckets[bucket] = [connection]
            heappush(self._due, bucket)
        else:
            waiting.append(connection)

    def announce(self, connection: Connection, op: Op) -> None:
        """Peers hear of it at the next sync tick. A new connection stays SET however often it changes until then."""
        if connection.pending is None or (connection.pending is Op.REFRESH and op is not Op.REFRESH):
            connection.pending = op
            self._changed[connection.key] = connection

    def take_updates(self, now: float) -> list[Update]:
        """What peers must hear of, each connection once, in its current state; empties the collection."""
        updates = [Update(Op.DELETE, c.key, None, c.born, c.revision) for c in self._deleted.values()]
        self._deleted = {}
        changed, self._changed = self._changed, {}
        for connection in changed.values():
            op = connection.pending or Op.MODIFY
            connection.pending = None
            connection.told = True
            connection.revision += 1
            connection.refresh_at = now + self.lifetime(connection.timeout) / REFRESHES_PER_TIMEOUT
            updates.append(Update(op, connection.key, connection.record(now)))
        return updates + self.expected.take_updates(now)

    def apply(self, update: Update, now: float, generation: int = 0) -> bool:
        """What a peer said. False when it was older than what is known, or about nothing known."""
        known = self.entries.get(update.key)
        record = update.record
        if record is not None and record.flags & _EXPECTED:
            return self.expected.apply(update, now)
        if record is None and update.key in self.expected.entries and self.expected.apply(update, now):
            return True
        if known is not None and known.key != update.key:
            # The peer saw the connection begin in the other direction; the newer view wins.
            if record is None or (record.born, record.revision) <= (known.born, known.revision):
                return False
            self._drop(known)
            known = None
        if update.op is Op.DELETE:
            version = (update.born, update.revision)
            if known is None or (version != (0.0, 0) and version < (known.born, known.revision)):
                return False
            self._drop(known)
            self.expected.parent_ended(known.key, tell=False)
            return True
        if record is None:
            return False
        if known is not None:
            if (record.born, record.revision) < (known.born, known.revision):
                return False
            self._drop(known)
        self._put_record(record, now, generation)
        return True

    def _put_record(self, record: Record, now: float, generation: int) -> None:
        connection = Connection(record.key, State(record.state), record.timeout_s, record.timeout_s, record.born)
        connection.revision = record.revision
        connection.rule = record.rule
        connection.service = record.service
        connection.parent = record.parent
        connection.learned = bool(record.flags & _LEARNED)
        connection.owned = False
        connection.told = True
        connection.generation = generation
        connection.timeout = record.ttl_s
        self._put(connection)
        left = max(record.ttl_s, self._floor)
        # A handshake and an end are short, whatever the session's timeout is.
        passing = connection.state in START_STATES or connection.state is State.CLOSING
        connection.expires = now + left + COPY_GRACE * (left if passing else max(left, self.lifetime(record.timeout_s)))
        self._schedule(connection, ceil(connection.expires / self._width))

    def expire(self, now: float) -> int:
        """End what has been idle for too long; returns how many. Cost follows what is due, not what is held."""
        ended = 0
        self.expected.expire(now)
        while self._due and self._due[0] * self._width <= now:
            bucket = heappop(self._due)
            for connection in self._buckets.pop(bucket):
                if connection.bucket != bucket:
                    continue
                if connection.expires > now:
                    self._schedule(connection, max(ceil(connection.expires / self._width), bucket + 1))
                else:
                    self.remove(connection)
                    ended += 1
        return ended

    def next_expiry(self) -> float | None:
        """When `expire` next has something to look at. May change with any call that adds or refreshes."""
        return self._due[0] * self._width if self._due else None

    def snapshot(self, now: float) -> Iterator[Record]:
        """Every connection that there is when the walk begins and still is when it gets there."""
        for connection in list(self):
            if connection.bucket >= 0:
                connection.told = True
                yield connection.record(now)
        yield from self.expected.snapshot(now)

    def visit_all(self) -> None:
        """Make the next packet of every connection take the longer way (the policy has changed)."""
        for connection in self:
            connection.refresh_at = 0.0
