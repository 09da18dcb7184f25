"""A network that loses large datagrams, in one direction or both: updates get through in fragments, who is behind
is said to be behind at both ends, and nobody spins."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sync_world import World, key_of, record_of, settle
from test_sync_session import NOW, OURS, events, hello, in_state, said, say, set_of

from syncproto.events import LagChanged, PathChanged, Updates
from syncproto.limits import BEHIND_AFTER_S, FRAGMENT_DATAGRAM_MAX, PATH_TRIAL_S
from syncproto.message import Ack, Delta, Fragment, Kind, Newest, Retransmit
from syncproto.record import Op, Update, join, pack_update, split
from syncproto.session import SessionState

MTU_1280 = 1280 - 28
"""UDP payload that passes an interface with an MTU of 1,280 bytes."""
BLACK_HOLE = 200
"""Heartbeats, requests and acknowledgements pass, and no update of more than two records."""
BEHIND = "Off - Connection to remote member timed-out: updates are not acknowledged"
LACKING = "Off - Connection to remote member timed-out: updates do not arrive"


def pair(**settings: object) -> World:
    world = World({1: "R77.30", 2: "R77.30"}, **settings)  # type: ignore[arg-type]
    world.run(1)
    return world


def open_many(world: World, count: int, member: int = 1) -> None:
    for number in range(count):
        world.open(member, key_of(number))
    world.tick(member)


def told(world: World, member: int, kind: type) -> list[object]:
    return [event for event in world.nodes[member].events if isinstance(event, kind)]


def statuses(world: World) -> tuple[str, str]:
    return world.nodes[1].engine.status(2), world.nodes[2].engine.status(1)


@pytest.mark.parametrize("ways", [[(1, 2)], [(2, 1)], [(1, 2), (2, 1)]], ids=["there", "back", "both"])
@pytest.mark.parametrize("largest", [MTU_1280, 1000, FRAGMENT_DATAGRAM_MAX])
def test_updates_get_through_a_path_that_bears_no_large_datagrams(ways: list[tuple[int, int]], largest: int) -> None:
    world = pair()
    world.largest = dict.fromkeys(ways, largest)
    open_many(world, 300)
    world.run(2)
    assert len(world.nodes[2].table) == 300
    assert statuses(world) == ("OK", "OK"), "it took less than what counts as standing still"
    assert told(world, 1, PathChanged) == ([PathChanged(2, whole=False)] if (1, 2) in ways else [])
    fragments = world.nodes[1].engine.counters().peak_fragments
    assert fragments == (4 if (1, 2) in ways else 1)
    assert world.nodes[2].engine.counters().lost_updates == 0


def test_a_path_of_fragments_costs_no_further_request() -> None:
    world = pair()
    world.largest = {(1, 2): MTU_1280}
    open_many(world, 300)
    world.run(2)
    requests = world.nodes[2].engine.counters().sent_retransmission_requests
    for number in range(300):
        world.change(1, key_of(number))
    world.tick(1)
    world.run(0.2)
    assert world.nodes[2].table == world.nodes[1].table
    assert world.nodes[2].engine.counters().sent_retransmission_requests == requests


def test_whole_datagrams_are_tried_again_now_and_then() -> None:
    world = pair()
    world.largest = {(1, 2): MTU_1280}
    open_many(world, 300)
    for second in range(int(3 * PATH_TRIAL_S)):
        for number in range(40):
            world.change(1, key_of(number))
        world.tick(1)
        world.run(1)
        assert world.nodes[2].table == world.nodes[1].table or second < 2, "a trial in vain costs less than a second"
    assert told(world, 1, PathChanged) == [PathChanged(2, whole=False)]
    world.largest.clear()
    for _ in range(int(4 * PATH_TRIAL_S)):
        for number in range(40):
            world.change(1, key_of(number))
        world.tick(1)
        world.run(1)
    assert told(world, 1, PathChanged) == [PathChanged(2, whole=False), PathChanged(2, whole=True)]


def test_who_gets_nothing_is_behind_at_both_ends_although_it_is_heard() -> None:
    """Small datagrams pass in both directions, so both are heard all the time; no update arrives."""
    world = pair()
    world.largest = {(1, 2): BLACK_HOLE}
    open_many(world, 300)
    began = world.now
    while statuses(world) != (BEHIND, LACKING):
        world.run(0.1)
        assert world.now - began < BEHIND_AFTER_S + 0.5, statuses(world)
    [ours], [theirs] = told(world, 1, LagChanged), told(world, 2, LagChanged)
    assert isinstance(ours, LagChanged) and not ours.receiving and ours.behind and ours.count > 5
    assert isinstance(theirs, LagChanged) and theirs.receiving and theirs.behind and theirs.count == ours.count
    world.run(34)
    assert statuses(world) == (BEHIND, LACKING), "as long as it lasts"
    assert world.nodes[2].table == {}
    world.largest.clear()
    mended = world.now
    while len(world.nodes[2].table) < 300:
        assert statuses(world) == (BEHIND, LACKING), "until it has all of them"
        world.run(0.05)
        assert world.now - mended < 3
    world.run(0.5)
    assert statuses(world) == ("OK", "OK")
    assert [event.behind for event in told(world, 1, LagChanged)] == [True, False]  # type: ignore[attr-defined]
    assert [event.behind for event in told(world, 2, LagChanged)] == [True, False]  # type: ignore[attr-defined]


def test_a_member_that_answers_everything_and_acknowledges_nothing_is_behind() -> None:
    """Whatever other message it sends is no sign that it gets our updates."""
    engine = in_state(SessionState.OPEN)
    engine.send_updates([set_of(1)], NOW)
    now = NOW
    while now < NOW + BEHIND_AFTER_S:
        assert engine.status(2) == "OK"
        said(engine, now)
        say(engine, hello(answer=True), now=now)
        say(engine, Ack(OURS, 0), now=now)
        say(engine, Retransmit(OURS, 1, 1), now=now)
        now += 0.1
    said(engine, now)
    assert engine.status(2) == BEHIND
    assert LagChanged(2, False, True, 1) in events(engine)
    say(engine, Ack(OURS, 1), now=now)
    said(engine, now)
    assert engine.status(2) == "OK"


def test_a_slow_link_that_moves_is_not_behind() -> None:
    """One acknowledgement a second: load, but no standstill."""
    engine = in_state(SessionState.OPEN)
    for number in range(1, 60):
        engine.send_updates([set_of(number)], NOW + number)
        said(engine, NOW + number)
        say(engine, Ack(OURS, number // 2), now=NOW + number)
        assert engine.status(2) == "OK"


def test_a_cut_does_not_make_fragments() -> None:
    """Only a peer whose requests come shows that large datagrams are lost."""
    world = pair()
    world.filter = lambda sender, receiver, kind: False
    open_many(world, 300)
    world.run(4)
    world.filter = lambda sender, receiver, kind: True
    assert world.run(20) and len(world.nodes[2].table) == 300
    assert told(world, 1, PathChanged) == []
    assert world.nodes[1].engine.counters().peak_fragments == 1


# --- Fragments ---


def fragments(sequence: int, numbers: list[int]) -> list[Fragment]:
    parts = [join([pack_update(set_of(number), 2)]) for number in numbers]
    return [
        Fragment(sequence, 2, body, part, len(parts), (set_of(number),))
        for part, (body, number) in enumerate(zip(parts, numbers, strict=True))
    ]


def test_fragments_are_put_together_however_they_come() -> None:
    engine = in_state(SessionState.OPEN)
    events(engine)
    first, second = fragments(1, [1, 2, 3]), fragments(2, [4, 5])
    for fragment in [second[1], first[2], first[0], first[0], second[0]]:
        say(engine, fragment)
        assert events(engine) == []
    say(engine, first[1])
    got = [update.key for event in events(engine) if isinstance(event, Updates) for update in event.updates]
    assert got == [key_of(number) for number in (1, 2, 3, 4, 5)]
    say(engine, first[1])
    assert said(engine)[0] == Ack(2000, 2)
    assert engine.counters().duplicates == 1


def test_fragments_of_two_cuts_are_not_mixed() -> None:
    engine = in_state(SessionState.OPEN)
    events(engine)
    say(engine, fragments(1, [1, 2, 3])[0])
    two = fragments(1, [1, 2])
    say(engine, two[1])
    assert events(engine) == []
    say(engine, two[0])
    assert [len(event.updates) for event in events(engine) if isinstance(event, Updates)] == [2]


def test_fragments_without_end_are_bounded() -> None:
    engine = in_state(SessionState.OPEN)
    for sequence in range(1, 2000):
        say(engine, fragments(sequence, [1, 2])[1])
    [session] = [session for peer, session in engine._sessions.items() if peer == 2]
    assert session.receiver is not None and len(session.receiver._partial) <= 256
    say(engine, Newest(2000))
    assert said(engine)[1:], "and what is missing is asked for"


@given(st.lists(st.integers(0, 50), min_size=1, max_size=128), st.integers(40, 1320))
def test_a_split_body_holds_the_same(numbers: list[int], longest: int) -> None:
    items = [pack_update(Update(Op.SET, key_of(n), record_of(n, service="s" * n)), 2) for n in numbers]
    bodies = split(join(items), longest)
    assert b"".join(body[1 if len(body) and body[0] != 0xDC else 3 :] for body in bodies) == b"".join(items)
    for body in bodies:
        assert len(body) <= longest or body[0] == 0x91, "only a single one may be longer"


# --- Never spin ---


def test_the_last_peer_goes_while_a_backlog_waits() -> None:
    """Its stream closes, so there is no schema to send in: nothing is left to do, nothing to wake up for."""
    engine = in_state(SessionState.OPEN)
    engine.peer_lost(3, NOW)
    engine.send_updates([set_of(number) for number in range(20_000)], NOW)
    said(engine, NOW)
    assert engine.backlog > 0
    say(engine, hello("R80.10", heard=0), incarnation=3000, now=NOW + 0.1)
    assert engine.state(2) is SessionState.CLOSED
    engine.outgoing(NOW + 1)
    assert engine.next_wakeup() is None
    assert engine.backlog == 0


def test_the_last_peer_goes_while_a_backlog_waits_and_comes_back() -> None:
    world = pair(join_from={2: 1})
    for number in range(20_000):
        world.open(1, key_of(number))
    world.tick(1)
    world.kill(2)
    world.releases[2] = "R80.10"
    world.join_from = {}
    world.start(2)
    world.run(60)
    assert world.nodes[1].engine.backlog == 0
    world.kill(2)
    world.releases[2], world.join_from = "R77.30", {2: 1}
    world.start(2)
    settle(world)


def test_a_number_that_does_not_exist_is_not_asked_for_for_ever() -> None:
    engine = in_state(SessionState.OPEN)
    engine.peer_lost(3, NOW)
    say(engine, Newest(2**62))
    assert len(said(engine)) == 1 + 8, "an ACK and eight requests"
    wakes = [NOW]
    for _ in range(2000):
        wake = engine.next_wakeup()
        if wake is None:
            break
        engine.on_wakeup(wake)
        engine.outgoing(wake)
        wakes.append(wake)
    assert engine.next_wakeup() is None and wakes[-1] < NOW + 60
    assert all(later > earlier for earlier, later in pairwise(wakes))
    assert engine.status(2) == "OK", "nothing is known to be missing any more"
    assert engine.counters().lost_updates == 0


def test_the_newest_number_is_told_and_nothing_else_is_sent_to_a_peer_that_has_all() -> None:
    world = pair()
    open_many(world, 10)
    world.run(5)
    assert not [kind for at, _, _, kind in world.sent if at > 101 and kind is Kind.NEWEST]
    assert isinstance(world.nodes[1].engine.counters().sent_probes, int)
    assert world.nodes[1].engine.counters().sent_probes == 0
    assert not any(isinstance(message, Delta) for _, message in world.nodes[1].engine.outgoing(world.now))
