"""Records of every kind that may travel, for property tests; made from the list of fields."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from syncproto.layout import STATES
from syncproto.record import FIELDS, OF_A_PARENT, Record, RecordFlag
from syncproto.record_field import Field, Interval, Key, Moment, Number, OtherKey, StateNumber, Text

LONGEST_S = 1e7
"""Durations are tried up to this: beyond, the unit of a schema is finer than a float."""
EARLIEST_S = 1e14


def values_of(field: Field) -> st.SearchStrategy[Any]:
    """Whatever this field may hold."""
    match field.description:
        case Key():
            return st.one_of(st.binary(min_size=13, max_size=13), st.binary(min_size=37, max_size=37))
        case OtherKey():
            return st.just(b"")
        case StateNumber():
            return st.integers(0, STATES - 1)
        case Interval():
            return st.floats(0, LONGEST_S)
        case Moment():
            return st.floats(-EARLIEST_S, EARLIEST_S)
        case Number(lowest=lowest, highest=highest):
            return st.integers(int(lowest), int(highest))
        case Text(longest=longest):
            return st.text(max_size=longest // 4)
    raise NotImplementedError(field.name)


@st.composite
def parents(draw: st.DrawFn, record: Record) -> Record:
    """The record as it is, as a data connection, or as an announced one."""
    record = replace(record, flags=record.flags & ~OF_A_PARENT)
    flag = draw(st.sampled_from([0, RecordFlag.DATA, RecordFlag.EXPECTED]))
    if not flag:
        return record
    key = record.key[:-4] + bytes(2) + record.key[-2:] if flag is RecordFlag.EXPECTED else record.key
    parent = draw(st.binary(min_size=len(key), max_size=len(key)))
    return replace(record, key=key, flags=int(record.flags | flag), parent=parent)


records = st.builds(Record, **{field.name: values_of(field) for field in FIELDS}).flatmap(parents)
