"""How many connections differ between members, by kind."""

from __future__ import annotations

import json

from fwnode.control import compare
from fwnode.firewall.connection import Connection
from fwnode.firewall.table import ConnectionTable
from fwnode.firewall.tcp_states import ConnectionState


def key(number: int, protocol: int = 6, size: int = 4) -> bytes:
    return bytes((protocol,)) + bytes(2 * size) + number.to_bytes(2, "big") + b"\x00\x50"


def table(
    *numbers: int, protocol: int = 6, size: int = 4, state: ConnectionState = ConnectionState.ESTABLISHED
) -> ConnectionTable:
    made = ConnectionTable()
    for number in numbers:
        made.add(Connection(key(number, protocol, size), state, 60.0, 60.0, 0.0), 0.0)
    return made


def look(**tables: ConnectionTable) -> dict[str, compare.StatesByKey]:
    """As it crosses the control socket."""
    return {name: compare.unpack(json.loads(json.dumps(compare.pack(one, 1.0)))) for name, one in tables.items()}


def test_equal_tables_are_said_to_be_equal() -> None:
    seen = look(fw1=table(1, 2, size=16), fw2=table(2, 1, size=16))
    assert compare.differences(seen) == set()
    data = compare.summary(seen, set())
    assert (data["equal"], data["different"], data["missing"]) == (True, 0, {"fw1": 0, "fw2": 0})
    assert list(compare.show(data))[-1] == "The tables are equal."


def test_what_each_member_lacks_is_counted_by_kind() -> None:
    mixed = table(1, 2, 3)
    for one in table(9, protocol=17):
        mixed.add(one, 0.0)
    seen = look(fw1=mixed, fw2=table(1), fw3=table(1, 2, 3))
    data = compare.summary(seen, compare.differences(seen))
    assert (data["equal"], data["different"]) == (False, 3)
    assert data["missing"] == {"fw1": 0, "fw2": 3, "fw3": 1}
    assert data["kinds"]["TCP"]["fw2"] == {"has": 1, "missing": 2, "other_state": 0}
    assert data["kinds"]["UDP"]["fw2"] == {"has": 0, "missing": 1, "other_state": 0}
    assert list(compare.show(data))[-1] == "The tables differ in 3 connections: fw2 lacks 3, fw3 lacks 1."


def test_another_state_is_a_difference_of_the_member_that_is_behind() -> None:
    seen = look(fw1=table(1, state=ConnectionState.FIN_WAIT_INITIATOR), fw2=table(1))
    data = compare.summary(seen, compare.differences(seen))
    assert data["kinds"]["TCP"]["fw2"]["other_state"] == 1
    assert data["kinds"]["TCP"]["fw1"]["other_state"] == 0


def test_what_is_under_way_at_the_first_look_and_there_at_the_second_is_no_difference() -> None:
    first, second = look(fw1=table(1, 2), fw2=table(1)), look(fw1=table(1, 2, 3), fw2=table(1, 2))
    lasting = compare.differences(first) & compare.differences(second)
    assert compare.summary(second, lasting)["equal"]


def test_a_service_that_is_not_synchronised_is_no_difference_but_is_told() -> None:
    one = table(1, 2)
    one.entries[key(2)].sync_at = float("inf")
    packed = compare.pack(one, 1.0)
    assert compare.unsynchronised([packed]) == 1
    assert compare.unpack(packed) == {key(1): ConnectionState.ESTABLISHED}
