"""Announced connections: how long they are there, how many, and how the other member comes to know of them."""

from __future__ import annotations

import msgpack
import pytest
from control_wire import ONLY_CONTROL, FtpControl, control_firewall, datagram, sent
from firewall_wire import CLIENT, POLICY, SERVER, ip
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from scapy.layers.inet import TCP

from fwnode.firewall.announced import EXPECTED_MAX, EXPECTED_PER_CONTROL_MAX, AnnouncedConnections
from fwnode.firewall.announcements import FTP_LIFETIME_S, Announcement
from fwnode.firewall.connection import Connection
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.packet import parse
from fwnode.firewall.table import ConnectionTable
from fwnode.firewall.tcp_states import ConnectionState
from fwnode.policy_file import build_policy
from syncproto.columns import columns_from, pack_columns
from syncproto.record import Op, Record, RecordFlag, Update, pack_update, unpack_update

PARENT = b"\x06" + bytes([192, 0, 2, 100, 198, 51, 100, 100]) + (40001).to_bytes(2) + (21).to_bytes(2)


def port_command(port: int) -> bytes:
    return b"PORT 192,0,2,100,%d,%d\r\n" % (port >> 8, port & 255)


def announcement(port: int) -> Announcement:
    return Announcement(PARENT[:9] + bytes(2) + port.to_bytes(2), "ftp-data", FTP_LIFETIME_S)


def tell(source: Firewall, target: Firewall, now: float = 0.0, schema: int = 2) -> list[str]:
    """One sync tick over the wire; returns what was told."""
    updates = source.connections.take_updates(now)
    for update in updates:
        target.connections.apply(unpack_update(msgpack.unpackb(pack_update(update, schema)), schema), now)
    return [f"{u.op.name} {u.record.service if u.record else '-'}" for u in updates]


def copy_all(source: Firewall, target: Firewall, now: float = 0.0, schema: int = 3) -> None:
    """A full sync over the wire."""
    for columns in source.connections.snapshot(now):
        target.connections.apply_slice(columns_from(msgpack.unpackb(pack_columns(columns, schema)), schema), now)


# -- two members -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("schema", [1, 2, 3])
def test_what_one_member_was_told_can_be_opened_through_the_other(family: int, full: bool, schema: int) -> None:
    one, two = control_firewall(), control_firewall()
    control = FtpControl(one, family)
    control.say(">", b"EPSV\r\n")
    control.say("<", b"229 Extended Passive Mode (|||40001|)\r\n")
    if full:
        copy_all(one, two, schema=schema)
    else:
        assert tell(one, two, schema=schema) == ["SET ftp", "SET ftp-data"]
    control.fw = two
    assert control.open(">", 40001) == "ACCEPT"
    data = [c for c in two.connections if c.parent]
    assert [(c.service, c.rule) for c in data] == [("ftp-data", 1)]
    assert tell(two, one) == ["SET ftp-data", "DELETE -"]
    assert not control.expected()
    control.fw = one
    assert control.open(">", 40001, source_port=30_000) == "POLICY", "it has been used, on the other member"
    assert [c.parent for c in one.connections if c.parent] == [data[0].parent], "the data connection is known here too"


def test_used_or_ended_before_the_tick_nothing_is_told() -> None:
    control = FtpControl(control_firewall())
    control.say(">", port_command(40001))
    control.open("<", 40001)
    assert tell(control.fw, control_firewall()) == ["SET ftp", "SET ftp-data"]


def test_the_second_announcement_of_a_port_counts_anew() -> None:
    one, two = control_firewall(), control_firewall()
    control = FtpControl(one)
    for _ in range(2):
        control.say(">", port_command(40001))
        tell(one, two)
    control.open("<", 40001)
    control.say(">", port_command(40001))
    assert tell(one, two) == ["SET ftp-data", "SET ftp-data"], "the data connection, and what is announced again"
    assert len(two.connections.expected) == 1


def test_after_a_failover_commands_are_understood_on_the_other_member_and_back() -> None:
    one, two = control_firewall(), control_firewall()
    control = FtpControl(one)
    control.say(">", b"PASV\r\n")
    tell(one, two)
    control.fw = two
    assert control.say("<", b"227 Passive (198,51,100,100,156,65)\r\n") == "ACCEPT", "the question went the other way"
    assert control.open(">", 40001) == "ACCEPT"
    assert control.say(">", b"TYPE I\r\n") == control.say("<", b"200 Type is I\r\n") == "ACCEPT"
    tell(two, one)
    control.fw = one
    assert control.say(">", port_command(40_002)) == "ACCEPT"
    assert control.open("<", 40_002) == "ACCEPT"


def test_the_end_of_one_that_peers_know_of_an_earlier_time_is_told() -> None:
    one, two = control_firewall(), control_firewall()
    control = FtpControl(one)
    control.say(">", port_command(40001))
    tell(one, two)
    control.say(">", port_command(40001))
    control.open("<", 40001)
    assert tell(one, two) == ["SET ftp-data", "DELETE -"]
    assert len(two.connections.expected) == 0


def test_one_that_a_peer_has_by_full_sync_ends_there_too() -> None:
    one, two = control_firewall(), control_firewall()
    control = FtpControl(one)
    control.say(">", port_command(40001))
    copy_all(one, two)
    control.open("<", 40001)
    tell(one, two)
    assert len(two.connections.expected) == 0


@pytest.mark.parametrize("how", ["used", "with its parent", "told by the peer"])
def test_what_is_over_is_not_brought_back_by_an_older_word(how: str) -> None:
    table, store = ConnectionTable(), ConnectionTable()
    table.expected.announce(announcement(2000), PARENT, 1, 1.0)
    (told,) = table.take_updates(1.0)
    store.apply(told, 1.0)
    known = store.expected.find(announcement(2000).key, 2.0)
    assert known is not None
    if how == "used":
        store.expected.use(known)
    elif how == "with its parent":
        store.expected.parent_ended(PARENT, tell=True)
    else:
        store.apply(Update(Op.DELETE, known.key, None, known.born, known.revision), 2.0)
    assert not store.apply(told, 2.0)
    assert store.expected.find(announcement(2000).key, 2.0) is None
    store.expected.announce(announcement(2000), PARENT, 1, 0.5)
    assert store.expected.find(announcement(2000).key, 2.0), "announced anew, by a clock that is behind"
    for update in store.take_updates(2.0):
        assert table.apply(update, 2.0)


def test_a_member_whose_clock_is_behind_is_heard() -> None:
    one, two = ConnectionTable(), ConnectionTable()
    one.expected.announce(announcement(2000), PARENT, 1, 9.0)
    for now, source, target in ((9.0, one, two), (4.0, two, one)):
        for update in source.take_updates(now):
            assert target.apply(update, now)
        target.expected.announce(announcement(2000), PARENT, 1, 4.0)
    (known,) = one.expected
    assert known.born >= 9.0


def test_an_older_word_changes_nothing() -> None:
    one, two = control_firewall(), control_firewall()
    control = FtpControl(one, now=1.0)
    control.say(">", port_command(40001))
    first = one.connections.take_updates(1.0)
    control.now = 5.0
    control.say(">", port_command(40001))
    for update in one.connections.take_updates(5.0) + first:
        two.connections.apply(update, 5.0)
    stale = first[-1]
    assert stale.record is not None
    version = stale.record.born, stale.record.revision
    assert not two.connections.apply(Update(Op.DELETE, stale.key, None, *version), 5.0)
    assert len(two.connections.expected) == 1
    assert two.connections.apply(Update(Op.DELETE, stale.key), 5.0), "(0, 0) is whatever is there"


# -- the end ---------------------------------------------------------------------------------------------------------


def test_it_waits_for_its_time_and_no_longer() -> None:
    for late, verdict in ((-0.1, "ACCEPT"), (0.0, "POLICY")):
        control = FtpControl(control_firewall())
        control.say(">", port_command(40001))
        control.now = FTP_LIFETIME_S + late
        assert control.open("<", 40001, source_port=0) == "MALFORMED"
        control.fw.expire(control.now)
        assert len(control.fw.connections.expected) == (1 if late else 0)
        assert control.open("<", 40001) == verdict


def test_it_ends_with_its_control_connection_here_and_there() -> None:
    one, two = control_firewall(), control_firewall()
    control = FtpControl(one)
    control.say(">", port_command(40001))
    control.say(">", port_command(40002))
    control.open("<", 40002)
    tell(one, two)
    assert sent(one, control.segment(">", flags="R")) == "ACCEPT"
    control.now = 21.0
    one.expire(control.now)
    assert control.open("<", 40001) == "POLICY"
    assert sorted(tell(one, two, 21.0)) == ["DELETE -", "DELETE -"]
    for fw in (one, two):
        assert [c.service for c in fw.connections] == ["ftp-data"], "an open data connection goes on"
        assert not list(fw.connections.expected)
    assert tell(two, one, 21.0) == [], "nothing is told back"


def test_the_end_of_a_control_connection_is_enough() -> None:
    one, two = control_firewall(), control_firewall()
    control = FtpControl(one)
    control.say(">", port_command(40001))
    tell(one, two)
    (connection,) = one.connections
    one.connections.remove(connection)
    for update in one.connections.take_updates(0.0):
        if update.key == connection.key:
            two.connections.apply(update, 0.0)
    assert len(two.connections.expected) == 0
    assert two.connections.take_updates(0.0) == []


def test_a_new_control_connection_of_the_same_ends_begins_without() -> None:
    control = FtpControl(control_firewall())
    control.say(">", port_command(40001))
    sent(control.fw, control.segment(">", flags="R"))
    FtpControl(control.fw, now=1.0)
    assert not control.expected()


def test_after_an_install_data_connections_share_the_fate_of_their_control_connection() -> None:
    def control_with_data() -> FtpControl:
        control = FtpControl(control_firewall())
        control.say(">", port_command(40001))
        control.say(">", port_command(40002))
        control.open("<", 40001, source_port=20)
        return control

    def data_answer(control: FtpControl) -> str:
        return sent(control.fw, ip(CLIENT, SERVER) / TCP(sport=40001, dport=20, flags="SA"))

    same, none, kept = (control_with_data() for _ in range(3))
    without = {"rules": ONLY_CONTROL["rules"][1:]}
    same.fw.install(build_policy(POLICY | ONLY_CONTROL, "p"))
    assert data_answer(same) == "ACCEPT"
    assert same.open("<", 40002) == "ACCEPT"
    none.fw.install(build_policy(POLICY | without, "p"))
    assert data_answer(none) == "POLICY"
    assert none.open("<", 40002) == "POLICY"
    assert len(none.fw.connections) == 1, "the control connection has not had a packet yet"
    kept.fw.install(build_policy(POLICY | without | {"on_install": "keep"}, "p"))
    assert data_answer(kept) == "ACCEPT"
    assert kept.open("<", 40002) == "ACCEPT"


# -- caps ------------------------------------------------------------------------------------------------------------


def test_the_oldest_of_a_control_connection_makes_room() -> None:
    control = FtpControl(control_firewall())
    for port in range(40_000, 40_001 + EXPECTED_PER_CONTROL_MAX):
        control.say(">", port_command(port))
    assert len(control.expected()) == EXPECTED_PER_CONTROL_MAX
    assert control.open("<", 40_000) == "POLICY"
    assert control.open("<", 40_001) == "ACCEPT"


@pytest.mark.parametrize("by_peer", [True, False])
def test_the_oldest_of_a_member_makes_room(by_peer: bool) -> None:
    store = AnnouncedConnections()
    for number in range(EXPECTED_MAX + 5):
        found = announcement(1024 + number)
        parent = PARENT[:-4] + number.to_bytes(2) + PARENT[-2:]
        if by_peer:
            record = Record(found.key, 0, 60.0, 60.0, 1, "ftp-data", int(RecordFlag.EXPECTED), 0.0, 1, parent)
            store.apply(Update(Op.SET, found.key, record), 0.0)
        else:
            store.announce(found, parent, 1, 0.0)
    assert (len(store), store.peak) == (EXPECTED_MAX, EXPECTED_MAX)
    assert next(iter(store)).key == announcement(1024 + 5).key
    assert len(store.take_updates(0.0)) == (0 if by_peer else EXPECTED_MAX)


@examples(60)
@given(st.lists(st.tuples(st.sampled_from(["announce", "use", "end", "tick", "lost"]), st.integers(0, 3)), max_size=25))
def test_members_agree_after_any_history_once_all_was_told(history: list[tuple[str, int]]) -> None:
    """`lost` is a member's table that was copied anew by full sync."""
    one, two = ConnectionTable(), ConnectionTable()
    now = 0.0

    def tick() -> None:
        for update in one.take_updates(now):
            two.apply(update, now)

    for what, number in history:
        now += 0.5
        parent = PARENT[:-4] + (number % 2).to_bytes(2) + PARENT[-2:]
        if what == "announce":
            one.expected.announce(announcement(1024 + number), parent, 1, now)
        elif what == "use" and (known := one.expected.find(announcement(1024 + number).key, now)):
            one.expected.use(known)
        elif what == "end":
            one.expected.parent_ended(parent, tell=True)
        elif what == "tick":
            tick()
        elif what == "lost":
            two = ConnectionTable()
            for columns in one.snapshot(now):
                two.apply_slice(columns, now)
    tick()
    here, there = ({e.key: (e.parent, e.revision) for e in table.expected} for table in (one, two))
    assert here == there
    assert two.take_updates(now) == []


def test_a_connection_from_port_0_is_no_announced_one() -> None:
    """Its key looks like one; its end must reach the connection."""
    fw = control_firewall({"rules": [{"action": "accept"}]})
    key = parse(bytes(datagram(">", b"x", 9, 40001))).key  # of a peer that lets such a packet pass
    fw.connections.add(Connection(key[:-4] + bytes(2) + key[-2:], ConnectionState.NONE, 40.0, 40.0, 0.0), 0.0)
    other = control_firewall()
    tell(fw, other)
    other.connections.expected.announce(announcement(53), PARENT, 1, 0.0)
    (connection,) = fw.connections
    fw.connections.remove(connection)
    tell(fw, other)
    assert len(other.connections) == 0 and len(other.connections.expected) == 1
