"""Many connections field by field, as full sync carries them.

A record at a time is right for a change; for a whole table it would cost a list, an object and a dozen checks for each
connection. So a full-sync frame carries the schema's fields in the schema's order (`syncproto.layout`), each of them as
a list over all connections of the slice. What a schema means by a field, its units and its numbers are the same.

Whatever comes from the wire, only SyncError goes out. This module knows nothing of streams, frames or the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import compress
from struct import error as StructError
from typing import Any

import msgpack

from syncproto.errors import Reason, SyncError
from syncproto.layout import LAYOUTS, STATES, column_codec
from syncproto.limits import FULL_SLICE_RECORDS_MAX
from syncproto.record import FIELDS, OF_A_PARENT, Record, check_record, clamped
from syncproto.record_field import KEY_IPV4, KEY_IPV6, KEY_LENGTHS, Ranged, Text, bad_record

_NAMES = tuple(field.name for field in FIELDS)


class Columns:
    """Connections 0, 1, ...: `key[n]`, `state[n]`, ... belong together. The fields are those of `Record`, in its order;
    declared here are those that somebody reads by name."""

    __slots__ = _NAMES
    key: list[bytes]
    state: list[int]
    flags: list[int]
    ttl_s: list[float]
    service: list[str]
    parent: list[bytes]

    def __init__(self, *columns: list[Any]) -> None:
        for name, column in zip(_NAMES, columns, strict=True):
            setattr(self, name, column)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Columns:
        """Columns of these records: a list for each field."""
        records = list(records)
        return cls(*([getattr(record, name) for record in records] for name in _NAMES))

    def lists(self) -> list[list[Any]]:
        """One a field, in the fields' order."""
        return [getattr(self, name) for name in _NAMES]

    def __len__(self) -> int:
        return len(self.key)

    def record(self, n: int) -> Record:
        """Connection number `n` as a record."""
        return Record(*[column[n] for column in self.lists()])

    def __iter__(self) -> Iterator[Record]:
        return map(Record, *self.lists())


# --- The caps -------------------------------------------------------------------------------------------------------

_RANGED = [(field.name, d) for field in FIELDS if isinstance(d := field.description, Ranged)]
_KEY_LENGTHS = frozenset(KEY_LENGTHS)
_TEXTS = [field.name for field in FIELDS if isinstance(field.description, Text)]


def _check(columns: Columns) -> None:
    """As `check_record`, all at once. SyncError when one of the connections is not legal."""
    if not _KEY_LENGTHS.issuperset(map(len, columns.key)):
        raise bad_record(f"a key is neither {KEY_IPV4} nor {KEY_IPV6} bytes long")
    for name, field in _RANGED:
        _check_range(field.what, getattr(columns, name), field.lowest, field.highest)
    # What differs seldom within a slice is looked at once, or where it occurs.
    unusual = [bool(parent or flags & OF_A_PARENT) for parent, flags in zip(columns.parent, columns.flags, strict=True)]
    texts = [{text: number for number, text in enumerate(getattr(columns, name))}.values() for name in _TEXTS]
    for number in {*compress(range(len(columns)), unusual)}.union(*texts):
        check_record(columns.record(number))


def _check_range(what: str, column: list[Any], lowest: float, highest: float) -> None:
    # What is not a number compares with nothing, and makes a sum that is not a number either.
    if not (lowest <= min(column) and max(column) <= highest and sum(column) == sum(column)):
        raise bad_record(f"{what} is out of range")


def sound(columns: Columns) -> Columns:
    """Those that a peer would take: times that no schema can carry are clamped, and what is not legal is left out."""
    try:
        if min(columns.state, default=0) < 0 or max(columns.state, default=0) >= STATES:
            raise bad_record("a state is unknown")
        if len(columns):
            _check(columns)
        return columns
    except (SyncError, TypeError):
        return Columns.of(record for each in columns if (record := _legal(each)) is not None)


def _legal(record: Record) -> Record | None:
    try:
        if not 0 <= record.state < STATES:
            return None
        record = clamped(record)
        check_record(record)
    except SyncError:
        return None
    return record


# --- The schemas ----------------------------------------------------------------------------------------------------

_CODECS = {schema: column_codec(layout, FIELDS, Columns) for schema, layout in LAYOUTS.items()}
_packer = msgpack.Packer(use_bin_type=True)


def pack_columns(columns: Columns, schema: int) -> bytes:
    """Sound columns, 1 to `FULL_SLICE_RECORDS_MAX` connections, as the body of a full-sync frame."""
    codec = _CODECS.get(schema)
    if codec is None:
        raise SyncError(Reason.UNKNOWN_SCHEMA, f"schema {schema}: known are {sorted(_CODECS)}")
    try:
        body: bytes = _packer.pack(codec.pack(columns))
    except (TypeError, ValueError, OverflowError) as error:
        raise bad_record(f"cannot be packed: {error}") from None
    return body


def columns_from(body: Any, schema: int) -> Columns:
    """The columns of an unpacked body, every one checked."""
    types = _CODECS[schema].types
    if type(body) is not list or len(body) != len(types):
        raise bad_record(f"fields do not fit schema {schema}")
    if any(type(column) is not list for column in body) or len(set(map(len, body))) != 1:
        raise bad_record("fields are not lists of one length")
    if not 1 <= len(body[0]) <= FULL_SLICE_RECORDS_MAX:
        text = f"slice of {len(body[0])} records, expected 1 to {FULL_SLICE_RECORDS_MAX}"
        raise SyncError(Reason.WRONG_LENGTH, text)
    # `type() is` and not isinstance: True is no number here.
    if any(set(map(type, column)) != {kind} for column, kind in zip(body, types, strict=True)):
        raise bad_record(f"fields do not fit schema {schema}")
    try:
        columns: Columns = _CODECS[schema].read(body)
        _check(columns)
    except (LookupError, ValueError, OverflowError, StructError):
        raise bad_record(f"a field is out of range for schema {schema}") from None
    return columns
