"""Copies say the same as their owner's entry, a failover does not begin the idle time anew, and both cost little."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from firewall_wire import answer, firewall, key_of, play, tcp, udp
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from test_connection_table import connection, key, told

from fwnode.control.rows import row
from fwnode.firewall.audience import Audience
from fwnode.firewall.connection import Connection
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.refreshing import GRACE_TICKS, LAG_TICKS, LOOKED_AT_MAX, REFRESHES_PER_TIMEOUT, TOLD_MAX
from fwnode.firewall.table import ConnectionTable
from fwnode.firewall.tcp_states import ConnectionState
from syncproto.limits import SYNC_TICK_S
from syncproto.record import OWNER_SHIFT, Op, Update

GRACE_S = GRACE_TICKS * SYNC_TICK_S
TICK_OR_TWO_S = (LAG_TICKS + 1) * SYNC_TICK_S
HANDSHAKE = "> S ACCEPT SYN_SENT\n < SA ACCEPT SYN_RECEIVED\n > A ACCEPT ESTABLISHED"


@dataclass
class Pair:
    """fw1 forwards and tells fw2 at every sync tick."""

    timeout: int = 10
    room: int = TOLD_MAX
    now: float = 100.0
    records: int = 0
    owner: Firewall = field(init=False)
    standby: Firewall = field(init=False)

    def __post_init__(self) -> None:
        self.owner, self.standby = (
            firewall(name, tcp_session_timeout=self.timeout, udp_timeout=self.timeout) for name in ("fw1", "fw2")
        )
        self.standby.forwarding = False

    def open(self) -> None:
        play(self.owner, HANDSHAKE, now=self.now)
        self.pass_time(0.2)

    def pass_time(self, seconds: float, every: float = 0.0) -> None:
        """Ticks of both members; with `every`, the connection has a packet so often."""
        begin, next_packet = self.now, self.now + every
        for tick in range(round(seconds / SYNC_TICK_S)):
            self.now = begin + (tick + 1) * SYNC_TICK_S
            while every and next_packet <= self.now:
                assert answer(self.owner, tcp("A"), next_packet) == "ACCEPT"
                next_packet += every
            self.tick()

    def tick(self) -> None:
        self.owner.expire(self.now)
        self.standby.expire(self.now)
        updates = self.owner.connections.take_updates(self.now, self.room)
        self.records += len(updates)
        for update in updates:
            self.standby.connections.apply(update, self.now, origin=1)

    def fail_over(self) -> None:
        """The owner is killed; what it did not tell is lost."""
        self.owner.forwarding, self.standby.forwarding = False, True

    def shown(self) -> list[dict[str, Any]]:
        """The connection's rows of `tab`, of both members."""
        found = [fw.connections.find(key_of()) for fw in (self.owner, self.standby)]
        return [row(each, self.now, self.owner.connections.audience) for each in found if each is not None]


def test_both_show_the_same_time_left_of_a_session_that_was_busy_and_is_idle() -> None:
    """13 of 20 seconds here and 20 of 20 there was reported."""
    pair = Pair(timeout=20)
    pair.open()
    for burst_s, every, idle_s in ((3.0, 0.3, 7.0), (0.1, 0.1, 2.0), (6.6, 2.2, 12.0), (30.0, 0.05, 7.0)):
        pair.pass_time(burst_s, every)
        for _ in range(round(idle_s / SYNC_TICK_S)):
            pair.pass_time(SYNC_TICK_S)
            active, standby = pair.shown()
            assert active["timeout_s"] == standby["timeout_s"] == 20
            assert abs(active["ttl_s"] - standby["ttl_s"]) <= TICK_OR_TWO_S + 0.1
            assert standby["past_end_s"] == 0
    assert active["ttl_s"] == pytest.approx(13.0, abs=0.2)


@pytest.mark.parametrize("last_s", [0.0, 0.5, 2.0, 3.2, 3.4, 5.0, 6.6, 9.0])
def test_a_session_that_was_idle_for_longer_than_its_timeout_does_not_pass_after_a_failover(last_s: float) -> None:
    """Idle for 12 s it passed with a timeout of 10 s, wherever its last packet lay between two refreshes."""
    for idle_s, passes in ((9.8, True), (10.0 + GRACE_S - 0.2, True), (10.0 + GRACE_S + 0.4, False), (12.0, False)):
        pair = Pair(timeout=10)
        pair.open()
        pair.pass_time(last_s, every=0.4)
        assert answer(pair.owner, tcp("A"), pair.now) == "ACCEPT"
        last = pair.now
        pair.pass_time(1.0)
        pair.fail_over()
        verdict = answer(pair.standby, tcp("A"), last + idle_s)
        assert verdict == ("ACCEPT" if passes else "OUT_OF_STATE"), (last_s, idle_s)


@pytest.mark.parametrize("whole", [True, False])
def test_neither_failovers_nor_full_syncs_begin_the_idle_time_anew(whole: bool) -> None:
    """The copy is handed on, packed or one by one, from member to member, and ends when it would have."""
    pair = Pair(timeout=60)
    pair.open()
    pair.pass_time(20.0, every=0.7)
    pair.pass_time(10.0)
    end = pair.owner.connections.find(key_of())
    assert end is not None
    table, now = pair.standby.connections, pair.now
    for hop in range(4):
        now += 5.0
        table.expire(now)
        joiner = ConnectionTable(member=hop + 3)
        for columns in table.snapshot(now):
            if whole:
                joiner.apply_slice(columns, now, origin=2)
            else:
                for each in columns:
                    joiner.apply(told_of(each), now, origin=2)
        table = joiner
    [copy] = table
    assert copy.expires == pytest.approx(end.expires, abs=TICK_OR_TWO_S)
    assert copy.timeout == 60
    table.expire(end.expires + GRACE_S + 1.5)
    assert len(table) == 0


def told_of(record: Any) -> Any:
    from syncproto.record import Update

    return Update(Op.SET, record.key, record, record.born, record.revision)


def test_what_is_past_its_owners_word_is_marked_and_short() -> None:
    pair = Pair(timeout=10)
    pair.open()
    pair.fail_over()
    copy = pair.standby.connections.find(key_of())
    assert copy is not None
    at = copy.expires
    before, after = (row(copy, when, Audience()) for when in (at - 0.1, at + 0.3))
    assert (before["past_end_s"], after["past_end_s"], after["ttl_s"]) == (0.0, 0.3, 0)
    assert not pair.standby.connections.is_over(copy, at + GRACE_S - 0.01)
    assert pair.standby.connections.is_over(copy, at + GRACE_S)


def test_an_owners_own_entry_has_no_grace() -> None:
    fw = firewall(tcp_session_timeout=10)
    now = play(fw, HANDSHAKE)
    play(fw, "+ 10\n > A OUT_OF_STATE -", now=now)


def test_packets_that_another_member_saw_put_an_end_off_and_a_late_word_does_not_bring_it_forward() -> None:
    table = ConnectionTable(member=1)
    table.apply(told(ttl=100.0, revision=3), 0.0, origin=2)
    table.apply(told(ttl=20.0, revision=2), 10.0, origin=2)
    assert table.entries[key(1)].expires == 100.0
    table.apply(told(ttl=60.0, revision=4), 20.0, origin=2)
    assert table.entries[key(1)].expires == 80.0, "the owner's word counts"


@pytest.mark.parametrize("session_s", [5.0, 3600.0])
def test_an_end_said_in_the_handshake_is_another_one_in_the_session(session_s: float) -> None:
    """Each direction at another member. A session's timeout may be shorter than the handshake's 25 s, or longer: it
    ends so long after its last packet, wherever the last one was and whoever told whom first."""
    table = firewall().connections
    half = Connection(key(1), ConnectionState.SYN_RECEIVED, 25.0, session_s, 0.0)
    table.add(half, 10.0)
    table.take_updates(10.0)
    table.apply(told(state=ConnectionState.ESTABLISHED, revision=0, ttl=session_s, timeout=session_s), 9.5, origin=2)
    assert (half.state, half.owned, half.expires) == (ConnectionState.ESTABLISHED, True, 10.0 + session_s)
    table.apply(told(state=ConnectionState.SYN_RECEIVED, revision=5, ttl=25.0, timeout=session_s), 11.0, origin=2)
    assert (half.state, half.owned, half.expires) == (ConnectionState.ESTABLISHED, False, 11.0 + session_s)
    table.apply(told(state=ConnectionState.SYN_RECEIVED, revision=6, ttl=24.0, timeout=session_s), 11.1, origin=2)
    assert half.expires == 11.0 + session_s, "a word of before does not bring it forward"


def test_ones_own_connection_told_back_does_not_begin_its_idle_time_anew() -> None:
    """A peer whose copy is sent by a full sync says whose it is."""
    table = ConnectionTable(member=1)
    table.add(connection(timeout=100.0), 0.0)
    [update] = table.take_updates(0.0)
    assert update.record is not None
    back = told(revision=update.record.revision, ttl=50.0, timeout=100.0, flags=1 << 8)
    table.apply(back, 50.0, origin=2)
    assert (table.entries[key(1)].owned, table.entries[key(1)].expires) == (True, 100.0)


def test_after_a_fail_back_peers_hear_of_the_next_packet_at_once() -> None:
    """The former owner has been told by the one in between; what it sees is its own again."""
    pair = Pair(timeout=60)
    pair.open()
    pair.pass_time(3.0, every=0.5)
    pair.fail_over()
    assert answer(pair.standby, tcp("A"), pair.now + 1) == "ACCEPT"
    for update in pair.standby.connections.take_updates(pair.now + 1.1):
        pair.owner.connections.apply(update, pair.now + 1.1, origin=2)
    pair.owner.forwarding, pair.standby.forwarding = True, False
    pair.owner.connections.visit_all()  # as the node does
    assert answer(pair.owner, tcp("A"), pair.now + 2) == "ACCEPT"
    assert [update.op for update in pair.owner.connections.take_updates(pair.now + 2.1)] == [Op.REFRESH]


# -- what it costs -----------------------------------------------------------------------------------------------------


def test_without_room_a_busy_connection_is_told_a_few_times_a_timeout() -> None:
    pair = Pair(timeout=10, room=0)
    pair.open()
    pair.records = 0
    pair.pass_time(60.0, every=0.1)
    assert 6 * REFRESHES_PER_TIMEOUT - 2 <= pair.records <= 6 * REFRESHES_PER_TIMEOUT
    assert pair.shown()[1]["past_end_s"] == 0


def test_with_room_it_is_told_every_few_ticks_and_an_idle_one_once() -> None:
    pair = Pair(timeout=3600)
    pair.open()
    pair.records = 0
    pair.pass_time(60.0, every=0.1)
    assert pair.records <= 60 / SYNC_TICK_S / LAG_TICKS
    pair.pass_time(1.0)
    pair.records = 0
    pair.pass_time(60.0)
    assert pair.records == 0
    pair.pass_time(60.0, every=10.0)
    assert pair.records <= 6 * 2


def test_however_many_are_busy_a_tick_adds_no_more_than_its_room_and_other_news_goes_first() -> None:
    table, now = ConnectionTable(), 0.0
    for number in range(3 * LOOKED_AT_MAX):
        table.add(connection(number), 0.0)
    table.take_updates(now)
    for each in table:
        table.refresh(each, 100.0)
    seen: set[bytes] = set()
    for tick in range(100):
        now = 101.0 + tick / 10
        updates = table.take_updates(now, TOLD_MAX)
        assert len(updates) <= TOLD_MAX
        assert {update.op for update in updates} <= {Op.REFRESH}
        assert not seen & {update.key for update in updates}, "each is told once"
        seen |= {update.key for update in updates}
    assert len(seen) == len(table), "and each has its turn"
    for number in range(TOLD_MAX - 1):
        table.add(connection(10_000 + number, born=now), now)
    for each in table:
        table.refresh(each, 200.0)
    updates = table.take_updates(200.0, TOLD_MAX)
    assert [update.op for update in updates].count(Op.REFRESH) == 1
    assert len(updates) == TOLD_MAX


def test_the_walk_looks_at_so_much_in_a_tick_however_large_the_table() -> None:
    class Watched(Connection):
        __slots__ = ()
        looks = 0

        @property  # type: ignore[override]
        def owned(self) -> bool:
            Watched.looks += 1
            return False

        @owned.setter
        def owned(self, value: bool) -> None:
            pass

    table = ConnectionTable()
    for number in range(5 * LOOKED_AT_MAX):
        table._put(Watched(key(number), 3, 3600.0, 3600.0, 0.0))  # type: ignore[arg-type]
    Watched.looks = 0
    table.take_updates(1.0, TOLD_MAX)
    assert Watched.looks == LOOKED_AT_MAX
    table.take_updates(1.1, 0)
    assert Watched.looks == LOOKED_AT_MAX, "and at nothing where there is no room"


def test_expiry_tells_of_an_end_that_has_moved_before_copies_of_it_are_gone() -> None:
    """A table so large that the walk never came by: the last packet before a refresh was due moved only our end."""
    pair = Pair(timeout=30, room=0)
    pair.open()
    pair.pass_time(9.0, every=9.0)
    pair.pass_time(24.0)
    active, standby = pair.shown()
    assert active["ttl_s"] == pytest.approx(standby["ttl_s"], abs=0.2)
    assert 0 < active["ttl_s"] < 8


@examples(60)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.01, 8.0)), max_size=25), st.sampled_from([3, 10, 40]))
def test_no_copy_ends_later_than_its_owners_entry_nor_much_sooner(
    packets: list[tuple[int, float]], timeout: int
) -> None:
    """UDP exchanges at any times: at every tick both tables say the same, but for a tick or two."""
    pair = Pair(timeout=timeout)
    at = pair.now
    for number, after in packets:
        at += after
        pair.pass_time(at - pair.now)
        assert answer(pair.owner, udp(client_port=41_000 + number), max(at, pair.now)) == "ACCEPT"
        pair.pass_time(TICK_OR_TWO_S)
        copies = {c.key: c for c in pair.standby.connections}
        for mine in pair.owner.connections:
            copy = copies.pop(mine.key)
            assert mine.expires - TICK_OR_TWO_S <= copy.expires <= mine.expires + 1e-6
            assert (copy.timeout, copy.owned) == (mine.timeout, False)
        assert all(pair.now >= copy.expires for copy in copies.values()), "or it is over"


@pytest.mark.parametrize("rate", [60.0, 1800.0])
def test_where_lab_time_runs_fast_a_tick_is_worth_more_of_it(rate: float) -> None:
    """A timeout of 40 s lasts a second of wire time at least, on both."""
    tick_s, floor = SYNC_TICK_S * rate, rate
    owner, copy = (ConnectionTable(floor, max(1.0, floor / 10), tick_s=tick_s) for _ in range(2))
    made = connection(timeout=40.0)
    owner.add(made, 0.0)
    now = 0.0
    for tick in range(40):
        now = tick * tick_s
        if tick < 20:
            owner.refresh(made, now)
        for table in (owner, copy):
            table.expire(now)
        for update in owner.take_updates(now, TOLD_MAX):
            copy.apply(update, now)
        ends = [each.expires for table in (owner, copy) for each in table]
        if len(ends) == 2:
            assert abs(ends[0] - ends[1]) <= LAG_TICKS * tick_s + 1e-6
    assert (len(owner), len(copy)) == (0, 0)


def test_who_forwards_a_connection_says_when_it_ends_where_another_told_of_an_earlier_end() -> None:
    """The peer saw the second FIN, and is configured to keep what is closed for a shorter time."""
    pair = Pair(timeout=3600)
    pair.owner.connections.member = 1
    pair.open()
    play(pair.owner, "> FA ACCEPT FIN_WAIT_INITIATOR", now=pair.now)
    pair.tick()
    known = pair.owner.connections.find(key_of())
    assert known is not None
    closed = replace(known.record(pair.now), state=ConnectionState.CLOSING, ttl_s=5.0, flags=1 << OWNER_SHIFT)
    closing = Update(Op.MODIFY, known.key, closed, closed.born, closed.revision)
    for member in (pair.owner, pair.standby):
        member.connections.apply(closing, pair.now, origin=3)
    pair.pass_time(10.0)
    copy = pair.standby.connections.find(key_of())
    assert known.owned and known.state is ConnectionState.CLOSING and copy is not None
    assert copy.expires == pytest.approx(known.expires)
