"""Full sync: the whole table over one stream. `FullSource` sends it, `FullSink` takes it.

    sink   FULL_REQUEST ->
                        <- FULL_BEGIN (the delta sequence numbers at this moment), FULL_SLICE ..., FULL_END   source
           FULL_DONE    ->                                    or, from either side at any time: FULL_REFUSED

Every update up to FULL_BEGIN's sequence number is in the snapshot, because the snapshot is opened at that very moment;
later changes are in it or not, and come as deltas in any case. So are the updates of others that the source had heard
by then; FULL_BEGIN says how far that was (see `recall`). The sink counts records and a checksum over their
packed bytes, and believes nothing until both agree at the end.

Both are sans-IO: `receive_data(data, now)`, `outgoing(now)` (a bounded chunk; empty = nothing now, call again only
after more data came), `finished` (close the connection; everything has been taken), `failed` (why, or empty),
`connection_lost(reason)`, `next_wakeup()`, `on_wakeup(now)`. Bad input raises nothing in either: the full sync fails
then, and `failed` has the reason. As in `session`, (state, kind) -> handler is a table, and what is not in it ends the
full sync. This module knows nothing of datagrams, gates or the connection table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from itertools import chain
from typing import Any

from syncproto.codec import StreamDecoder, encode_stream
from syncproto.columns import Columns, pack_columns, sound
from syncproto.errors import Reason, SyncError
from syncproto.events import FULL_SYNC_CHECKSUM, FULL_SYNC_FAILURE, TERMINATED, TIMED_OUT, SyncCounters
from syncproto.limits import CHECKSUM_BYTES, FULL_SLICE_RECORDS_MAX, FULL_TOTAL_RECORDS_MAX, REASON_MAX, Limits
from syncproto.message import FullBegin, FullDone, FullEnd, FullRefused, FullRequest, FullSlice, Kind, Message
from syncproto.release import Gate


@dataclass(frozen=True)
class Frames:
    """Who we are on the wire: what every frame of ours starts with, and the key, if there is one."""

    cluster: int
    sender: int
    incarnation: int
    key: bytes | None = None

    def encode(self, message: Message) -> bytes:
        """A message as one frame for the stream. SyncError when a field exceeds what a peer would accept."""
        return encode_stream(
            message, cluster=self.cluster, sender=self.sender, incarnation=self.incarnation, key=self.key
        )

    def decoder(self) -> StreamDecoder:
        """Reads the frames of the other end."""
        return StreamDecoder(cluster=self.cluster, key=self.key)


class SinkState(Enum):
    """How far the joiner is. REQUESTING: asked; RECEIVING: the source has begun."""

    REQUESTING = "requesting"
    RECEIVING = "receiving"
    DONE = "done"
    FAILED = "failed"


class SourceState(Enum):
    """How far the source is. WAITING: nobody has asked yet; SENT: everything was sent, and is not confirmed yet."""

    WAITING = "waiting"
    SENDING = "sending"
    SENT = "sent"
    DONE = "done"
    FAILED = "failed"


def _cut(text: str) -> str:
    """A reason as it may stand in a message."""
    return text.encode(errors="replace")[:REASON_MAX].decode(errors="ignore")


class FullSink:
    """The joiner's end. Records are handed on as they come; whether they were all is known only at the end.

    `next_wakeup()` changes after receive_data, connection_lost, fail and on_wakeup.
    """

    def __init__(
        self,
        *,
        peer: int,
        incarnation: int,
        schema: int,
        request: FullRequest,
        frames: Frames,
        limits: Limits,
        counters: SyncCounters,
        now: float,
        on_begin: Callable[[int], None],
        on_records: Callable[[Columns], None],
        on_end: Callable[[FullSink], None],
        attempt: int = 0,
    ) -> None:
        self.peer = peer
        self.attempt = attempt
        """The owner's number of this full sync."""
        self.state = SinkState.REQUESTING
        self.failed = ""
        self.detail = ""
        self.refused = False
        self.records = 0
        self.expected = 0
        self.sequence = 0
        self.heard: list[list[int]] = []
        """As in `FullBegin`."""
        self.incarnation = incarnation
        self._schema = schema
        self._frames = frames
        self._limits = limits
        self._counters = counters
        self._tell_begin = on_begin
        self._on_records = on_records
        self._on_end = on_end
        self._decoder = frames.decoder()
        self._digest = blake2b(digest_size=CHECKSUM_BYTES)
        self._out = [frames.encode(request)]
        self._last_progress = now
        self._now = self.begun_at = now
        """When the source's FullBegin came: what is left of its connections counts from when it said that, and a slow
        stream brings them much later."""

    @property
    def finished(self) -> bool:
        """It is over, with success or without, and everything was taken from `outgoing`."""
        return self.state in (SinkState.DONE, SinkState.FAILED) and not self._out

    def receive_data(self, data: bytes, now: float) -> None:
        """Bytes from the stream. Past the end, and past a failure, they are ignored."""
        self._now = self._last_progress = now  # on a slow link a frame may take longer than the patience
        if self.state in (SinkState.DONE, SinkState.FAILED):
            return
        try:
            envelopes = self._decoder.feed(data)
        except SyncError as error:
            self._counters.refused[error.reason.value] += 1
            self.fail(FULL_SYNC_FAILURE, detail=str(error))
            return
        for envelope in envelopes:
            if self.state in (SinkState.DONE, SinkState.FAILED):
                return
            if envelope.sender != self.peer or envelope.incarnation != self.incarnation:
                self._counters.refused[Reason.STALE_INCARNATION.value] += 1
                self.fail(TERMINATED, detail="another member, or another start of it, answers")
                return
            self._handle(envelope.message)

    def _handle(self, message: Message) -> None:
        handler = SINK_TABLE.get((self.state, message.kind))
        if handler is None:
            self._counters.refused[Reason.UNEXPECTED.value] += 1
            self.fail(FULL_SYNC_FAILURE, detail=f"{message.kind.name} while {self.state.value}")
        else:
            handler(self, message)

    def _on_begin(self, message: Any) -> None:
        begin: FullBegin = message
        if begin.schema > self._schema:
            self._counters.refused[Reason.UNKNOWN_SCHEMA.value] += 1
            self.fail(FULL_SYNC_FAILURE, detail=f"schema {begin.schema}, but {self._schema} was agreed")
            return
        self.sequence, self.expected, self._schema = begin.sequence, begin.expected, begin.schema
        self.heard = begin.heard
        self.state = SinkState.RECEIVING
        self.begun_at = self._now
        self._tell_begin(self.expected)

    def _on_some(self, message: Any) -> None:
        some: FullSlice = message
        if some.first != self.records or some.schema != self._schema:
            self.fail(FULL_SYNC_CHECKSUM, detail=f"record {some.first} came, {self.records} was next")
            return
        assert some.columns is not None  # the codec has read them
        if self.records + len(some.columns) > FULL_TOTAL_RECORDS_MAX:
            self.fail(FULL_SYNC_FAILURE, detail=f"more than {FULL_TOTAL_RECORDS_MAX} records")
            return
        self._digest.update(some.body)
        self.records += len(some.columns)
        self._counters.full_records_received += len(some.columns)
        self._on_records(some.columns)

    def _on_last(self, message: Any) -> None:
        end: FullEnd = message
        if end.count != self.records:
            self.fail(FULL_SYNC_CHECKSUM, detail=f"{self.records} records came of {end.count}")
        elif end.checksum != self._digest.digest():
            self.fail(FULL_SYNC_CHECKSUM, detail=f"the checksum of {end.count} records differs")
        else:
            self.state = SinkState.DONE
            self._out.append(self._frames.encode(FullDone(self.records)))
            self._on_end(self)

    def _on_refused(self, message: Any) -> None:
        refused: FullRefused = message
        self.refused = self.state is SinkState.REQUESTING
        self._end(refused.reason or FULL_SYNC_FAILURE, "")

    def fail(self, reason: str, *, detail: str = "", refused: bool = False) -> None:
        """Give up, and tell the source why."""
        if self.state not in (SinkState.DONE, SinkState.FAILED):
            self.refused = refused
            self._out = [self._frames.encode(FullRefused(_cut(reason)))] if not refused else []
            self._end(reason, detail)

    def _end(self, reason: str, detail: str) -> None:
        self.failed, self.detail, self.state = reason, detail, SinkState.FAILED
        self._on_end(self)

    def connection_lost(self, reason: str = "") -> None:
        """The stream is gone, or could not be opened. Ignored after the end."""
        if self.state not in (SinkState.DONE, SinkState.FAILED):
            self._out = []
            self._end(reason or TERMINATED, "")
        self._out = []

    def outgoing(self, now: float) -> bytes:
        """What is to be sent now; empty: nothing."""
        self._now = now
        data, self._out = b"".join(self._out), []
        return data

    def next_wakeup(self) -> float | None:
        """When the stream has stalled, if nothing comes until then; None: it is over."""
        if self.state in (SinkState.DONE, SinkState.FAILED):
            return None
        return self._last_progress + self._limits.full_stall_s

    def on_wakeup(self, now: float) -> None:
        """The time is `now`: a stream that has stalled fails."""
        due = self.next_wakeup()
        if due is not None and now >= due:
            self.fail(TIMED_OUT, detail=f"nothing came for {self._limits.full_stall_s:g} s")


class FullSource:
    """The end that has the table. One call of outgoing() makes one frame, from at most a slice of the snapshot.

    The snapshot is opened when the request has been accepted and read as the stream takes it; the table may change
    meanwhile, its iterator must bear that. `next_wakeup()` changes after receive_data, outgoing, connection_lost and
    on_wakeup.
    """

    def __init__(
        self,
        *,
        snapshot: Callable[[int], Iterator[Columns]],
        ended: Callable[[int], Iterator[Columns]],
        count: int,
        sequence: Callable[[], int],
        heard: Callable[[], list[list[int]]],
        admit: Callable[[int, FullRequest], Gate],
        frames: Frames,
        limits: Limits,
        counters: SyncCounters,
        now: float,
    ) -> None:
        self.state = SourceState.WAITING
        self.peer = 0
        self.failed = ""
        self.refused = False
        self.records = 0
        self.expected = count
        self._snapshot = snapshot
        self._ended = ended
        self._sequence = sequence
        self._heard = heard
        self._admit = admit
        self._frames = frames
        self._limits = limits
        self._counters = counters
        self._decoder = frames.decoder()
        self._digest = blake2b(digest_size=CHECKSUM_BYTES)
        self._slices: Iterator[Columns] = iter(())
        self._schema = 0
        self._incarnation = 0
        self._out: list[bytes] = []
        self._last_progress = now

    @property
    def finished(self) -> bool:
        """It is over, with success or without, and everything was taken from `outgoing`."""
        return self.state in (SourceState.DONE, SourceState.FAILED) and not self._out

    def receive_data(self, data: bytes, now: float) -> None:
        """Bytes from the stream. Past the end, and past a failure, they are ignored."""
        if self.state in (SourceState.DONE, SourceState.FAILED):
            return
        try:
            envelopes = self._decoder.feed(data)
        except SyncError as error:
            self._counters.refused[error.reason.value] += 1
            self._fail(str(error))
            return
        for envelope in envelopes:
            if self.state in (SourceState.DONE, SourceState.FAILED):
                return
            if self.peer and (envelope.sender, envelope.incarnation) != (self.peer, self._incarnation):
                self._fail("another member speaks on the same connection")
                return
            handler = SOURCE_TABLE.get((self.state, envelope.message.kind))
            if handler is None:
                self._counters.refused[Reason.UNEXPECTED.value] += 1
                self._fail(f"{envelope.message.kind.name} while {self.state.value}")
                return
            self._last_progress = now
            self.peer, self._incarnation = envelope.sender, envelope.incarnation
            handler(self, envelope.message)

    def _on_request(self, message: Any) -> None:
        gate = self._admit(self.peer, message)
        if not gate.allows_full_sync or gate.schema is None:
            self.refused = True
            self._fail(gate.reason or FULL_SYNC_FAILURE)
            return
        self._schema = gate.schema
        # The numbers and the snapshot belong together: nothing may come between these lines.
        sequence, heard = self._sequence(), self._heard()
        slice_max = min(self._limits.full_slice_records, FULL_SLICE_RECORDS_MAX)
        self._slices = self._snapshot(slice_max)
        if message.ends:
            self._slices = chain(self._slices, self._ended(slice_max))
        self._out.append(self._frames.encode(FullBegin(sequence, self._schema, self.expected, heard)))
        self.state = SourceState.SENDING

    def _on_refused(self, message: Any) -> None:
        refused: FullRefused = message
        self.failed, self.state, self._out = refused.reason or FULL_SYNC_FAILURE, SourceState.FAILED, []

    def _on_done(self, message: Any) -> None:
        self.state = SourceState.DONE

    def _fail(self, reason: str) -> None:
        """Give up, and tell the sink why."""
        self.failed, self.state = reason, SourceState.FAILED
        self._slices = iter(())
        self._out = [self._frames.encode(FullRefused(_cut(reason)))]

    def connection_lost(self, reason: str = "") -> None:
        """The stream is gone. Ignored after the end."""
        if self.state not in (SourceState.DONE, SourceState.FAILED):
            self.failed, self.state = reason or TERMINATED, SourceState.FAILED
        self._slices, self._out = iter(()), []

    def outgoing(self, now: float) -> bytes:
        """One frame of the table, or an answer; empty: nothing now."""
        # A slice of which nothing could be sent leaves nothing to return, and "nothing" would mean "wait".
        while not self._out and self.state is SourceState.SENDING:
            self._next_slice()
        if not self._out:
            return b""
        self._last_progress = now
        data, self._out = b"".join(self._out), []
        return data

    def moved(self, now: float) -> None:
        """Bytes that were given out earlier have reached the sink: the stall timer begins anew."""
        self._last_progress = now

    def _next_slice(self) -> None:
        taken = next(self._slices, None)
        if taken is None:
            self._out.append(self._frames.encode(FullEnd(self.records, self._digest.digest())))
            self.state = SourceState.SENT
            return
        columns = sound(taken)
        self._counters.oversized_not_sent += len(taken) - len(columns)
        if len(columns):
            body = pack_columns(columns, self._schema)
            self._digest.update(body)
            self._out.append(self._frames.encode(FullSlice(self.records, self._schema, body)))
            self.records += len(columns)
            self._counters.full_records_sent += len(columns)

    def next_wakeup(self) -> float | None:
        """When the stream has stalled, if nothing moves until then; None: it is over."""
        if self.state in (SourceState.DONE, SourceState.FAILED):
            return None
        return self._last_progress + self._limits.full_stall_s

    def on_wakeup(self, now: float) -> None:
        """The time is `now`: a stream that has stalled fails."""
        due = self.next_wakeup()
        if due is not None and now >= due:
            self._fail(TIMED_OUT)


SINK_TABLE: dict[tuple[SinkState, Kind], Callable[[FullSink, Any], None]] = {
    (SinkState.REQUESTING, Kind.FULL_BEGIN): FullSink._on_begin,
    (SinkState.REQUESTING, Kind.FULL_REFUSED): FullSink._on_refused,
    (SinkState.RECEIVING, Kind.FULL_SLICE): FullSink._on_some,
    (SinkState.RECEIVING, Kind.FULL_END): FullSink._on_last,
    (SinkState.RECEIVING, Kind.FULL_REFUSED): FullSink._on_refused,
}

SOURCE_TABLE: dict[tuple[SourceState, Kind], Callable[[FullSource, Any], None]] = {
    (SourceState.WAITING, Kind.FULL_REQUEST): FullSource._on_request,
    (SourceState.SENDING, Kind.FULL_REFUSED): FullSource._on_refused,
    (SourceState.SENT, Kind.FULL_REFUSED): FullSource._on_refused,
    (SourceState.SENT, Kind.FULL_DONE): FullSource._on_done,
}
