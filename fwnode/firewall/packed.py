"""Copies that came by full sync and that no packet has asked for: they stay packed.

A standby may hold a million connections of which it will never see a packet. So a slice of a full sync is kept as it
came, column by column, and the table refers to the whole slice under the key of each; a connection becomes an object
of its own when a packet or an update needs it. A batch does not change: what was unpacked or has ended is no longer
found under its keys. Knows nothing of packets, of peers or of the connections that are objects.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from math import inf
from sys import intern

from syncproto.columns import Columns
from syncproto.record import OWNER_SHIFT, Record, RecordFlag

from .connection import Connection
from .tellers import Teller

_LEARNED = int(RecordFlag.LEARNED)


class Batch:
    """Connections 0, 1, ... of one slice. `came` is lab seconds; `owners` says whose they are, by the member's number
    in their flags."""

    __slots__ = (
        "_born",
        "_parents",
        "_revisions",
        "_rules",
        "_services",
        "_states",
        "_timeouts",
        "_ttls",
        "bucket",
        "came",
        "flags",
        "generation",
        "keys",
        "owners",
        "row",
    )

    def __init__(self, columns: Columns, came: float, generation: int, owners: dict[int, Teller]) -> None:
        self.keys = columns.key
        self.came = came
        self.generation = generation
        self.owners = owners
        self.bucket = -1
        self.row = -1
        self._states = bytes(columns.state)
        self._ttls, self._timeouts = array("d", columns.ttl_s), array("d", columns.timeout_s)
        self._rules, self.flags = array("l", columns.rule), array("H", columns.flags)
        self._born, self._revisions = array("d", columns.born), array("q", columns.revision)
        self._services, self._parents = list(map(intern, columns.service)), columns.parent

    def __len__(self) -> int:
        return len(self.keys)

    def owner(self, n: int) -> Teller:
        """Whose it is."""
        return self.owners[self.flags[n] >> OWNER_SHIFT]

    @property
    def soonest_ttl_s(self) -> float:
        """None of them ends sooner than this after `came`."""
        return min(self._ttls)

    def record(self, n: int) -> Record:
        """The record as it came."""
        return Record(
            self.keys[n], self._states[n], self._ttls[n], self._timeouts[n], self._rules[n], self._services[n],
            self.flags[n], self._born[n], self._revisions[n], self._parents[n],
        )  # fmt: skip


class PackedCopies(dict[bytes, Batch]):
    """What a table holds packed: the batch in which a connection lies, under its key."""

    def __init__(self) -> None:
        super().__init__()
        self.learned = 0
        """How many of them were created by an out-of-state packet."""

    def add(self, batch: Batch) -> None:
        """A batch of which no key is held."""
        self.update(dict.fromkeys(batch.keys, batch))
        self.learned += sum(flags & _LEARNED for flags in batch.flags)

    def held(self, batch: Batch) -> Iterator[int]:
        """Which of the batch are still here."""
        return (n for n, key in enumerate(batch.keys) if self.get(key) is batch)

    def take(self, key: bytes) -> tuple[Batch, int]:
        """Where the held connection of this key lies; it is no longer held."""
        batch = self[key]
        n = batch.keys.index(key)
        self.drop(batch, n)
        return batch, n

    def end_due(self, batch: Batch, now: float, grace_s: float) -> tuple[list[bytes], float]:
        """Keys of those whose time has come, which are no longer held; and when the next one's comes."""
        ended, soonest = list[bytes](), inf
        for n in list(self.held(batch)):
            end = batch.came + batch.record(n).ttl_s + grace_s
            if end > now:
                soonest = min(soonest, end)
            else:
                self.drop(batch, n)
                ended.append(batch.keys[n])
        return ended, soonest

    def drop(self, batch: Batch, n: int) -> None:
        del self[batch.keys[n]]
        self.learned -= batch.flags[n] & _LEARNED


class Place:
    """Where a walk over the rows 0 to `end` - 1 of a table is: in row `row`, at number `n` of the batch there.

    Unpacking moves a copy to a row of its own. Where that is a row that the walk has passed, or will not get to, the
    copy is noted in `moved`, and the walk visits it at its end; where the walk has met the copy and is still to come to
    the row, it is noted in `met`."""

    __slots__ = ("end", "met", "moved", "n", "row")

    def __init__(self, end: int) -> None:
        self.end = end
        self.row = self.n = -1
        self.moved: list[Connection] = []
        self.met: set[Connection] = set()

    def note_unpacked(self, row: int, n: int, connection: Connection) -> None:
        """Number `n` of the batch in this row became this connection."""
        was_met, is_ahead = (row, n) <= (self.row, self.n), self.row < connection.row < self.end
        if was_met and is_ahead:
            self.met.add(connection)
        elif not was_met and not is_ahead:
            self.moved.append(connection)
