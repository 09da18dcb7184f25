"""Blocking of new connections under load, and packets that wait for an ACK."""

from __future__ import annotations

import pytest
from control_wire import FtpControl, control_firewall
from firewall_wire import answer, firewall, tcp

from fwnode.firewall.holding import HELD_MAX, RELEASE_TIMEOUT_S, HeldPackets
from fwnode.firewall.load import ConnectionKind, SyncLoad
from fwnode.firewall.parameters import PARAMETERS, ParameterError, Parameters, parse_value
from fwnode.firewall.verdict import DropReason, Hook


def load(**parameters: int) -> SyncLoad:
    store = Parameters()
    for name, value in {"fw_sync_block_new_conns": 0, **parameters}.items():
        store.set(name, value)
    return SyncLoad(store)


def test_410_unacknowledged_updates_are_allowed_and_411_are_load() -> None:
    made = load()
    assert made.threshold == 410
    assert made.update(410, 1.0) is None
    assert not made.refuses(ConnectionKind.TCP)
    changed = made.update(411, 2.0)
    assert changed is not None and changed.blocking
    assert made.refuses(ConnectionKind.TCP)


def test_it_ends_at_the_threshold_and_says_how_often_and_how_long() -> None:
    made = load()
    made.update(411, 1.0)
    made.update(500, 2.0)
    changed = made.update(410, 3.5)
    assert changed is not None and not changed.heavy
    made.update(411, 10.0)
    assert (made.episodes, made.blocked_s(11.0)) == (2, 3.5)
    made.reset(12.0)
    assert (made.episodes, made.blocked_s(12.5)) == (1, 0.5), "the present one counts from the reset"


def test_disabled_it_is_load_that_blocks_nothing_until_it_is_enabled() -> None:
    made = load(fw_sync_block_new_conns=-1)
    changed = made.update(411, 1.0)
    assert changed is not None and changed.heavy and not changed.blocking
    assert not made.refuses(ConnectionKind.TCP)
    made._parameters.set("fw_sync_block_new_conns", 0)
    changed = made.update(411, 2.0)
    assert changed is not None and changed.blocking


@pytest.mark.parametrize(("percent", "size", "threshold"), [(80, 512, 410), (50, 512, 256), (1, 512, 6),
                                                            (100, 512, 512), (80, 1000, 800)])  # fmt: skip
def test_the_threshold_is_a_percentage_of_the_sending_queue_rounded_up(percent: int, size: int, threshold: int) -> None:
    assert load(fw_sync_buffer_threshold=percent, fw_sync_sending_queue_size=size).threshold == threshold


def test_the_defaults_are_the_products() -> None:
    names = ("fw_sync_block_new_conns", "fw_sync_buffer_threshold", "fw_sync_allowed_protocols")
    assert [PARAMETERS[name].default for name in names] == [-1, 80, 24]


@pytest.mark.parametrize("text", ["-1", "0xFFFFFFFF", "4294967295"])
def test_disabled_has_several_spellings(text: str) -> None:
    assert parse_value("fw_sync_block_new_conns", text) == -1


@pytest.mark.parametrize(("name", "value"), [
    ("fw_sync_block_new_conns", 1), ("fw_sync_block_new_conns", -2), ("fw_sync_buffer_threshold", 0),
    ("fw_sync_buffer_threshold", 101), ("fw_sync_allowed_protocols", 32), ("fw_sync_allowed_protocols", -1),
    ("fw_sync_sending_queue_size", 511), ("fw_sync_recv_queue_size", 255)])  # fmt: skip
def test_illegal_values_are_refused(name: str, value: int) -> None:
    with pytest.raises(ParameterError, match="legal is"):
        Parameters().set(name, value)


def test_a_queue_size_cannot_change_while_the_member_runs() -> None:
    with pytest.raises(ParameterError, match="read when the member starts"):
        Parameters().set_running("fw_sync_sending_queue_size", 1024)


@pytest.mark.parametrize("mask", range(32))
def test_each_flag_lets_its_kind_pass_and_no_other(mask: int) -> None:
    made = load(fw_sync_allowed_protocols=mask)
    made.update(411, 1.0)
    for kind in set(ConnectionKind) - {ConnectionKind.OTHER}:
        assert made.refuses(kind) is not bool(mask & kind)
    assert made.refuses(ConnectionKind.OTHER), "other protocols have no flag"


def test_only_new_connections_are_blocked() -> None:
    fw = firewall(fw_sync_block_new_conns=0)
    assert fw.decide(tcp("S", ">"), Hook.FORWARD, 0.0).accept
    fw.load.update(411, 0.0)
    assert fw.decide(tcp("SA", "<"), Hook.FORWARD, 0.1).accept
    assert fw.decide(tcp("A", ">"), Hook.FORWARD, 0.2).accept
    assert fw.decide(tcp("PA", ">"), Hook.FORWARD, 0.3).accept
    verdict = fw.decide(tcp("S", ">", client_port=40002), Hook.FORWARD, 0.4)
    assert (verdict.accept, verdict.reason) == (False, DropReason.SYNC_LOAD)
    assert fw.log[-1].reason is DropReason.SYNC_LOAD
    fw.load.update(410, 0.5)
    assert fw.decide(tcp("S", ">", client_port=40002), Hook.FORWARD, 0.6).accept


def test_the_log_does_not_say_that_what_is_blocked_was_accepted() -> None:
    rule = {"service": "database", "action": "accept", "track": "log"}
    fw = firewall(policy={"rules": [rule]}, fw_sync_block_new_conns=0)
    fw.load.update(411, 0.0)
    fw.decide(tcp("S", ">", server_port=1521), Hook.FORWARD, 0.4)
    assert [entry.reason for entry in fw.log] == [DropReason.SYNC_LOAD]
    fw.load.update(0, 0.5)
    fw.decide(tcp("S", ">", server_port=1521), Hook.FORWARD, 0.6)
    assert [entry.reason for entry in fw.log] == [DropReason.SYNC_LOAD, None]


@pytest.mark.parametrize(("mask", "verdict"), [(24, "ACCEPT"), (8, "ACCEPT"), (16, "SYNC_LOAD"), (2, "SYNC_LOAD")])
def test_a_data_connection_has_a_flag_of_its_own(mask: int, verdict: str) -> None:
    """Its control connection was there before; a new control connection is TCP."""
    fw = control_firewall(fw_sync_block_new_conns=0, fw_sync_allowed_protocols=mask)
    control = FtpControl(fw)
    fw.load.update(411, 0.0)
    assert control.say(">", b"PORT 192,0,2,100,156,65\r\n") == "ACCEPT"
    assert control.open("<", 40001) == verdict
    assert answer(fw, tcp("S", client_port=40009, server_port=21)) == ("ACCEPT" if mask & 2 else "SYNC_LOAD")


def test_what_the_rule_base_drops_is_dropped_by_the_rule_base() -> None:
    fw = firewall(fw_sync_block_new_conns=0)
    fw.load.update(411, 0.0)
    assert fw.decide(tcp("S", ">", server_port=9999), Hook.FORWARD, 0.0).reason is DropReason.POLICY


def test_the_members_own_connections_are_not_blocked() -> None:
    """A full sync is what helps a member that is behind."""
    fw = firewall(fw_sync_block_new_conns=0)
    fw.load.update(411, 0.0)
    assert fw.decide(tcp("S", ">"), Hook.OUTPUT, 0.0).reason is not DropReason.SYNC_LOAD


# -- flush and ack ----------------------------------------------------------------------------------------------------


HANDSHAKE = (("S", ">"), ("SA", "<"), ("A", ">"), ("PA", ">"), ("A", "<"), ("FA", ">"))


def test_only_what_changes_the_table_is_held() -> None:
    fw = firewall(fwlab_sync_flush_and_ack=1)
    held = [fw.decide(tcp(*step), Hook.FORWARD, 0.0).hold for step in HANDSHAKE]
    assert held == [True, True, True, False, False, True]
    assert not fw.decide(tcp("S", ">", client_port=7), Hook.OUTPUT, 0.0).hold, "it waits for nobody"
    assert not firewall().decide(tcp("S", ">"), Hook.FORWARD, 0.0).hold


def test_an_announcement_is_held_too_so_that_another_member_expects_the_data_connection() -> None:
    fw = control_firewall(fwlab_sync_flush_and_ack=1)
    control = FtpControl(fw)
    announcement = bytes(control.segment(">", b"PORT 192,0,2,100,156,65\r\n"))
    assert fw.decide_inspected(announcement, Hook.FORWARD, 0.0).hold
    assert not fw.decide_inspected(bytes(control.segment("<", b"200 PORT\r\n")), Hook.FORWARD, 0.0).hold


def test_a_packet_waits_until_its_update_is_acknowledged() -> None:
    held = HeldPackets[str]()
    assert held.hold("syn", 1.0, others=True)
    assert held.unflushed and held.acknowledged(99, 1.0) == [], "peers were not told yet"
    held.flushed(7)
    held.hold("other", 1.1, others=True)
    assert held.acknowledged(6, 1.2) == []
    assert held.acknowledged(7, 1.3) == ["syn"]
    held.flushed(8)
    assert held.acknowledged(8, 1.4) == ["other"]
    counters = held.counters
    assert (counters.held, counters.released, counters.timed_out, len(held)) == (2, 2, 0, 0)
    assert round(counters.longest_s, 3) == 0.3


def test_a_packet_waits_no_longer_than_the_timeout() -> None:
    held = HeldPackets[str]()
    held.hold("syn", 1.0, others=True)
    held.flushed(1)
    assert held.next_wakeup() == 1.0 + RELEASE_TIMEOUT_S
    assert held.acknowledged(0, 5.9) == []
    assert held.acknowledged(0, 6.0) == ["syn"]
    assert (held.counters.timed_out, held.counters.slow) == (1, 1)


def test_without_other_active_members_nothing_waits() -> None:
    held = HeldPackets[str]()
    assert not held.hold("syn", 1.0, others=False)
    assert (held.counters.no_members, held.counters.held) == (1, 0)


def test_no_more_than_a_cap_wait() -> None:
    held = HeldPackets[int]()
    taken = [held.hold(number, 1.0, others=True) for number in range(HELD_MAX + 5)]
    assert (sum(taken), held.counters.overflow) == (HELD_MAX, 5)


def test_what_is_taken_back_does_not_go_on_later():
    held = HeldPackets()
    assert held.hold("one", 1.0, others=True) and held.hold("two", 1.1, others=True)
    assert held.take_all() == ["one", "two"]
    assert len(held) == 0 and not held.unflushed
    assert held.acknowledged(99, 100.0) == []
