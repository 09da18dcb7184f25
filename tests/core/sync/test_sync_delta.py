"""Delta sync: gaps, requests, rejects, lost tails, slow and absent peers, pace."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sync_world import World, key_of, record_of
from test_sync_session import NOW, OURS, THEIRS, SessionState, delta, events, hello, in_state, said, say, set_of

from syncproto.engine import SyncEngine
from syncproto.events import RISK_OLD, RISK_RECEIVED_REJECT, RISK_SENT_REJECT, LostUpdates, Risk, Updates
from syncproto.limits import DATAGRAM_MAX, DEFAULT_LIMITS
from syncproto.message import Ack, Delta, Kind, Reject, Retransmit
from syncproto.record import Op, Update


def keys(engine: SyncEngine) -> list[bytes]:
    return [update.key for event in events(engine) if isinstance(event, Updates) for update in event.updates]


def drain(engine: SyncEngine, now: float) -> tuple[list[Delta], float]:
    """All bursts of a member, as the edge would send them."""
    found: list[Delta] = []
    for _ in range(10_000):
        found += [message for message in said(engine, now) if isinstance(message, Delta)]
        if not engine.counters().backlog:
            return found, now
        wake = engine.next_wakeup()
        assert wake is not None
        now = max(wake, now)
    raise AssertionError("the backlog does not shrink")


def test_in_order_however_they_come() -> None:
    engine = in_state(SessionState.OPEN)
    for sequence in (2, 1, 5, 3, 3, 1, 4):
        say(engine, delta(sequence, set_of(sequence)))
    assert keys(engine) == [key_of(n) for n in (1, 2, 3, 4, 5)]
    assert said(engine) == [Ack(THEIRS, 5)], "one ACK a call, cumulative"
    counters = engine.counters()
    assert (counters.duplicates, counters.were_queued, counters.dropped_by_net) == (2, 2, 3)


def test_a_gap_is_asked_for_at_once_in_requests_of_32() -> None:
    engine = in_state(SessionState.OPEN)
    say(engine, delta(41, set_of(41)))
    assert said(engine) == [Ack(THEIRS, 0), Retransmit(THEIRS, 1, 32), Retransmit(THEIRS, 33, 8)]
    assert said(engine, NOW + 0.05) == [], "not again before its time"
    say(engine, delta(44, set_of(44)), now=NOW + 0.05)
    assert said(engine, NOW + 0.05) == [Ack(THEIRS, 0), Retransmit(THEIRS, 42, 2)], "only what is newly missing"
    assert said(engine, NOW + 0.1) == [
        Retransmit(THEIRS, 1, 32), Retransmit(THEIRS, 33, 8), Retransmit(THEIRS, 42, 2),
    ]  # fmt: skip


def test_requests_end_and_the_gap_is_given_up() -> None:
    """A gap that nobody fills does not hold the rest up for ever, and is not asked for for ever."""
    engine = in_state(SessionState.OPEN)
    events(engine)
    say(engine, delta(3, set_of(3)))
    now, requests = NOW, 0
    for _ in range(200):
        requests += sum(isinstance(message, Retransmit) for message in said(engine, now))
        wake = min((w for w in [engine.next_wakeup()] if w is not None), default=now + 1)
        now = max(wake, now + 0.001)
        engine.on_wakeup(now)
        say(engine, delta(3, set_of(3)), now=now)  # it is not silent
    assert requests == DEFAULT_LIMITS.request_tries_max + 2
    got = events(engine)
    assert LostUpdates(2, 2) in got
    assert [event.updates[0].key for event in got if isinstance(event, Updates)] == [key_of(3)]


def test_waiting_ends_when_the_gap_exceeds_the_receiving_queue() -> None:
    engine = in_state(SessionState.OPEN)
    events(engine)
    for sequence in range(2, 258):
        say(engine, delta(sequence, set_of(sequence)))
    assert events(engine) == [], "newest - missing = 256: still waiting"
    say(engine, delta(258, set_of(258)))
    got = events(engine)
    assert got[0] == LostUpdates(2, 1)
    assert len(got) == 258, "what waited behind it is delivered"
    assert engine.counters().lost_updates == 1
    say(engine, delta(1, set_of(1)))
    assert events(engine) == [] and engine.counters().duplicates == 1, "late is late"


def test_a_huge_jump_costs_no_time_and_no_memory() -> None:
    engine = in_state(SessionState.OPEN)
    events(engine)
    say(engine, delta(2**62, set_of(1)))
    assert events(engine) == [LostUpdates(2, 2**62 - 256 - 1)]
    assert engine.counters().receiving_queue == 1
    assert len(said(engine)) == 1 + 8, "an ACK and eight requests"


def test_sender_answers_requests_and_rejects_what_is_gone() -> None:
    engine = in_state(SessionState.OPEN)
    record = record_of(service="x" * 64)
    engine.send_updates([Update(Op.SET, record.key, record)] * 10_000, NOW)
    sent, now = drain(engine, NOW)
    newest = sent[-1].sequence
    assert [item.sequence for item in sent] == list(range(1, newest + 1)) and newest > 600
    oldest = newest - 511
    say(engine, Retransmit(OURS, oldest - 2, 4), now=now)
    say(engine, Retransmit(OURS, oldest - 2, 4), now=now)
    answer = said(engine, now)
    assert [message for message in answer if isinstance(message, Reject)] == [Reject(oldest - 2, 2)]
    repeated = [message.sequence for message in answer if isinstance(message, Delta)]
    assert repeated[:2] == [oldest, oldest + 1] and len(repeated) <= 3, "asked twice, answered once"
    assert Risk(RISK_OLD) in events(engine)
    say(engine, Retransmit(OURS, newest, 2), now=now)
    assert engine.counters().illegal_requests == 1


@pytest.mark.parametrize(("release", "sent", "received"), [
    ("R80.10", RISK_OLD, RISK_OLD),
    ("R80.20", RISK_SENT_REJECT, RISK_RECEIVED_REJECT),
])  # fmt: skip
def test_a_reject_ends_the_waiting_and_says_so(release: str, sent: str, received: str) -> None:
    """The sending queue is too small for the loss: both sides name it, the tables differ, sync goes on."""
    world = World({1: release, 2: release}, limits=replace(DEFAULT_LIMITS, sending_queue=4))
    world.run(1)
    world.filter = lambda sender, receiver, kind: kind is not Kind.DELTA
    for number in range(200):
        world.open(1, key_of(number))
    world.tick(1)
    world.run(0.15)
    world.filter = lambda sender, receiver, kind: True
    assert world.run(20)
    one, two = world.nodes[1], world.nodes[2]
    [lost] = [event for event in two.events if isinstance(event, LostUpdates)]
    assert lost.count == two.engine.counters().lost_updates == one.engine.sequence - 4
    assert one.engine.counters().sent_rejects and two.engine.counters().received_rejects
    assert Risk(sent) in one.events and Risk(received) in two.events
    assert one.engine.unacknowledged() == 0
    assert 0 < len(two.table) < 200
    world.open(1, key_of(999))
    world.tick(1)
    assert world.run(5) and key_of(999) in two.table


def test_rejects_of_what_is_not_missing_are_ignored() -> None:
    engine = in_state(SessionState.OPEN)
    events(engine)
    say(engine, delta(1, set_of(1)))
    say(engine, Reject(1, 32))
    say(engine, Reject(50, 1))
    say(engine, delta(3, set_of(3)))
    say(engine, Reject(3, 32))
    assert keys(engine) == [key_of(1)]
    say(engine, Reject(1, 32))
    assert keys(engine) == [key_of(3)]
    assert engine.counters().lost_updates == 1


def test_a_lost_tail_is_repaired_and_then_it_is_quiet() -> None:
    world = World({1: "R77.30", 2: "R77.30"})
    world.run(1)
    world.filter = lambda sender, receiver, kind: kind is not Kind.DELTA
    for number in range(60):
        world.open(1, key_of(number))
    world.tick(1)
    world.run(2)  # the first repetitions are lost as well
    world.filter = lambda sender, receiver, kind: True
    assert world.run(1.5), "idle"
    assert world.nodes[2].table == world.nodes[1].table
    assert world.nodes[1].engine.status(2) == "OK"
    assert world.nodes[1].engine.counters().sent_probes >= 3


def test_a_lost_ack_is_repaired() -> None:
    world = World({1: "R77.30", 2: "R77.30"})
    world.run(1)
    world.filter = lambda sender, receiver, kind: kind is not Kind.ACK
    world.open(1, key_of(1))
    world.tick(1)
    world.run(0.1)
    assert world.nodes[1].engine.unacknowledged() == 1
    world.filter = lambda sender, receiver, kind: True
    assert world.run(5)
    assert world.nodes[1].engine.unacknowledged() == 0
    assert world.nodes[1].engine.counters().sent_probes >= 1
    assert world.nodes[2].engine.counters().duplicates == 0, "asking how far it is costs no second datagram"


def test_the_slowest_live_peer_is_what_counts() -> None:
    engine = in_state(SessionState.OPEN)
    say(engine, hello(), sender=3)
    for number in range(1, 412):
        engine.send_updates([set_of(number)], NOW + number)
        sent = engine.outgoing(NOW + number)
        messages = [message for _, message in sent if isinstance(message, Delta) and message.sequence == number]
        assert len(messages) == 2 and messages[0] is messages[1], "encoded once for all"
        say(engine, Ack(OURS, number), sender=3, now=NOW + number)
        say(engine, Ack(OURS, 0), now=NOW + number)  # alive, but it acknowledges nothing
    assert engine.unacknowledged() == 411
    say(engine, Ack(OURS, 1), now=NOW + 412)
    assert engine.unacknowledged() == 410
    engine.peer_lost(2, NOW + 412)
    assert engine.unacknowledged() == 0


def test_datagrams_are_full_but_never_too_long() -> None:
    engine = in_state(SessionState.OPEN)
    engine.send_updates([set_of(n) for n in range(1000)], NOW)
    sent, _ = drain(engine, NOW)
    assert len(sent) < 40
    assert max(len(item.body) for item in sent) <= DATAGRAM_MAX - 80
    assert engine.counters().records_sent == {Op.SET: 1000}


def test_bursts_are_paced_and_slow_down_without_acks() -> None:
    engine = in_state(SessionState.OPEN)
    engine.peer_lost(3, NOW)  # it would wake the engine for its HELLO
    engine.send_updates([set_of(n) for n in range(20_000)], NOW)
    pauses = []
    now = NOW
    for _ in range(12):
        assert len([message for message in said(engine, now) if isinstance(message, Delta)]) == 32
        wake = engine.next_wakeup()
        assert wake is not None
        pauses.append(round(wake - now, 3))
        now = wake
    assert pauses[0] == 0.002 and pauses[-1] == 0.05
    assert pauses == sorted(pauses)


def sequences(engine: SyncEngine, now: float) -> list[int]:
    """Numbers of the datagrams that go to peer 2 in the next bursts."""
    found: list[int] = []
    for turn in range(40):
        found += [message.sequence for message in said(engine, now + turn * 0.06) if isinstance(message, Delta)]
    return found


def test_a_peer_with_a_gap_is_not_sent_more_than_it_can_hold_behind_it() -> None:
    """What is new waits, numbered and unacknowledged, until the gap is filled: so the peer never has to give up."""
    engine = in_state(SessionState.OPEN)
    engine.peer_lost(3, NOW)
    engine.send_updates([set_of(n) for n in range(900)], NOW)
    first = sequences(engine, NOW)
    assert len(first) > 20
    say(engine, Retransmit(OURS, 1, 5), now=NOW + 2.4)
    assert sequences(engine, NOW + 2.4)[:5] == [1, 2, 3, 4, 5]
    engine.send_updates([set_of(n) for n in range(12_000)], NOW + 4.8)
    sent = sequences(engine, NOW + 4.8)
    assert max(sent) == 256, "acknowledged 0, and the receiving queue"
    assert engine.unacknowledged() > 300
    say(engine, Ack(OURS, 100), now=NOW + 7.2)
    assert max(sequences(engine, NOW + 7.2)) == 356
    say(engine, Ack(OURS, engine.sequence), now=NOW + 9.6)
    engine.send_updates([set_of(1)], NOW + 9.6)
    assert sequences(engine, NOW + 9.6)[-1] == engine.sequence, "without a gap nothing waits"


def test_an_update_that_no_peer_would_take_is_left_out_and_counted() -> None:
    engine = in_state(SessionState.OPEN)
    bad = record_of(2, service="x" * 65)
    engine.send_updates([set_of(1), Update(Op.SET, bad.key, bad), Update(Op.MODIFY, key_of(3)), set_of(4)], NOW)
    sent, _ = drain(engine, NOW)
    assert len(sent) == 1
    assert engine.counters().oversized_not_sent == 2
    engine.send_updates([Update(Op.SET, bad.key, bad)], NOW + 0.1)
    assert drain(engine, NOW + 0.1)[0] == [], "no number is spent on nothing"
    assert engine.sequence == 1


def test_overload_is_dropped_and_counted() -> None:
    world = World({1: "R77.30", 2: "R77.30"}, limits=replace(DEFAULT_LIMITS, backlog_updates_max=50))
    world.run(1)
    engine = world.nodes[1].engine
    engine.send_updates([set_of(n) for n in range(80)], world.now)
    counters = engine.counters()
    assert (counters.backlog, counters.overload_dropped, counters.max_backlog) == (50, 30, 50)
    engine.reset_counters()
    assert engine.counters().overload_dropped == 0


def test_the_oldest_schema_among_the_peers_is_spoken() -> None:
    world = World({1: "R80.10-CU", 2: "R80.10", 3: "R77.30"})
    world.run(1)
    world.open(1, key_of(1))
    world.tick(1)
    world.run(1)
    assert world.nodes[2].table == world.nodes[3].table == world.nodes[1].table
    assert [n.engine.status(1) for n in (world.nodes[2], world.nodes[3])] == ["OK", "OK"]
    assert world.nodes[2].engine.status(3) == "Off - Release version mismatch"


def test_a_long_cut_is_counted_as_lost_exactly() -> None:
    """The sync cable is out for longer than the queues reach; the peer was never declared lost."""
    world = World({1: "R77.30", 2: "R77.30"})
    world.run(1)
    world.open(1, key_of(0))
    world.tick(1)
    world.run(1)
    before = world.nodes[1].engine.sequence
    world.filter = lambda sender, receiver, kind: False
    for number in range(1, 901):
        world.open(1, key_of(number))
        world.tick(1)
        world.run(0.1)
    world.filter = lambda sender, receiver, kind: True
    assert world.run(30)
    one, two = world.nodes[1].engine, world.nodes[2].engine
    assert one.status(2) == two.status(1) == "OK"
    assert one.sequence - before == 900
    assert two.counters().lost_updates == 901 - len(world.nodes[2].table) == 900 - 512
