"""Expiry has a deadline of its own: much that is over at once goes in turns, and what a tick does keeps its times."""

from __future__ import annotations

from itertools import pairwise

import pytest
from member_world import SYN, Machine, World, tcp

from fwnode.cluster.announcing import ANNOUNCE_AFTER_S
from fwnode.firewall.table import EXPIRED_AT_ONCE_MAX
from syncproto.limits import SYNC_TICK_S

MANY = 3 * EXPIRED_AT_ONCE_MAX + 500
START_TIMEOUT_S = 25.0
SOON = 1e-6


class Watch:
    """When a member looked at what is over, ticked, and announced its addresses."""

    def __init__(self, machine: Machine, patch: pytest.MonkeyPatch) -> None:
        self.expired: list[float] = []
        self.ticks: list[float] = []
        self.announced: list[float] = []
        world, member = machine.world, machine.member
        expire, flush, announce = member.firewall.expire, member.sync.flush, machine.announce
        patch.setattr(member.firewall, "expire", lambda now: (self.expired.append(world.now), expire(now))[1])
        patch.setattr(member.sync, "flush", lambda now: (self.ticks.append(world.now), flush(now))[1])
        patch.setattr(machine, "announce", lambda: (self.announced.append(world.now), announce())[1])


@pytest.fixture
def world() -> World:
    """fw1 is active, and has just accepted many connections that will never be answered."""
    world = World()
    fw1, fw2 = world.machines[1], world.machines[2]
    world.run_until(lambda: (fw1.state, fw2.state) == ("Active", "Standby"))
    world.run(1.0)
    for port in range(2_000, 2_000 + MANY):
        fw1.packet(tcp(SYN, port))
    return world


def connections(machine: Machine) -> int:
    return len(machine.member.firewall.connections)


def test_what_is_over_goes_in_turns_and_not_by_the_tick(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fw1 = world.machines[1]
    world.run(START_TIMEOUT_S - 1)
    assert connections(fw1) == MANY
    watch = Watch(fw1, monkeypatch)
    world.run_until(lambda: connections(fw1) < MANY)
    first = world.now
    assert connections(fw1) == MANY - EXPIRED_AT_ONCE_MAX, "packets come between"
    world.run_until(lambda: connections(fw1) == 0)
    assert world.now == first, "the rest follows at once"
    world.run(1.0)
    assert all(after - before > SYNC_TICK_S - SOON for before, after in pairwise(watch.ticks)), "a tick stays a tick"
    assert watch.expired.count(first) == MANY // EXPIRED_AT_ONCE_MAX + 1


def test_a_member_that_comes_late_expires_at_once_what_is_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Busy for longer than a tick, for less than the dead timer."""
    fw1 = world.machines[1]
    world.run(START_TIMEOUT_S - 0.5)
    watch = Watch(fw1, monkeypatch)
    world.now += 2.0
    turns = 0
    while connections(fw1):
        assert fw1.member.next_wakeup() <= world.now, "it asks for its next turn at once"
        fw1.turn(lambda: None)
        turns += 1
    assert turns == MANY // EXPIRED_AT_ONCE_MAX + 1 and watch.ticks == [world.now]


def test_announcements_keep_their_times_while_much_is_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """fw2 takes over, and the copies end just then."""
    fw1, fw2 = world.machines[1], world.machines[2]
    world.run_until(lambda: connections(fw2) == MANY)
    world.run_until(lambda: connections(fw1) < MANY)
    watch = Watch(fw2, monkeypatch)
    fw1.ask("down")
    world.run_until(lambda: fw2.state == "Active")
    began = world.now
    world.run_until(lambda: connections(fw2) == 0)
    world.run(5.0)
    told = [at - began for at in watch.announced if at >= began]
    assert told == pytest.approx(ANNOUNCE_AFTER_S, abs=0.01)
