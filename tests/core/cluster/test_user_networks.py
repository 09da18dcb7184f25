"""What passes on a users' network, as each member finds out by itself, without any traffic."""

from __future__ import annotations

import pytest
from cluster_world import KNOWN_WITHIN_S, World, broken, pair

from fwnode.cluster.sync_network import Reach


def test_where_everything_passes_nothing_is_said() -> None:
    world = pair()
    world.run(60)
    assert not any(broken(world, number, name) for number in (1, 2) for name in ("lan", "wan", "sync"))
    assert world.reaches == []


@pytest.mark.parametrize("cut", [{(1, 2)}, {(2, 1)}, {(1, 2), (2, 1)}], ids=["from fw1", "to fw1", "both ways"])
def test_what_does_not_pass_though_interfaces_are_up_is_known_at_both_ends(cut: set[tuple[int, int]]) -> None:
    world = pair()
    world.no_lan = cut
    world.run(KNOWN_WITHIN_S)
    there, back = (1, 2) not in cut, (2, 1) not in cut
    assert broken(world, 1) == {2: Reach(sends=there, receives=back)}
    assert broken(world, 2) == {1: Reach(sends=back, receives=there)}
    assert not broken(world, 1, "wan") and world.cluster(1).sync_network.reach(2).whole
    assert world.states == "1 Active, 2 Standby", "roles do not depend on it"
    world.no_lan = set()
    world.run(0.5)
    assert broken(world, 1) == broken(world, 2) == {}
    assert sum("lan fw1 with 2: Able to send / Able to receive" in line for line in world.reaches) == 1


@pytest.mark.parametrize("end", ["stop", "kill", "power_cut", "interface"])
def test_what_is_known_otherwise_is_no_news_about_the_network(end: str) -> None:
    world = pair()
    if end == "interface":
        world.interface(2, "lan", up=False)
        world.run(10)
        world.interface(2, "lan", up=True)
    else:
        getattr(world, end)(1)
        world.run(10)
        world.start(1)
    world.run(10)
    assert world.reaches == []


def test_of_three_members_the_one_that_is_cut_off_is_named() -> None:
    world = World(3)
    world.start()
    world.run(2)
    world.no_lan = {(1, 3), (2, 3)}
    world.run(KNOWN_WITHIN_S)
    assert broken(world, 1) == broken(world, 2) == {3: Reach(sends=False)}
    assert broken(world, 3) == {1: Reach(receives=False), 2: Reach(receives=False)}
