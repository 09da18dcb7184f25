"""Records of every kind that may travel, for property tests."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from syncproto.record import Record, RecordFlag

_DATA, _EXPECTED = int(RecordFlag.DATA), int(RecordFlag.EXPECTED)


@st.composite
def parents(draw: st.DrawFn, record: Record) -> Record:
    """The record as it is, as a data connection, or as an announced one."""
    flag = draw(st.sampled_from([0, RecordFlag.DATA, RecordFlag.EXPECTED]))
    if not flag:
        return record
    key = record.key[:-4] + bytes(2) + record.key[-2:] if flag is RecordFlag.EXPECTED else record.key
    parent = draw(st.binary(min_size=len(key), max_size=len(key)))
    return replace(record, key=key, flags=int(record.flags | flag), parent=parent)


records = st.builds(
    Record,
    key=st.one_of(st.binary(min_size=13, max_size=13), st.binary(min_size=37, max_size=37)),
    state=st.integers(0, 6),
    ttl_s=st.floats(0, 1e7),
    timeout_s=st.floats(0, 1e7),
    rule=st.integers(-1, 100_000),
    service=st.text(max_size=16),
    flags=st.integers(0, 0xFFFF).map(lambda flags: flags & ~(_DATA | _EXPECTED)),
    born=st.floats(-1e14, 1e14),
    revision=st.integers(0, 2**62),
).flatmap(parents)
