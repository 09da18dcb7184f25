"""Two members' views of the same connections: which one wins, and what a whole table from a peer settles."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from fwnode.firewall.connection import Connection
from fwnode.firewall.table import ENDED_MAX, ConnectionTable
from fwnode.firewall.tcp_states import ConnectionState, further
from syncproto.columns import Columns
from syncproto.record import OWNER_SHIFT, Op, Record, Update

TCP_STATES = [state for state in ConnectionState if state is not ConnectionState.NONE]


def key(number: int) -> bytes:
    return b"\x06" + bytes([192, 0, 2, 1, 198, 51, 100, 1]) + number.to_bytes(2, "big") + b"\x00\x50"


def told(number: int = 1, *, op: Op = Op.SET, born: float = 5.0, revision: int = 1,
         state: ConnectionState = ConnectionState.ESTABLISHED, ttl: float = 3600.0) -> Update:  # fmt: skip
    record = Record(key(number), int(state), ttl, 3600.0, 1, "http", 0, born, revision)
    return Update(op, record.key, record, born, revision)


def opened(
    table: ConnectionTable, number: int = 1, state: ConnectionState = ConnectionState.ESTABLISHED, now: float = 5.0
) -> Connection:
    connection = Connection(key(number), state, 3600.0, 3600.0, now)
    table.add(connection, now)
    return connection


def test_the_further_state_is_a_join() -> None:
    """Members that hear of states in any order must end with the same one."""
    for one, other, third in product(TCP_STATES, repeat=3):
        assert further(one, one) is one
        assert further(one, other) is further(other, one)
        assert further(further(one, other), third) is further(one, further(other, third))
        assert further(one, other) >= one
    assert further(ConnectionState.FIN_WAIT_INITIATOR, ConnectionState.FIN_WAIT_RESPONDER) is ConnectionState.CLOSING


def test_a_record_never_takes_a_state_back() -> None:
    table = ConnectionTable()
    table.apply(told(state=ConnectionState.FIN_WAIT_INITIATOR, revision=4), 5.0)
    table.apply(told(state=ConnectionState.ESTABLISHED, revision=7, op=Op.REFRESH), 6.0)
    connection = table.entries[key(1)]
    assert (connection.state, connection.revision) == (ConnectionState.FIN_WAIT_INITIATOR, 7)
    [update] = table.take_updates(6.0)
    assert update.record is not None
    assert (update.op, update.record.revision) == (Op.MODIFY, 7), "who said ESTABLISHED must hear of the FIN"


def test_each_saw_one_fin_and_both_conclude_that_it_is_over() -> None:
    one, other = ConnectionTable(), ConnectionTable()
    for table in (one, other):
        table.apply(told(), 5.0)
    for table, state in ((one, ConnectionState.FIN_WAIT_INITIATOR), (other, ConnectionState.FIN_WAIT_RESPONDER)):
        connection = table.entries[key(1)]
        connection.state, connection.owned = state, True
        table.announce(connection, Op.MODIFY)
    exchange(one, other)
    for table in (one, other):
        assert table.entries[key(1)].state is ConnectionState.CLOSING
        assert table.entries[key(1)].timeout == 20.0, "and it ends soon"


def exchange(*tables: ConnectionTable, now: float = 6.0) -> None:
    """Ticks until nobody has anything to say; each tick everybody speaks before anybody listens."""
    for _ in range(10):
        said = [table.take_updates(now) for table in tables]
        if not any(said):
            return
        for speaker, updates in enumerate(said):
            for listener, table in enumerate(tables):
                for update in updates if listener != speaker else []:
                    table.apply(update, now, origin=speaker + 1)
    raise AssertionError("they go on and on")


@examples(60)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(TCP_STATES), st.booleans()), max_size=12))
def test_three_members_that_saw_different_packets_agree(changes: list[tuple[int, ConnectionState, bool]]) -> None:
    """Both directions on different members: whoever saw what, all know the same in the end, and it was never less."""
    tables = [ConnectionTable() for _ in range(3)]
    opened(tables[0], state=ConnectionState.SYN_SENT)
    exchange(*tables)
    furthest = ConnectionState.SYN_SENT
    for member, state, quiet in changes:
        connection = tables[member].entries[key(1)]
        connection.state, connection.owned = further(connection.state, state), True
        furthest = further(furthest, state)
        tables[member].announce(connection, Op.MODIFY)
        if quiet:
            exchange(*tables)
    exchange(*tables)
    views = {(c.state, c.revision) for table in tables for c in [table.entries[key(1)]]}
    assert {state for state, _ in views} == {furthest}


def test_who_owned_a_connection_does_not_take_it_back_with_the_next_packet() -> None:
    table = ConnectionTable()
    connection = opened(table)
    table.take_updates(5.0)
    due = connection.refresh_at
    table.apply(told(revision=2, op=Op.REFRESH), 6.0, origin=2)
    assert (connection.owned, connection.refresh_at) == (False, due)


def taken_over() -> tuple[ConnectionTable, ConnectionTable, Connection]:
    """The former owner's table, and that of a member that has just seen a packet of the connection, which it has told
    nobody yet."""
    former, present = ConnectionTable(member=1), ConnectionTable(member=2)
    opened(former)
    exchange(former, present)
    connection = present.entries[key(1)]
    connection.owned = True
    present.refresh(connection, 3000.0)
    present.announce(connection, Op.REFRESH)
    return former, present, connection


def test_an_end_that_the_former_owner_tells_is_late_for_who_is_about_to_tell_of_it() -> None:
    """It was idle there, and goes on here."""
    former, present, _ = taken_over()
    former.expire(3700.0)
    [end] = former.take_updates(3700.0)
    assert (end.op, len(former)) == (Op.DELETE, 0)
    assert not present.apply(end, 3700.0, origin=1)
    exchange(former, present, now=3700.0)
    for table, owned in ((former, False), (present, True)):
        assert [(c.expires, c.owned) for c in table] == [(6600.0, owned)]


@pytest.mark.parametrize("op", [Op.SET, Op.REFRESH, Op.MODIFY])
def test_a_version_that_was_known_when_it_was_taken_over_does_not_take_it_back(op: Op) -> None:
    _, present, connection = taken_over()
    assert not present.apply(told(op=op, ttl=100.0), 3001.0, origin=1)
    assert (connection.owned, connection.expires) == (True, 6600.0)
    [update] = present.take_updates(3001.0)
    assert update.record is not None and (update.op, update.record.revision) == (Op.REFRESH, 2)


def test_what_is_cleared_is_over_although_its_owner_tells_of_it_and_is_about_to_again() -> None:
    clearing, owner = ConnectionTable(member=1), ConnectionTable(member=2)
    connection = opened(owner)
    exchange(clearing, owner)
    clearing.clear(key(1))
    [end] = clearing.take_updates(6.0)
    owner.announce(connection, Op.REFRESH)
    [refresh] = owner.take_updates(6.0)
    owner.announce(connection, Op.MODIFY)
    owner.apply(end, 6.1, origin=1)
    clearing.apply(refresh, 6.1, origin=2)
    exchange(clearing, owner)
    assert len(clearing) == len(owner) == 0


def test_a_late_record_does_not_bring_back_what_ended() -> None:
    """It may come from a third member, whose stream is slower than that of the one that told of the end."""
    table = ConnectionTable()
    table.apply(Update(Op.DELETE, key(1), None, 5.0, 3), 6.0)
    assert not table.apply(told(born=5.0, revision=2), 6.0)
    assert len(table) == 0
    assert table.apply(told(born=5.0, revision=4), 6.0), "somebody saw more of it"
    assert table.apply(told(2, born=1.0), 6.0)


def test_a_connection_opened_again_at_once_is_younger_than_the_one_that_ended() -> None:
    table, peer = ConnectionTable(), ConnectionTable()
    first = opened(table, now=5.0)
    [update] = table.take_updates(5.0)
    peer.apply(update, 5.0)
    table.remove(first)
    for update in table.take_updates(5.0):
        peer.apply(update, 5.0)
    opened(table, now=5.0, state=ConnectionState.SYN_SENT)
    [update] = table.take_updates(5.0)
    assert peer.apply(update, 5.0)
    assert peer.entries[key(1)].state is ConnectionState.SYN_SENT


def test_what_ended_is_remembered_within_a_cap() -> None:
    table = ConnectionTable()
    for number in range(ENDED_MAX + 50):
        table.apply(Update(Op.DELETE, number.to_bytes(13, "big"), None, 5.0, 1), 5.0)
    assert len(table._ended) == ENDED_MAX


def test_peers_cannot_fill_the_table_beyond_its_limit() -> None:
    table = ConnectionTable(limit=lambda: 10)
    for number in range(15):
        assert table.apply(told(number), 5.0, origin=2) is (number < 10)
    assert (len(table), table.over_limit) == (10, 5)
    assert table.apply(told(3, revision=2), 6.0), "what is known is still told of"
    table.apply(Update(Op.DELETE, key(3), None, 5.0, 2), 6.0)
    assert table.apply(told(14), 6.0), "and there is room again"


# -- services that are synchronised later, or never --------------------------------------------------------------------


def test_a_service_that_is_not_synchronised_is_never_mentioned() -> None:
    table = ConnectionTable()
    connection = opened(table)
    connection.sync_at = inf
    assert table.take_updates(5.0) == []
    table.announce(connection, Op.MODIFY)
    assert table.take_updates(6.0) == []
    assert list(table.snapshot(1e9)) == []
    table.remove(connection)
    assert table.take_updates(7.0) == [], "nor its end"


def test_a_delayed_service_is_mentioned_once_it_has_lived_long_enough() -> None:
    table = ConnectionTable()
    short, long = opened(table, 1), opened(table, 2)
    short.sync_at = long.sync_at = 15.0
    assert table.take_updates(5.0) == []
    long.state = ConnectionState.FIN_WAIT_INITIATOR
    table.announce(long, Op.MODIFY)
    assert table.take_updates(14.9) == []
    assert list(table.snapshot(14.9)) == []
    table.remove(short)
    [update] = table.take_updates(15.0)
    assert update.record is not None
    assert (update.op, update.key, update.record.state) == (Op.SET, key(2), ConnectionState.FIN_WAIT_INITIATOR)
    assert table.take_updates(16.0) == []


# -- the whole table of a peer, over what is known --------------------------------------------------------------------


def test_a_whole_table_takes_away_what_the_peer_no_longer_has() -> None:
    table = ConnectionTable()
    for number in (1, 2, 3):
        table.apply(told(number), 5.0, origin=2)
    table.apply(told(4), 5.0, origin=3)
    opened(table, 5)
    table.await_whole(2, own_only=True)
    table.apply(told(1), 6.0, origin=2)
    table.apply(told(3, revision=2, op=Op.REFRESH), 6.0, origin=3)
    assert table.whole_has_come(2, complete=True) == 1
    assert {c.key for c in table} == {key(number) for number in (1, 3, 4, 5)}


def test_a_whole_table_that_broke_off_takes_nothing_away() -> None:
    table = ConnectionTable()
    table.apply(told(1), 5.0, origin=2)
    table.await_whole(2, own_only=True)
    assert table.whole_has_come(2, complete=False) == 0
    assert len(table) == 1


def test_a_copy_that_was_taken_over_meanwhile_stays() -> None:
    table = ConnectionTable()
    table.apply(told(1), 5.0, origin=2)
    table.await_whole(2, own_only=True)
    table.entries[key(1)].owned = True
    assert table.whole_has_come(2, complete=True) == 0


def test_records_are_values() -> None:
    """What was handed over for sending does not change with the connection."""
    table = ConnectionTable()
    connection = opened(table)
    [update] = table.take_updates(5.0)
    before = replace(update.record) if update.record else None
    connection.state = ConnectionState.CLOSING
    assert update.record == before


def test_a_whole_table_with_its_ends_takes_away_what_ended_whoever_owned_it() -> None:
    """Any member may take a connection over and end it; when that word is lost, others believe another owner."""
    source, table = ConnectionTable(member=2), ConnectionTable(member=1)
    for each in (source, table):
        each.apply(told(1), 5.0, origin=3)
        each.apply(told(2), 5.0, origin=3)
    source.clear(key(1))
    table.await_whole(2, own_only=True)
    for columns in (*source.snapshot(6.0), *source.snapshot_ended()):
        table.apply_slice(columns, 6.0, origin=2)
    assert table.whole_has_come(2, complete=True) == 0
    assert [c.key for c in table] == [key(2)]
    assert not table.apply(told(1), 7.0, origin=3), "and it stays over"


def test_who_tells_of_what_is_over_is_told_so() -> None:
    table, teller = ConnectionTable(member=1), ConnectionTable(member=2)
    opened(teller)
    [update] = teller.take_updates(5.0)
    table.apply(update, 5.0, origin=2)
    table.clear(key(1))
    table.take_updates(6.0)
    assert not table.apply(update, 7.0, origin=2)
    for answer in table.take_updates(7.0):
        teller.apply(answer, 7.0, origin=1)
    assert len(teller) == 0


# -- whose copies they are -------------------------------------------------------------------------------------------


def test_copies_of_a_peer_that_began_anew_are_nobodys_and_its_table_does_not_take_them_away() -> None:
    table = ConnectionTable(member=1)
    table.apply(told(1), 5.0, origin=2)
    table.apply_slice(Columns.of([told(2).record]), 5.0, origin=2)  # type: ignore[list-item]
    table.tellers.end(2)
    table.apply(told(3), 6.0, origin=2)
    assert {c.key: c.flags >> OWNER_SHIFT for c in table} == {key(1): 0, key(2): 0, key(3): 2}
    table.await_whole(2, own_only=True)
    assert table.whole_has_come(2, complete=True) == 1
    assert {c.key for c in table} == {key(1), key(2)}


def test_a_copy_that_is_said_to_be_ours_and_is_not_is_nobodys() -> None:
    """Two members would say of it that it is the other's, and neither would tell a third one."""
    table = ConnectionTable(member=1)
    update = told(1)
    assert update.record is not None
    update.record.flags = 1 << OWNER_SHIFT
    table.apply(update, 5.0, origin=2)
    assert [c.flags >> OWNER_SHIFT for c in table] == [0]


def test_telling_a_copy_on_makes_no_new_version_of_it() -> None:
    """An end that its owner tells meanwhile is newer than what others tell of it."""
    table = ConnectionTable(member=1)
    table.apply_all([told(1, revision=4)], 5.0, origin=2)
    table.tellers.gone(2)
    [update] = table.take_updates(6.0, room=8)
    assert update.record is not None and update.record.revision == 4
    assert table.apply(Update(Op.DELETE, key(1), None, 5.0, 4), 7.0, origin=2)
