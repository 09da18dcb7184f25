"""The kinds of message and their fields, as a table.

Kind numbers are append-only: a number is never given to another kind. `FIELDS` says what each kind carries, in wire
order, and what is legal; the codec checks with it and the documentation's message table is generated from it. A new
field goes to the end. This module knows nothing of bytes, sessions or time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Protocol

from syncproto.columns import Columns
from syncproto.errors import Reason, SyncError
from syncproto.limits import (
    AGE_MAX_MS,
    CHECKSUM_BYTES,
    COUNTER_MAX,
    DELTA_BODY_MAX,
    LIST_MAX,
    MEMBER_MAX,
    NAME_MAX,
    REASON_MAX,
    RETRANSMIT_RANGE_MAX,
    SCHEMAS,
    STREAM_FRAME_MAX,
    TIME_MAX_S,
    UPDATES_PER_DATAGRAM_MAX,
)
from syncproto.record import Update


class Kind(IntEnum):
    HEARTBEAT = 1
    HELLO = 2
    DELTA = 3
    ACK = 4
    RETRANSMIT = 5
    REJECT = 6
    FULL_REQUEST = 7
    FULL_BEGIN = 8
    # 9 was a slice of the table record by record.
    FULL_END = 10
    FULL_REFUSED = 11
    FULL_DONE = 12
    FULL_SLICE = 13
    FRAGMENT = 14
    NEWEST = 15


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """I am here, this is my state. Read by the cluster, not by the sync engine."""

    kind: ClassVar[Kind] = Kind.HEARTBEAT
    state: int
    release: str
    policy: str
    problems: list[str]
    sees: list[int]
    leaving: bool = False
    number: int = 0
    """Grows with every heartbeat of an incarnation: a late one on a slow network must not undo a newer one."""
    cluster_time: float = 0.0
    """The sender's (`syncproto.cluster_time`)."""
    hears_on_sync: list[int] = field(default_factory=list)
    """Peers of which anything was heard on the sync network lately."""
    failovers: int = 0
    """Failovers of the cluster, as far as the sender knows."""
    active: list[float] = field(default_factory=list)
    """Seconds since the sender began to forward, the last time; and since it ended, if it has."""
    accepted: int = 0
    """Connections that the sender has accepted in this life."""
    unheard: list[str] = field(default_factory=list)
    """Where the sender does not hear a peer that is there: its number, a space, the name of the users' network."""


@dataclass(frozen=True, slots=True)
class Hello:
    """My release, and what I know of you. Before the gate has opened, nothing else is said."""

    kind: ClassVar[Kind] = Kind.HELLO
    release: str
    schema: int
    """Newest record schema the sender reads."""
    heard: int
    """The receiver's incarnation that the sender has heard; 0 = none yet."""
    decided: int
    """The sender's decision, a number of `Exchange`; -1 = it has not heard the receiver."""
    start: int
    """Sequence number after which the sender's updates are for the receiver; counts once `heard` is right."""
    answer: bool
    """The sender waits for a HELLO in return."""
    age_s: float = 0.0
    """How long the sender's present life has lasted, seconds."""


@dataclass(frozen=True, slots=True)
class Delta:
    """Numbered updates, packed in the schema named. `updates` is the body read; a sender leaves it empty."""

    kind: ClassVar[Kind] = Kind.DELTA
    sequence: int
    schema: int
    body: bytes
    updates: tuple[Update, ...] = field(default=(), compare=False, repr=False)
    age_ms: int = 0
    """Since when its records say so, milliseconds: what is left of a connection is so much less by now."""
    at: float = field(default=0.0, compare=False, repr=False)
    """The same as a time of whoever holds it, seconds; not sent."""


@dataclass(frozen=True, slots=True)
class Ack:
    """I have everything up to `sequence` of your stream."""

    kind: ClassVar[Kind] = Kind.ACK
    stream: int
    """Incarnation of the member whose updates are meant: an ACK for a stream of the past says nothing."""
    sequence: int


@dataclass(frozen=True, slots=True)
class Retransmit:
    """I miss `count` consecutive updates of your stream from `first` on."""

    kind: ClassVar[Kind] = Kind.RETRANSMIT
    stream: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Reject:
    """What you ask for is no longer in my sending queue: these updates are lost to you."""

    kind: ClassVar[Kind] = Kind.REJECT
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class FullRequest:
    """Send me the whole table."""

    kind: ClassVar[Kind] = Kind.FULL_REQUEST
    release: str
    schema: int
    ends: bool = False
    """And what you remember to be over: updates of yours were lost, ends among them."""


@dataclass(frozen=True, slots=True)
class FullBegin:
    """Here it comes. Every update up to `sequence` is in it; `expected` is an estimate."""

    kind: ClassVar[Kind] = Kind.FULL_BEGIN
    sequence: int
    schema: int
    expected: int
    heard: list[list[int]] = field(default_factory=list)
    """How far the table holds what other members told: each one's number, its incarnation, a sequence number of its."""


@dataclass(frozen=True, slots=True)
class FullSlice:
    """Records number `first`, `first` + 1, ... of the table, field by field.

    `columns` is the body read; a sender leaves it empty.
    """

    kind: ClassVar[Kind] = Kind.FULL_SLICE
    first: int
    schema: int
    body: bytes
    columns: Columns | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FullEnd:
    """That was all: so many records, with this checksum."""

    kind: ClassVar[Kind] = Kind.FULL_END
    count: int
    checksum: bytes


@dataclass(frozen=True, slots=True)
class FullRefused:
    """I do not send it (or: I do not take it), for this reason."""

    kind: ClassVar[Kind] = Kind.FULL_REFUSED
    reason: str


@dataclass(frozen=True, slots=True)
class FullDone:
    """I have it all: so many records."""

    kind: ClassVar[Kind] = Kind.FULL_DONE
    count: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """Some of the updates of a DELTA that is too large for the path: number `part` (from 0) of `parts`."""

    kind: ClassVar[Kind] = Kind.FRAGMENT
    sequence: int
    schema: int
    body: bytes
    part: int
    parts: int
    updates: tuple[Update, ...] = field(default=(), compare=False, repr=False)
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class Newest:
    """My stream has got as far as `sequence`. Said to a peer that is behind, so that it asks for what it lacks."""

    kind: ClassVar[Kind] = Kind.NEWEST
    sequence: int


Message = (
    Heartbeat | Hello | Delta | Ack | Retransmit | Reject
    | FullRequest | FullBegin | FullSlice | FullEnd | FullRefused | FullDone | Fragment | Newest
)  # fmt: skip


class FieldCheck(Protocol):
    """What a field may hold. `check` returns the value to use, or raises SyncError."""

    def check(self, name: str, value: Any) -> Any: ...


def _refuse(name: str, expected: str) -> SyncError:
    return SyncError(Reason.BAD_FIELD, f"{name}: expected {expected}")


@dataclass(frozen=True)
class Whole:
    """A whole number in a range."""

    lowest: int
    highest: int

    def check(self, name: str, value: Any) -> int:
        # `type() is`: True is no number on this wire. An IntEnum of our own side is one.
        if (type(value) is not int and not isinstance(value, IntEnum)) or not self.lowest <= value <= self.highest:
            raise _refuse(name, str(self))
        return int(value)

    def __str__(self) -> str:
        return f"a whole number from {self.lowest} to {self.highest}"


@dataclass(frozen=True)
class Real:
    """A finite number of seconds."""

    def check(self, name: str, value: Any) -> float:
        if type(value) not in (float, int) or not -TIME_MAX_S < value < TIME_MAX_S:
            raise _refuse(name, str(self))
        return float(value)

    def __str__(self) -> str:
        return "a finite number"


@dataclass(frozen=True)
class YesNo:
    """A truth value; 0 and 1 are none."""

    def check(self, name: str, value: Any) -> bool:
        if type(value) is not bool:
            raise _refuse(name, str(self))
        return value

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class BoundedText:
    """Text of so many UTF-8 bytes at most."""

    longest: int = NAME_MAX

    def check(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or len(value.encode(errors="replace")) > self.longest:
            raise _refuse(name, str(self))
        return value

    def __str__(self) -> str:
        return f"text of up to {self.longest} bytes"


def clipped(text: str) -> str:
    """As much of it as a message carries, where it is only for people to read."""
    return text.encode(errors="replace")[:NAME_MAX].decode(errors="ignore")


@dataclass(frozen=True)
class Bytes:
    """A string of bytes of a length."""

    shortest: int
    longest: int

    def check(self, name: str, value: Any) -> bytes:
        if type(value) is not bytes or not self.shortest <= len(value) <= self.longest:
            raise _refuse(name, str(self))
        return value

    def __str__(self) -> str:
        return f"{self.shortest} to {self.longest} bytes"


@dataclass(frozen=True)
class ListOf:
    """A list, or a tuple, of so many entries at most, all of one kind."""

    item: FieldCheck
    longest: int = LIST_MAX

    def check(self, name: str, value: Any) -> list[Any]:
        if not isinstance(value, list | tuple) or len(value) > self.longest:
            raise _refuse(name, str(self))
        return [self.item.check(f"{name}[{index}]", entry) for index, entry in enumerate(value)]

    def __str__(self) -> str:
        return f"a list of up to {self.longest}, each {self.item}"


@dataclass(frozen=True)
class Several:
    """A list, or a tuple, of exactly these."""

    items: tuple[FieldCheck, ...]

    def check(self, name: str, value: Any) -> list[Any]:
        if not isinstance(value, list | tuple) or len(value) != len(self.items):
            raise _refuse(name, str(self))
        return [item.check(f"{name}[{index}]", value[index]) for index, item in enumerate(self.items)]

    def __str__(self) -> str:
        return f"a list of {', '.join(map(str, self.items))}"


@dataclass(frozen=True)
class Schema:
    """The number of a record schema; another one has a refusal of its own, since it means another release."""

    def check(self, name: str, value: Any) -> int:
        if type(value) is not int:
            raise _refuse(name, str(self))
        if value not in SCHEMAS:
            raise SyncError(Reason.UNKNOWN_SCHEMA, f"{name}: schema {value}; known are {list(SCHEMAS)}")
        return value

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, SCHEMAS))}"


_SEQUENCE = Whole(0, COUNTER_MAX)
_COUNT = Whole(0, COUNTER_MAX)
_RANGE = Whole(1, RETRANSMIT_RANGE_MAX)
_SMALL = Whole(0, 0xFFFF)
_HEARD = ListOf(Several((Whole(1, MEMBER_MAX), Whole(1, COUNTER_MAX), _SEQUENCE)))

FIELDS: dict[Kind, tuple[type[Any], tuple[tuple[str, FieldCheck], ...]]] = {
    Kind.HEARTBEAT: (
        Heartbeat,
        (
            ("state", _SMALL),
            ("release", BoundedText()),
            ("policy", BoundedText()),
            ("problems", ListOf(BoundedText())),
            ("sees", ListOf(Whole(1, MEMBER_MAX))),
            ("leaving", YesNo()),
            ("number", Whole(0, COUNTER_MAX)),
            ("cluster_time", Real()),
            ("hears_on_sync", ListOf(Whole(1, MEMBER_MAX))),
            ("failovers", Whole(0, COUNTER_MAX)),
            ("active", ListOf(Real())),
            ("accepted", Whole(0, COUNTER_MAX)),
            ("unheard", ListOf(BoundedText())),
        ),
    ),
    Kind.HELLO: (
        Hello,
        (
            ("release", BoundedText()),
            # Not `Schema()`: a member of the future must be able to say so, and be answered.
            ("schema", _SMALL),
            ("heard", Whole(0, COUNTER_MAX)),
            ("decided", Whole(-1, 3)),
            ("start", _SEQUENCE),
            ("answer", YesNo()),
            ("age_s", Real()),
        ),
    ),
    Kind.DELTA: (
        Delta,
        (
            ("sequence", Whole(1, COUNTER_MAX)),
            ("schema", Schema()),
            ("body", Bytes(1, DELTA_BODY_MAX)),
            ("age_ms", Whole(0, AGE_MAX_MS)),
        ),
    ),
    Kind.ACK: (Ack, (("stream", Whole(1, COUNTER_MAX)), ("sequence", _SEQUENCE))),
    Kind.RETRANSMIT: (
        Retransmit,
        (("stream", Whole(1, COUNTER_MAX)), ("first", Whole(1, COUNTER_MAX)), ("count", _RANGE)),
    ),
    Kind.REJECT: (Reject, (("first", Whole(1, COUNTER_MAX)), ("count", _RANGE))),
    Kind.FULL_REQUEST: (FullRequest, (("release", BoundedText()), ("schema", _SMALL), ("ends", YesNo()))),
    Kind.FULL_BEGIN: (
        FullBegin,
        (("sequence", _SEQUENCE), ("schema", Schema()), ("expected", _COUNT), ("heard", _HEARD)),
    ),
    Kind.FULL_SLICE: (
        FullSlice,
        (("first", _COUNT), ("schema", Schema()), ("body", Bytes(1, STREAM_FRAME_MAX))),
    ),
    Kind.FULL_END: (FullEnd, (("count", _COUNT), ("checksum", Bytes(CHECKSUM_BYTES, CHECKSUM_BYTES)))),
    Kind.FULL_REFUSED: (FullRefused, (("reason", BoundedText(REASON_MAX)),)),
    Kind.FULL_DONE: (FullDone, (("count", _COUNT),)),
    Kind.FRAGMENT: (
        Fragment,
        (
            ("sequence", Whole(1, COUNTER_MAX)),
            ("schema", Schema()),
            ("body", Bytes(1, DELTA_BODY_MAX)),
            ("part", Whole(0, UPDATES_PER_DATAGRAM_MAX - 1)),
            ("parts", Whole(2, UPDATES_PER_DATAGRAM_MAX)),
            ("age_ms", Whole(0, AGE_MAX_MS)),
        ),
    ),
    Kind.NEWEST: (Newest, (("sequence", Whole(1, COUNTER_MAX)),)),
}
