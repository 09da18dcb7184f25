"""The connections table: what peers are told, what is believed of them, and when entries end."""

from __future__ import annotations

from math import inf, nextafter
from typing import Any

import pytest
from firewall_wire import firewall, play
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from fwnode.firewall.connection import Connection
from fwnode.firewall.packet import reverse_key
from fwnode.firewall.refreshing import REFRESHES_PER_TIMEOUT
from fwnode.firewall.table import ENDED_TOGETHER, EXPIRED_AT_ONCE_MAX, ConnectionTable
from fwnode.firewall.tcp_states import ConnectionState
from fwnode.lab_clock import FLOOR_S, LabClock
from syncproto.record import Op, Record, Update


def key(number: int) -> bytes:
    return b"\x06" + bytes([192, 0, 2, 1, 198, 51, 100, 1]) + number.to_bytes(2, "big") + b"\x00\x50"


def connection(number: int = 1, *, born: float = 0.0, timeout: float = 3600.0,
               state: ConnectionState = ConnectionState.ESTABLISHED, learned: bool = False) -> Connection:  # fmt: skip
    made = Connection(key(number), state, timeout, timeout, born)
    made.learned = learned
    return made


def record(number: int = 1, *, born: float = 0.0, revision: int = 1,
           state: ConnectionState = ConnectionState.ESTABLISHED,
           ttl: float = 3600.0, timeout: float = 3600.0, flags: int = 0) -> Record:  # fmt: skip
    return Record(key(number), int(state), ttl, timeout, 1, "http", flags, born, revision)


def told(number: int = 1, op: Op = Op.SET, **fields: Any) -> Update:
    made = record(number, **fields)
    return Update(op, made.key, made, made.born, made.revision)


def deleted(number: int = 1, born: float = 0.0, revision: int = 0) -> Update:
    return Update(Op.DELETE, key(number), None, born, revision)


def said(table: ConnectionTable, now: float = 0.0) -> list[str]:
    """What peers are told, as `SET 1`."""
    return [f"{u.op.name} {int.from_bytes(u.key[9:11], 'big')}" for u in table.take_updates(now)]


# -- what peers are told ---------------------------------------------------------------------------------------------


def test_ten_changes_in_one_tick_are_one_record_of_the_last() -> None:
    fw = firewall()
    play(fw, "> S ACCEPT SYN_SENT\n < SA ACCEPT SYN_RECEIVED\n > A ACCEPT ESTABLISHED\n < FA ACCEPT FIN_WAIT_RESPONDER")
    [update] = fw.connections.take_updates(0.0)
    assert update.record is not None
    assert (update.op, update.record.state) == (Op.SET, ConnectionState.FIN_WAIT_RESPONDER)
    play(fw, "> FA ACCEPT CLOSING\n > A ACCEPT CLOSING")
    [update] = fw.connections.take_updates(0.0)
    assert update.record is not None
    assert (update.op, update.record.state) == (Op.MODIFY, ConnectionState.CLOSING)
    assert said(fw.connections) == []


def test_a_connection_that_came_and_went_within_a_tick_is_not_mentioned() -> None:
    table = ConnectionTable()
    made = connection()
    table.add(made, 0.0)
    table.remove(made)
    assert said(table) == []


def test_a_known_connection_that_is_replaced_and_ended_within_a_tick_is_deleted_at_the_peers() -> None:
    table = ConnectionTable()
    table.add(connection(), 0.0)
    said(table)
    successor = connection(born=1.0)
    table.add(successor, 1.0)
    table.remove(successor)
    assert said(table) == ["DELETE 1"]


def test_a_known_connection_that_ended_and_came_back_within_a_tick_is_deleted_when_it_ends_again() -> None:
    table = ConnectionTable()
    first = connection()
    table.add(first, 0.0)
    said(table)
    table.remove(first)
    again = connection(born=1.0)
    table.add(again, 1.0)
    table.remove(again)
    assert said(table) == ["DELETE 1"]


def test_end_and_new_beginning_within_a_tick_are_one_set() -> None:
    table = ConnectionTable()
    first = connection()
    table.add(first, 0.0)
    said(table)
    table.remove(first)
    table.add(connection(born=1.0), 1.0)
    assert said(table) == ["SET 1"]


def test_a_connection_that_came_back_from_the_other_side_replaces_the_old_one_at_the_peers() -> None:
    table, peer = ConnectionTable(), ConnectionTable()
    table.add(connection(), 0.0)
    for update in table.take_updates(0.0):
        peer.apply(update, 0.0)
    turned = Connection(reverse_key(key(1)), ConnectionState.SYN_SENT, 25.0, 3600.0, 1.0)
    table.add(turned, 1.0)
    table.remove(turned)
    for update in table.take_updates(1.0):
        peer.apply(update, 1.0)
    assert (len(table), len(peer)) == (0, 0)


def test_a_connection_used_again_counts_as_newer_even_when_the_clock_went_back() -> None:
    """Two machines' clocks may differ; what is announced must never look older than what peers have."""
    table, peer = ConnectionTable(), ConnectionTable()
    peer.apply(told(born=100.0, revision=4), 0.0)
    table.apply(told(born=100.0, revision=4), 0.0)
    table.add(connection(born=90.0, state=ConnectionState.SYN_SENT), 90.0)
    [update] = table.take_updates(90.0)
    assert peer.apply(update, 90.0)
    assert peer.entries[key(1)].state is ConnectionState.SYN_SENT


def test_a_busy_connection_is_announced_a_few_times_a_timeout_and_no_more() -> None:
    fw = firewall()
    now = play(fw, "> S ACCEPT SYN_SENT\n < SA ACCEPT SYN_RECEIVED\n > A ACCEPT ESTABLISHED")
    said(fw.connections, now)
    refreshes = []
    while now < 3 * 3600:
        now = play(fw, "+ 60\n > PA ACCEPT ESTABLISHED", now=now)
        refreshes += fw.connections.take_updates(now)
    assert {u.op for u in refreshes} == {Op.REFRESH}
    assert 3 * REFRESHES_PER_TIMEOUT - 1 <= len(refreshes) <= 3 * REFRESHES_PER_TIMEOUT
    assert all(u.record is not None and u.record.ttl_s == 3600 for u in refreshes)


# -- what is believed of them ----------------------------------------------------------------------------------------


def test_a_copy_never_goes_back_to_an_older_state() -> None:
    table = ConnectionTable()
    assert table.apply(told(born=5.0, revision=3, state=ConnectionState.CLOSING), 0.0)
    assert not table.apply(told(born=5.0, revision=2), 0.0), "an older revision"
    assert not table.apply(told(born=4.0, revision=9), 0.0), "an older connection of the same key"
    assert table.entries[key(1)].state is ConnectionState.CLOSING
    assert table.apply(told(born=6.0, revision=0, state=ConnectionState.SYN_SENT), 0.0), "a newer one"
    assert table.entries[key(1)].state is ConnectionState.SYN_SENT


@examples(100)
@given(st.permutations([told(born=float(b), revision=r, ttl=100.0 * b + r) for b in (1, 2) for r in (1, 2, 3)]))
def test_records_in_any_order_end_in_the_newest(updates: list[Update]) -> None:
    table = ConnectionTable()
    for update in updates:
        table.apply(update, 0.0)
    entry = table.entries[key(1)]
    assert (entry.born, entry.revision, len(table)) == (2.0, 3, 1)


def test_the_end_of_an_older_connection_does_not_end_its_successor() -> None:
    table = ConnectionTable()
    table.apply(told(born=5.0, revision=3), 0.0)
    assert not table.apply(deleted(born=4.0, revision=9), 0.0)
    assert not table.apply(deleted(born=5.0, revision=2), 0.0), "who deletes did not know the newest state"
    assert len(table) == 1
    assert table.apply(deleted(born=5.0, revision=3), 0.0)
    assert not table.apply(deleted(born=5.0, revision=3), 0.0), "nothing is left to delete"
    assert not table.apply(told(born=5.0, revision=3), 0.0), "what is over stays over"
    table.apply(told(born=6.0, revision=1), 0.0)
    assert table.apply(deleted(), 0.0), "(0, 0) is whatever is there"


def test_two_views_of_who_began_end_in_the_newer_one() -> None:
    table = ConnectionTable()
    table.add(connection(born=1.0), 1.0)
    turned = Record(reverse_key(key(1)), 3, 60.0, 60.0, 1, "", 0, 0.5, 9)
    assert not table.apply(Update(Op.SET, turned.key, turned, 0.5, 9), 1.0)
    turned.born = 2.0
    assert table.apply(Update(Op.SET, turned.key, turned, 2.0, 9), 1.0)
    assert len(table) == 1
    assert [c.key for c in table] == [turned.key] and table.find(key(1)) is table.find(turned.key)


def test_a_copy_is_not_announced_and_its_end_is_not_told() -> None:
    table = ConnectionTable()
    table.apply(told(ttl=10.0, timeout=10.0), 0.0)
    assert said(table) == []
    table.expire(1000.0)
    assert len(table) == 0
    assert said(table) == []


# -- expiry ----------------------------------------------------------------------------------------------------------

STEP = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 5), st.floats(0.1, 50)),
    st.tuples(st.just("touch"), st.integers(0, 5), st.none()),
    st.tuples(st.just("timeout"), st.integers(0, 5), st.floats(0.1, 50)),
    st.tuples(st.just("remove"), st.integers(0, 5), st.none()),
    st.tuples(st.just("pass"), st.floats(0, 30), st.none()),
)


@examples(80)
@given(st.lists(STEP, max_size=40), st.sampled_from((1.0, 0.3, 7.0)), st.sampled_from((0.0, 5.0)))
def test_connections_end_when_a_naive_table_ends_them(steps: list[Any], width: float, floor: float) -> None:
    """The naive table looks at every entry; the real one may be late by one bucket and never early."""
    table, naive, now = ConnectionTable(floor, width), dict[bytes, float](), 0.0
    for what, number, seconds in steps:
        name = key(int(number))
        entry = table.entries.get(name)
        if what == "add":
            table.add(connection(int(number), born=now, timeout=seconds), now)
            naive[name] = now + max(seconds, floor)
        elif what == "pass":
            now += number
            table.expire(now)
            naive = {k: end for k, end in naive.items() if end > now or k in table.entries}
        elif entry is None:
            continue
        elif what == "remove":
            table.remove(entry)
            del naive[name]
        else:
            if what == "timeout":
                entry.timeout = seconds
            table.refresh(entry, now)
            naive[name] = now + max(entry.timeout, floor)
        assert {c.key: c.expires for c in table} == naive
        assert len(table) == len(naive)
        if what == "pass":
            assert all(end + width > now for end in naive.values())
    table.expire(now + 100.0)
    assert (len(table), table.entries) == (0, {})


class Watched(Connection):
    """Counts how often expiry looks at it."""

    __slots__ = ()
    looks = 0

    @property  # type: ignore[override]
    def bucket(self) -> int:
        Watched.looks += 1
        return Connection.bucket.__get__(self)  # type: ignore[attr-defined,no-any-return]

    @bucket.setter
    def bucket(self, value: int) -> None:
        Connection.bucket.__set__(self, value)  # type: ignore[attr-defined]


def test_the_work_of_expiry_follows_what_is_due_not_what_is_held() -> None:
    table = ConnectionTable()
    for number in range(3000):
        timeout = 25.0 if number < 10 else 3600.0
        table.add(Watched(key(number), ConnectionState.ESTABLISHED, timeout, timeout, 0.0), 0.0)
    Watched.looks = 0
    for tick in range(500):
        table.expire(tick / 10)
    assert len(table) == 2990
    assert Watched.looks <= 50


def test_expiry_is_bounded_and_the_rest_has_its_turn_in_the_next_call() -> None:
    table = ConnectionTable()
    for number in range(EXPIRED_AT_ONCE_MAX + 2 * ENDED_TOGETHER + 1):
        table.add(connection(number, timeout=5.0), 0.0)
    assert table.expire(10.0, at_most=ENDED_TOGETHER + 1)
    assert len(table) == EXPIRED_AT_ONCE_MAX + ENDED_TOGETHER
    assert table.expire(10.0)
    assert len(table) == ENDED_TOGETHER
    assert not table.expire(10.0)
    assert (len(table), table.entries) == (0, {})


def test_expiry_ends_even_when_a_bucket_and_an_end_differ_in_the_last_bit_only() -> None:
    for width in (0.1, 0.3, 0.7, 1.9, 144.1):
        for bucket in range(1, 40):
            table = ConnectionTable(0.0, width)
            made = connection(timeout=bucket * width)
            table.add(made, 0.0)
            now = bucket * width
            made.expires = nextafter(now, inf)
            table.expire(now)
            table.expire(now + 2 * width)
            assert len(table) == 0


# -- counts and snapshots --------------------------------------------------------------------------------------------


def test_counts_are_those_of_connections() -> None:
    table = ConnectionTable()
    made = [connection(n, learned=n == 2) for n in (1, 2, 3)]
    for one in made:
        table.add(one, 0.0)
    table.remove(made[1])
    table.apply(told(4, flags=1), 0.0)
    table.apply(told(4, flags=1, revision=2), 0.0)
    assert (len(table), table.peak, table.learned) == (3, 3, 1)
    assert {c.key for c in table} == {key(1), key(3), key(4)}
    table.apply(deleted(4), 0.0)
    assert (len(table), table.peak, table.learned) == (2, 3, 0)


def test_a_snapshot_goes_on_while_the_table_changes() -> None:
    table = ConnectionTable()
    made = [connection(n) for n in range(1, 6)]
    for one in made:
        table.add(one, 0.0)
    walk = table.snapshot(0.0, 1)
    seen = next(walk).key
    table.remove(made[2])
    table.add(connection(9), 0.0)
    table.add(connection(4, born=1.0), 1.0)
    for columns in walk:
        seen += columns.key
    assert len(seen) == len(set(seen)) and {key(1), key(2), key(5)} <= set(seen) <= {key(n) for n in (1, 2, 4, 5, 9)}, (
        "gone ones are left out; new ones may be in it, and travel as deltas"
    )
    assert [u.op for u in table.take_updates(1.0)].count(Op.SET) == 5


def test_what_went_out_by_full_sync_is_deleted_at_the_peers_though_no_delta_spoke_of_it() -> None:
    table = ConnectionTable()
    made = connection()
    table.add(made, 0.0)
    list(table.snapshot(0.0))
    table.remove(made)
    assert said(table) == ["DELETE 1"]


def test_a_snapshot_carries_what_is_left_of_the_timeout() -> None:
    table = ConnectionTable()
    table.add(connection(timeout=3600.0), 0.0)
    [[made]] = table.snapshot(600.0)
    assert (made.ttl_s, made.timeout_s) == (3000.0, 3600.0)


# -- the two clocks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 60, 1440])
def test_no_lab_timer_ends_sooner_than_a_second_of_wall_time(rate: float) -> None:
    clock = LabClock(rate=rate)
    assert clock.floor == (FLOOR_S * rate if rate > 1 else 0.0)
    table = ConnectionTable(clock.floor, max(1.0, clock.floor / 10))
    table.add(connection(timeout=5.0), 0.0)
    table.expire(max(5.0, clock.floor) - 0.01)
    assert len(table) == 1
    table.expire(max(5.0, clock.floor) + max(1.0, clock.floor / 10))
    assert len(table) == 0
    assert table.lifetime(1e6) == 1e6, "a long timeout is what it is"
