"""What stands on the wire for a record does not change; and a further field is one line in the list of fields."""

from __future__ import annotations

import random
from dataclasses import astuple, dataclass
from hashlib import blake2b
from typing import Annotated, Any

import pytest

from fwnode.firewall.connection import Connection, columns_of
from fwnode.firewall.tcp_states import ConnectionState
from fwnode.firewall.tellers import NOBODY
from syncproto.columns import Columns, pack_columns
from syncproto.errors import SyncError
from syncproto.layout import LAYOUTS, column_codec, record_check, record_codec
from syncproto.record import (
    FIELDS,
    OF_A_PARENT,
    Op,
    Record,
    RecordFlag,
    Update,
    check_record,
    pack,
    pack_update,
    unpack,
)
from syncproto.record_field import Number, Text, fields_of

COUNT = 300
"""Records whose bytes are compared."""
GOLDEN = {
    1: ("77718898ee2fffdf33f505f27bb42ed2", "2f8742d2aa7442fe7edb2346b8eddf58"),
    2: ("e7cabfeb52a194f87e79146be7dcfe95", "0a8a2bdf35f11e2508a3b331c4f54740"),
    3: ("07f2a09ded79370d06d345a836407946", "608a29108f908c90beac6faf2ebc607b"),
}
"""Schema -> digests of so many updates one by one, and of the records as one slice."""


def some_records() -> list[Record]:
    """Of every kind, from a seed: both families, data connections and announced ones, odd numbers."""
    rng = random.Random(2207)
    return [_record(rng) for _ in range(COUNT)]


def _record(rng: random.Random) -> Record:
    key = rng.randbytes(rng.choice((13, 37)))
    flags, parent = rng.choice((0, 1, 0x0200)), b""
    kind = rng.choice((0, 0, RecordFlag.DATA, RecordFlag.EXPECTED))
    if kind is RecordFlag.EXPECTED:
        key = key[:-4] + bytes(2) + key[-2:]
    if kind:
        parent = rng.randbytes(len(key))
    return Record(
        key=key,
        state=rng.randrange(7),
        ttl_s=rng.choice((0.0, 0.05, 3599.9501, rng.uniform(0, 1e6))),
        timeout_s=rng.choice((20.0, 3600.0, rng.uniform(0, 1e6))),
        rule=rng.choice((-1, 0, 7, 70_000)),
        service=rng.choice(("", "oracle", "ftp-data", "dienst-ä")),
        flags=int(flags | kind),
        born=rng.uniform(-10.0, 1e9),
        revision=rng.randrange(2**40),
        parent=parent,
    )


def digest(*parts: bytes) -> str:
    return blake2b(b"".join(parts), digest_size=16).hexdigest()


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_what_stands_on_the_wire(schema: int) -> None:
    made = some_records()
    updates = [Update(list(Op)[n % 4], record.key, record) for n, record in enumerate(made)]
    singly = digest(*(pack_update(update, schema) for update in updates))
    together = digest(pack_columns(Columns.of(made), schema))
    assert (singly, together) == GOLDEN[schema]


# -- a further field -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class WithZone(Record):
    """As a record would be with two more fields, that schema 3 and schema 2 brought."""

    zone: Annotated[str, Text(since=3, what="zone", longest=8)] = "none"
    pool: Annotated[int, Number(since=2, what="pool", highest=9)] = 0


MORE = tuple(fields_of(WithZone))


def with_zone(record: Record) -> WithZone:
    return WithZone(*astuple(record), zone="dmz", pool=5)


@pytest.mark.parametrize(("schema", "carried"), [(1, ("none", 0)), (2, ("none", 5)), (3, ("dmz", 5))])
def test_a_further_field_travels_in_its_schemas_and_has_its_default_in_older_ones(schema: int, carried: Any) -> None:
    one, many = record_codec(LAYOUTS[schema], MORE, WithZone), column_codec(LAYOUTS[schema], MORE, list_of)
    made = [with_zone(record) for record in some_records()]
    for record in made:
        fields = one.pack(record)
        assert fields[: len(pack(record, schema))] == pack(record, schema), "what was there stays where it was"
        back = one.read(fields)
        assert [type(field) for field in fields] == one.types and (back.zone, back.pool) == carried
        assert back.key == record.key
    assert many.read(many.pack(as_columns(made))) == [one.read(one.pack(record)) for record in made]


def test_a_further_field_is_checked() -> None:
    check, record = record_check(MORE, lambda record: None, OF_A_PARENT), with_zone(some_records()[0])
    check(record)
    for name, value in (("zone", "x" * 9), ("zone", "\ud800"), ("pool", 10), ("pool", -1), ("key", b"short")):
        kept = getattr(record, name)
        setattr(record, name, value)
        with pytest.raises(SyncError):
            check(record)
        setattr(record, name, kept)


def test_one_that_older_schemas_lack_needs_a_default() -> None:
    @dataclass
    class Wrong:
        zone: Annotated[str, Text(since=3, what="zone", longest=8)]

    with pytest.raises(TypeError, match="default"):
        list(fields_of(Wrong))


def list_of(*columns: list[Any]) -> list[WithZone]:
    return list(map(WithZone, *columns))


def as_columns(made: list[WithZone]) -> Any:
    class Lists:
        pass

    lists = Lists()
    for field in MORE:
        setattr(lists, field.name, [getattr(record, field.name) for record in made])
    return lists


# -- a connection and its record -------------------------------------------------------------------------------------


def test_a_connection_holds_every_field() -> None:
    """What a peer said of a connection is what a table tells on: no field is forgotten on the way."""
    for record in some_records():
        check_record(record)
        if record.flags & RecordFlag.EXPECTED:
            continue
        held = Connection(record.key, ConnectionState(record.state), 60.0, 0.0, record.born)
        held.take(record, NOBODY, member=1)
        held.expires = record.ttl_s
        told, [told_with_others] = held.record(0.0), columns_of([held], 0.0)
        assert told == told_with_others
        for field in FIELDS:
            if field.name != "flags":
                assert getattr(told, field.name) == getattr(record, field.name), field.name
        of_the_connection = RecordFlag.LEARNED | RecordFlag.DATA
        assert told.flags & of_the_connection == record.flags & of_the_connection
        assert unpack(pack(told, 3), 3) == told
