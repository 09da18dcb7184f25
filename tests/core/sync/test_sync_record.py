"""Records: three schemas that keep what matters and cannot be taken for one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sync_records import records
from sync_world import key6_of, key_of, record_of

from syncproto.errors import Reason, SyncError
from syncproto.limits import DURATION_MAX_S
from syncproto.record import FIELDS, Op, Record, RecordFlag, Update, pack, pack_update, unpack, unpack_update
from syncproto.record_field import Interval

SCHEMAS = (1, 2, 3)
UNIT_S = {1: 0.1, 2: 0.001, 3: 0.0}


@given(records, st.sampled_from(SCHEMAS))
def test_every_schema_keeps_the_record(record: Record, schema: int) -> None:
    back = unpack(pack(record, schema), schema)
    for field in FIELDS:
        sent, got = getattr(record, field.name), getattr(back, field.name)
        if field.description.since > schema:
            assert got == field.default
        elif isinstance(field.description, Interval):
            assert sent - 1e-6 <= got <= sent + UNIT_S[schema] + 1e-6, "times are rounded up to the schema's unit"
        else:
            assert got == sent, f"{field.name} is exact, and so is the order of versions"


@given(records, st.sampled_from([(a, b) for a in SCHEMAS for b in SCHEMAS if a != b]))
def test_a_record_read_as_another_schemas_is_refused(record: Record, pair: tuple[int, int]) -> None:
    written, read = pair
    with pytest.raises(SyncError) as caught:
        unpack(pack(record, written), read)
    assert caught.value.reason is Reason.BAD_RECORD


def test_schemas_number_states_and_measure_times_differently() -> None:
    record = record_of(state=3, ttl_s=12.34)
    one, two, three = (pack(record, schema) for schema in SCHEMAS)
    assert (one[0], two[1], three[6]) == (1, 3, 4)
    assert (one[3], two[2], three[8]) == (124, 12340, 12.34)
    assert one[1] != two[0] and len(three[3]) == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"key": b"short"},
        {"key": b""},
        {"key": bytes(14)},
        {"state": 7},
        {"state": -1},
        {"rule": 2**40},
        {"service": "x" * 65},
        {"service": "\ud800"},
        {"flags": 70_000},
        {"flags": RecordFlag.DATA},
        {"flags": RecordFlag.EXPECTED, "key": key_of(-1024)},
        {"parent": key_of(2)},
        {"flags": RecordFlag.DATA, "parent": b"short"},
        {"flags": RecordFlag.DATA, "parent": key6_of(2)},
        {"flags": RecordFlag.DATA | RecordFlag.EXPECTED, "key": key_of(-1024), "parent": key_of(2)},
        {"flags": RecordFlag.EXPECTED, "parent": key_of(2)},
        {"born": float("nan")},
        {"born": float("inf")},
        {"revision": -1},
        {"ttl_s": float("nan")},
    ],
)
@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_a_peer_would_refuse_is_never_sent(changes: dict[str, object], schema: int) -> None:
    record = record_of(**changes)
    with pytest.raises(SyncError) as caught:
        pack_update(Update(Op.SET, record.key, record), schema)
    assert caught.value.reason is Reason.BAD_RECORD


@pytest.mark.parametrize("schema", SCHEMAS)
def test_times_out_of_range_are_clamped_when_sent(schema: int) -> None:
    record = record_of(ttl_s=-3.0, timeout_s=float("inf"))
    back = unpack(pack(record, schema), schema)
    assert (back.ttl_s, back.timeout_s) == (0.0, DURATION_MAX_S)


@pytest.mark.parametrize("schema", [0, 4, -1, 99])
def test_unknown_schema(schema: int) -> None:
    for call in (lambda: pack(record_of(), schema), lambda: unpack([], schema)):
        with pytest.raises(SyncError) as caught:
            call()
        assert caught.value.reason is Reason.UNKNOWN_SCHEMA


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("change", [True, None, "x", b"x", 1.5, -1, 2**63, 2**200, [], {}, float("nan"), 1e300])
def test_any_field_replaced_is_refused_or_a_legal_record(schema: int, change: object) -> None:
    for position in range(len(pack(record_of(), schema))):
        fields = pack(record_of(), schema)
        fields[position] = change
        try:
            record = unpack(fields, schema)
        except SyncError as error:
            assert error.reason is Reason.BAD_RECORD
        else:
            assert unpack(pack(record, schema), schema) == record


@pytest.mark.parametrize("key", [key_of(1), key6_of(1)])
def test_delete_names_the_version_it_deletes(key: bytes) -> None:
    import msgpack

    record = record_of(key=key, born=5.0, revision=9)
    for update in (Update(Op.DELETE, key, None, 5.0, 9), Update(Op.DELETE, key, record)):
        back = unpack_update(msgpack.unpackb(pack_update(update, 2)), 2)
        assert (back.op, back.key, back.record, back.born, back.revision) == (Op.DELETE, key, None, 5.0, 9)


@pytest.mark.parametrize("fields", [None, [], [9, []], [1], [1, [], 3], [4, b"x", 1.0, 1], [True, []], [4, bytes(13)]])
def test_updates_that_are_none(fields: object) -> None:
    with pytest.raises(SyncError) as caught:
        unpack_update(fields, 2)
    assert caught.value.reason is Reason.BAD_RECORD
