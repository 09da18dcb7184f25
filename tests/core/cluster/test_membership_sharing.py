"""Member states in load sharing: every healthy member is active."""

from __future__ import annotations

from cluster_world import World


def shared(members: int = 3) -> World:
    world = World(members, load_sharing=True)
    world.start()
    world.run(3)
    world.forget()
    return world


def active(world: World, number: int) -> list[int]:
    return sorted(world.cluster(number).active_members())


def test_all_healthy_members_become_active_and_all_see_the_same() -> None:
    world = shared()
    assert world.states == "1 Active, 2 Active, 3 Active"
    assert [active(world, number) for number in (1, 2, 3)] == [[1, 2, 3]] * 3
    assert world.joins, "the later ones took the table of an earlier one"


def test_a_joining_member_takes_its_share_after_its_full_sync_not_before() -> None:
    world = World(2, load_sharing=True, full_sync_s=5)
    world.start(1)
    world.run(1)
    world.start(2)
    assert world.run(4) == "1 Active, 2 Initializing"
    assert active(world, 1) == [1]
    assert world.run(3) == "1 Active, 2 Active"
    assert active(world, 1) == [1, 2]


def test_the_share_of_a_member_that_dies_moves_and_comes_back_with_it() -> None:
    world = shared()
    world.kill(2)
    assert world.run(1) == "1 Active, 2 -, 3 Active"
    assert active(world, 3) == [1, 3]
    world.power_cut(3)
    world.run(3)
    assert active(world, 1) == [1]
    world.start(2, 3)
    assert world.run(3) == "1 Active, 2 Active, 3 Active"
    assert active(world, 1) == [1, 2, 3]


def test_a_member_with_a_problem_is_down_and_all_with_one_leave_one_in_attention() -> None:
    world = shared()
    world.admin_down(1)
    assert world.run(1) == "1 Down, 2 Active, 3 Active"
    world.interface(2, "lan", up=False)
    assert world.run(1) == "1 Down, 2 Down, 3 Active"
    world.device(3, "fwd", "it does not answer")
    world.run(1)
    assert len(world.forwarding()) == 1
    world.admin_up(1)
    assert world.run(1) == "1 Active, 2 Down, 3 Down"


def test_an_upgraded_member_is_ready_until_the_older_ones_are_gone() -> None:
    world = shared()
    world.stop(3)
    world.start(3, release="R80.10")
    assert world.run(3) == "1 Active, 2 Active, 3 Ready"
    assert active(world, 1) == [1, 2]
    world.stop(1)
    world.stop(2)
    assert world.run(3) == "1 -, 2 -, 3 Active"


def test_there_is_no_failover_to_count() -> None:
    world = shared()
    world.kill(1)
    world.run(5)
    assert world.cluster(2).failover_count == 0
