"""Sessions: the table is enforced, the gate opens before anything else, incarnations are told apart."""

from __future__ import annotations

from itertools import pairwise

import pytest
from sync_world import COMPATIBILITY, World, key_of, record_of
from test_sync_codec import MESSAGES

from syncproto.codec import Envelope
from syncproto.engine import SyncEngine
from syncproto.errors import Reason, SyncError
from syncproto.events import GateDecided, PeerRestarted, PeerUnreachable, SyncEvent, Updates
from syncproto.message import Ack, Delta, Hello, Kind, Message, Newest, Retransmit
from syncproto.record import Op, Update, join, pack_update
from syncproto.release import Exchange
from syncproto.session import TABLE, SessionState, describe

NOW = 100.0
OURS, THEIRS = 1000, 2000


def engine_of(release: str = "R77.30", **changes: object) -> SyncEngine:
    settings: dict[str, object] = {
        "member": 1, "incarnation": OURS, "release": release, "compatibility": COMPATIBILITY, "peers": [1, 2, 3],
        "now": NOW, "cluster": 7,
    }  # fmt: skip
    return SyncEngine(**{**settings, **changes})  # type: ignore[arg-type]


def hello(
    release: str = "R77.30", *, heard: int = OURS, start: int = 0, answer: bool = False, decided: int = 2
) -> Hello:
    return Hello(release, COMPATIBILITY.release(release).schema, heard, decided, start, answer)


def say(engine: SyncEngine, message: Message, *, now: float = NOW, sender: int = 2, incarnation: int = THEIRS) -> None:
    engine.receive_message(Envelope(sender, incarnation, message), now)


def said(engine: SyncEngine, now: float = NOW, peer: int = 2) -> list[Message]:
    return [message for to, message in engine.outgoing(now) if to == peer]


def events(engine: SyncEngine) -> list[SyncEvent]:
    found = []
    while (event := engine.next_event()) is not None:
        found.append(event)
    return found


def delta(sequence: int, *updates: Update, schema: int = 2) -> Delta:
    body = join([pack_update(update, schema) for update in updates])
    return Delta(sequence, schema, body, updates)


def set_of(number: int, op: Op = Op.SET) -> Update:
    return Update(op, key_of(number), record_of(number))


def in_state(state: SessionState) -> SyncEngine:
    engine = engine_of()
    if state is SessionState.HEARD:
        say(engine, hello(heard=0))
    elif state is SessionState.OPEN:
        say(engine, hello())
    elif state is SessionState.CLOSED:
        say(engine, hello("R80.10"))
    elif state is SessionState.LOST:
        engine.peer_lost(2, NOW)
    assert engine.state(2) is state
    return engine


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("state", list(SessionState))
def test_what_the_table_does_not_name_is_refused(state: SessionState, kind: Kind) -> None:
    engine = in_state(state)
    message = next(message for message in MESSAGES.values() if message.kind is kind)
    before = sum(engine.counters().refused.values())
    events(engine)
    say(engine, message)
    refused = sum(engine.counters().refused.values()) - before
    if (state, kind) not in TABLE:
        assert refused == 1
        assert events(engine) == []
        assert engine.state(2) is state
    # What the table names is handled, and may still be refused for what it says (a number never sent).


def test_the_table_is_what_is_consulted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry taken out of the table is refused from then on: the table is not decoration."""
    engine = in_state(SessionState.OPEN)
    say(engine, delta(1, set_of(1)))
    monkeypatch.delitem(TABLE, (SessionState.OPEN, Kind.DELTA))
    say(engine, delta(2, set_of(2)))
    assert len([event for event in events(engine) if isinstance(event, Updates)]) == 1
    assert engine.counters().refused[Reason.UNEXPECTED.value] == 1


def test_the_table_can_be_printed() -> None:
    rows = describe()
    assert ("open", "DELTA", "on_delta") in rows
    assert len(rows) == len(TABLE)


# --- Handshake and gate ---


def test_nothing_is_said_before_the_gate_but_hello() -> None:
    engine = engine_of()
    engine.send_updates([set_of(1)], NOW)
    first = said(engine)
    assert first == [Hello("R77.30", 2, 0, -1, 0, True)]
    say(engine, delta(1, set_of(9)))
    say(engine, Ack(OURS, 0))
    assert events(engine) == []
    assert engine.counters().refused == {Reason.GATE_CLOSED.value: 2}
    assert engine.status(2) == "Off - Could not start a connection to remote member"


def test_handshake() -> None:
    engine = engine_of()
    assert said(engine)
    say(engine, hello(heard=0, answer=True))
    assert engine.state(2) is SessionState.HEARD
    assert events(engine) == [], "an open gate is told only when both sides know"
    assert said(engine) == [Hello("R77.30", 2, THEIRS, 2, 0, True)]
    say(engine, hello(start=40))
    assert engine.status(2) == "OK"
    [decided] = events(engine)
    assert isinstance(decided, GateDecided) and decided.gate.exchange is Exchange.FULL
    say(engine, delta(41, set_of(1)))
    assert said(engine) == [Ack(THEIRS, 41)], "the peer's stream begins for us where its HELLO says"


def test_hello_is_repeated_and_grows_lazy() -> None:
    engine = engine_of(peers=[2])
    times = []
    now = NOW
    for _ in range(12):
        engine.on_wakeup(now)
        times += [now] * len(said(engine, now))
        wake = engine.next_wakeup()
        assert wake is not None
        now = wake
    gaps = [round(b - a, 3) for a, b in pairwise(times)]
    assert gaps[:5] == [0.2, 0.4, 0.8, 1.6, 3.2] and gaps[5:] == [5.0] * len(gaps[5:])


def test_mismatch_is_told_with_the_products_words() -> None:
    engine = engine_of()
    say(engine, hello("R80.10", answer=True))
    [decided] = events(engine)
    assert isinstance(decided, GateDecided) and not decided.gate.is_open
    assert engine.status(2) == "Off - Release version mismatch"
    assert [type(message) for message in said(engine)] == [Hello], "the other side must learn it too"
    engine.send_updates([set_of(1)], NOW)
    assert said(engine) == []
    assert engine.unacknowledged() == 0


def test_the_narrower_decision_of_two_tables_counts() -> None:
    engine = engine_of()
    say(engine, hello(decided=int(Exchange.NOTHING)))
    assert engine.status(2) == "Off - Release version mismatch"
    engine = engine_of()
    say(engine, hello(decided=int(Exchange.NEW_CONNECTIONS)))
    gate = engine.gate(2)
    assert gate is not None and gate.exchange is Exchange.NEW_CONNECTIONS


def test_a_release_that_nobody_knows() -> None:
    engine = engine_of()
    say(engine, Hello("R99", 9, 0, -1, 0, True))
    assert engine.status(2) == "Off - Release version mismatch"


def test_own_release_must_be_known() -> None:
    with pytest.raises(SyncError) as caught:
        engine_of("R1")
    assert caught.value.reason is Reason.UNKNOWN_RELEASE


def test_strangers_and_ourselves_are_refused() -> None:
    engine = engine_of()
    say(engine, hello(), sender=9)
    say(engine, hello(), sender=1)
    assert engine.counters().refused == {Reason.UNKNOWN_PEER.value: 2}
    with pytest.raises(SyncError) as caught:
        engine.status(9)
    assert caught.value.reason is Reason.UNKNOWN_PEER


def test_a_record_of_a_newer_schema_than_agreed_is_refused() -> None:
    engine = in_state(SessionState.OPEN)
    say(engine, delta(1, set_of(1), schema=3))
    assert engine.counters().refused == {Reason.UNKNOWN_SCHEMA.value: 1}
    say(engine, delta(1, set_of(1), schema=1))
    assert isinstance(events(engine)[-1], Updates), "an older one is upgraded"


# --- Incarnations, loss, silence ---


def test_restart_of_a_peer_begins_anew() -> None:
    engine = in_state(SessionState.OPEN)
    say(engine, delta(1, set_of(1)))
    events(engine)
    say(engine, hello(heard=0, answer=True), incarnation=THEIRS + 1)
    assert [type(event) for event in events(engine)] == [PeerRestarted]
    say(engine, delta(2, set_of(2)), incarnation=THEIRS + 1)
    say(engine, hello(), incarnation=THEIRS + 1)
    say(engine, delta(1, set_of(3)), incarnation=THEIRS + 1)
    got = events(engine)
    assert [type(event) for event in got] == [GateDecided, Updates]


def test_a_datagram_of_the_past_changes_nothing() -> None:
    engine = in_state(SessionState.OPEN)
    say(engine, hello(heard=0, answer=True), incarnation=THEIRS - 1)
    say(engine, delta(1, set_of(1)), incarnation=THEIRS - 1)
    assert engine.state(2) is SessionState.OPEN
    assert engine.counters().refused == {Reason.STALE_INCARNATION.value: 2}


def test_a_clock_set_back_is_believed_after_silence() -> None:
    engine = in_state(SessionState.OPEN)
    say(engine, hello(), incarnation=THEIRS - 1, now=NOW + 3.5)
    assert PeerRestarted(2, others=(3,)) in events(engine)


def test_an_ack_for_a_stream_of_the_past_says_nothing() -> None:
    engine = in_state(SessionState.OPEN)
    engine.send_updates([set_of(1)], NOW)
    said(engine)
    say(engine, Ack(OURS - 1, 1))
    assert engine.unacknowledged() == 1
    say(engine, Ack(OURS, 2))
    assert engine.unacknowledged() == 1
    say(engine, Ack(OURS, 1))
    assert engine.unacknowledged() == 0
    refused = engine.counters().refused
    assert refused == {Reason.STALE_INCARNATION.value: 1, Reason.ILLEGAL_SEQUENCE.value: 1}


def test_a_lost_peer_holds_nobody_up_and_comes_back() -> None:
    engine = in_state(SessionState.OPEN)
    say(engine, hello(), sender=3)
    engine.send_updates([set_of(1)], NOW)
    engine.outgoing(NOW)
    say(engine, Ack(OURS, 1), sender=3)
    assert engine.unacknowledged() == 1
    engine.peer_lost(2, NOW)
    assert engine.unacknowledged() == 0
    assert engine.status(2) == "Off - Connection to remote member timed-out"
    assert engine.next_wakeup() is None, "a lost peer is left in peace"
    engine.peer_found(2, NOW + 9)
    assert [type(message) for message in said(engine, NOW + 9)] == [Hello]
    events(engine)
    assert engine.gate(2) is None, "open, but of no use until the peer answers"
    say(engine, hello(), now=NOW + 9)
    assert engine.status(2) == "OK"
    assert [type(event) for event in events(engine)] == [GateDecided]
    assert said(engine, NOW + 9) == [Newest(1)], "it hears that it has missed something"
    say(engine, Retransmit(OURS, 1, 1), now=NOW + 9)
    assert [message for message in said(engine, NOW + 9) if isinstance(message, Delta)], "it gets what it missed"


def test_a_peer_that_says_nothing_at_all_is_asked_again() -> None:
    engine = in_state(SessionState.OPEN)
    events(engine)
    engine.send_updates([set_of(1)], NOW)
    now, end = NOW, NOW + 5.0
    while now < end:
        engine.outgoing(now)
        wake = engine.next_wakeup()
        assert wake is not None and wake > now
        now = wake
        engine.on_wakeup(now)
    assert PeerUnreachable(2, "Connection to remote member timed-out") in events(engine)
    assert engine.unacknowledged() == 0
    assert [type(message) for message in said(engine, now)] == [Hello]


def test_a_peer_with_a_closed_gate_that_was_away() -> None:
    engine = in_state(SessionState.CLOSED)
    engine.peer_lost(2, NOW)
    assert engine.status(2) == "Off - Connection to remote member timed-out"
    engine.peer_found(2, NOW + 1)
    say(engine, hello("R80.10"), now=NOW + 1)
    assert engine.status(2) == "Off - Release version mismatch"
    assert len([event for event in events(engine) if isinstance(event, GateDecided)]) == 2


# --- New connections only ---


def test_new_connections_only() -> None:
    engine = engine_of("R77.30-NCP")
    say(engine, hello("R80.10-NCP", decided=1))
    events(engine)
    say(engine, delta(1, set_of(1, Op.MODIFY), set_of(2), set_of(3, Op.REFRESH)))
    say(engine, delta(2, set_of(2, Op.MODIFY), Update(Op.DELETE, key_of(7)), Update(Op.DELETE, key_of(2))))
    say(engine, delta(3, set_of(2, Op.MODIFY)))
    passed = [(u.op, u.key) for event in events(engine) if isinstance(event, Updates) for u in event.updates]
    assert passed == [(Op.SET, key_of(2)), (Op.MODIFY, key_of(2)), (Op.DELETE, key_of(2))]
    assert engine.counters().ignored_not_new == 4
    assert engine.status(2) == "OK"


def test_new_connections_only_keeps_a_bounded_set() -> None:
    world = World({1: "R77.30-NCP", 2: "R80.10-NCP"})
    world.limits = world.limits.__class__(known_keys_max=3)
    world.start(2)
    world.run(1)
    for number in range(5):
        world.open(1, key_of(number))
    world.tick(1)
    for number in range(5):
        world.change(1, key_of(number))
    world.tick(1)
    world.run(1)
    states = [world.nodes[2].table[key_of(number)].state for number in range(5)]
    assert states == [1, 1, 3, 3, 3], "changes to the two oldest keys are ignored"
