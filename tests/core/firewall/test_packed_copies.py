"""Copies that stay packed: whoever asks must not be able to tell them from copies that don't.

Two tables are told the same: one gets whole slices, as full sync carries them, the other one record after record.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from properties import examples
from test_connection_table import connection, deleted, key, record, said, told

from fwnode.firewall.connection import Connection
from fwnode.firewall.packet import reverse_key
from fwnode.firewall.table import ENDED_MAX, EXPIRED_AT_ONCE_MAX, ConnectionTable
from fwnode.firewall.tcp_states import ConnectionState
from syncproto.columns import Columns
from syncproto.record import OWNER_SHIFT, Op, Record, Update

PEER = 2
NUMBERS = st.integers(1, 8)


def packed(*numbers: int, **fields: Any) -> ConnectionTable:
    table = ConnectionTable(member=1)
    table.apply_slice(Columns.of(record(n, **fields) for n in numbers), 0.0, 0, PEER)
    return table


def objects(table: ConnectionTable) -> int:
    return len(table.entries)


def test_a_slice_of_news_costs_no_objects_until_a_packet_asks() -> None:
    table = packed(1, 2, 3)
    assert (len(table), table.peak, objects(table)) == (3, 3, 0)
    assert all(name in table for name in (key(1), reverse_key(key(3)))) and key(4) not in table
    found = table.find(reverse_key(key(2)))
    assert found is not None and (found.key, found.owned, found.origin.number) == (key(2), False, PEER)
    assert (len(table), objects(table)) == (3, 1)
    assert table.find(key(2)) is found


def test_showing_the_table_leaves_it_packed() -> None:
    table = packed(1, 2, 3)
    assert sorted(c.key for c in table) == [key(1), key(2), key(3)]
    assert [len(columns) for columns in table.snapshot(0.0)] == [3]
    assert objects(table) == 0


def test_a_delete_ends_a_packed_copy_and_a_late_record_does_not_bring_it_back() -> None:
    table = packed(1, 2)
    assert table.apply(deleted(1, 0.0, 1), 1.0)
    assert (len(table), key(1) in table, reverse_key(key(1)) in table) == (1, False, False)
    assert table.apply_slice(Columns.of([record(1), record(3)]), 2.0, 0, PEER) == 1
    assert (len(table), key(1) in table) == (2, False)


def test_a_newer_record_replaces_a_packed_one_and_an_older_one_does_not() -> None:
    table = packed(1, 2, revision=5)
    assert not table.apply(told(1, revision=4), 1.0)
    assert table.apply(told(2, Op.MODIFY, revision=6, state=ConnectionState.CLOSING, ttl=20.0), 1.0)
    found = table.find(key(2))
    assert found is not None and found.state is ConnectionState.CLOSING


def test_packed_copies_end_when_their_time_comes_and_the_batch_with_the_last() -> None:
    table = ConnectionTable()
    table.apply_slice(Columns.of([record(1, ttl=10.0, timeout=10.0), record(2, ttl=600.0, timeout=600.0)]), 0.0)
    table.expire(10.4)
    assert len(table) == 2, "a word of its owner may be on its way"
    table.expire(11.0)
    assert [c.key for c in table] == [key(2)]
    table.expire(900.0)
    assert (len(table), objects(table), list(table)) == (0, 0, [])
    assert table.peak == 2


def test_expiry_looks_at_no_more_packed_copies_in_a_call_than_at_others() -> None:
    table = ConnectionTable()
    in_a_slice = 100
    for first in range(0, 2 * EXPIRED_AT_ONCE_MAX, in_a_slice):
        table.apply_slice(Columns.of(record(first + n, ttl=10.0, timeout=10.0) for n in range(in_a_slice)), 0.0)
    assert table.expire(100.0)
    assert len(table) == EXPIRED_AT_ONCE_MAX, "a whole batch counts as one"
    assert table.expire(100.0, at_most=1)
    assert len(table) == EXPIRED_AT_ONCE_MAX - in_a_slice
    assert not table.expire(100.0)
    assert (len(table), list(table)) == (0, [])


def test_what_was_taken_out_of_a_batch_has_an_end_of_its_own() -> None:
    table = packed(1, 2, ttl=10.0, timeout=10.0)
    found = table.find(key(1))
    assert found is not None
    found.timeout = 3600.0
    table.refresh(found, 5.0)
    table.expire(100.0)
    assert [c.key for c in table] == [key(1)]


def test_learned_connections_are_counted_while_they_are_packed() -> None:
    table = packed(1, 2, flags=1)
    assert table.learned == 2
    table.find(key(1))
    assert table.learned == 2
    table.apply(deleted(1, 0.0, 1), 0.0)
    assert table.learned == 1
    table.apply(deleted(2, 0.0, 1), 0.0)
    assert table.learned == 0


def test_a_slice_that_finds_no_room_is_taken_as_far_as_there_is_room() -> None:
    table = ConnectionTable(limit=lambda: 2)
    assert table.apply_slice(Columns.of(record(n) for n in (1, 2, 3)), 0.0, 0, PEER) == 2
    assert (len(table), table.over_limit) == (2, 1)


def test_a_slice_that_names_a_connection_twice_holds_it_once() -> None:
    table = ConnectionTable()
    twice = [record(1), replace(record(1), revision=2), replace(record(1, born=1.0), key=reverse_key(key(1)))]
    assert table.apply_slice(Columns.of(twice), 0.0, 0, PEER) == 3
    [left] = table
    assert (len(table), left.born) == (1, 1.0)


def test_a_new_connection_in_place_of_a_packed_one_is_the_younger_and_its_peers_are_told() -> None:
    table = packed(1, born=5.0)
    table.add(connection(1, born=1.0), 6.0)
    [mine] = table
    assert mine.owned and mine.born > 5.0
    assert said(table) == ["SET 1"]


@pytest.mark.parametrize("complete", [True, False])
def test_what_a_peer_does_not_tell_again_is_no_more(complete: bool) -> None:
    table = packed(1, 2)
    third_members = record(3, flags=3 << OWNER_SHIFT)
    table.apply_slice(Columns.of([third_members]), 0.0, 0, PEER)
    table.await_whole(PEER, own_only=False)
    table.apply_slice(Columns.of([record(2)]), 1.0, 0, PEER)
    assert table.whole_has_come(PEER, complete) == complete
    assert (key(1) in table) is not complete and key(2) in table and key(3) in table
    assert table.apply_slice(Columns.of([record(9)]), 1.0, 0, PEER) == 1
    assert table.find(key(3)) is not None


def test_what_ended_while_the_whole_table_came_and_is_told_again_stays() -> None:
    table = packed(1, ttl=10.0, timeout=10.0)
    table.await_whole(PEER, own_only=False)
    table.expire(100.0)
    table.apply_slice(Columns.of([record(1)]), 100.0, 0, PEER)
    assert table.whole_has_come(PEER, complete=True) == 0
    assert key(1) in table


def test_a_peers_new_connection_takes_back_the_end_that_was_not_told_yet() -> None:
    table = ConnectionTable(member=1)
    mine = connection(1)
    table.add(mine, 0.0)
    said(table)
    table.remove(mine)
    for n in range(ENDED_MAX):  # so many that the end of ours is forgotten
        table.apply(deleted(1000 + n, 1.0, 1), 0.0)
    table.apply_slice(Columns.of([record(1)]), 0.0, 0, PEER)
    assert said(table) == []


def test_a_new_policy_meets_packed_connections_too() -> None:
    table = packed(1)
    table.visit_all()
    found = table.find(key(1))
    assert found is not None and found.refresh_at == 0.0


# -- two tables are told the same ------------------------------------------------------------------------------------


def seen(table: ConnectionTable) -> list[tuple[object, ...]]:
    return sorted(
        (c.key, c.state, c.expires, c.timeout, c.session_timeout, c.born, c.revision, c.flags, c.owned,
         c.origin.number, c.told, c.rule, c.service, c.parent)
        for c in table
    )  # fmt: skip


def snapshot(table: ConnectionTable, now: float) -> list[str]:
    return sorted(repr(each) for columns in table.snapshot(now) for each in columns)


def news(table: ConnectionTable, now: float) -> list[str]:
    return sorted(map(repr, table.take_updates(now)))


bodies = st.builds(
    lambda n, back, **fields: replace(record(n, **fields), key=reverse_key(key(n)) if back else key(n)),
    n=NUMBERS, back=st.sampled_from([False] * 4 + [True]), born=st.sampled_from([0.0, 1.0]),
    revision=st.integers(1, 3),
    state=st.sampled_from([ConnectionState.SYN_SENT, ConnectionState.ESTABLISHED, ConnectionState.CLOSING]),
    ttl=st.integers(1, 40).map(float), timeout=st.sampled_from([10.0, 60.0]),
    flags=st.sampled_from([0, 1, 1 << OWNER_SHIFT, 3 << OWNER_SHIFT]),
)  # fmt: skip
moves = st.one_of(
    st.tuples(st.just("slice"), st.lists(bodies, min_size=1, max_size=5)),
    st.tuples(st.just("slice"), st.lists(bodies, min_size=1, max_size=5, unique_by=lambda r: r.key)),
    st.tuples(st.just("told"), bodies),
    st.tuples(st.just("end"), st.tuples(NUMBERS, st.sampled_from([0.0, 1.0]), st.integers(0, 3))),
    st.tuples(st.just("packet"), NUMBERS),
    st.tuples(st.just("add"), NUMBERS),
    st.tuples(st.just("remove"), NUMBERS),
    st.tuples(st.just("pass"), st.integers(1, 30)),
    st.tuples(st.just("tick"), st.none()),
    st.tuples(st.just("whole"), st.sampled_from(["begin", "end", "broken"])),
)


def slice_by_slice(table: ConnectionTable, records: list[Record], now: float) -> None:
    table.apply_slice(Columns.of(records), now, 0, PEER)


def one_by_one(table: ConnectionTable, records: list[Record], now: float) -> None:
    for each in records:
        table.apply(Update(Op.SET, each.key, each, each.born, each.revision), now, 0, PEER)


def do(table: ConnectionTable, what: str, with_what: Any, now: float) -> None:
    if what == "told":
        table.apply(Update(Op.MODIFY, with_what.key, with_what, with_what.born, with_what.revision), now, 0, PEER)
    elif what == "end":
        table.apply(deleted(*with_what), now, 0, PEER)
    elif what == "add":
        table.add(connection(with_what, born=now, timeout=30.0), now)
    elif what == "whole" and with_what == "begin":
        table.await_whole(PEER, own_only=False)
    elif what == "whole":
        table.whole_has_come(PEER, complete=with_what == "end")
    elif what in ("packet", "remove") and (found := table.find(key(with_what))) is not None:
        if what == "remove":
            table.remove(found)
        else:
            _packet(table, found, now)


def _packet(table: ConnectionTable, found: Connection, now: float) -> None:
    """What a packet does to a copy: the member takes it over, moves its end away, and says so."""
    found.owned = True
    table.refresh(found, now)
    table.announce(found, Op.MODIFY)


@examples(200)
@given(st.lists(moves, max_size=30))
def test_nobody_can_tell_a_packed_table_from_another(schedule: list[tuple[str, Any]]) -> None:
    tables = (ConnectionTable(member=1, limit=lambda: 6), ConnectionTable(member=1, limit=lambda: 6))
    tell = (slice_by_slice, one_by_one)
    now = 0.0
    for what, with_what in schedule:
        if what == "pass":
            now += with_what
        for table, way in zip(tables, tell, strict=True):
            if what == "slice":
                way(table, with_what, now)
            elif what == "pass":
                while table.expire(now, at_most=2):
                    pass
            else:
                do(table, what, with_what, now)
        if what == "tick":
            assert news(tables[0], now) == news(tables[1], now)
        one, other = tables
        assert seen(one) == seen(other), f"after {what} {with_what}"
        assert (len(one), one.learned, one.over_limit) == (len(other), other.learned, other.over_limit)
        assert snapshot(one, now) == snapshot(other, now)


# -- a walk over a table that changes meanwhile -----------------------------------------------------------------------


@example(slices=[1, 4, 1], ended_before={1, 2, 3}, meanwhile=[("end", 8), ("find", 4)])
@given(
    slices=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    ended_before=st.sets(st.integers(1, 20)),
    meanwhile=st.lists(st.tuples(st.sampled_from(["find", "find", "end", "add"]), st.integers(1, 20)), max_size=40),
)
@example(slices=[2], ended_before={2}, meanwhile=[("find", 1)] * 3 + [("find", 3)])
@example(slices=[4], ended_before={1, 2}, meanwhile=[("find", n) for n in (1, 1, 4, 1, 1, 1, 3)])
def test_a_walk_meets_once_whatever_is_there_from_its_begin_to_its_end(
    slices: list[int], ended_before: set[int], meanwhile: list[tuple[str, int]]
) -> None:
    """What is unpacked while the walk goes on moves to another row: one that it has passed, or is still to come to."""
    table, following = ConnectionTable(member=1), iter(range(1, 21))
    for size in slices:
        table.add(connection(next(following)), 0.0)
        table.apply_slice(Columns.of([record(next(following)) for _ in range(size)]), 0.0, 0, PEER)
    for number in ended_before:
        table.clear(key(number))
    untouched = {c.key for c in table}
    met, changes = [], iter(meanwhile)
    for each in table:
        met.append(each.key)
        for what, number in islice(changes, 3):
            if what == "find":
                table.find(key(number))
                continue
            untouched.discard(key(number))
            table.clear(key(number)) if what == "end" else table.add(connection(number), 0.0)
    assert sorted(name for name in met if name in untouched) == sorted(untouched)


def test_a_joiner_gets_what_is_unpacked_while_the_table_is_sent() -> None:
    table = packed(*range(1, 9))
    sent, keys = table.snapshot(0.0, slice_max=2), list[bytes]()
    for columns in sent:
        keys += columns.key
        for number in range(1, 9):
            table.find(key(number))
    assert sorted(keys) == [key(number) for number in range(1, 9)]
