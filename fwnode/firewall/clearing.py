"""Clearing the connections table by an administrator's order: a part at a time, and peers are told of each end.

Packets have their turn between two parts, and so has the sync channel: no more ends wait for a sync tick than its
queues hold. What begins while a table is cleared may stay. Pure: who has a loop calls `go_on`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from .connection import Connection
from .table import ConnectionTable

LOOKED_AT_ONCE_MAX = 500
"""Connections that are looked at in one call of `go_on`, 1 to 2 ms: packets wait meanwhile."""
UNTOLD_MAX = 5_000
"""Ends that wait for the sync tick at most: some 150 datagrams, of 256 that a receiving queue holds."""


class Clearing:
    """The clearing of one table."""

    def __init__(self, table: ConnectionTable) -> None:
        self._table = table
        self._walk: Iterator[Connection] | None = None
        self._learned_only = False
        self.cleared = 0
        """Connections, since the last order."""

    @property
    def running(self) -> bool:
        return self._walk is not None

    def begin(self, learned_only: bool) -> None:
        """Forget all connections, or those that an out-of-state packet created. An order for all that is being carried
        out is not made smaller."""
        self._learned_only = learned_only and (self._learned_only or not self.running)
        self._walk = iter(self._table)
        self.cleared = 0

    def go_on(self) -> bool:
        """Clear one part. Returns whether more is to be cleared now."""
        if self._walk is None or self._table.untold_ends >= UNTOLD_MAX:
            return False
        looked_at = 0
        for connection in islice(self._walk, LOOKED_AT_ONCE_MAX):
            looked_at += 1
            if connection.learned or not self._learned_only:
                self._table.clear(connection.key)
                self.cleared += 1
        if looked_at < LOOKED_AT_ONCE_MAX:
            self._walk = None
        return self.running
