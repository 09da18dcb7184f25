"""A connection counts as synchronised only while somebody who heard of it is there."""

from __future__ import annotations

from fwnode.firewall.audience import Audience
from fwnode.firewall.connection import Connection
from fwnode.firewall.table import ConnectionTable
from fwnode.firewall.tcp import State
from syncproto.record import Op


def test_what_nobody_heard_is_not_synchronised() -> None:
    audience = Audience()
    told = audience.told(0, Op.SET)
    assert told and not audience.knows(told), "its end must be told, in case"
    audience.listen({2: 100}, only_new=False)
    assert not audience.knows(told), "the peer came later"
    assert audience.knows(audience.told(told, Op.REFRESH))
    assert audience.knows(audience.told_whole())


def test_a_peer_that_started_anew_has_heard_nothing_and_one_that_was_away_still_knows() -> None:
    audience = Audience()
    audience.listen({2: 100}, only_new=False)
    told = audience.told(0, Op.SET)
    audience.listen({}, only_new=False)
    meanwhile = audience.told(0, Op.SET)
    assert not audience.knows(told)
    audience.listen({2: 100}, only_new=False)
    assert audience.knows(told) and not audience.knows(meanwhile)
    audience.listen({2: 200}, only_new=False)
    assert not audience.knows(told)
    audience.listen({2: 200, 3: 300}, only_new=False)
    told = audience.told(told, Op.MODIFY)
    audience.listen({3: 300}, only_new=False)
    assert audience.knows(told), "fw3 heard it, too"


def test_where_only_new_connections_are_exchanged_an_older_one_is_not_synchronised() -> None:
    audience = Audience()
    old = audience.told(0, Op.SET)
    audience.listen({2: 100}, only_new=True)
    assert not audience.knows(audience.told(old, Op.REFRESH))
    new = audience.told(0, Op.SET)
    assert audience.knows(audience.told(new, Op.MODIFY))


def test_the_table_remembers_who_heard() -> None:
    table = ConnectionTable()
    table.audience.listen({2: 100}, only_new=False)
    connection = Connection(b"\x06" + bytes(12), State.ESTABLISHED, 60.0, 60.0, 0.0)
    table.add(connection, 0.0)
    assert not table.audience.knows(connection.told), "it is told at the next tick"
    table.take_updates(0.0)
    assert table.audience.knows(connection.told)
    table.audience.listen({2: 200}, only_new=False)
    assert not table.audience.knows(connection.told)
    list(table.snapshot(0.0))
    assert table.audience.knows(connection.told)
