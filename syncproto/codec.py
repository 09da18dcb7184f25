"""Bytes <-> message. Whatever bytes come in, only SyncError goes out.

A frame is one msgpack array: [protocol version, cluster, sender, incarnation, kind, [fields...]]. The bodies of DELTA
and FULL_SLICE are msgpack arrays of their own, packed once by the sender and carried as a string of bytes, so that
a retransmission or a third peer costs no second packing. On a datagram the frame is the payload; on a stream each
frame has a length in front.

Authentication is off by default, as in the product: anybody on the sync network can forge an update. As an option, a
key gives each frame a keyed-blake2b tag at its end. That stops forgery and alteration, not the replay of a frame
within the life of the two incarnations. This module knows nothing of sessions, sequence or time.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgpack

from syncproto.columns import columns_from
from syncproto.errors import Reason, SyncError
from syncproto.limits import (
    AUTHENTICATION_KEY_MAX,
    AUTHENTICATION_TAG_BYTES,
    CLUSTER_MAX,
    COUNTER_MAX,
    FULL_SLICE_RECORDS_MAX,
    LIST_MAX,
    MEMBER_MAX,
    NESTING_MAX,
    PROTOCOL_VERSION,
    STREAM_FRAME_MAX,
    STREAM_PREFIX_BYTES,
    UPDATES_PER_DATAGRAM_MAX,
)
from syncproto.message import FIELDS, Delta, Fragment, FullSlice, Kind, Message
from syncproto.record import Update, unpack_update

__all__ = ["Envelope", "Reason", "StreamDecoder", "SyncError", "decode", "encode", "encode_stream"]


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message and who sent it. `incarnation` grows from start to start of one member."""

    sender: int
    incarnation: int
    message: Message


_packer = msgpack.Packer(use_bin_type=True)


def encode(message: Message, *, cluster: int, sender: int, incarnation: int, key: bytes | None = None) -> bytes:
    """One frame. SyncError when a field exceeds what a peer would accept."""
    _, specification = FIELDS[message.kind]
    fields = [check.check(name, getattr(message, name)) for name, check in specification]
    if not 0 <= cluster <= CLUSTER_MAX or not 1 <= sender <= MEMBER_MAX or not 1 <= incarnation <= COUNTER_MAX:
        text = f"out of range: cluster {cluster}, sender {sender}, incarnation {incarnation}"
        raise SyncError(Reason.BAD_FIELD, text)
    try:
        frame: bytes = _packer.pack([PROTOCOL_VERSION, cluster, sender, incarnation, int(message.kind), fields])
    except UnicodeEncodeError:
        raise SyncError(Reason.BAD_FIELD, f"{message.kind.name}: a text is not text") from None
    return frame + _tag(frame, key) if key is not None else frame


def decode(data: bytes, *, cluster: int, key: bytes | None = None) -> Envelope:
    """The message in one frame (a datagram's payload). Only SyncError escapes."""
    if len(data) > STREAM_FRAME_MAX:
        raise SyncError(Reason.TOO_LONG, f"frame of {len(data)} bytes, at most {STREAM_FRAME_MAX}")
    if key is not None:
        data = _authenticated(data, key)
    frame = _unpacked(data)
    if type(frame) is not list or len(frame) < 1 or type(frame[0]) is not int:
        raise SyncError(Reason.MALFORMED, "a frame is a list that starts with the protocol's version")
    if frame[0] != PROTOCOL_VERSION:
        raise SyncError(Reason.WRONG_VERSION, f"protocol version {frame[0]}, expected {PROTOCOL_VERSION}")
    if len(frame) != 6:
        raise SyncError(Reason.WRONG_LENGTH, f"frame of {len(frame)} elements, expected 6")
    _, its_cluster, sender, incarnation, kind, fields = frame
    if type(its_cluster) is not int or its_cluster != cluster:
        raise SyncError(Reason.WRONG_CLUSTER, f"cluster {str(its_cluster)[:20]}, expected {cluster}")
    if type(sender) is not int or not 1 <= sender <= MEMBER_MAX:
        raise SyncError(Reason.BAD_FIELD, f"sender: expected a member id from 1 to {MEMBER_MAX}")
    if type(incarnation) is not int or not 1 <= incarnation <= COUNTER_MAX:
        raise SyncError(Reason.BAD_FIELD, f"incarnation: expected 1 to {COUNTER_MAX}")
    if type(kind) is not int:
        raise SyncError(Reason.BAD_FIELD, "kind: expected a number")
    known = _KINDS.get(kind)
    if known is None:
        raise SyncError(Reason.UNKNOWN_KIND, f"kind {kind}")
    return Envelope(sender, incarnation, _message(known, fields))


_KINDS = {int(kind): kind for kind in Kind}


def _message(kind: Kind, fields: Any) -> Message:
    make, specification = FIELDS[kind]
    if type(fields) is not list or len(fields) != len(specification):
        raise SyncError(Reason.WRONG_LENGTH, f"{kind.name}: expected {len(specification)} fields")
    if _too_deep(fields, NESTING_MAX - 1):
        raise SyncError(Reason.TOO_DEEP, f"{kind.name}: nested deeper than {NESTING_MAX} levels")
    values = [check.check(name, value) for (name, check), value in zip(specification, fields, strict=True)]
    if kind is Kind.DELTA:
        sequence, schema, body, age_ms = values
        return Delta(sequence, schema, body, unpack_updates(body, schema), age_ms)
    if kind is Kind.FRAGMENT:
        sequence, schema, body, part, parts, age_ms = values
        if part >= parts:
            raise SyncError(Reason.BAD_FIELD, f"part: expected less than parts ({parts})")
        return Fragment(sequence, schema, body, part, parts, unpack_updates(body, schema), age_ms)
    if kind is Kind.FULL_SLICE:
        first, schema, body = values
        return FullSlice(first, schema, body, columns_from(_unpacked(body), schema))
    message: Message = make(*values)
    return message


def unpack_updates(body: bytes, schema: int) -> tuple[Update, ...]:
    """The updates in a DELTA's body, every one checked."""
    return tuple([unpack_update(item, schema) for item in _items(body, UPDATES_PER_DATAGRAM_MAX)])


def _items(body: bytes, longest: int) -> list[Any]:
    items = _unpacked(body)
    if type(items) is not list:
        raise SyncError(Reason.MALFORMED, "a body is a list")
    if not 1 <= len(items) <= longest:
        raise SyncError(Reason.WRONG_LENGTH, f"body of {len(items)} items, expected 1 to {longest}")
    return items


_ARRAY_MAX = max(UPDATES_PER_DATAGRAM_MAX, FULL_SLICE_RECORDS_MAX, LIST_MAX)


def _unpacked(data: bytes) -> Any:
    """One msgpack object, nothing behind it, no longer than any of ours may be."""
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=STREAM_FRAME_MAX,
            max_bin_len=STREAM_FRAME_MAX,
            max_array_len=_ARRAY_MAX,
            max_map_len=LIST_MAX,
            max_ext_len=0,
        )
    except msgpack.ExtraData:
        raise SyncError(Reason.TRAILING_BYTES, "bytes after the end") from None
    except (msgpack.StackError, RecursionError):
        raise SyncError(Reason.TOO_DEEP, "nested too deep to be read") from None
    except Exception as error:
        # Wide on purpose: which exceptions the library raises differs between its C and Python halves and its
        # versions, and none of them may get past this line.
        if "exceeds max" in str(error):
            raise SyncError(Reason.TOO_LONG, str(error)) from None
        raise SyncError(Reason.MALFORMED, f"not msgpack: {str(error)[:80]}") from None


def _too_deep(fields: list[Any], levels: int) -> bool:
    layer: list[Any] = fields
    for _ in range(levels + 1):
        following: list[Any] = []
        for value in layer:
            if type(value) is list:
                following.extend(value)
            elif type(value) is dict:
                following.extend(value.values())
        if not following:
            return False
        layer = following
    return True


# --- Authentication -------------------------------------------------------------------------------------------------


def _tag(frame: bytes, key: bytes) -> bytes:
    if not 1 <= len(key) <= AUTHENTICATION_KEY_MAX:
        raise SyncError(Reason.BAD_AUTHENTICATION, f"a key has 1 to {AUTHENTICATION_KEY_MAX} bytes, not {len(key)}")
    return blake2b(frame, key=key, digest_size=AUTHENTICATION_TAG_BYTES).digest()


def _authenticated(data: bytes, key: bytes) -> bytes:
    """The frame without its tag, once the tag has been found right."""
    frame, tag = data[:-AUTHENTICATION_TAG_BYTES], data[-AUTHENTICATION_TAG_BYTES:]
    if not hmac.compare_digest(_tag(frame, key), tag):
        raise SyncError(Reason.BAD_AUTHENTICATION, "the tag is missing or not of this key")
    return frame


# --- Stream ---------------------------------------------------------------------------------------------------------


def encode_stream(message: Message, *, cluster: int, sender: int, incarnation: int, key: bytes | None = None) -> bytes:
    """One frame with its length in front, for a stream."""
    frame = encode(message, cluster=cluster, sender=sender, incarnation=incarnation, key=key)
    if len(frame) > STREAM_FRAME_MAX:
        raise SyncError(Reason.TOO_LONG, f"frame of {len(frame)} bytes, at most {STREAM_FRAME_MAX}")
    return len(frame).to_bytes(STREAM_PREFIX_BYTES, "big") + frame


class StreamDecoder:
    """Length-prefixed frames from a stream. After a SyncError the stream is dead: feed() repeats the error."""

    def __init__(self, *, cluster: int, key: bytes | None = None, longest: int = STREAM_FRAME_MAX) -> None:
        self._cluster = cluster
        self._key = key
        self._longest = longest
        self._buffer = bytearray()
        self._error: SyncError | None = None

    @property
    def buffered(self) -> int:
        """Bytes of an incomplete frame: never more than one frame and its prefix."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Envelope]:
        """The envelopes that are complete with `data`."""
        if self._error is not None:
            raise self._error
        try:
            return self._feed(data)
        except SyncError as error:
            self._error = error
            self._buffer.clear()
            raise

    def _feed(self, data: bytes) -> list[Envelope]:
        buffer = self._buffer
        buffer += data
        found: list[Envelope] = []
        position = 0
        while len(buffer) - position >= STREAM_PREFIX_BYTES:
            start = position + STREAM_PREFIX_BYTES
            length = int.from_bytes(buffer[position:start], "big")
            if length > self._longest:
                raise SyncError(Reason.TOO_LONG, f"frame of {length} bytes, at most {self._longest}")
            if length == 0:
                raise SyncError(Reason.WRONG_LENGTH, "frame of 0 bytes")
            if len(buffer) - start < length:
                break
            found.append(decode(bytes(buffer[start : start + length]), cluster=self._cluster, key=self._key))
            position = start + length
        del buffer[:position]
        return found
