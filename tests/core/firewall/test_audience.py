"""A connection counts as synchronised only while somebody who heard of it is there."""

from __future__ import annotations

from fwnode.firewall.audience import Audience
from fwnode.firewall.connection import Connection
from fwnode.firewall.table import ConnectionTable
from fwnode.firewall.tcp_states import ConnectionState
from syncproto.events import Listeners
from syncproto.record import Op


def test_what_nobody_heard_is_not_synchronised() -> None:
    audience = Audience()
    told = audience.told(0, Op.SET)
    assert told and not audience.knows(told), "its end must be told, in case"
    audience.listen(Listeners({2: 100}))
    assert not audience.knows(told), "the peer came later"
    assert audience.knows(audience.told(told, Op.REFRESH))
    assert audience.knows(audience.told_whole()[0])


def test_a_peer_that_started_anew_has_heard_nothing_and_one_that_was_away_still_knows() -> None:
    audience = Audience()
    audience.listen(Listeners({2: 100}))
    told = audience.told(0, Op.SET)
    audience.listen(Listeners({}))
    meanwhile = audience.told(0, Op.SET)
    assert not audience.knows(told)
    audience.listen(Listeners({2: 100}))
    assert audience.knows(told) and not audience.knows(meanwhile)
    audience.listen(Listeners({2: 200}))
    assert not audience.knows(told)
    audience.listen(Listeners({2: 200, 3: 300}))
    told = audience.told(told, Op.MODIFY)
    audience.listen(Listeners({3: 300}))
    assert audience.knows(told), "fw3 heard it, too"


def test_where_only_new_connections_are_exchanged_an_older_one_is_not_synchronised() -> None:
    audience = Audience()
    old = audience.told(0, Op.SET)
    audience.listen(Listeners({2: 100}, only_new=True))
    assert not audience.knows(audience.told(old, Op.REFRESH))
    new = audience.told(0, Op.SET)
    assert audience.knows(audience.told(new, Op.MODIFY))


def test_a_peer_that_takes_no_whole_table_has_to_be_told_anew() -> None:
    audience = Audience()
    old = audience.told(0, Op.SET)
    audience.listen(Listeners({2: 100}))
    assert not audience.anew_before, "it takes the whole table"
    told = audience.told(old, Op.MODIFY)
    audience.listen(Listeners({2: 100, 3: 50}, without_table=frozenset({3})))
    assert 0 < told < audience.anew_before and not audience.knows(told)
    assert audience.knows(audience.told(told, Op.REFRESH)) and audience.told(told, Op.REFRESH) >= audience.anew_before
    heard = audience.told(told, Op.REFRESH)
    audience.listen(Listeners({2: 100}))
    audience.listen(Listeners({2: 100, 3: 50}, without_table=frozenset({3})))
    assert heard >= audience.anew_before, "the same life has heard it"


def test_a_tick_with_room_tells_anew_what_an_older_peer_never_heard() -> None:
    table = ConnectionTable()
    table.add(Connection(b"\x06" + bytes(12), ConnectionState.ESTABLISHED, 60.0, 60.0, 0.0), 0.0)
    table.take_updates(0.0)
    table.audience.listen(Listeners({2: 50}, without_table=frozenset({2})))
    assert not table.take_updates(0.1), "not before there is time for it"
    assert [update.op for update in table.take_updates(0.2, room=1)] == [Op.REFRESH]
    assert not table.take_updates(0.3, room=1)


def test_a_slow_opening_of_before_anybody_listened_is_not_told_afterwards() -> None:
    table = ConnectionTable()
    connection = Connection(b"\x06" + bytes(12), ConnectionState.ESTABLISHED, 60.0, 60.0, 0.0)
    table.add(connection, 0.0)
    table.take_updates(0.0)
    table.refresh(connection, 5.0)  # the first answer comes late, and moves the end
    table.audience.listen(Listeners({2: 50}))
    assert not table.take_updates(10.0, room=1), "a peer that takes no table does not know it, however it opened"
    table.refresh(connection, 15.0)
    assert [update.op for update in table.take_updates(15.1, room=1)] == [Op.REFRESH], "now it has spoken"


def test_the_table_remembers_who_heard() -> None:
    table = ConnectionTable()
    table.audience.listen(Listeners({2: 100}))
    connection = Connection(b"\x06" + bytes(12), ConnectionState.ESTABLISHED, 60.0, 60.0, 0.0)
    table.add(connection, 0.0)
    assert not table.audience.knows(connection.told), "it is told at the next tick"
    table.take_updates(0.0)
    assert table.audience.knows(connection.told)
    table.audience.listen(Listeners({2: 200}))
    assert not table.audience.knows(connection.told)
    list(table.snapshot(0.0))
    assert table.audience.knows(connection.told)


def test_what_a_peer_of_a_past_life_had_to_be_told_is_not_told_to_one_that_takes_the_whole_table() -> None:
    audience = Audience()
    audience.listen(Listeners({2: 100}, without_table=frozenset({2})))
    audience.listen(Listeners({}))
    told = audience.told(0, Op.SET)
    audience.listen(Listeners({2: 200}))
    assert not audience.anew_before
    whole, anew_before = audience.told_whole()
    assert told >= anew_before and audience.knows(whole)
