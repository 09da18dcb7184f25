"""What peers are to hear of a table: changes are collected as the connection's *current* state until `take_updates`
empties them, so that ten changes in one sync tick are one update.

Knows nothing of packets, of what peers say, or of who they are (`audience`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import count, islice
from math import inf
from typing import Any

from syncproto.columns import Columns
from syncproto.record import Op, Update

from .audience import Audience
from .connection import NEXT_PACKET, Connection, columns_of
from .refreshing import REFRESHES_PER_TIMEOUT, Walk


class Telling:
    """Of the table with these rows, which takes out of `changed` and `deleted` what need not be told any more.
    `lifetime` is what a timer of a length really lasts; `tick_s` a sync tick, in lab seconds."""

    def __init__(self, rows: list[Any], lifetime: Callable[[float], float], tick_s: float) -> None:
        self.audience = Audience()
        self._lifetime = lifetime
        self._walk = Walk(rows, self.audience, lifetime, tick_s)
        self.changed: dict[bytes, Connection] = {}
        """What is to be told, by key."""
        self.deleted: dict[bytes, Connection] = {}
        """What ended and is to be told."""
        self._later: list[tuple[float, int, Connection]] = []
        self._numbers = count()

    def announce(self, connection: Connection, op: Op) -> None:
        """Peers hear of it at the next sync tick. A new connection stays SET however often it changes until then."""
        if connection.pending is None or (connection.pending is Op.REFRESH and op is not Op.REFRESH):
            connection.pending = op
            self.changed[connection.key] = connection

    def announce_news(self, connection: Connection) -> None:
        """Peers hear of it if they know too little of it."""
        if self._walk.has_news(connection):
            self.announce(connection, Op.REFRESH)

    def take_updates(self, now: float, room: int = 0) -> list[Update]:
        """What peers must hear of, each once, as it is. Connections of which they know too little fill it to `room`."""
        self._walk.look_who_listens(now)
        for connection in self._walk.news(room - len(self.deleted) - len(self.changed)):
            self.announce(connection, Op.REFRESH)
        updates = [Update(Op.DELETE, c.key, None, c.born, c.revision) for c in self.deleted.values()]
        self.deleted.clear()
        while self._later and self._later[0][0] <= now:
            connection = heappop(self._later)[2]
            if connection.row >= 0:
                self.announce(connection, Op.SET)
        changed, told = list(self.changed.values()), self.audience.told
        self.changed.clear()
        due: dict[float, tuple[float, float]] = {}  # one number for all of a timeout: less to keep and to look at
        lag_s, all_hear = self._walk.lag_s, self.audience.all_hear
        for connection in changed:
            op = connection.pending or Op.MODIFY
            connection.pending = None
            timeout = connection.timeout
            if timeout not in due:
                whole = self._lifetime(timeout)
                due[timeout] = now + whole, now + whole / REFRESHES_PER_TIMEOUT
            end, refresh_at = due[timeout]
            idle_s, connection.peers_until = end - connection.expires, connection.expires
            if connection.refresh_at != NEXT_PACKET:  # else it has to be matched again, or announced, all the same
                connection.refresh_at = refresh_at if idle_s <= lag_s else refresh_at - idle_s  # peers hear of less
            if connection.sync_at > now and not connection.told:
                self._postpone(connection, op)
                continue
            connection.told = all_hear or told(connection.told, op)
            connection.revision += connection.owned  # telling a copy on makes no new version of it
            updates.append(Update(op, connection.key, connection.record(now)))
        return updates

    def snapshot(self, table: Iterable[Connection], now: float, slice_max: int) -> Iterator[Columns]:
        """All of them that are synchronised, in slices."""
        walk = (c for c in table if c.told or c.sync_at <= now)
        while connections := list(islice(walk, slice_max)):
            told, anew_before = self.audience.told_whole()
            for connection in connections:
                if not connection.told:
                    connection.peers_until = connection.expires
                if connection.owned and not 0 < connection.told < anew_before:
                    connection.told = told
            yield columns_of(connections, now)

    def _postpone(self, connection: Connection, op: Op) -> None:
        """Its service is not synchronised, or not yet."""
        if op is Op.SET and connection.sync_at != inf:
            heappush(self._later, (connection.sync_at, next(self._numbers), connection))
