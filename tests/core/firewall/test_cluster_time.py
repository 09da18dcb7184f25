"""Members whose clocks have different zeros agree on which of two connections with one key began later."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from firewall_wire import answer, firewall, key_of, play, tcp
from hypothesis import given
from hypothesis import strategies as st

from fwnode.firewall.announced import AnnouncedConnections
from fwnode.firewall.announcements import Announcement
from fwnode.firewall.firewall import Firewall
from syncproto.cluster_time import HEARD_MAX_S, ClusterTime
from syncproto.limits import TIME_MAX_S
from syncproto.record import Record, Update, pack, pack_update, unpack

DAY_S = 86_400.0


@dataclass
class Member:
    """A firewall on a machine whose clock began at another time."""

    ahead_s: float
    fw: Firewall

    def now(self, true: float) -> float:
        return true + self.ahead_s


def heard(true: float, *members: Member) -> None:
    """Heartbeats, as the node carries them: each hears the others."""
    for one in members:
        told = one.fw.connections.cluster_time.at(one.now(true))
        for other in members:
            if other is not one:
                other.fw.connections.cluster_time.heard(told, other.now(true) + 0.001)


def told(true: float, one: Member, other: Member) -> None:
    for update in one.fw.connections.take_updates(one.now(true)):
        other.fw.connections.apply(update, other.now(true), origin=1)


@pytest.mark.parametrize("ahead_s", [30 * DAY_S, -30 * DAY_S, 0.0])
def test_a_connection_that_begins_after_a_failover_is_the_newer_one_whichever_clock_is_ahead(ahead_s: float) -> None:
    """The former active member still holds a connection of the same key, that the other has forgotten."""
    one, other = Member(max(ahead_s, 0.0), firewall("fw1")), Member(max(-ahead_s, 0.0), firewall("fw2"))
    heard(10.0, one, other)
    play(one.fw, "> S ACCEPT SYN_SENT\n < SA ACCEPT SYN_RECEIVED\n > A ACCEPT ESTABLISHED", now=one.now(20.0))
    told(20.1, one, other)
    forgotten = other.fw.connections.find(key_of())
    assert forgotten is not None
    other.fw.connections.remove(forgotten)
    assert answer(other.fw, tcp("S"), other.now(30.0)) == "ACCEPT"
    told(30.1, other, one)
    views = [member.fw.connections.find(key_of()) for member in (one, other)]
    assert [view.state.name for view in views if view] == ["SYN_SENT", "SYN_SENT"]


def test_within_a_lab_nobody_moves() -> None:
    members = [Member(0.0, firewall(f"fw{n}")) for n in (1, 2, 3)]
    for true in range(1, 100):
        heard(float(true), *members)
    assert [member.fw.connections.cluster_time.offset for member in members] == [0.0, 0.0, 0.0]


@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=4),
       st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 1e6)), max_size=30))
def test_what_begins_is_later_than_whatever_its_member_has_heard_of(
    ahead: list[float], talk: list[tuple[int, int, float]]
) -> None:
    """Each step: time passes, one member begins something and tells another how late it is."""
    clocks, newest = [ClusterTime() for _ in ahead], [float("-inf")] * len(ahead)
    true = 0.0
    for one, other, passes in talk:
        one, other, true = one % len(ahead), other % len(ahead), true + passes
        born = clocks[one].at(true + ahead[one])
        assert born >= newest[one]
        newest[one] = max(newest[one], born)
        clocks[other].heard(clocks[one].at(true + ahead[one]), true + ahead[other])
        newest[other] = max(newest[other], newest[one])
    assert all(clock.at(true + zero) >= born for clock, zero, born in zip(clocks, ahead, newest, strict=True))


def test_what_is_heard_moves_the_order_and_not_what_expires() -> None:
    member = firewall("fw1", tcp_session_timeout=100)
    now = play(member, "> S ACCEPT SYN_SENT\n < SA ACCEPT SYN_RECEIVED\n > A ACCEPT ESTABLISHED")
    member.connections.cluster_time.heard(50 * DAY_S, now)
    play(member, "+ 99\n > A ACCEPT ESTABLISHED\n + 99\n > A ACCEPT ESTABLISHED\n + 101\n > A OUT_OF_STATE -", now=now)


@pytest.mark.parametrize("told_s", [HEARD_MAX_S, HEARD_MAX_S * 1.01, TIME_MAX_S * 0.999, -TIME_MAX_S * 0.999])
def test_however_late_a_peer_says_that_it_is_what_begins_can_still_travel(told_s: float) -> None:
    member = firewall()
    member.connections.cluster_time.heard(told_s, 5.0)
    answer(member, tcp("S"), 6.0)
    [update] = member.connections.take_updates(400 * DAY_S)
    assert pack_update(update, 3)
    assert isinstance(update, Update) and isinstance(update.record, Record)
    assert unpack(pack(update.record, 3), 3).born == update.record.born


def test_announced_connections_are_ordered_by_it_too() -> None:
    time = ClusterTime()
    time.heard(7_000.0, 5.0)
    store = AnnouncedConnections(0.0, time)
    parent = key_of()
    store.announce(Announcement(parent[:-4] + b"\0\0" + parent[-2:], "ftp-data", 60.0), parent, 1, 6.0)
    [known] = store
    assert (known.born, known.expires) == (7_001.0, 66.0)
