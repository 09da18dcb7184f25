"""What is left of a connection goes on running out while its record waits: to be sent again, or behind a gap."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sync_world import TICK_S, key_of
from table_world import TableWorld

from fwnode.firewall.connection import Connection
from fwnode.firewall.tcp_states import ConnectionState
from syncproto.limits import DEFAULT_LIMITS

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


def test_what_a_slow_full_sync_brings_counts_from_its_beginning() -> None:
    """A record to a slice, and a hundredth of a second or several to each."""
    play, many = world(), 300
    play.limits = replace(DEFAULT_LIMITS, full_slice_records=1)
    play.kill(1)
    play.start(1)
    for number in range(many):
        speak(play, number)
    play.kill(2)
    play.join_from = {2: 1}
    play.start(2)
    began = play.now
    while not play.joinings[2].over:
        play.run(1)
    assert play.now - began > 5
    for number in (0, many // 2, many - 1):
        mine, copy = ends(play, number)
        assert copy == pytest.approx(mine, abs=2 * TICK_S), number
