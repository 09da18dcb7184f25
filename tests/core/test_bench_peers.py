"""What the peers of the benchmark print, and what is made of it."""

from __future__ import annotations

import pytest

from labs.bench import conntrackd, keepalived
from labs.bench.connections import RATES, Side, Trial
from labs.bench.failover import longest_silence
from labs.bench.figures import against, in_turn
from labs.bench.measuring import GROUPS
from labs.bench.sync import p99
from labs.bench.ways import ForwardingWay
from labs.network.errors import LabError

STATISTICS = """
cache internal:
current active connections:\t       60001
connections created:\t\t       60001\tfailed:\t           0

cache external:
current active connections:\t          17
connections created:\t\t           0\tfailed:\t           0
"""
PING = """PING 198.51.100.100 (198.51.100.100) 56(84) bytes of data.
[1700000000.100000] 64 bytes from 198.51.100.100: icmp_seq=1 ttl=63 time=0.1 ms
[1700000000.110000] 64 bytes from 198.51.100.100: icmp_seq=2 ttl=63 time=0.1 ms
[1700000000.200000] From 192.0.2.11 icmp_seq=3 Destination Host Unreachable
[1700000000.610000] 64 bytes from 198.51.100.100: icmp_seq=52 ttl=63 time=0.1 ms
[1700000000.620000] 64 bytes from 198.51.100.100: icmp_seq=53 ttl=63 time=0.1 ms

--- 198.51.100.100 ping statistics ---
"""


def test_both_caches_are_read():
    assert conntrackd.cached(STATISTICS) == (60_001, 17)
    with pytest.raises(LabError, match="cannot be read"):
        conntrackd.cached("conntrackd: no such thing")


def test_the_longest_silence_lies_between_two_answers():
    assert longest_silence(PING) == pytest.approx(0.5)
    with pytest.raises(LabError, match="no answers"):
        longest_silence(PING.splitlines()[0])


def test_peers_that_are_not_installed_are_named_with_their_packages(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda program: None)
    assert conntrackd.missing() == "not installed (package conntrackd, conntrack)"
    assert keepalived.missing() == "not installed (package keepalived)"
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/sbin/{program}")
    monkeypatch.setattr(conntrackd, "is_root", lambda: True)
    assert (conntrackd.missing(), keepalived.missing()) == ("", "")
    monkeypatch.setattr(conntrackd, "is_root", lambda: False)
    assert (conntrackd.missing(), keepalived.missing()) == ("runs for root only", "conntrackd runs for root only")
    row = against("memory_active", [1.0], [], peer_name="it", lacking="runs for root only", unit="byte", better="lower")
    assert (row.peer, row.peer_name) == (None, "it: runs for root only")


def test_every_other_round_begins_with_the_peer():
    member, kernel = ForwardingWay.MEMBER, ForwardingWay.CONNTRACK
    assert [in_turn([member, kernel], number)[0] for number in range(3)] == [member, kernel, member]


def test_each_group_says_how_many_measurements_it_makes():
    assert all(group.steps(2) >= group.steps(1) > 0 for groups in GROUPS.values() for group in groups)


def test_one_in_a_hundred_takes_longer_than_p99():
    assert 99.0 <= p99([float(n) for n in range(1, 101)]) <= 100.0
    with pytest.raises(LabError, match="too few"):
        p99([1.0])


async def _loses_above(rate: float, flows: int, offered: float) -> Trial:
    lost = 3 if offered == 0.0 or offered > rate else 0
    return Trial(offered, lost, 0, 1_000.0)


def best_of(side: Side) -> tuple[Trial, list[str]]:
    import asyncio

    told: list[str] = []
    return asyncio.run(side.best(10, told.append)), told


def test_new_connections_are_offered_more_slowly_until_none_is_lost_and_the_next_round_begins_there():
    side = Side("one", lambda flows, offered: _loses_above(RATES[2], flows, offered))
    first, told = best_of(side)
    assert (first.rate, len(told)) == (RATES[2], 2)
    assert told[0] == "one: offered without a limit: 3 packets lost, 0 missing on the standby"
    assert best_of(side) == (first, [])
    with pytest.raises(LabError, match="lost at every rate"):
        best_of(Side("one", lambda flows, offered: _loses_above(0.0, flows, offered)))
