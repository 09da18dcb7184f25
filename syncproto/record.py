"""A connection as it travels between members, and the updates that carry it.

Three schemas, one per generation of releases, that really differ: order of fields, unit of the times, numbering of
the TCP states, layout of the key. A record read as another schema's is refused, because a field of another type
stands in its place; nothing in the record names its schema, the datagram around it does.

| schema | releases | first field | key | times | state |
| --- | --- | --- | --- | --- | --- |
| 1 | R75 | state | one string: dst src dport sport proto | ticks of 100 ms | ESTABLISHED is 1, handshake 2 and 3 |
| 2 | R77 | key | one string: proto src dst sport dport | milliseconds | as in the firewall |
| 3 | R80, R81 | born | proto, addresses, ports apart | seconds, float | one bit a state |

`born` and `revision` order the versions of one key and are exact in every schema; the times are rounded up to the
schema's unit. Hot path: a record is one flat list, packed at once; no per-field objects. This module knows nothing of
sequence numbers, peers or gates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from math import ceil
from typing import Any

import msgpack

from syncproto.errors import Reason, SyncError
from syncproto.limits import (
    COUNTER_MAX,
    DURATION_MAX_S,
    FLAGS_MAX,
    RULE_MAX,
    SERVICE_NAME_MAX,
    TIME_MAX_S,
)

KEY_IPV4 = 13
KEY_IPV6 = 37


class Op(IntEnum):
    """What an update does. The product's names; SLINK, UNLINK and RENAME have no counterpart here."""

    SET = 1
    MODIFY = 2
    REFRESH = 3
    DELETE = 4


class RecordFlag(IntFlag):
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
    """One connection. `key`: proto(1) src dst sport(2) dport(2), network order, initiator's direction.
    `parent` is the key of the control connection that announced it, or empty."""

    key: bytes
    state: int
    ttl_s: float
    timeout_s: float
    rule: int
    service: str
    flags: int
    born: float
    revision: int
    parent: bytes = b""


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


_STATES_1 = (0, 2, 3, 1, 4, 5, 6)
_STATES_2 = (0, 1, 2, 3, 4, 5, 6)
_STATES_3 = (0x00, 0x01, 0x02, 0x04, 0x08, 0x10, 0x20)
WIRE_STATES = {1: _STATES_1, 2: _STATES_2, 3: _STATES_3}
"""Schema -> its number of each state of the firewall's TCP table, by position."""
FROM_WIRE_STATE = {schema: {wire: state for state, wire in enumerate(those)} for schema, those in WIRE_STATES.items()}
_FROM_1, _FROM_2, _FROM_3 = FROM_WIRE_STATE.values()

TICKS_A_SECOND = 10
"""Unit of schema 1's times."""
MILLISECONDS = 1000
"""A second in the unit of schema 2's times."""


def bad_record(what: str) -> SyncError:
    return SyncError(Reason.BAD_RECORD, f"record: {what}")


def clamped(record: Record) -> Record:
    """The record with times that every schema can carry: an expired one is 0, an endless one is the longest."""
    ttl_s, timeout_s = record.ttl_s, record.timeout_s
    if ttl_s != ttl_s or timeout_s != timeout_s:
        raise bad_record("a time is not a number")
    return replace(
        record,
        ttl_s=min(max(ttl_s, 0.0), DURATION_MAX_S),
        timeout_s=min(max(timeout_s, 0.0), DURATION_MAX_S),
    )


def check_record(record: Record) -> None:
    """The caps, on what comes in and on what goes out: a record that a peer would refuse must never be sent."""
    if len(record.key) not in (KEY_IPV4, KEY_IPV6):
        raise bad_record(f"key of {len(record.key)} bytes, expected {KEY_IPV4} or {KEY_IPV6}")
    if record.parent or record.flags & OF_A_PARENT:
        _check_parent(record)
    if not 0.0 <= record.ttl_s <= DURATION_MAX_S or not 0.0 <= record.timeout_s <= DURATION_MAX_S:
        raise bad_record("a time is out of range")
    if not -RULE_MAX <= record.rule <= RULE_MAX:
        raise bad_record("rule number out of range")
    if not 0 <= record.flags <= FLAGS_MAX:
        raise bad_record("flags out of range")
    _check_version(record.born, record.revision)
    service = record.service
    length = len(service)
    if not service.isascii():
        try:
            length = len(service.encode())
        except UnicodeEncodeError:
            raise bad_record("service name is not text") from None
    if length > SERVICE_NAME_MAX:
        raise bad_record(f"service name longer than {SERVICE_NAME_MAX} bytes")


_DATA, _EXPECTED = int(RecordFlag.DATA), int(RecordFlag.EXPECTED)
OF_A_PARENT = _DATA | _EXPECTED


def _check_parent(record: Record) -> None:
    if record.flags & OF_A_PARENT not in (_DATA, _EXPECTED):
        raise bad_record("a parent, but neither or both of the flags DATA and EXPECTED")
    if len(record.parent) != len(record.key):
        raise bad_record(f"parent's key of {len(record.parent)} bytes, expected {len(record.key)}")
    if record.flags & _EXPECTED and record.key[-4:-2] != b"\0\0":
        raise bad_record("an announced connection with a source port")


def _check_version(born: float, revision: int) -> None:
    if not -TIME_MAX_S < born < TIME_MAX_S:
        raise bad_record("time of birth out of range")
    if not 0 <= revision <= COUNTER_MAX:
        raise bad_record("revision out of range")


# --- Schema 1: R75 --------------------------------------------------------------------------------------------------


def turned(key: bytes) -> bytes:
    """Schema 1's key: dst src dport sport proto: everything in the opposite order."""
    half = (len(key) - 5) // 2
    return key[1 + half : 1 + 2 * half] + key[1 : 1 + half] + key[-2:] + key[-4:-2] + key[:1]


def turned_back(key: bytes) -> bytes:
    if len(key) not in (KEY_IPV4, KEY_IPV6):
        raise bad_record(f"key of {len(key)} bytes, expected {KEY_IPV4} or {KEY_IPV6}")
    half = (len(key) - 5) // 2
    return key[-1:] + key[half : 2 * half] + key[:half] + key[-3:-1] + key[-5:-3]


def _pack_1(r: Record) -> list[Any]:
    return [
        _STATES_1[r.state],
        turned(r.key),
        ceil(r.timeout_s * TICKS_A_SECOND),
        ceil(r.ttl_s * TICKS_A_SECOND),
        r.rule,
        r.service,
        r.flags,
        r.revision,
        float(r.born),
        turned(r.parent) if r.parent else b"",
    ]


_TYPES_1 = [int, bytes, int, int, int, str, int, int, float, bytes]


def _unpack_1(f: list[Any]) -> Record:
    state, key, timeout, ttl, rule, service, flags, revision, born, parent = f
    return Record(
        turned_back(key), _FROM_1[state], ttl / TICKS_A_SECOND, timeout / TICKS_A_SECOND, rule, service, flags,
        born, revision, turned_back(parent) if parent else b"",
    )  # fmt: skip


# --- Schema 2: R77 --------------------------------------------------------------------------------------------------


def _pack_2(r: Record) -> list[Any]:
    return [
        r.key,
        _STATES_2[r.state],
        ceil(r.ttl_s * MILLISECONDS),
        ceil(r.timeout_s * MILLISECONDS),
        r.rule,
        r.service,
        r.flags,
        float(r.born),
        r.revision,
        r.parent,
    ]


_TYPES_2 = [bytes, int, int, int, int, str, int, float, int, bytes]


def _unpack_2(f: list[Any]) -> Record:
    key, state, ttl, timeout, rule, service, flags, born, revision, parent = f
    return Record(
        key, _FROM_2[state], ttl / MILLISECONDS, timeout / MILLISECONDS, rule, service, flags, born, revision, parent
    )


# --- Schema 3: R80 and later ----------------------------------------------------------------------------------------


def _pack_3(r: Record) -> list[Any]:
    key = r.key
    return [
        float(r.born),
        r.revision,
        key[0],
        key[1:-4],
        (key[-4] << 8) | key[-3],
        (key[-2] << 8) | key[-1],
        _STATES_3[r.state],
        float(r.timeout_s),
        float(r.ttl_s),
        r.service,
        r.rule,
        r.flags,
        r.parent,
    ]


_TYPES_3 = [float, int, int, bytes, int, int, int, float, float, str, int, int, bytes]


def _unpack_3(f: list[Any]) -> Record:
    born, revision, proto, addresses, sport, dport, state, timeout, ttl, service, rule, flags, parent = f
    key = bytes((proto,)) + addresses + sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    return Record(key, _FROM_3[state], ttl, timeout, rule, service, flags, born, revision, parent)


TYPES = {1: _TYPES_1, 2: _TYPES_2, 3: _TYPES_3}
"""Schema -> the types of its fields, in wire order."""
_PACK: dict[int, Callable[[Record], list[Any]]] = {1: _pack_1, 2: _pack_2, 3: _pack_3}
_UNPACK: dict[int, tuple[list[type], Callable[[list[Any]], Record]]] = {
    1: (_TYPES_1, _unpack_1),
    2: (_TYPES_2, _unpack_2),
    3: (_TYPES_3, _unpack_3),
}


def pack(record: Record, schema: int) -> list[Any]:
    """The record as the schema's flat list. SyncError when a peer would refuse it."""
    packer = _PACK.get(schema)
    if packer is None:
        raise SyncError(Reason.UNKNOWN_SCHEMA, f"schema {schema}: known are {sorted(_PACK)}")
    if not 0 <= record.state < len(_STATES_2):
        raise bad_record(f"state {record.state} is unknown")
    if not (0.0 <= record.ttl_s <= DURATION_MAX_S and 0.0 <= record.timeout_s <= DURATION_MAX_S):
        record = clamped(record)
    check_record(record)
    return packer(record)


def unpack(fields: Any, schema: int) -> Record:
    """A record from the wire. Whatever comes, only SyncError goes out."""
    reader = _UNPACK.get(schema)
    if reader is None:
        raise SyncError(Reason.UNKNOWN_SCHEMA, f"schema {schema}: known are {sorted(_UNPACK)}")
    types, unpacker = reader
    # `type() is` and not isinstance: True is no number here. One list comparison checks number and types of fields.
    if type(fields) is not list or [type(field) for field in fields] != types:
        raise bad_record(f"fields do not fit schema {schema}")
    try:
        record = unpacker(fields)
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
        if len(update.key) not in (KEY_IPV4, KEY_IPV6):
            raise bad_record(f"key of {len(update.key)} bytes, expected {KEY_IPV4} or {KEY_IPV6}")
        _check_version(born, revision)
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
        if len(key) not in (KEY_IPV4, KEY_IPV6):
            raise bad_record(f"key of {len(key)} bytes, expected {KEY_IPV4} or {KEY_IPV6}")
        _check_version(born, revision)
        return Update(Op.DELETE, key, None, born, revision)
    if not Op.SET <= op <= Op.REFRESH:
        raise bad_record(f"operation {op} is unknown")
    if len(fields) != 2:
        raise bad_record("an update has an operation and a record")
    record = unpack(fields[1], schema)
    return Update(_OPS[op], record.key, record, record.born, record.revision)


_OPS = {int(op): op for op in Op}
