"""Bytes: what stands on the wire, and that nothing but SyncError comes of bad ones, each for its own reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sync_world import CLUSTER, key_of, record_of

from syncproto.codec import Envelope, StreamDecoder, decode, encode, encode_stream
from syncproto.columns import Columns, pack_columns
from syncproto.errors import Reason, SyncError
from syncproto.limits import FRAME_OVERHEAD_MAX, STREAM_FRAME_MAX
from syncproto.message import (
    FIELDS,
    Ack,
    Delta,
    Fragment,
    FullBegin,
    FullDone,
    FullEnd,
    FullRefused,
    FullRequest,
    FullSlice,
    Heartbeat,
    Hello,
    Kind,
    Message,
    Newest,
    Reject,
    Retransmit,
)
from syncproto.record import Op, RecordFlag, Update, join, pack_update

WHO: dict[str, Any] = {"cluster": CLUSTER, "sender": 1, "incarnation": 1234}
KEY = b"a key of the two members"


def delta_of(schema: int = 2, sequence: int = 5) -> Delta:
    updates = [
        Update(Op.SET, key_of(1), record_of(1)),
        Update(Op.DELETE, key_of(2), None, 7.5, 3),
        Update(Op.REFRESH, key_of(3), record_of(3, flags=1)),
        Update(Op.SET, key_of(4), record_of(4, flags=RecordFlag.DATA, parent=key_of(3))),
    ]
    return Delta(sequence, schema, join([pack_update(update, schema) for update in updates]))


MESSAGES: dict[str, Message] = {
    "heartbeat": Heartbeat(1, "R77.30", "standard", ["Fullsync"], [2, 3], False, 7, 1000.5, [2], 4, [60.5, 0.25], 9,
                           ["3 lan"]),
    "heartbeat-leaving": Heartbeat(5, "R80.10", "", [], [], True),
    "hello-first": Hello("R77.30", 2, 0, -1, 0, True),
    "hello-answer": Hello("R80.10", 3, 1234, 2, 42, False),
    "delta-schema-1": delta_of(1),
    "delta-schema-2": delta_of(2),
    "delta-schema-3": delta_of(3),
    "ack": Ack(1234, 99),
    "retransmit": Retransmit(1234, 7, 32),
    "reject": Reject(7, 3),
    "full-request": FullRequest("R77.30", 2),
    "full-begin": FullBegin(99, 2, 10_000, [[2, 1235, 7], [3, 1236, 0]]),
    "full-records": FullSlice(512, 2, pack_columns(Columns.of(record_of(n) for n in (1, 2)), 2)),
    "full-end": FullEnd(514, bytes(range(16))),
    "full-refused": FullRefused("Release version mismatch"),
    "full-done": FullDone(514),
    "fragment": Fragment(5, 2, delta_of().body, 1, 3),
    "newest": Newest(99),
}


def as_json(envelope: Envelope) -> dict[str, Any]:
    """A frame as a person reads it. Bodies are shown opened, bytes in hex."""
    message = envelope.message
    fields = {name: getattr(message, name) for name, _ in FIELDS[message.kind][1]}
    return {"sender": envelope.sender, "incarnation": envelope.incarnation, "kind": message.kind.name, **plain(fields)}


def plain(value: Any, name: str = "") -> Any:
    if isinstance(value, bytes):
        return plain(msgpack.unpackb(value)) if name == "body" else value.hex()
    if isinstance(value, dict):
        return {key: plain(entry, key) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


VECTORS = Path(__file__).with_name("vectors") / "frames.txt"


def read_vectors() -> dict[str, tuple[str, dict[str, Any]]]:
    """Blocks of three lines: `# name`, hex, JSON."""
    lines = [line for line in VECTORS.read_text().splitlines() if line and not line.startswith("##")]
    return {lines[n][2:]: (lines[n + 1], json.loads(lines[n + 2])) for n in range(0, len(lines), 3)}


@pytest.mark.parametrize("name", list(MESSAGES))
def test_vector(name: str) -> None:
    """What stands on the wire does not change by accident: hex -> JSON, and message -> hex."""
    wire, meaning = read_vectors()[name]
    assert encode(MESSAGES[name], **WHO).hex() == wire
    envelope = decode(bytes.fromhex(wire), cluster=CLUSTER)
    assert as_json(envelope) == meaning
    assert envelope.message == MESSAGES[name]


def test_every_kind_has_a_vector() -> None:
    assert {message.kind for message in MESSAGES.values()} == set(Kind) == set(FIELDS)
    assert set(read_vectors()) == set(MESSAGES)


def test_updates_come_out_read() -> None:
    message = decode(encode(delta_of(), **WHO), cluster=CLUSTER).message
    assert isinstance(message, Delta)
    assert [update.op for update in message.updates] == [Op.SET, Op.DELETE, Op.REFRESH, Op.SET]
    assert message.updates[0].record == record_of(1)


def test_overhead_leaves_room_for_the_longest_numbers_and_a_tag() -> None:
    most = 2**63 - 1
    delta = Delta(most, 3, delta_of(3).body)
    frame = encode(delta, cluster=0xFFFF, sender=255, incarnation=most, key=KEY)
    assert len(frame) - len(delta.body) <= FRAME_OVERHEAD_MAX


# --- Malformed, each for its own reason ---


def frame(*elements: Any) -> bytes:
    return bytes(msgpack.packb(list(elements)))


def delta_with(body: Any, schema: Any = 2) -> bytes:
    return frame(1, CLUSTER, 1, 1234, 3, [5, schema, body, 0])


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


GOOD = encode(MESSAGES["delta-schema-2"], **WHO)
HEARTBEAT = [1, "R77.30", "standard", [], [2], False, 7, 0.5, [], 0, [], 0, []]

MALFORMED: dict[str, tuple[bytes, Reason]] = {
    "nothing": (b"", Reason.MALFORMED),
    "cut off": (GOOD[:-1], Reason.MALFORMED),
    "not a list": (msgpack.packb({"a": 1}), Reason.MALFORMED),
    "empty list": (frame(), Reason.MALFORMED),
    "reserved byte": (b"\xc1", Reason.MALFORMED),
    "bad utf-8": (b"\x96\x01\x07\x01\x01\x0b\x91\xa2\xff\xfe", Reason.MALFORMED),
    "map with a list as key": (b"\x81\x90\x01", Reason.MALFORMED),
    "trailing bytes": (GOOD + b"\x00", Reason.TRAILING_BYTES),
    "another version": (frame(2, CLUSTER, 1, 1, 4, [1, 1]), Reason.WRONG_VERSION),
    "another cluster": (frame(1, CLUSTER + 1, 1, 1, 4, [1, 1]), Reason.WRONG_CLUSTER),
    "a cluster that is true": (frame(1, True, 1, 1, 4, [1, 1]), Reason.WRONG_CLUSTER),
    "five elements": (frame(1, CLUSTER, 1, 1, 4), Reason.WRONG_LENGTH),
    "sender 0": (frame(1, CLUSTER, 0, 1, 4, [1, 1]), Reason.BAD_FIELD),
    "incarnation 0": (frame(1, CLUSTER, 1, 0, 4, [1, 1]), Reason.BAD_FIELD),
    "kind 99": (frame(1, CLUSTER, 1, 1, 99, [1, 1]), Reason.UNKNOWN_KIND),
    "kind 0": (frame(1, CLUSTER, 1, 1, 0, []), Reason.UNKNOWN_KIND),
    "too few fields": (frame(1, CLUSTER, 1, 1, 4, [1]), Reason.WRONG_LENGTH),
    "too many fields": (frame(1, CLUSTER, 1, 1, 4, [1, 1, 1]), Reason.WRONG_LENGTH),
    "fields that are none": (frame(1, CLUSTER, 1, 1, 4, 7), Reason.WRONG_LENGTH),
    "ack of true": (frame(1, CLUSTER, 1, 1, 4, [1, True]), Reason.BAD_FIELD),
    "ack below zero": (frame(1, CLUSTER, 1, 1, 4, [1, -1]), Reason.BAD_FIELD),
    "ack beyond 63 bits": (frame(1, CLUSTER, 1, 1, 4, [1, 2**64 - 1]), Reason.BAD_FIELD),
    "request of 33": (frame(1, CLUSTER, 1, 1, 5, [1, 1, 33]), Reason.BAD_FIELD),
    "request of 0": (frame(1, CLUSTER, 1, 1, 5, [1, 1, 0]), Reason.BAD_FIELD),
    "long name": (frame(1, CLUSTER, 1, 1, 2, ["R" * 129, 2, 0, -1, 0, True, 0.0]), Reason.BAD_FIELD),
    "not a number": (frame(1, CLUSTER, 1, 1, 1, [*HEARTBEAT[:7], float("nan"), *HEARTBEAT[8:]]), Reason.BAD_FIELD),
    "member 0 seen": (frame(1, CLUSTER, 1, 1, 1, [*HEARTBEAT[:4], [0], *HEARTBEAT[5:]]), Reason.BAD_FIELD),
    "neither leaving nor staying": (frame(1, CLUSTER, 1, 1, 1, [*HEARTBEAT[:5], 1, *HEARTBEAT[6:]]), Reason.BAD_FIELD),
    "65 problems": (frame(1, CLUSTER, 1, 1, 1, [*HEARTBEAT[:3], ["x"] * 65, *HEARTBEAT[4:]]), Reason.BAD_FIELD),
    "a list of 10,000": (frame(1, CLUSTER, 1, 1, 1, [*HEARTBEAT[:3], ["x"] * 10_000, *HEARTBEAT[4:]]), Reason.TOO_LONG),
    "deep nesting": (frame(1, CLUSTER, 1, 1, 1, [*HEARTBEAT[:3], nested(4), *HEARTBEAT[4:]]), Reason.TOO_DEEP),
    "very deep nesting": (frame(1, CLUSTER, 1, 1, 1, [b""])[:-2] + b"\x91" * 5000 + b"\x01", Reason.TOO_DEEP),
    "an extension": (frame(1, CLUSTER, 1, 1, 4, [1, msgpack.ExtType(5, b"abc")]), Reason.TOO_LONG),
    "a timestamp": (frame(1, CLUSTER, 1, 1, 4, [1, msgpack.Timestamp(1)]), Reason.TOO_LONG),
    "schema 9": (delta_with(delta_of().body, 9), Reason.UNKNOWN_SCHEMA),
    "schema 0": (delta_with(delta_of().body, 0), Reason.UNKNOWN_SCHEMA),
    "record of another schema": (delta_with(delta_of(3).body, 2), Reason.BAD_RECORD),
    "unknown operation": (delta_with(msgpack.packb([[9, []]])), Reason.BAD_RECORD),
    "body that is a number": (delta_with(msgpack.packb(7)), Reason.MALFORMED),
    "body without updates": (delta_with(msgpack.packb([])), Reason.WRONG_LENGTH),
    "body of 129 updates": (delta_with(msgpack.packb([1] * 129)), Reason.WRONG_LENGTH),
    "body with something behind it": (delta_with(delta_of().body + b"\x00"), Reason.TRAILING_BYTES),
    "body nested deep": (delta_with(msgpack.packb(nested(500))), Reason.BAD_RECORD),
    "part 3 of 3": (frame(1, CLUSTER, 1, 1234, 14, [5, 2, delta_of().body, 3, 3, 0]), Reason.BAD_FIELD),
    "part 0 of 1": (frame(1, CLUSTER, 1, 1234, 14, [5, 2, delta_of().body, 0, 1, 0]), Reason.BAD_FIELD),
    "body of text": (delta_with("abc"), Reason.BAD_FIELD),
    "body over the cap": (delta_with(bytes(1400)), Reason.BAD_FIELD),
    "oversize": (bytes(STREAM_FRAME_MAX + 1), Reason.TOO_LONG),
}


@pytest.mark.parametrize("case", list(MALFORMED))
def test_malformed_names_its_reason(case: str) -> None:
    data, reason = MALFORMED[case]
    with pytest.raises(SyncError) as caught:
        decode(data, cluster=CLUSTER)
    assert caught.value.reason is reason, str(caught.value)


@pytest.mark.parametrize(
    "message", [Ack(1, -1), Ack(1, 2**63), FullRefused("x" * 257), Hello("\ud800", 1, 0, 0, 0, True)]
)
def test_what_a_peer_would_refuse_is_not_encoded(message: Message) -> None:
    with pytest.raises(SyncError) as caught:
        encode(message, **WHO)
    assert caught.value.reason is Reason.BAD_FIELD


# --- Authentication ---


def test_tag_is_checked() -> None:
    tagged = encode(MESSAGES["ack"], **WHO, key=KEY)
    assert decode(tagged, cluster=CLUSTER, key=KEY).message == MESSAGES["ack"]
    for data, key in [
        (tagged, b"another key"),
        (encode(MESSAGES["ack"], **WHO), KEY),
        (tagged[:-1], KEY),
        (b"", KEY),
        (b"short", KEY),
        (bytes([tagged[0] ^ 1]) + tagged[1:], KEY),
    ]:
        with pytest.raises(SyncError) as caught:
            decode(data, cluster=CLUSTER, key=key)
        assert caught.value.reason is Reason.BAD_AUTHENTICATION


def test_a_member_without_key_refuses_tagged_frames() -> None:
    with pytest.raises(SyncError) as caught:
        decode(encode(MESSAGES["ack"], **WHO, key=KEY), cluster=CLUSTER)
    assert caught.value.reason is Reason.TRAILING_BYTES


@pytest.mark.parametrize("key", [b"", bytes(65)])
def test_bad_keys(key: bytes) -> None:
    with pytest.raises(SyncError) as caught:
        encode(MESSAGES["ack"], **WHO, key=key)
    assert caught.value.reason is Reason.BAD_AUTHENTICATION


# --- Streams ---


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_stream_in_pieces(size: int) -> None:
    data = b"".join(encode_stream(message, **WHO) for message in MESSAGES.values())
    decoder = StreamDecoder(cluster=CLUSTER)
    found = [envelope for n in range(0, len(data), size) for envelope in decoder.feed(data[n : n + size])]
    assert [envelope.message for envelope in found] == list(MESSAGES.values())
    assert decoder.buffered == 0


def test_stream_length_is_capped_before_buffering() -> None:
    decoder = StreamDecoder(cluster=CLUSTER)
    with pytest.raises(SyncError) as caught:
        decoder.feed((STREAM_FRAME_MAX + 1).to_bytes(4, "big") + bytes(10))
    assert caught.value.reason is Reason.TOO_LONG
    assert decoder.buffered == 0
    with pytest.raises(SyncError):
        decoder.feed(b"")


@given(st.binary(max_size=300))
def test_arbitrary_bytes(data: bytes) -> None:
    decoder = StreamDecoder(cluster=CLUSTER, longest=64)
    for call in (
        lambda: decode(data, cluster=CLUSTER),
        lambda: decode(data, cluster=CLUSTER, key=KEY),
        lambda: decoder.feed(data),
        lambda: decode(delta_with(data), cluster=CLUSTER),
    ):
        try:
            call()
        except SyncError as error:
            assert isinstance(error.reason, Reason)
    assert decoder.buffered <= 64 + 4


wild = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.integers(0, max(Kind) + 1), st.lists(wild, max_size=9), wild)
def test_arbitrary_fields_in_a_good_frame(kind: int, fields: list[Any], body: Any) -> None:
    for data in (frame(1, CLUSTER, 1, 1, kind, fields), delta_with(msgpack.packb([[1, body], body]), 3)):
        try:
            envelope = decode(data, cluster=CLUSTER)
        except SyncError:
            continue
        assert decode(encode(envelope.message, **WHO), cluster=CLUSTER).message == envelope.message


bytes_changed = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4)


@given(st.sampled_from(list(MESSAGES)), bytes_changed, st.data())
def test_mutated_frames(name: str, changes: list[tuple[int, int]], data: st.DataObject) -> None:
    wire = bytearray(encode_stream(MESSAGES[name], **WHO))
    for position, value in changes:
        wire[position % len(wire)] = value
    cut = data.draw(st.integers(0, len(wire)))
    for call in (
        lambda: decode(bytes(wire[4:]), cluster=CLUSTER),
        lambda: decode(bytes(wire[4:cut]), cluster=CLUSTER),
        lambda: StreamDecoder(cluster=CLUSTER).feed(bytes(wire) + bytes(wire[:cut])),
    ):
        try:
            call()
        except SyncError as error:
            assert isinstance(error.reason, Reason)


def write_vectors() -> None:
    """Rewrite the vectors, after a change of the wire that is meant: python test_sync_codec.py"""
    blocks = [
        "## Frames of cluster 7, member 1, incarnation 1234: name, what stands on the wire, what it means.\n"
        "## Bodies are shown opened. Rewritten by: python tests/core/sync/test_sync_codec.py\n"
    ]
    for name, message in MESSAGES.items():
        wire = encode(message, **WHO)
        meaning = json.dumps(as_json(decode(wire, cluster=CLUSTER)))
        blocks.append(f"# {name}\n{wire.hex()}\n{meaning}\n")
    VECTORS.write_text("\n".join(blocks))


if __name__ == "__main__":
    write_vectors()
