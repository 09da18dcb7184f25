"""Copies that came by full sync and that no packet has asked for: they stay packed.

A standby may hold a million connections of which it will never see a packet. So a slice of a full sync is kept as it
came, column by column, and the table refers to the whole slice under the key of each; a connection becomes an object
of its own when a packet or an update needs it. A batch does not change: what was unpacked or has ended is no longer
found under its keys. Knows nothing of packets, of peers or of the connections that are objects.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf
from sys import intern
from typing import Any, ClassVar

from syncproto.columns import Columns
from syncproto.layout import compiled
from syncproto.record import FIELDS, OWNER_SHIFT, Record, RecordFlag
from syncproto.record_field import Field, Interval, Moment, Number, StateNumber, Text

from .connection import Connection
from .tellers import Teller

_LEARNED = int(RecordFlag.LEARNED)


def _store_of(field: Field) -> Callable[[list[Any]], Sequence[Any]]:
    """What keeps a column of this field in little space."""
    match field.description:
        case StateNumber():
            return bytes
        case Interval() | Moment():
            return partial(array, "d")
        case Number(lowest=lowest, highest=highest):
            codes = "HIQ" if lowest >= 0 else "hiq"
            return partial(array, next(code for code in codes if highest < 1 << (8 * array(code).itemsize - 1)))
        case Text():
            return lambda column: list(map(intern, column))
    return lambda column: column


_STORES = [_store_of(field) for field in FIELDS]
_NAMES = [field.name for field in FIELDS]
_KEY, _FLAGS, _TTL = map(_NAMES.index, ("key", "flags", "ttl_s"))
_SOURCE = f"""
def record(batch, n):
    {', '.join(_NAMES)} = batch._stored
    return Record({', '.join(f'{name}[n]' for name in _NAMES)})
"""


class Batch:
    """Connections 0, 1, ... of one slice. `came` is lab seconds; `owners` says whose they are, by the member's number
    in their flags."""

    __slots__ = ("_stored", "bucket", "came", "flags", "generation", "keys", "owners", "row")

    def __init__(self, columns: Columns, came: float, generation: int, owners: dict[int, Teller]) -> None:
        self.came = came
        self.generation = generation
        self.owners = owners
        self.bucket = -1
        self.row = -1
        self._stored = [store(column) for store, column in zip(_STORES, columns.lists(), strict=True)]
        self.keys: Sequence[bytes] = self._stored[_KEY]
        self.flags: Sequence[int] = self._stored[_FLAGS]

    def __len__(self) -> int:
        return len(self.keys)

    def owner(self, n: int) -> Teller:
        """Whose it is."""
        return self.owners[self.flags[n] >> OWNER_SHIFT]

    @property
    def soonest_ttl_s(self) -> float:
        """None of them ends sooner than this after `came`."""
        soonest: float = min(self._stored[_TTL])
        return soonest

    record: ClassVar[Callable[[Batch, int], Record]] = compiled(_SOURCE, "packed", Record=Record)["record"]
    """The record as it came, by its number."""


class PackedCopies(dict[bytes, Batch]):
    """What a table holds packed: the batch in which a connection lies, under its key."""

    def __init__(self) -> None:
        super().__init__()
        self.learned = 0
        """How many of them were created by an out-of-state packet."""

    def add(self, batch: Batch) -> None:
        """A batch of which no key is held."""
        self.update(dict.fromkeys(batch.keys, batch))
        if any(flags & _LEARNED for flags in set(batch.flags)):
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
