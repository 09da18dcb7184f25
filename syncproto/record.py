"""A connection as it travels between members, and the updates that carry it.

`Record` is the one list of what members tell each other of a connection. Three schemas, one per generation of
releases, really differ in how they write it (`syncproto.layout`): order of fields, unit of the times, numbering of the
TCP states, layout of the key. A record read as another schema's is refused, because a field of another type stands in
its place; nothing in the record names its schema, the datagram around it does.

`born` and `revision` order the versions of one key and are exact in every schema; the times are rounded up to the
schema's unit. Hot path: a record is one flat list, packed at once; no per-field objects. This module knows nothing of
sequence numbers, peers or gates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import Annotated, Any

import msgpack

from syncproto.errors import Reason, SyncError
from syncproto.layout import LAYOUTS, STATES, record_check, record_codec
from syncproto.limits import COUNTER_MAX, DURATION_MAX_S, FLAGS_MAX, RULE_MAX, SERVICE_NAME_MAX
from syncproto.record_field import (
    Interval,
    Key,
    Moment,
    Number,
    OtherKey,
    StateNumber,
    Text,
    bad_record,
    check_key,
    fields_of,
)


class Op(IntEnum):
    """What an update does. The product's names; SLINK, UNLINK and RENAME have no counterpart here."""

    SET = 1
    MODIFY = 2
    REFRESH = 3
    DELETE = 4


class RecordFlag(IntFlag):
    """What a record is besides a connection; the owner stands in the same field (`OWNER_SHIFT`)."""

    LEARNED = 1
    """Created by an out-of-state packet."""
    DATA = 2
    """A data connection: another one, `parent`, announced it."""
    EXPECTED = 4
    """No connection yet: one that `parent` announced. Its key has source port 0, which stands for any."""
    ENDED = 8
    """No connection any more: this version of it is over, and all before it. Only in a table that is sent whole, for a
    peer that asks for it."""


OWNER_SHIFT = 8
"""Where in the flags the member's number stands that owns the connection; 0: the one that tells. A table that is sent
whole says it of the copies in it, so that the joiner knows whose word counts."""


@dataclass(slots=True)
class Record:
    """One connection. Everything that knows the fields is made from this list: a new one is written here, at the end,
    with the oldest schema that carries it and a default.

    `key` is proto(1) src dst sport(2) dport(2), network order, initiator's direction; `parent` the key of the control
    connection that announced this one, or empty.
    """

    key: Annotated[bytes, Key()]
    state: Annotated[int, StateNumber()]
    ttl_s: Annotated[float, Interval()]
    timeout_s: Annotated[float, Interval(held_as="session_timeout")]
    rule: Annotated[int, Number(what="rule number", lowest=-RULE_MAX, highest=RULE_MAX)]
    service: Annotated[str, Text(what="service name", longest=SERVICE_NAME_MAX)]
    flags: Annotated[int, Number(what="flags", highest=FLAGS_MAX)]
    born: Annotated[float, Moment(what="time of birth")]
    revision: Annotated[int, Number(what="revision", highest=COUNTER_MAX)]
    parent: Annotated[bytes, OtherKey()] = b""


FIELDS = tuple(fields_of(Record))
"""The fields of a record, in the order in which it takes them."""


@dataclass(slots=True)
class Update:
    """One change. SET, MODIFY and REFRESH carry the whole current record; DELETE names what it deletes.

    `born` and `revision` of a DELETE say which version it deletes: a connection of the same key that was born later
    is another connection and stays. (0, 0) means "whatever is there".
    """

    op: Op
    key: bytes
    record: Record | None = None
    born: float = 0.0
    revision: int = 0


_DATA, _EXPECTED = int(RecordFlag.DATA), int(RecordFlag.EXPECTED)
OF_A_PARENT = _DATA | _EXPECTED


def _check_parent(record: Record) -> None:
    if record.flags & OF_A_PARENT not in (_DATA, _EXPECTED):
        raise bad_record("a parent, but neither or both of the flags DATA and EXPECTED")
    if len(record.parent) != len(record.key):
        raise bad_record(f"parent's key of {len(record.parent)} bytes, expected {len(record.key)}")
    if record.flags & _EXPECTED and record.key[-4:-2] != b"\0\0":
        raise bad_record("an announced connection with a source port")


check_record = record_check(FIELDS, _check_parent, OF_A_PARENT)
"""The caps, on what comes in and on what goes out: a record that a peer would refuse must never be sent."""
_check_version = record_check([f for f in FIELDS if f.name in ("born", "revision")], _check_parent, OF_A_PARENT)
"""The same of a DELETE, which has the fields of a version alone."""
_DURATIONS = [field.name for field in FIELDS if isinstance(field.description, Interval)]


def clamped(record: Record) -> Record:
    """The record with times that every schema can carry: an expired one is 0, an endless one is the longest."""
    times = {name: getattr(record, name) for name in _DURATIONS}
    if any(seconds != seconds for seconds in times.values()):
        raise bad_record("a time is not a number")
    return replace(record, **{name: min(max(seconds, 0.0), DURATION_MAX_S) for name, seconds in times.items()})


_CODECS = {schema: record_codec(layout, FIELDS, Record) for schema, layout in LAYOUTS.items()}


def _unknown(schema: int) -> SyncError:
    return SyncError(Reason.UNKNOWN_SCHEMA, f"schema {schema}: known are {sorted(_CODECS)}")


def pack(record: Record, schema: int) -> list[Any]:
    """The record as the schema's flat list. SyncError when a peer would refuse it."""
    codec = _CODECS.get(schema)
    if codec is None:
        raise _unknown(schema)
    if not 0 <= record.state < STATES:
        raise bad_record(f"state {record.state} is unknown")
    try:
        check_record(record)
    except SyncError:
        record = clamped(record)
        check_record(record)
    return codec.pack(record)


def unpack(fields: Any, schema: int) -> Record:
    """A record from the wire. Whatever comes, only SyncError goes out."""
    codec = _CODECS.get(schema)
    if codec is None:
        raise _unknown(schema)
    # `type() is` and not isinstance: True is no number here. One list comparison checks number and types of fields.
    if type(fields) is not list or [type(field) for field in fields] != codec.types:
        raise bad_record(f"fields do not fit schema {schema}")
    try:
        record: Record = codec.read(fields)
    except (KeyError, ValueError, OverflowError):
        raise bad_record(f"a field is out of range for schema {schema}") from None
    check_record(record)
    return record


# --- Updates --------------------------------------------------------------------------------------------------------

_packer = msgpack.Packer(use_bin_type=True)


def pack_update(update: Update, schema: int) -> bytes:
    """One update as bytes, ready to stand in a datagram's body."""
    if update.op is Op.DELETE:
        born, revision = update.born, update.revision
        if update.record is not None:
            born, revision = update.record.born, update.record.revision
        check_key(update.key)
        deleted = Update(Op.DELETE, update.key, None, born, revision)
        _check_version(deleted)
        return _pack_bytes([int(Op.DELETE), update.key, float(born), revision])
    if update.record is None or update.record.key != update.key:
        raise bad_record(f"{update.op.name} without the record of its key")
    return _pack_bytes([int(update.op), pack(update.record, schema)])


def _pack_bytes(fields: list[Any]) -> bytes:
    try:
        data: bytes = _packer.pack(fields)
    except (TypeError, ValueError, OverflowError) as error:
        raise bad_record(f"cannot be packed: {error}") from None
    return data


HEAD_BYTES = 3
"""At most so many bytes stand in front of the items of a packed array."""


def join(items: list[bytes]) -> bytes:
    """Packed items -> one packed array of them."""
    count = len(items)
    head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return head + b"".join(items)


def split(body: bytes, longest: int) -> list[bytes]:
    """A packed array as several, none longer than `longest` unless a single item is. Not for bytes of a stranger."""
    reader = msgpack.Unpacker(raw=True)
    reader.feed(body)
    groups: list[list[bytes]] = [[]]
    size = HEAD_BYTES
    count, start = reader.read_array_header(), reader.tell()
    for _ in range(count):
        reader.skip()
        item, start = body[start : reader.tell()], reader.tell()
        if groups[-1] and size + len(item) > longest:
            groups.append([])
            size = HEAD_BYTES
        groups[-1].append(item)
        size += len(item)
    return [join(items) for items in groups]


def unpack_update(fields: Any, schema: int) -> Update:
    """An update from the wire. Whatever comes, only SyncError goes out."""
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise bad_record("an update is not a list that starts with its operation")
    op = fields[0]
    if op == Op.DELETE:
        if [type(field) for field in fields] != [int, bytes, float, int]:
            raise bad_record("fields do not fit DELETE")
        _, key, born, revision = fields
        check_key(key)
        deleted = Update(Op.DELETE, key, None, born, revision)
        _check_version(deleted)
        return deleted
    if not Op.SET <= op <= Op.REFRESH:
        raise bad_record(f"operation {op} is unknown")
    if len(fields) != 2:
        raise bad_record("an update has an operation and a record")
    record = unpack(fields[1], schema)
    return Update(_OPS[op], record.key, record, record.born, record.revision)


_OPS = {int(op): op for op in Op}
