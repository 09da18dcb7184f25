"""A slice of a full sync, field by field: the same connections as record by record, and as strict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sync_records import records
from sync_world import key6_of, key_of, record_of

from syncproto.columns import Columns, columns_from, pack_columns, sound
from syncproto.errors import Reason, SyncError
from syncproto.limits import DURATION_MAX_S, FULL_SLICE_RECORDS_MAX
from syncproto.record import Record, RecordFlag, pack, unpack

SCHEMAS = (1, 2, 3)
JUNK = [True, None, "x", b"x", 1.5, -1, 3, 2**63, 2**200, [], {}, float("nan"), float("inf"), 1e300]
ILLEGAL: list[dict[str, Any]] = [
    {"key": b"short"},
    {"state": 7},
    {"state": -1},
    {"rule": 2**40},
    {"service": "x" * 65},
    {"service": "\ud800"},
    {"flags": 70_000},
    {"flags": int(RecordFlag.DATA)},
    {"parent": key_of(2)},
    {"born": float("nan")},
    {"revision": -1},
    {"ttl_s": float("nan")},
]


def body_of(made: list[Record], schema: int) -> list[list[Any]]:
    body: list[list[Any]] = msgpack.unpackb(pack_columns(Columns.of(made), schema))
    return body


def row_by_row(body: list[list[Any]], schema: int) -> list[Record]:
    """What the reader of single records makes of the same fields."""
    return [unpack(list(row), schema) for row in zip(*body, strict=True)]


@given(st.lists(records, min_size=1, max_size=12), st.sampled_from(SCHEMAS))
def test_a_slice_says_what_its_records_say_one_by_one(made: list[Record], schema: int) -> None:
    body = body_of(made, schema)
    assert [list(row) for row in zip(*body, strict=True)] == [pack(record, schema) for record in made]
    assert list(columns_from(body, schema)) == row_by_row(body, schema)


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_any_field_replaced_is_refused_just_as_in_a_single_record(junk: object, schema: int) -> None:
    made = [record_of(1), record_of(2), record_of(key=key6_of(3))]
    for position in range(len(body_of(made, schema))):
        body = body_of(made, schema)
        body[position][1] = junk
        try:
            expected: list[Record] | None = row_by_row(body, schema)
        except SyncError:
            expected = None
        try:
            got: list[Record] | None = list(columns_from(body, schema))
        except SyncError as error:
            assert error.reason is Reason.BAD_RECORD
            got = None
        assert got == expected, f"field {position}"


junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=40), st.text(max_size=4)),
    lambda inner: st.lists(inner, max_size=14),
    max_leaves=40,
)


@given(junk, st.sampled_from(SCHEMAS))
def test_whatever_comes_only_a_sync_error_goes_out(body: object, schema: int) -> None:
    with pytest.raises(SyncError):
        columns_from(body, schema)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_columns_of_different_lengths_are_refused(schema: int) -> None:
    for position in range(len(body_of([record_of()], schema))):
        body = body_of([record_of(1), record_of(2)], schema)
        body[position].pop()
        with pytest.raises(SyncError) as caught:
            columns_from(body, schema)
        assert caught.value.reason is Reason.BAD_RECORD


@pytest.mark.parametrize("count", [0, FULL_SLICE_RECORDS_MAX + 1])
def test_a_slice_has_a_size(count: int) -> None:
    body = [column * count for column in body_of([record_of()], 2)]
    with pytest.raises(SyncError) as caught:
        columns_from(body, 2)
    assert caught.value.reason is Reason.WRONG_LENGTH
    largest = [column * FULL_SLICE_RECORDS_MAX for column in body_of([record_of()], 2)]
    assert len(columns_from(largest, 2)) == FULL_SLICE_RECORDS_MAX


@pytest.mark.parametrize("pair", [(a, b) for a in SCHEMAS for b in SCHEMAS if a != b])
def test_a_slice_read_as_another_schemas_is_refused(pair: tuple[int, int]) -> None:
    written, read = pair
    with pytest.raises(SyncError):
        columns_from(body_of([record_of(1), record_of(2)], written), read)


@pytest.mark.parametrize("changes", ILLEGAL, ids=str)
def test_one_illegal_record_does_not_keep_the_others_from_being_sent(changes: dict[str, Any]) -> None:
    good = [record_of(1), record_of(2)]
    kept = sound(Columns.of([good[0], replace(record_of(3), **changes), good[1]]))
    assert list(kept) == good
    for schema in SCHEMAS:
        assert len(body_of(list(kept), schema)[0]) == 2


def test_times_out_of_range_are_clamped_when_sent() -> None:
    [first, second] = sound(Columns.of([record_of(1), record_of(2, ttl_s=-3.0, timeout_s=float("inf"))]))
    assert first == record_of(1)
    assert (second.ttl_s, second.timeout_s) == (0.0, DURATION_MAX_S)


def test_an_unknown_schema_is_named() -> None:
    with pytest.raises(SyncError) as caught:
        pack_columns(Columns.of([record_of()]), 9)
    assert caught.value.reason is Reason.UNKNOWN_SCHEMA
