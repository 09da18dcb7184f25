"""What passes on the sync network, as each member finds out by itself, without any traffic."""

from __future__ import annotations

import pytest
from cluster_world import KNOWN_WITHIN_S, World, pair, reach

from fwnode.cluster.sync_network import Reach, status_with, summary

TIMED_OUT = "Off - Connection to remote member timed-out"


def test_where_everything_passes_nothing_is_said() -> None:
    world = pair()
    world.run(60)
    assert reach(world, 1, 2).whole and reach(world, 2, 1).whole
    assert world.reaches == []


def test_a_way_that_is_cut_is_known_at_both_ends_in_its_direction() -> None:
    world = pair()
    world.no_sync = {(1, 2)}
    world.run(KNOWN_WITHIN_S)
    assert reach(world, 1, 2) == Reach(sends=False, receives=True)
    assert reach(world, 2, 1) == Reach(sends=True, receives=False)
    assert world.states == "1 Active, 2 Standby", "roles do not depend on it"
    world.no_sync = set()
    world.run(0.5)
    assert reach(world, 1, 2).whole and reach(world, 2, 1).whole
    assert [line.split(" ", 1)[1] for line in world.reaches] == [
        "fw2 with 1: Able to send / Unable to receive",
        "fw1 with 2: Unable to send / Able to receive",
        "fw2 with 1: Able to send / Able to receive",
        "fw1 with 2: Able to send / Able to receive",
    ]


@pytest.mark.parametrize("how", ["the network", "one interface"])
def test_a_cut_of_the_network_is_known_at_both_ends_also_at_the_one_that_is_down_for_it(how: str) -> None:
    world = pair()
    if how == "the network":
        world.no_sync = {(1, 2), (2, 1)}
    else:
        world.interface(2, "sync", up=False)
    world.run(KNOWN_WITHIN_S)
    neither = Reach(sends=False, receives=False)
    assert reach(world, 1, 2) == reach(world, 2, 1) == neither
    world.no_sync = set()
    world.interface(2, "sync", up=True)
    world.run(0.5)
    assert reach(world, 1, 2).whole and reach(world, 2, 1).whole


def test_a_short_interruption_is_nothing() -> None:
    world = pair()
    world.no_sync = {(1, 2), (2, 1)}
    world.run(2.0)
    world.no_sync = set()
    world.run(5)
    assert world.reaches == []


@pytest.mark.parametrize("end", ["stop", "kill", "power_cut"])
def test_a_peer_that_is_gone_is_no_news_about_the_network(end: str) -> None:
    world = pair()
    getattr(world, end)(1)
    world.run(10)
    world.start(1)
    world.run(10)
    assert world.reaches == []


def test_a_member_that_starts_without_the_sync_network_says_so() -> None:
    world = World()
    world.no_sync = {(1, 2), (2, 1)}
    world.start()
    world.run(KNOWN_WITHIN_S)
    assert not reach(world, 1, 2).sends and not reach(world, 2, 1).receives


def test_of_three_members_only_the_one_concerned_is_named() -> None:
    world = World(3)
    world.start()
    world.run(2)
    world.no_sync = {(3, 1)}
    world.run(KNOWN_WITHIN_S)
    assert [reach(world, 1, 3), reach(world, 3, 1)] == [Reach(receives=False), Reach(sends=False)]
    assert all(reach(world, a, b).whole for a, b in [(1, 2), (2, 1), (2, 3), (3, 2)])
    assert len(world.reaches) == 2


def test_the_status_of_a_peer_names_what_does_not_pass() -> None:
    assert status_with("OK", Reach()) == "OK"
    assert status_with("OK", Reach(sends=False)) == f"{TIMED_OUT}: Unable to send / Able to receive"
    failed = status_with("Off - Full-sync failure", Reach(receives=False))
    assert failed == f"{TIMED_OUT}: Able to send / Unable to receive"


def test_the_summary_is_the_worst_and_names_the_peer_where_there_are_several() -> None:
    mismatch, lost = "Off - Release version mismatch", f"{TIMED_OUT}: Unable to send / Able to receive"
    assert summary({}, 1) == summary({}, 2) == "Off - no other member is there"
    assert summary({"fw2": "OK"}, 1) == summary({"fw2": "OK", "fw3": "OK"}, 2) == "OK"
    assert summary({"fw2": mismatch}, 1) == mismatch
    assert summary({"fw2": mismatch, "fw3": lost}, 2) == f"{lost} (fw3)"
    assert summary({"fw2": "OK", "fw3": mismatch}, 2) == f"{mismatch} (fw3)"
