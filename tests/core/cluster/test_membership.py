"""A cluster's life as transcripts in virtual time: who becomes what, when, and what reason the operator is given."""

from __future__ import annotations

import pytest
from cluster_world import Machine, World, pair

from fwnode.cluster.membership import Cluster, MemberState, PeerChanged
from syncproto.message import Heartbeat


def transcript(world: World) -> str:
    return "\n".join(world.history)


def expect(world: World, text: str) -> None:
    assert world.history == [" ".join(line.split()) for line in text.strip().splitlines()]


# -- boot ------------------------------------------------------------------------------------------------------------


def test_of_two_that_boot_together_the_first_becomes_active_and_the_other_joins_it() -> None:
    world = World()
    world.start()
    assert world.run(0.35) == "1 Initializing, 2 Initializing"
    assert world.run(2) == "1 Active, 2 Standby"
    expect(
        world,
        """
        0.4 fw1 Initializing -> Active: no other member is active
        0.5 fw2 Initializing -> Standby: there is already an active member (fw1)
        """,
    )
    assert world.joins == [(2, 1)], "one full sync, by the one that came second"


def test_a_member_alone_becomes_active() -> None:
    world = World()
    world.start(2)
    assert world.run(1) == "1 -, 2 Active"
    assert world.joins == []


def test_a_member_that_boots_later_stays_standby_though_its_number_is_lower() -> None:
    """The product's "maintain current active"."""
    world = World()
    world.start(2)
    world.run(1)
    world.start(1)
    assert world.run(60) == "1 Standby, 2 Active"
    assert world.joins == [(1, 2)]


def test_a_joining_member_stays_initializing_until_its_full_sync_has_ended() -> None:
    world = World(full_sync_s=5)
    world.start(1)
    world.run(1)
    world.start(2)
    assert world.run(5) == "1 Active, 2 Initializing"
    assert world.run(1) == "1 Active, 2 Standby"


def test_a_member_whose_full_sync_is_under_way_takes_over_only_when_it_is_through() -> None:
    world = World(full_sync_s=3)
    world.start(1)
    world.run(1)
    world.start(2)
    world.run(1)
    world.power_cut(1)
    assert world.run(1) == "1 -, 2 Initializing"
    assert world.run(4) == "1 -, 2 Active"


# -- administration --------------------------------------------------------------------------------------------------


def test_admin_down_fails_over_at_once_and_up_does_not_fail_back() -> None:
    world = pair()
    world.admin_down(1)
    world.run(0.2)
    expect(
        world,
        """
        0.0 fw1 Active -> Down: admin_down: the administrator has put this member down
        0.0 fw2 Standby -> Active: member fw1 is Down
        """,
    )
    world.admin_up(1)
    assert world.run(60) == "1 Standby, 2 Active"
    assert world.joins == [(2, 1)], "up starts no full sync"


def test_a_member_that_was_put_down_still_helps_when_no_other_is_left() -> None:
    world = pair()
    world.admin_down(2)
    assert world.run(1) == "1 Active, 2 Down"
    world.kill(1)
    assert world.run(1) == "1 -, 2 Active Attention"
    world.start(1)
    assert world.run(2) == "1 Active, 2 Down"


def test_a_stopped_member_says_so_and_is_replaced_at_once() -> None:
    world = pair()
    world.stop(1)
    assert world.run(0.01) == "1 -, 2 Active"
    assert "fw2 Standby -> Active: member fw1 was lost" in transcript(world)
    lost = [e for e in events_of(world) if isinstance(e, PeerChanged)]
    assert lost == []  # taken by the world already
    assert world.sees(2, 1) == "Lost"


def events_of(world: World) -> list[object]:
    found = []
    for cluster in world.running():
        while (event := cluster.next_event()) is not None:
            found.append(event)
    return found


def test_a_late_heartbeat_on_another_network_does_not_bring_a_stopped_member_back() -> None:
    """Each network has its own queue: what was sent before the farewell may be read after it, however much later."""
    for delay_s in (0.001, 0.09, 0.2, 5.0):
        world = pair()
        cluster, life = world.cluster(2), world.machines[1].incarnation
        late = world.cluster(1)._heartbeat(world.now)
        cluster.receive_heartbeat(1, life, world.cluster(1).leave(world.now), world.now)
        assert cluster.state is MemberState.ACTIVE
        cluster.receive_heartbeat(1, life, late, world.now + delay_s)
        assert (cluster.state, cluster.failover_count) == (MemberState.ACTIVE, 1), delay_s
        assert world.sees(2, 1) == "Lost", delay_s


def test_any_number_of_late_heartbeats_do_not_undo_a_newer_one() -> None:
    """A network whose queue is long delivers a minute's heartbeats at once."""
    world = pair()
    late = [world.cluster(1)._heartbeat(world.now) for _ in range(600)]
    world.admin_down(1)
    world.run(1)
    for heartbeat in late:
        world.cluster(2).receive_heartbeat(1, world.machines[1].incarnation, heartbeat, world.now)
    assert (world.sees(2, 1), world.states) == ("Down", "1 Down, 2 Active")


def test_a_heartbeat_of_a_former_life_is_late_whatever_its_number() -> None:
    world = pair()
    world.run(60)
    late, life = world.cluster(1)._heartbeat(world.now), world.machines[1].incarnation
    world.stop(1)
    world.run(0.05)
    world.start(1)
    world.run(0.2)
    world.cluster(2).receive_heartbeat(1, life, late, world.now)
    assert (world.sees(2, 1), world.states) == ("Initializing", "1 Initializing, 2 Active")


@pytest.mark.parametrize("death", ["kill", "power_cut", "stop"])
@pytest.mark.parametrize("away_s", [0.2, 1.0, 10.0])
def test_a_member_that_comes_back_with_its_clock_set_back_is_heard_within_seconds(death: str, away_s: float) -> None:
    world = pair()
    world.run(5)
    getattr(world, death)(1)
    world.run(away_s)
    world.start(1, step=-1)
    world.run(max(0.2, 3.1 - away_s))
    assert world.sees(2, 1) != "Lost"
    assert world.run(2) in ("1 Standby, 2 Active", "1 Active, 2 Standby")


# -- death -----------------------------------------------------------------------------------------------------------


def test_a_killed_process_is_noticed_by_the_refusals_of_its_machine() -> None:
    world = pair()
    world.kill(1)
    world.run(1)
    [line] = world.history
    assert line.endswith("fw2 Standby -> Active: member fw1 was lost")
    assert float(line.split()[0]) <= 0.4


def test_a_silent_death_is_noticed_by_the_dead_timer() -> None:
    world = pair()
    world.power_cut(1)
    assert world.run(2.3) == "1 -, 2 Standby"
    assert world.run(0.3) == "1 -, 2 Active"


def test_the_dead_timer_is_a_parameter() -> None:
    world = pair()
    world.cluster(2).dead_timeout_s = 10.0
    world.power_cut(1)
    assert world.run(9.8) == "1 -, 2 Standby"
    assert world.run(0.3) == "1 -, 2 Active"


@pytest.mark.parametrize("death", ["kill", "power_cut", "stop"])
def test_a_member_that_comes_back_stays_standby(death: str) -> None:
    world = pair()
    getattr(world, death)(1)
    world.run(5)
    world.start(1)
    assert world.run(60) == "1 Standby, 2 Active"
    assert world.joins == [(2, 1), (1, 2)]


def test_a_quick_restart_is_not_taken_for_a_death_by_late_refusals() -> None:
    world = pair()
    world.kill(2)
    world.run(0.1)
    world.start(2)
    world.run(0.12)
    world.cluster(1).peer_refused(2, world.now)
    assert world.sees(1, 2) == "Initializing"
    assert world.run(2) == "1 Active, 2 Standby"


def test_failovers_are_counted_with_their_reasons() -> None:
    world = pair()
    assert world.cluster(2).failover_count == 0, "the first election is no failover"
    world.kill(1)
    world.run(1)
    world.start(1)
    world.run(2)
    world.admin_down(2)
    world.run(1)
    counted = [(f.former, f.active, f.reason) for f in world.cluster(2).failovers]
    assert counted == [(1, 2, "member fw1 was lost"), (2, 1, "admin_down: the administrator has put this member down")]
    assert (world.cluster(2).failover_count, world.cluster(1).failover_count) == (2, 2), "the cluster's"


# -- interfaces ------------------------------------------------------------------------------------------------------


def test_an_active_member_that_loses_an_interface_gives_way() -> None:
    world = pair()
    world.interface(1, "lan", False)
    assert world.run(1) == "1 Down, 2 Active"
    assert "fw1 Active -> Down: Interface Active Check: interface lan is down" in transcript(world)
    assert float(world.history[0].split()[0]) <= 0.5
    world.interface(1, "lan", True)
    assert world.run(60) == "1 Standby, 2 Active"


def test_a_standby_member_that_loses_an_interface_is_down_and_nothing_else_changes() -> None:
    world = pair()
    world.interface(2, "wan", False)
    assert world.run(1) == "1 Active, 2 Down"
    world.interface(2, "wan", True)
    assert world.run(1) == "1 Active, 2 Standby"
    assert not any("fw1" in line.split()[1] for line in world.history)


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("pause", [0.0, 0.05, 0.1])
def test_a_dead_sync_network_leaves_one_down_and_the_other_in_active_attention(first: int, pause: float) -> None:
    """And the member that was active goes on: a failover would gain nothing."""
    world = pair()
    world.interface(first, "sync", False)
    world.run(pause)
    world.interface(3 - first, "sync", False)
    assert world.run(1) == "1 Active Attention, 2 Down"
    assert world.run(60) == "1 Active Attention, 2 Down"
    assert world.cluster(2).failover_count == 0
    for number in (2, 1):
        world.interface(number, "sync", True)
    world.run(5)
    assert sorted(world.states.split(", ")) in (["1 Active", "2 Standby"], ["1 Standby", "2 Active"])


def test_a_member_with_all_its_networks_gone_is_lost_to_the_other() -> None:
    world = pair()
    for network in ("lan", "wan", "sync"):
        world.interface(1, network, False)
    world.run(3)
    assert world.cluster(2).state is MemberState.ACTIVE
    assert world.sees(2, 1) == "Lost"
    for network in ("lan", "wan", "sync"):
        world.interface(1, network, True)
    world.run(2)
    assert len(world.forwarding()) == 1


# -- partition -------------------------------------------------------------------------------------------------------


def test_after_a_partition_has_healed_the_lower_number_stays_active() -> None:
    world = pair()
    world.partition([1], [2])
    assert world.run(3) == "1 Active, 2 Active"
    world.partition()
    assert world.run(1) == "1 Active, 2 Standby"
    assert "fw2 Active -> Standby: there is already an active member (fw1)" in transcript(world)


def test_after_a_partition_a_healthy_member_stays_active_though_its_number_is_higher() -> None:
    world = pair()
    world.partition([1], [2])
    world.run(3)
    world.interface(1, "wan", False)
    assert world.run(1) == "1 Active Attention, 2 Active"
    world.partition()
    assert world.run(1) == "1 Down, 2 Active"


# -- versions --------------------------------------------------------------------------------------------------------

OLD, NEW = "R77.30", "R80.10"


def test_the_newer_member_is_ready_and_lost_to_the_older_one_which_goes_on() -> None:
    world = pair()
    world.stop(2)
    world.run(1)
    world.start(2, release=NEW)
    assert world.run(5) == "1 Active, 2 Ready"
    assert world.sees(1, 2) == "Lost"
    assert world.sees(2, 1) == "Active"
    assert world.history[-1].endswith("-> Ready: member fw1 runs the older version R77.30")
    assert world.cluster(1).failover_count == 0


@pytest.mark.parametrize(("death", "within_s"), [("stop", 0.1), ("kill", 0.5), ("power_cut", 2.7)])
def test_the_newer_member_becomes_active_when_the_older_one_stops(death: str, within_s: float) -> None:
    world = World()
    world.start(1, release=OLD)
    world.start(2, release=NEW)
    assert world.run(3) == "1 Active, 2 Ready"
    getattr(world, death)(1)
    assert world.run(within_s) == "1 -, 2 Active"
    assert world.history[-1].endswith("fw2 Ready -> Active: member fw1 was lost")
    assert world.cluster(2).failover_count == 1


def test_an_older_member_that_boots_again_knocks_the_newer_one_out() -> None:
    """The trap of upgrades: from active to Ready, and the older one knows no connection."""
    world = World()
    world.start(2, release=NEW)
    world.run(1)
    world.start(1, release=OLD)
    assert world.run(5) == "1 Active, 2 Ready"
    assert world.joins == [], "the older one does not even ask the newer for its table"


def test_an_older_member_without_a_healthy_peer_of_its_version_goes_on_with_its_problem() -> None:
    world = World()
    world.start(1, release=OLD)
    world.start(2, release=NEW)
    world.run(3)
    world.interface(1, "lan", False)
    assert world.run(1) == "1 Active Attention, 2 Ready"


def test_a_hotfix_is_no_newer_version() -> None:
    world = World()
    world.start(1, release="R77.30-JHF205")
    world.start(2, release="R77.30-JHF351")
    assert world.run(3) == "1 Active, 2 Standby"


def test_two_upgraded_members_find_one_active_when_the_last_older_one_stops() -> None:
    world = World(3)
    world.start(1, release=OLD)
    world.start(2, 3, release=NEW)
    assert world.run(3) == "1 Active, 2 Ready, 3 Ready"
    world.stop(1)
    assert world.run(0.2) == "1 -, 2 Active, 3 Standby"


# -- five ------------------------------------------------------------------------------------------------------------


def test_five_members_have_one_active_and_replace_it_in_the_order_of_their_numbers() -> None:
    world = World(5)
    world.start()
    assert world.run(3) == "1 Active, 2 Standby, 3 Standby, 4 Standby, 5 Standby"
    world.forget()
    world.kill(1)
    assert world.run(1) == "1 -, 2 Active, 3 Standby, 4 Standby, 5 Standby"
    world.power_cut(2)
    assert world.run(3) == "1 -, 2 -, 3 Active, 4 Standby, 5 Standby"
    assert len(world.history) == 2, "nobody else forwards, not even for a moment"
    world.admin_down(3)
    assert world.run(1) == "1 -, 2 -, 3 Down, 4 Active, 5 Standby"
    world.start(1)
    assert world.run(2) == "1 Standby, 2 -, 3 Down, 4 Active, 5 Standby"


def test_five_members_that_are_all_in_trouble_still_have_one_that_forwards() -> None:
    world = World(5)
    world.start()
    world.run(3)
    for number in (3, 1, 5, 2, 4):
        world.interface(number, "sync", False)
    world.run(5)
    assert len(world.forwarding()) == 1
    assert world.states.count("Active Attention") == 1 and world.states.count("Down") == 4


# -- any order of events ---------------------------------------------------------------------------------------------

# -- heartbeats from the network -------------------------------------------------------------------------------------


def test_heartbeats_of_strangers_and_of_unknown_states_do_no_harm() -> None:
    world = pair()
    cluster = world.cluster(1)
    good = world.cluster(2)._heartbeat(world.now)
    cluster.receive_heartbeat(9, 1, good, world.now)
    odd = type(good)(99, "no such release", "", [], [], number=good.number + 1)
    cluster.receive_heartbeat(2, 1, odd, world.now)
    assert world.sees(1, 2) == "Down"
    assert cluster.state is MemberState.ACTIVE
    assert world.run(1) == "1 Active, 2 Standby"


def test_heartbeats_come_at_their_interval_and_at_once_when_the_state_changes() -> None:
    cluster = Cluster(1, {2: "fw2"}, OLD, lambda a, b: 0, now=0.0, heartbeat_s=0.1)
    sent = []
    for tick in range(100):
        now = tick / 100
        cluster.on_wakeup(now)
        heartbeat = cluster.outgoing(now)
        if heartbeat is not None:
            sent.append((now, MemberState(heartbeat.state).label))
    assert [at for at, _ in sent] == pytest.approx([n / 10 for n in range(10)], abs=0.011)
    assert [label for _, label in sent] == ["Initializing"] * 4 + ["Active"] * 6
    cluster.set_device("admin_down", "x", 0.955)
    heartbeat = cluster.outgoing(0.955)
    assert heartbeat is not None and heartbeat.problems == ["admin_down: x"]
    assert cluster.leave(0.96).leaving
    assert cluster.outgoing(5.0) is None, "a member that has said goodbye is silent"


@pytest.mark.parametrize("away", ["restart", "freeze"])
def test_who_listens_for_less_than_a_peers_interval_hears_it_nevertheless(away: str) -> None:
    """A peer speaks at once to a member that does not hear it yet, so nobody takes over from one that is active."""
    for moment in (0.1, 0.5, 0.9):
        world = World(heartbeats_s={2: 1.0})
        world.start()
        world.run(5)
        if away == "restart":
            world.kill(1)
            assert world.run(3 + moment) == "1 -, 2 Active"
            world.forget()
            world.start(1)
        else:
            world.freeze(1)
            assert world.run(3 + moment) == "1 Active, 2 Active"
            world.forget()
            world.thaw(1)
        assert world.run(2) == "1 Standby, 2 Active"
        assert not any(line.split()[1] == "fw2" for line in world.history), "who is active stays active"
        assert away == "freeze" or world.joins[-1] == (1, 2)


def test_members_that_do_not_hear_each_other_speak_no_oftener_than_the_faster_of_them() -> None:
    world = World(heartbeats_s={2: 0.5})
    world.deaf = {(1, 2)}
    world.start()
    spoken = dict.fromkeys(world.machines, 0)
    broadcast = world._broadcast

    def count(sender: Machine, heartbeat: Heartbeat) -> None:
        spoken[sender.number] += 1
        broadcast(sender, heartbeat)

    world._broadcast = count  # type: ignore[method-assign]
    world.run(10)
    assert spoken[1] <= 105 and spoken[2] <= 125, spoken


def test_a_heartbeat_that_was_delayed_on_one_network_does_not_undo_a_newer_one() -> None:
    world = pair()
    delayed = world.cluster(2)._heartbeat(world.now)  # it waits on a wire while others arrive
    world.admin_down(2)
    world.run(1)
    assert world.sees(1, 2) == "Down"
    world.cluster(1).receive_heartbeat(2, 1, delayed, world.now)
    assert world.sees(1, 2) == "Down"


def test_a_network_that_comes_back_leaves_the_active_member_alone() -> None:
    """Whichever member notices first, and whichever is active."""
    for active in (1, 2):
        for first in (1, 2):
            world = pair()
            if active == 2:
                world.admin_down(1)
                world.run(1)
                world.admin_up(1)
                world.run(1)
            before = world.cluster(active).failover_count
            for number in (first, 3 - first):
                world.cluster(number).set_interface("sync", False, world.now)
                world.run(0.05)
            world.run(2)
            for number in (first, 3 - first):
                world.cluster(number).set_interface("sync", True, world.now)
                world.run(0.05)
            world.run(2)
            assert world.cluster(active).state is MemberState.ACTIVE
            assert world.cluster(active).failover_count == before


# -- a member that did not run ---------------------------------------------------------------------------------------


def test_a_member_that_did_not_run_stops_forwarding_before_it_has_heard_anybody() -> None:
    world = pair()
    world.freeze(1)
    assert world.run(5) == "1 Active, 2 Active", "fw1 does not know of its state: it does not run"
    world.thaw(1)
    assert world.states == "1 Initializing, 2 Active"
    assert world.run(1) == "1 Standby, 2 Active"
    expect(
        world,
        """
        2.4 fw2 Standby -> Active: member fw1 was lost
        5.0 fw1 Active -> Initializing: this member did not run for 5.1 s, and listens for the others
        5.4 fw1 Initializing -> Standby: there is already an active member (fw2)
        """,
    )
    assert world.joins == [(2, 1)], "its table is as good as any: no full sync"


@pytest.mark.parametrize("seconds", [0.0, 0.5, 2.3])
def test_a_pause_within_the_dead_timer_changes_nothing(seconds: float) -> None:
    world = pair()
    world.freeze(1)
    world.run(seconds)
    world.thaw(1)
    assert world.run(2) == "1 Active, 2 Standby"
    assert world.history == []


def test_a_member_that_is_alone_goes_on_after_it_has_listened() -> None:
    world = pair()
    world.power_cut(2)
    world.run(5)
    world.freeze(1)
    world.run(60)
    world.thaw(1)
    assert world.run(0.35) == "1 Initializing, 2 -"
    assert world.run(0.2) == "1 Active, 2 -"


def test_when_all_were_frozen_the_first_one_goes_on() -> None:
    """As when the machine of a whole lab is suspended."""
    for order in ((1, 2, 3), (3, 2, 1)):
        world = World(3)
        world.start()
        assert world.run(3) == "1 Active, 2 Standby, 3 Standby"
        for number in order:
            world.freeze(number)
        world.run(60)
        for number in order:
            world.thaw(number)
            world.run(0.02)
        assert world.run(3) == "1 Active, 2 Standby, 3 Standby"


def test_a_standby_that_did_not_run_does_not_take_over() -> None:
    world = pair()
    world.freeze(2)
    world.run(4)
    world.thaw(2)
    world.run(3)
    assert [line.split(": ")[0] for line in world.history] == [
        "4.0 fw2 Standby -> Initializing", "4.4 fw2 Initializing -> Standby"
    ]  # fmt: skip
