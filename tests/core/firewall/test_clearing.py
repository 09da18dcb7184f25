"""Clearing the table by order: all of it or what was learned, a part at a time, and for good at every member."""

from __future__ import annotations

import pytest
from firewall_wire import firewall, key_of, play, tcp, udp
from test_connection_table import key, record

from fwnode.firewall.clearing import LOOKED_AT_ONCE_MAX, UNTOLD_MAX
from fwnode.firewall.connection import Connection
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.packet import parse
from fwnode.firewall.table import ConnectionTable
from fwnode.firewall.tcp_states import ConnectionState
from syncproto.columns import Columns
from syncproto.record import Op, Record, Update

OPENING = "> S ACCEPT SYN_SENT\n < SA ACCEPT SYN_RECEIVED\n > A ACCEPT ESTABLISHED\n"


def tell(one: ConnectionTable, other: ConnectionTable, now: float = 0.0) -> list[Update]:
    updates = one.take_updates(now)
    for update in updates:
        other.apply(update, now, 0, 1)
    return updates


def clear(fw: Firewall, now: float = 0.0, learned_only: bool = False) -> int:
    """Until it is done, with a sync tick whenever it waits; returns how many calls it took."""
    fw.clearing.begin(learned_only)
    calls = 0
    while fw.clearing.running:
        calls += 1
        if not fw.expire(now):
            fw.connections.take_updates(now)
    return calls


def filled(fw: Firewall, count: int) -> None:
    sample = parse(tcp("S")).key
    for number in range(count):
        name = sample[:3] + number.to_bytes(2) + sample[5:]
        fw.connections.add(Connection(name, ConnectionState.ESTABLISHED, 3600.0, 3600.0, 0.0), 0.0)


def test_what_is_cleared_is_over_here_and_at_the_peers() -> None:
    one, two = firewall("fw1"), firewall("fw2")
    play(one, OPENING)
    one.decide(udp(), 2, 0.0)
    tell(one.connections, two.connections)
    assert len(two.connections) == 2
    clear(one)
    assert (len(one.connections), one.clearing.cleared) == (0, 2)
    play(one, "> PA OUT_OF_STATE -\n > S ACCEPT SYN_SENT")


@pytest.mark.parametrize("owner", ["fw1", "fw2"])
def test_any_member_clears_for_all_and_late_records_bring_nothing_back(owner: str) -> None:
    one, two = firewall("fw1"), firewall("fw2")
    play(one, OPENING)
    tell(one.connections, two.connections)
    orders, other = (one, two) if owner == "fw1" else (two, one)
    one.connections.entries[key_of()].refresh_at = 0.0
    play(one, "> PA ACCEPT ESTABLISHED")  # and a refresh is on its way when the order is given
    late = one.connections.take_updates(0.0) if owner == "fw2" else []
    orders.clearing.begin(learned_only=False)
    orders.expire(0.0)
    updates = tell(orders.connections, other.connections)
    assert [update.op for update in updates] == [Op.DELETE]
    assert (len(one.connections), len(two.connections)) == (0, 0)
    for update in late:
        assert not two.connections.apply(update, 0.0, 0, 1)
    assert len(two.connections) == 0


def test_learned_connections_alone_can_be_cleared() -> None:
    fw = firewall(fw_allow_out_of_state_tcp=1)
    play(fw, OPENING)
    for port in (1, 2, 3):
        play(fw, "> PA ACCEPT ESTABLISHED", client_port=port)
    assert fw.connections.learned == 3
    clear(fw, learned_only=True)
    assert (fw.connections.learned, fw.clearing.cleared) == (0, 3)
    assert [c.key for c in fw.connections] == [key_of()]


def test_packed_copies_are_cleared_too() -> None:
    fw = firewall()
    fw.connections.apply_slice(Columns.of(record(n, flags=n % 2) for n in range(1, 6)), 0.0, 0, 2)
    clear(fw, learned_only=True)
    assert sorted(c.key for c in fw.connections) == [key(2), key(4)]
    clear(fw)
    assert len(fw.connections) == 0
    ended: Record = record(1)
    assert not fw.connections.apply(Update(Op.SET, ended.key, ended, ended.born, ended.revision), 0.0, 0, 2)


def test_clearing_is_bounded_by_call_and_by_what_peers_have_not_been_told() -> None:
    fw = firewall(connections_limit=50_000)
    filled(fw, 2 * UNTOLD_MAX)
    fw.connections.take_updates(0.0)
    fw.clearing.begin(learned_only=False)
    before, calls = len(fw.connections), 0
    while fw.expire(0.0):
        calls += 1
        assert before - len(fw.connections) <= LOOKED_AT_ONCE_MAX * calls
    assert len(fw.connections) == UNTOLD_MAX and fw.clearing.running, "the rest after the next sync tick"
    assert not fw.expire(0.0)
    assert len(fw.connections.take_updates(0.1)) == UNTOLD_MAX
    while fw.expire(0.1):
        pass
    assert len(fw.connections) == 0


def test_nothing_is_cleared_while_the_sync_channel_is_heavily_loaded() -> None:
    fw = firewall()
    filled(fw, 10)
    fw.load.update(1_000, 0.0)
    fw.clearing.begin(learned_only=False)
    assert not fw.expire(0.0) and len(fw.connections) == 10
    fw.load.update(0, 0.0)
    fw.expire(0.0)
    assert len(fw.connections) == 0


def test_an_order_for_all_is_not_made_smaller_by_one_for_the_learned() -> None:
    fw = firewall(connections_limit=50_000)
    filled(fw, LOOKED_AT_ONCE_MAX + 10)
    fw.clearing.begin(learned_only=False)
    fw.clearing.go_on()
    fw.clearing.begin(learned_only=True)
    while fw.clearing.go_on():
        pass
    assert len(fw.connections) == 0


def test_room_is_made_where_the_limit_was_reached() -> None:
    fw = firewall(connections_limit=2, fw_allow_out_of_state_tcp=1)
    for port in (1, 2):
        play(fw, "> PA ACCEPT ESTABLISHED", client_port=port)
    fw.parameters.set("fw_allow_out_of_state_tcp", 0)
    play(fw, "> S TABLE_FULL -", client_port=3)
    clear(fw, learned_only=True)
    play(fw, "> S ACCEPT SYN_SENT", client_port=3)
