"""A member whole, without a kernel: two of them in memory, in virtual time."""

from __future__ import annotations

import pytest
from member_world import ACK, FIN, SYN, Machine, World, tcp

from fwnode.control.protocol import RequestError
from fwnode.edges import DivertError
from fwnode.firewall.tcp_states import ConnectionState
from fwnode.firewall.verdict import DropReason
from syncproto.errors import Reason, SyncError
from syncproto.limits import FULL_STALL_S


def pair(*, standby: str = "Standby", **given: object) -> tuple[World, Machine, Machine]:
    """fw1 is active, fw2 `standby`, and sync is well on both sides."""
    world = World(**given)
    fw1, fw2 = world.machines[1], world.machines[2]
    world.run_until(lambda: (fw1.state, fw2.state) == ("Active", standby))
    world.run_until(lambda: all(m.member.engine.status(3 - m.number) == "OK" for m in (fw1, fw2)))
    world.run_until(lambda: fw1.sees(fw2) == standby and fw2.sees(fw1) == "Active")
    return world, fw1, fw2


def established(machine: Machine, port: int) -> None:
    for packet in (tcp(SYN, port), tcp(SYN | ACK, port, back=True), tcp(ACK, port)):
        assert machine.packet(packet).accept


def keys(machine: Machine) -> set[bytes]:
    return {connection.key for connection in machine.member.firewall.connections}


def test_state_comes_before_the_address_and_both_only_at_the_active_one() -> None:
    world, fw1, fw2 = pair()
    assert fw1.member.firewall.forwarding and fw1.answering
    assert not fw2.member.firewall.forwarding and not fw2.answering
    world.run(5.0)
    assert fw1.announced >= 6
    assert fw2.packet(tcp(SYN)).reason is DropReason.NOT_ACTIVE


def test_a_connection_that_one_decides_on_is_known_to_the_other_with_its_state_and_its_end() -> None:
    world, fw1, fw2 = pair()
    established(fw1, 40001)
    world.run_until(lambda: keys(fw2) == keys(fw1) != set())
    (copy,) = fw2.member.firewall.connections
    assert copy.state is ConnectionState.ESTABLISHED and not copy.owned
    fw1.packet(tcp(FIN | ACK, 40001))
    fw1.packet(tcp(FIN | ACK, 40001, back=True))
    world.run_until(lambda: not keys(fw1) and not keys(fw2))


def test_a_member_that_joins_takes_the_whole_table_over_the_stream_before_it_is_standby() -> None:
    world = World(["fw1"])
    fw1 = world.machines[1]
    world.run_until(lambda: fw1.state == "Active")
    for port in range(2_000, 3_500):
        established(fw1, port)
    world.run(1.0)
    fw2 = world.start("fw2")
    world.run_until(lambda: fw2.state == "Standby")
    assert keys(fw2) == keys(fw1) and len(keys(fw2)) == 1_500
    assert fw2.member.sync.synced["full"] == 1_500
    assert fw2.member.sync.full_sync["state"] == "done"
    world.run(1.0)
    assert not fw1.lines and not fw2.lines, "both ends of the stream are closed"


def test_a_stream_that_cannot_be_opened_ends_the_attempt_and_not_the_member() -> None:
    world = World(["fw1"])
    fw1 = world.machines[1]
    world.run_until(lambda: fw1.state == "Active")
    established(fw1, 40001)
    fw2 = world.start("fw2")
    fw2.refuses_streams = 100
    world.run_until(lambda: fw2.state == "Standby")
    assert any("Could not start a connection to remote member: [Errno 99]" in text for text in fw2.texts())
    assert (fw2.member.sync.full_sync["state"], fw2.member.sync.synced["full"]) == ("failed", 0)


@pytest.mark.parametrize("drains_s", [0.0, 60.0])
def test_a_full_sync_of_which_nothing_passes_ends_at_both_ends_in_time(drains_s: float) -> None:
    """What the source's kernel still sends is no stall."""
    world = World(["fw1"])
    fw1 = world.machines[1]
    world.run_until(lambda: fw1.state == "Active")
    for port in range(2_000, 3_500):
        established(fw1, port)
    fw2 = world.start("fw2")
    world.run_until(lambda: bool(fw1.lines and fw1.lines[0].end.next_wakeup()))
    world.cut.add("sync")
    cut_at, fw1.drains_until = world.now, world.now + drains_s
    world.run_until(lambda: not fw2.lines)
    assert world.now - cut_at == pytest.approx(FULL_STALL_S, abs=0.5)
    assert fw2.member.sync.full_sync["state"] == "failed"
    world.run_until(lambda: not fw1.lines, 120.0)
    assert max(drains_s, FULL_STALL_S) - 0.1 <= world.now - cut_at <= drains_s + FULL_STALL_S + 0.1


def test_a_peer_that_is_lost_is_no_longer_synchronised_with_until_it_is_back() -> None:
    world, fw1, fw2 = pair()
    fw2.freeze()
    established(fw1, 40001)
    world.run_until(lambda: fw1.sees(fw2) == "Lost", 3.0)
    assert fw1.member.engine.status(2).startswith("Off - Connection to remote member timed-out")
    assert fw1.member.engine.unacknowledged() == 0, "nothing is owed to it"
    fw2.thaw()
    world.run_until(lambda: fw1.member.engine.status(2) == "OK" and keys(fw2) == keys(fw1))


def test_down_moves_the_traffic_and_the_connections_go_on() -> None:
    world, fw1, fw2 = pair()
    established(fw1, 40001)
    world.run_until(lambda: bool(keys(fw2)))
    assert fw1.ask("down") == {"state": "Down"}
    world.run_until(lambda: (fw1.state, fw2.state) == ("Down", "Active"))
    assert fw2.answering and not fw1.answering
    assert fw2.packet(tcp(ACK, 40001)).accept
    assert fw1.packet(tcp(ACK, 40001)).reason is DropReason.NOT_ACTIVE
    world.run_until(lambda: fw1.sees(fw2) == "Active")
    fw1.ask("up")
    world.run_until(lambda: (fw1.state, fw2.state) == ("Standby", "Active"))


def test_a_held_packet_goes_on_when_the_other_active_member_knows_of_it() -> None:
    world, fw1, fw2 = pair(
        cluster={"mode": "load-sharing-multicast"}, parameters={"fwlab_sync_flush_and_ack": 1}, standby="Active"
    )
    syn = next(p for p in (tcp(SYN, n) for n in range(40_000, 40_100)) if fw1.packet(p).hold)
    assert not fw1.released
    world.run_until(lambda: bool(fw1.released))
    assert fw1.released == [(syn, True)] and keys(fw2) >= keys(fw1)


def test_a_member_that_did_not_run_refuses_what_it_held_and_what_waited() -> None:
    world, fw1, fw2 = pair(
        cluster={"mode": "load-sharing-multicast"}, parameters={"fwlab_sync_flush_and_ack": 1}, standby="Active"
    )
    syn = next(p for p in (tcp(SYN, n) for n in range(40_000, 40_100)) if fw1.packet(p).hold)
    fw1.freeze()
    world.run_until(lambda: fw2.sees(fw1) == "Lost")
    world.run(5.0)
    fw1.thaw()
    assert fw1.released == [(syn, False)]
    assert fw1.state == "Initializing" and not fw1.member.firewall.forwarding and not fw1.answering
    assert not fw1.member.cluster.peers[2].alive, "what fw2 said before says nothing of now"
    assert any("did not run for" in text for text in fw1.texts())
    world.run_until(lambda: (fw1.state, fw2.state) == ("Active", "Active"))


def test_a_member_that_is_set_down_refuses_what_it_held() -> None:
    _, fw1, _ = pair(
        cluster={"mode": "load-sharing-multicast"}, parameters={"fwlab_sync_flush_and_ack": 1}, standby="Active"
    )
    syn = next(p for p in (tcp(SYN, n) for n in range(40_000, 40_100)) if fw1.packet(p).hold)
    assert fw1.ask("down") == {"state": "Down"}
    assert fw1.released == [(syn, False)]


def test_a_policy_that_is_installed_decides_about_what_was_held_too() -> None:
    """An older one accepted it: it would go on seconds after a policy that drops it. Its sender repeats it."""
    world, fw1, _ = pair(
        cluster={"mode": "load-sharing-multicast"}, parameters={"fwlab_sync_flush_and_ack": 1}, standby="Active"
    )
    syn = next(p for p in (tcp(SYN, n) for n in range(40_000, 40_100)) if fw1.packet(p).hold)
    nothing = {"name": "nothing", "rules": [{"name": "cleanup", "action": "drop"}]}
    fw1.ask("policy_install", policy=nothing, file="nothing.yaml")
    assert fw1.released == [(syn, False)]
    assert fw1.packet(syn).reason is DropReason.POLICY
    world.run(6.0)
    assert fw1.released == [(syn, False)]


def test_a_member_that_stops_tells_what_it_knows_and_leaves() -> None:
    world, fw1, fw2 = pair()
    established(fw1, 40001)
    fw1.ask("stop")
    fw1.stop()
    assert keys(fw2) == keys(fw1)
    world.run_until(lambda: fw2.state == "Active", 0.5)
    assert fw2.sees(fw1) == "Lost"
    assert any(text.startswith("fw1 is Lost: it was stopped") for text in fw2.texts())


def test_commands_are_answered_as_of_the_time_that_the_member_was_told() -> None:
    world, fw1, _ = pair()
    established(fw1, 40001)
    status = fw1.ask("status")
    assert (status["member"], status["state"], status["connections"]) == ("fw1", "Active", 1)
    assert status["uptime_s"] == pytest.approx(world.now - 1_000.0)
    world.run(10.0)
    assert fw1.ask("status")["uptime_s"] == pytest.approx(status["uptime_s"] + 10.0)
    (row,) = fw1.ask("tab")["rows"]
    assert (row["state"], row["ttl_s"]) == ("ESTABLISHED", 3590.0)
    assert fw1.ask("syncstat")["bytes"]["sent"] == 17
    assert fw1.ask("events")["events"][-1]["at"] == pytest.approx(1e9 + fw1.told[-1]["at"] - 1e9)
    with pytest.raises(RequestError, match="unknown command 'reboot'"):
        fw1.ask("reboot")


def test_a_rule_base_is_installed_kept_and_refused_whole_where_the_kernel_refuses_its_rules() -> None:
    _, fw1, _ = pair()
    ftp = {"name": "ftp", "rules": [{"service": "ftp", "action": "accept"}]}
    fw1.refuses_rules = True
    with pytest.raises(RequestError, match="the kernel refuses the rules"):
        fw1.ask("policy_install", policy=ftp, file="ftp.yaml")
    assert (fw1.member.firewall.policy.name, fw1.kept) == ("standard", [])
    fw1.refuses_rules = False
    fw1.ask("policy_install", policy=ftp, file="ftp.yaml")
    assert (fw1.member.firewall.policy.name, fw1.kept) == ("ftp", ["ftp.yaml"])
    assert [policy.name for policy in fw1.diverted] == ["ftp"]
    assert fw1.member.policy_origin.startswith("installed by hand from 'ftp.yaml'")


def test_a_failure_is_counted_and_where_the_world_wants_that_raised() -> None:
    world, fw1, _ = pair()
    guard = fw1.member.guard

    def broken() -> None:
        raise DivertError("no routes")

    fw1.announce = broken  # type: ignore[method-assign]
    fw1.member.cluster.announcing.begin(world.now)
    with pytest.raises(DivertError):
        world.run(1.0)
    guard.fatal = False
    fw1.member.cluster.announcing.begin(world.now)
    world.run(1.0)
    assert guard.failures["the announcement of addresses: DivertError"] >= 2
    assert fw1.state == "Active"


def test_a_message_that_cannot_be_said_keeps_no_heartbeat_from_going_out(monkeypatch: pytest.MonkeyPatch) -> None:
    world, fw1, fw2 = pair()
    fw1.member.guard.fatal = False
    encode = fw1.member.messages.encode

    def refuses(message: object) -> bytes:
        if type(message).__name__ == "Delta":
            raise SyncError(Reason.BAD_FIELD, "too long")
        return encode(message)  # type: ignore[arg-type]

    monkeypatch.setattr(fw1.member.messages, "encode", refuses)
    established(fw1, 40001)
    world.run(5.0)
    assert fw1.member.guard.failures == {"a message to the peers: SyncError": pytest.approx(1, abs=100)}
    assert fw2.sees(fw1) == "Active"
