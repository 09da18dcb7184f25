"""What is left of a connection goes on running out while its record waits: to be sent again, or behind a gap."""

from __future__ import annotations

import pytest
from sync_world import TICK_S, key_of
from table_world import TableWorld

from fwnode.firewall.connection import Connection
from fwnode.firewall.tcp_states import ConnectionState

TIMEOUT_S = 600.0
WAITS_S = 20.0


def world() -> TableWorld:
    made = TableWorld({1: "R77.30", 2: "R77.30"}, heals=False)
    made.run(10)
    return made


def speak(world: TableWorld, number: int = 1) -> Connection:
    """A packet of a connection through member 1, and the tick that tells of it."""
    key, table = key_of(number), world.tables[1]
    if key not in table.entries:
        table.add(Connection(key, ConnectionState.ESTABLISHED, TIMEOUT_S, TIMEOUT_S, world.now), world.now)
    table.refresh(table.entries[key], world.now)
    if table.entries[key].refresh_at <= world.now:
        world.tick(1)
    return table.entries[key]


def ends(world: TableWorld, number: int = 1) -> tuple[float, float]:
    one, other = (world.tables[member].find(key_of(number)) for member in (1, 2))
    assert one is not None and other is not None
    return one.expires, other.expires


@pytest.mark.parametrize("waits_s", [0.0, 1.0, WAITS_S])
def test_an_update_that_was_cut_off_for_a_while_says_what_is_left_now(waits_s: float) -> None:
    play, cut = world(), True
    play.filter = lambda sender, receiver, kind: not cut
    speak(play)
    play.run(waits_s)
    assert (play.tables[2].find(key_of(1)) is None) or not waits_s
    cut = False
    play.run(10)
    mine, copy = ends(play)
    assert copy == pytest.approx(mine, abs=2 * TICK_S)


def test_what_waited_behind_a_gap_counts_from_when_it_was_said() -> None:
    """The first is lost again and again; those behind it have arrived."""
    play = world()
    lost = True
    play.filter = lambda sender, receiver, kind: not lost
    speak(play, 1)
    lost = False
    speak(play, 2)
    lost = True
    play.run(WAITS_S)
    lost = False
    play.run(10)
    for number in (1, 2):
        mine, copy = ends(play, number)
        assert copy == pytest.approx(mine, abs=2 * TICK_S), number
