"""Full sync: complete, or failed with a reason; deltas meanwhile are kept and come after; the two fail separately."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import blake2b

import pytest
from sync_world import CLUSTER, Node, World, key_of, record_of, snapshot

from syncproto.codec import StreamDecoder, encode_stream
from syncproto.columns import Columns, pack_columns
from syncproto.engine import SyncEngine
from syncproto.events import FullSyncDone, FullSyncFailed, PeerRestarted, SyncEvent, TableSlice, Updates
from syncproto.full import SINK_TABLE, SOURCE_TABLE, FullSink, FullSource, SinkState
from syncproto.limits import DEFAULT_LIMITS, FULL_SLICE_RECORDS, STREAM_FRAME_MAX
from syncproto.message import FullBegin, FullDone, FullEnd, FullRefused, FullRequest, FullSlice, Kind, Message

FAILURE = "Off - Full-sync failure"


def pair(one: str = "R77.30", two: str = "R77.30", **settings: object) -> World:
    world = World({1: one, 2: two}, **settings)  # type: ignore[arg-type]
    world.run(1)
    return world


def begin(world: World, records: int = 1000) -> tuple[Node, FullSink, FullSource]:
    """Member 2 takes the table of member 1, which has so many connections and said nothing of them by delta."""
    one, two = world.nodes[1], world.nodes[2]
    for number in range(records):
        one.table[key_of(number)] = record_of(number)
    sink = two.engine.begin_full_sync(1, world.now)
    source = one.engine.accept_full_sync(partial(snapshot, one.table), len(one.table), world.now)
    two.events.clear()
    return two, sink, source


def collect(node: Node) -> list[SyncEvent]:
    found = []
    while (event := node.engine.next_event()) is not None:
        found.append(event)
    return found


def finish(world: World, sink: FullSink, source: FullSource) -> None:
    for _ in range(1000):
        source.receive_data(sink.outgoing(world.now), world.now)
        sink.receive_data(source.outgoing(world.now), world.now)
        if sink.finished and source.finished:
            return
    raise AssertionError("it never ends")


def speak(message: Message, engine: SyncEngine) -> bytes:
    return encode_stream(message, cluster=CLUSTER, sender=engine.member, incarnation=engine.incarnation)


def read(data: bytes) -> list[Message]:
    return [envelope.message for envelope in StreamDecoder(cluster=CLUSTER).feed(data)]


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 2000])
def test_all_records_arrive(count: int) -> None:
    world = pair()
    two, sink, source = begin(world, count)
    finish(world, sink, source)
    got = collect(two)
    assert got[-1] == FullSyncDone(1, count)
    for event in got[:-1]:
        world.handle(two, event)
    assert two.table == world.nodes[1].table
    assert (sink.failed, source.failed, sink.records, source.records) == ("", "", count, count)
    assert two.engine.status(1) == "OK" and not two.engine.saving


def test_work_and_memory_of_one_call_are_bounded() -> None:
    world = pair()
    _, sink, source = begin(world, 5000)
    taken = 0

    def counting(slice_max: int) -> Iterator[Columns]:
        nonlocal taken
        for columns in snapshot(world.nodes[1].table, slice_max):
            taken += len(columns)
            yield columns

    source._snapshot = counting
    source.receive_data(sink.outgoing(world.now), world.now)
    assert taken == 0, "nothing is read before it can be sent"
    heard = [[2, world.nodes[2].engine.incarnation, 0]]
    assert read(source.outgoing(world.now)) == [FullBegin(0, 2, 5000, heard)]
    for slices in (1, 2, 3):
        chunk = source.outgoing(world.now)
        assert len(chunk) <= STREAM_FRAME_MAX + 4
        assert taken == slices * FULL_SLICE_RECORDS


@pytest.mark.parametrize("schema_pair", [("R75.47", "R75.47"), ("R77.30", "R80.10-CU"), ("R80.10", "R80.10")])
def test_across_schemas(schema_pair: tuple[str, str]) -> None:
    world = pair(*schema_pair)
    two, sink, source = begin(world, 50)
    finish(world, sink, source)
    for event in collect(two):
        world.handle(two, event)
    assert two.table == world.nodes[1].table


def test_deltas_are_saved_and_come_after_the_snapshot() -> None:
    world = pair()
    one = world.nodes[1]
    two, sink, source = begin(world, 600)
    source.receive_data(sink.outgoing(world.now), world.now)
    sink.receive_data(source.outgoing(world.now) + source.outgoing(world.now), world.now)
    world.change(1, key_of(3))  # already sent in the snapshot
    world.change(1, key_of(590))  # not sent yet: the snapshot will have the newer one
    world.close(1, key_of(4))
    world.open(1, key_of(700))
    world.tick(1)
    world.run(1)
    assert two.engine.saving
    assert not any(isinstance(event, Updates) for event in two.events)
    finish(world, sink, source)
    world.run(1)
    world.serve(two)
    kinds = [type(event) for event in two.events if isinstance(event, Updates | TableSlice)]
    assert kinds == [TableSlice] * 5 + [Updates]
    assert two.events[-1] == FullSyncDone(1, 600)
    assert two.table == one.table and key_of(4) not in two.table
    assert two.table[key_of(3)].revision == 2


def test_updates_that_the_snapshot_contains_are_not_applied_again() -> None:
    """Sent before the snapshot was opened, arrived after the joiner began: saved, then left out."""
    world = pair(delay=(0.2, 0.2))
    two = world.nodes[2]
    world.open(1, key_of(1))
    world.tick(1)
    sink = two.engine.begin_full_sync(1, world.now)
    source = world.nodes[1].engine.accept_full_sync(partial(snapshot, world.nodes[1].table), 1, world.now)
    source.receive_data(sink.outgoing(world.now), world.now)
    world.run(1)
    finish(world, sink, source)
    world.serve(two)
    assert two.engine.counters().covered_by_full == 1
    assert [type(event) for event in two.events if isinstance(event, Updates | TableSlice)] == [TableSlice]
    assert two.table == world.nodes[1].table


def test_a_gap_before_the_snapshot_is_closed_by_it() -> None:
    world = pair()
    two = world.nodes[2]
    world.filter = lambda sender, receiver, kind: kind is not Kind.DELTA
    world.open(1, key_of(1))
    world.tick(1)
    world.run(0.05)
    world.filter = lambda sender, receiver, kind: True
    sink = two.engine.begin_full_sync(1, world.now)
    source = world.nodes[1].engine.accept_full_sync(partial(snapshot, world.nodes[1].table), 1, world.now)
    finish(world, sink, source)
    world.serve(two)
    world.run(0.01)
    assert world.nodes[1].engine.unacknowledged() == 0
    assert two.engine.counters().lost_updates == 0
    assert two.table == world.nodes[1].table


def test_full_sync_fails_and_delta_goes_on() -> None:
    """The field report's case: the policy lets no connection to port 256 through."""
    world = pair()
    two, sink, _ = begin(world, 10)
    world.open(1, key_of(100))
    world.tick(1)
    world.run(0.5)
    assert two.table == {}
    sink.connection_lost("Could not start a connection to remote member")
    world.serve(two)
    assert two.events[-1] == FullSyncFailed(1, "Could not start a connection to remote member")
    assert two.engine.status(1) == FAILURE
    assert set(two.table) == {key_of(100)}, "what was saved is released"
    world.open(1, key_of(101))
    world.tick(1)
    world.run(0.5)
    assert set(two.table) == {key_of(100), key_of(101)}, "deltas flow while the status is off"
    assert two.engine.status(1) == FAILURE
    assert sink.finished and sink.outgoing(world.now) == b""
    finish(world, *begin(world, 10)[1:])
    assert two.engine.status(1) == "OK"


def test_one_at_a_time_a_new_one_ends_the_one_that_runs() -> None:
    """Each end carries the number that its owner gave: whoever began the second one knows whose end it hears of."""
    world = pair()
    two, sink, _ = begin(world, 300)
    world.open(1, key_of(900))
    world.tick(1)
    world.run(1)
    second = two.engine.begin_full_sync(1, world.now, attempt=2)
    world.serve(two)
    assert two.events[-1] == FullSyncFailed(1, "another full sync has begun", attempt=0)
    assert set(two.table) == {key_of(900)}, "what was saved for the first is applied, not lost"
    assert two.engine.saving
    source = world.nodes[1].engine.accept_full_sync(partial(snapshot, world.nodes[1].table), 301, world.now)
    sink.connection_lost("late news")
    finish(world, second, source)
    world.serve(two)
    assert two.events[-1] == FullSyncDone(1, 301, attempt=2)
    assert two.table == world.nodes[1].table and not two.engine.saving


def test_a_frame_may_take_longer_than_the_patience_as_long_as_bytes_come() -> None:
    """On a slow link a slice takes a while; only silence is a stall."""
    world = pair()
    _, sink, source = begin(world, FULL_SLICE_RECORDS)
    source.receive_data(sink.outgoing(world.now), world.now)
    data = b"".join(source.outgoing(world.now) for _ in range(3))
    for at in range(0, len(data), 100):
        world.now += 2
        sink.receive_data(data[at : at + 100], world.now)
        sink.on_wakeup(world.now + 9)
    assert sink.state is SinkState.DONE


# --- Refused ---


def test_refused_by_the_joiners_own_gate() -> None:
    world = pair("R77.30-NCP", "R80.10-NCP")
    two, sink, _ = begin(world, 10)
    assert sink.finished and sink.failed == "New connections only" and sink.outgoing(world.now) == b""
    assert collect(two) == [FullSyncFailed(1, "New connections only", refused=True)]
    assert two.engine.status(1) == "OK", "that is how the special patch works"
    world = pair("R77.30", "R80.10")
    two, sink, _ = begin(world, 10)
    assert sink.failed == "Release version mismatch"
    assert two.engine.status(1) == "Off - Release version mismatch"


def test_refused_by_the_source() -> None:
    """A joiner that asks although the gate is closed."""
    world = pair("R77.30", "R80.10")
    one, two = world.nodes[1].engine, world.nodes[2].engine
    source = one.accept_full_sync(partial(snapshot, {}), 0, world.now)
    source.receive_data(speak(FullRequest("R80.10", 3), two), world.now)
    assert read(source.outgoing(world.now)) == [FullRefused("Release version mismatch")]
    assert source.finished and source.refused and source.failed == "Release version mismatch"
    stranger = one.accept_full_sync(partial(snapshot, {}), 0, world.now)
    stranger.receive_data(encode_stream(FullRequest("R77.30", 2), cluster=CLUSTER, sender=9, incarnation=1), world.now)
    assert stranger.failed == "member 9 is not of this cluster"


def test_the_sink_hears_the_refusal() -> None:
    world = pair()
    two, sink, _ = begin(world, 10)
    sink.receive_data(speak(FullRefused("Manually disabled sync"), world.nodes[1].engine), world.now)
    assert collect(two) == [FullSyncFailed(1, "Manually disabled sync", refused=True)]
    assert two.engine.status(1) == FAILURE


# --- Wrong on the wire ---


ONE = pack_columns(Columns.of([record_of(1)]), 2)
"""A slice of one record."""


def wrong_count(engine: SyncEngine) -> list[bytes]:
    checksum = blake2b(ONE, digest_size=16).digest()
    return [speak(FullSlice(0, 2, ONE), engine), speak(FullEnd(2, checksum), engine)]


def wrong_checksum(engine: SyncEngine) -> list[bytes]:
    return [speak(FullSlice(0, 2, ONE), engine), speak(FullEnd(1, bytes(16)), engine)]


def wrong_order(engine: SyncEngine) -> list[bytes]:
    return [speak(FullSlice(5, 2, ONE), engine)]


@pytest.mark.parametrize("wrong", [wrong_count, wrong_checksum, wrong_order])
def test_checksum_error(wrong: object) -> None:
    world = pair()
    two, sink, _ = begin(world, 10)
    engine = world.nodes[1].engine
    sink.outgoing(world.now)
    sink.receive_data(speak(FullBegin(0, 2, 1), engine), world.now)
    for data in wrong(engine):  # type: ignore[operator]
        sink.receive_data(data, world.now)
    assert sink.failed == "Full-sync checksum error" and sink.detail
    assert two.engine.status(1) == "Off - Full-sync checksum error"
    assert read(sink.outgoing(world.now)) == [FullRefused("Full-sync checksum error")]
    assert sink.finished


@pytest.mark.parametrize("messages", [
    [FullSlice(0, 2, ONE)],
    [FullEnd(0, bytes(16))],
    [FullBegin(0, 2, 0), FullBegin(0, 2, 0)],
    [FullBegin(0, 3, 0)],
    [FullDone(1)],
    [FullRequest("R77.30", 2)],
])  # fmt: skip
def test_what_the_sinks_table_does_not_name_ends_it(messages: list[Message]) -> None:
    world = pair()
    two, sink, _ = begin(world, 10)
    sink.outgoing(world.now)
    for message in messages:
        sink.receive_data(speak(message, world.nodes[1].engine), world.now)
    assert sink.state is SinkState.FAILED
    assert two.engine.status(1) == FAILURE
    assert sum(two.engine.counters().refused.values()) == 1


@pytest.mark.parametrize("messages", [
    [FullDone(0)],
    [FullBegin(0, 2, 0)],
    [FullRequest("R77.30", 2), FullRequest("R77.30", 2)],
    [FullRequest("R77.30", 2), FullDone(0)],
])  # fmt: skip
def test_what_the_sources_table_does_not_name_ends_it(messages: list[Message]) -> None:
    world = pair()
    _, _, source = begin(world, 10)
    for message in messages:
        source.receive_data(speak(message, world.nodes[2].engine), world.now)
    assert source.failed
    assert isinstance(read(source.outgoing(world.now))[-1], FullRefused)
    assert source.finished


def test_tables_are_consulted(monkeypatch: pytest.MonkeyPatch) -> None:
    for table, key in ((SINK_TABLE, next(iter(SINK_TABLE))), (SOURCE_TABLE, next(iter(SOURCE_TABLE)))):
        world = pair()
        _, sink, source = begin(world, 10)
        with monkeypatch.context() as patch:
            patch.delitem(table, key)  # type: ignore[arg-type]
            finish(world, sink, source)
        assert sink.failed


def test_garbage_fails_and_raises_nothing() -> None:
    world = pair()
    two, sink, source = begin(world, 10)
    sink.receive_data(b"\xff" * 100, world.now)
    source.receive_data(b"\x00\x00\x00\x05hello", world.now)
    assert "131072" in sink.detail and source.failed
    assert two.engine.counters().refused == {"too long": 1}
    sink.receive_data(b"more", world.now)
    source.receive_data(b"more", world.now)


def test_another_start_of_the_peer_answers() -> None:
    world = pair()
    _, sink, _ = begin(world, 10)
    engine = world.nodes[1].engine
    sink.receive_data(
        encode_stream(FullBegin(0, 2, 0), cluster=CLUSTER, sender=1, incarnation=engine.incarnation + 1), world.now
    )
    assert sink.failed == "Connection terminated by remote member"


# --- Time, restart, caps ---


def test_stall() -> None:
    world = pair()
    two, sink, source = begin(world, 10)
    due = sink.next_wakeup()
    assert due == source.next_wakeup() == world.now + 10
    assert two.engine.next_wakeup() == due, "the engine minds it even if the edge forgets"
    two.engine.on_wakeup(due)
    source.on_wakeup(due)
    assert sink.failed == source.failed == "Connection to remote member timed-out"
    assert not two.engine.saving and two.engine.status(1) == FAILURE
    assert sink.next_wakeup() is source.next_wakeup() is None


def test_a_source_whose_bytes_still_move_does_not_stall() -> None:
    """It has given everything to the kernel, which sends it slowly."""
    world = pair()
    _, sink, source = begin(world, 10)
    source.receive_data(sink.outgoing(world.now), world.now)
    while source.outgoing(world.now):
        pass
    for _ in range(5):
        world.now += 10
        source.moved(world.now)
        source.on_wakeup(world.now)
    assert source.failed == ""
    source.on_wakeup(world.now + 10)
    assert source.failed == "Connection to remote member timed-out"


def test_peer_lost_or_restarted_ends_it() -> None:
    world = pair()
    two, sink, _ = begin(world, 10)
    two.engine.peer_lost(1, world.now)
    assert sink.failed == "Connection to remote member timed-out" and not two.engine.saving
    world = pair()
    two, sink, _ = begin(world, 10)
    world.kill(1)
    world.start(1)
    world.run(1)
    assert sink.failed == "Connection terminated by remote member" and not two.engine.saving
    assert two.engine.status(1) == FAILURE


def test_saved_updates_are_capped() -> None:
    world = pair(limits=replace(DEFAULT_LIMITS, saved_updates_max=100))
    two, sink, _ = begin(world, 0)
    for number in range(150):
        world.open(1, key_of(number))
    world.tick(1)
    world.run(1)
    assert sink.failed == "Full-sync received queue is full"
    assert two.engine.status(1) == "Off - Full-sync received queue is full"
    assert two.table == world.nodes[1].table, "nothing of what was saved is lost"


def test_a_record_that_cannot_travel_is_left_out_and_counted() -> None:
    world = pair()
    two, sink, source = begin(world, 600)
    for number in range(512):
        world.nodes[1].table[key_of(number)] = record_of(number, service="x" * 65)
    finish(world, sink, source)
    assert collect(two)[-1] == FullSyncDone(1, 88)
    assert world.nodes[1].engine.counters().oversized_not_sent == 512


def test_a_table_of_a_slice_comes_as_one_slice() -> None:
    world = pair()
    two, sink, source = begin(world, 3)
    finish(world, sink, source)
    [event] = [event for event in collect(two) if isinstance(event, TableSlice)]
    assert event.peer == 1 and list(event.columns) == list(world.nodes[1].table.values())
    assert source.state.value == "done" and read(b"") == []


def test_saved_updates_of_a_life_that_has_ended_come_before_its_end() -> None:
    """Whose they are is decided by the life in which they were told."""
    world = World(dict.fromkeys((1, 2, 3), "R77.30"))
    world.run(5)
    two, _, _ = begin(world, 10)
    world.open(3, key_of(77))
    world.tick(3)
    world.run(0.1)
    assert two.engine.counters().saved == 1 and not [event for event in two.events if isinstance(event, Updates)]
    world.kill(3)
    world.start(3)
    world.run(0.5)
    about_three = [event for event in two.events if getattr(event, "peer", 0) == 3]
    assert [type(event) for event in about_three[:2]] == [Updates, PeerRestarted]
