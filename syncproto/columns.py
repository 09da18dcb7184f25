"""Many connections field by field, as full sync carries them.

A record at a time is right for a change; for a whole table it would cost a list, an object and a dozen checks for each
connection. So a full-sync frame carries the schema's fields in the schema's order (`syncproto.record`), each of them as
a list over all connections of the slice. What a schema means by a field, its units and its numbers are the same.

Whatever comes from the wire, only SyncError goes out. This module knows nothing of streams, frames or the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import compress
from math import ceil, nextafter
from struct import Struct
from struct import error as StructError
from struct import unpack as struct_unpack
from typing import Any

import msgpack

from syncproto.errors import Reason, SyncError
from syncproto.limits import (
    COUNTER_MAX,
    DURATION_MAX_S,
    FLAGS_MAX,
    FULL_SLICE_RECORDS_MAX,
    RULE_MAX,
    TIME_MAX_S,
)
from syncproto.record import (
    FROM_WIRE_STATE,
    KEY_IPV4,
    KEY_IPV6,
    MILLISECONDS,
    OF_A_PARENT,
    TICKS_A_SECOND,
    TYPES,
    WIRE_STATES,
    Record,
    bad_record,
    check_record,
    clamped,
    turned,
    turned_back,
)


@dataclass(slots=True)
class Columns:
    """Connections 0, 1, ...: `key[n]`, `state[n]`, ... belong together. The fields are those of `Record`."""

    key: list[bytes]
    state: list[int]
    ttl_s: list[float]
    timeout_s: list[float]
    rule: list[int]
    service: list[str]
    flags: list[int]
    born: list[float]
    revision: list[int]
    parent: list[bytes]

    @classmethod
    def of(cls, records: Iterable[Record]) -> Columns:
        """The records, turned by a quarter."""
        records = list(records)
        return cls(*([getattr(record, field.name) for record in records] for field in fields(cls)))

    def __len__(self) -> int:
        return len(self.key)

    def record(self, n: int) -> Record:
        return Record(
            self.key[n], self.state[n], self.ttl_s[n], self.timeout_s[n], self.rule[n], self.service[n],
            self.flags[n], self.born[n], self.revision[n], self.parent[n],
        )  # fmt: skip

    def __iter__(self) -> Iterator[Record]:
        return map(self.record, range(len(self)))


# --- The caps -------------------------------------------------------------------------------------------------------

_BORN_MAX = nextafter(TIME_MAX_S, 0.0)


def _check(columns: Columns) -> None:
    """As `check_record`, all at once. SyncError when one of the connections is not legal."""
    if not {KEY_IPV4, KEY_IPV6}.issuperset(map(len, columns.key)):
        raise bad_record(f"a key is neither {KEY_IPV4} nor {KEY_IPV6} bytes long")
    _check_range("a time", columns.ttl_s, 0.0, DURATION_MAX_S)
    _check_range("a time", columns.timeout_s, 0.0, DURATION_MAX_S)
    _check_range("time of birth", columns.born, -_BORN_MAX, _BORN_MAX)
    _check_range("rule number", columns.rule, -RULE_MAX, RULE_MAX)
    _check_range("flags", columns.flags, 0, FLAGS_MAX)
    _check_range("revision", columns.revision, 0, COUNTER_MAX)
    # What differs seldom within a slice is looked at once, or where it occurs.
    unusual = [bool(parent or flags & OF_A_PARENT) for parent, flags in zip(columns.parent, columns.flags, strict=True)]
    services = {service: number for number, service in enumerate(columns.service)}
    for number in {*compress(range(len(columns)), unusual), *services.values()}:
        check_record(columns.record(number))


def _check_range(what: str, column: list[Any], lowest: float, highest: float) -> None:
    # What is not a number compares with nothing, and makes a sum that is not a number either.
    if not (lowest <= min(column) and max(column) <= highest and sum(column) == sum(column)):
        raise bad_record(f"{what} is out of range")


def sound(columns: Columns) -> Columns:
    """Those that a peer would take: times that no schema can carry are clamped, and what is not legal is left out."""
    try:
        if min(columns.state, default=0) < 0 or max(columns.state, default=0) >= len(WIRE_STATES[1]):
            raise bad_record("a state is unknown")
        if len(columns):
            _check(columns)
        return columns
    except (SyncError, TypeError):
        return Columns.of(record for each in columns if (record := _legal(each)) is not None)


def _legal(record: Record) -> Record | None:
    try:
        if not 0 <= record.state < len(WIRE_STATES[1]):
            return None
        record = clamped(record)
        check_record(record)
    except SyncError:
        return None
    return record


# --- The schemas ----------------------------------------------------------------------------------------------------

_PORTS = Struct("!HH")
_PROTOCOLS = [bytes((number,)) for number in range(256)]


def _to_states(schema: int, column: list[int]) -> list[int]:
    return list(map(WIRE_STATES[schema].__getitem__, column))


def _from_states(schema: int, column: list[int]) -> list[int]:
    return list(map(FROM_WIRE_STATE[schema].__getitem__, column))


def _pack_1(c: Columns) -> list[list[Any]]:
    return [
        _to_states(1, c.state), list(map(turned, c.key)), [ceil(s * TICKS_A_SECOND) for s in c.timeout_s],
        [ceil(s * TICKS_A_SECOND) for s in c.ttl_s], c.rule, c.service, c.flags, c.revision, list(map(float, c.born)),
        [turned(key) if key else b"" for key in c.parent],
    ]  # fmt: skip


def _unpack_1(f: list[list[Any]]) -> Columns:
    state, key, timeout, ttl, rule, service, flags, revision, born, parent = f
    return Columns(
        list(map(turned_back, key)), _from_states(1, state), [t / TICKS_A_SECOND for t in ttl],
        [t / TICKS_A_SECOND for t in timeout], rule, service, flags, born, revision,
        [turned_back(key) if key else b"" for key in parent],
    )  # fmt: skip


def _pack_2(c: Columns) -> list[list[Any]]:
    return [
        c.key, _to_states(2, c.state), [ceil(s * MILLISECONDS) for s in c.ttl_s],
        [ceil(s * MILLISECONDS) for s in c.timeout_s], c.rule, c.service, c.flags, list(map(float, c.born)),
        c.revision, c.parent,
    ]  # fmt: skip


def _unpack_2(f: list[list[Any]]) -> Columns:
    key, state, ttl, timeout, rule, service, flags, born, revision, parent = f
    return Columns(
        key, _from_states(2, state), [t / MILLISECONDS for t in ttl], [t / MILLISECONDS for t in timeout], rule,
        service, flags, born, revision, parent,
    )  # fmt: skip


def _pack_3(c: Columns) -> list[list[Any]]:
    ports = struct_unpack(f"!{2 * len(c)}H", b"".join([key[-4:] for key in c.key]))
    return [
        list(map(float, c.born)), c.revision, [key[0] for key in c.key], [key[1:-4] for key in c.key],
        list(ports[::2]), list(ports[1::2]), _to_states(3, c.state), list(map(float, c.timeout_s)),
        list(map(float, c.ttl_s)), c.service, c.rule, c.flags, c.parent,
    ]  # fmt: skip


def _unpack_3(f: list[list[Any]]) -> Columns:
    born, revision, protocol, addresses, source, target, state, timeout, ttl, service, rule, flags, parent = f
    if min(protocol) < 0:
        raise bad_record("protocol out of range")
    pack = _PORTS.pack
    key = [
        _PROTOCOLS[number] + between + pack(one, other)
        for number, between, one, other in zip(protocol, addresses, source, target, strict=True)
    ]
    return Columns(key, _from_states(3, state), ttl, timeout, rule, service, flags, born, revision, parent)


_PACK: dict[int, Callable[[Columns], list[list[Any]]]] = {1: _pack_1, 2: _pack_2, 3: _pack_3}
_UNPACK: dict[int, Callable[[list[list[Any]]], Columns]] = {1: _unpack_1, 2: _unpack_2, 3: _unpack_3}

_packer = msgpack.Packer(use_bin_type=True)


def pack_columns(columns: Columns, schema: int) -> bytes:
    """Sound columns, 1 to `FULL_SLICE_RECORDS_MAX` connections, as the body of a full-sync frame."""
    packer = _PACK.get(schema)
    if packer is None:
        raise SyncError(Reason.UNKNOWN_SCHEMA, f"schema {schema}: known are {sorted(_PACK)}")
    try:
        body: bytes = _packer.pack(packer(columns))
    except (TypeError, ValueError, OverflowError) as error:
        raise bad_record(f"cannot be packed: {error}") from None
    return body


def columns_from(body: Any, schema: int) -> Columns:
    """The columns of an unpacked body, every one checked."""
    types = TYPES[schema]
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
        columns = _UNPACK[schema](body)
        _check(columns)
    except (LookupError, ValueError, OverflowError, StructError):
        raise bad_record(f"a field is out of range for schema {schema}") from None
    return columns
