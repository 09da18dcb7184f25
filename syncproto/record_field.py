"""What may be said of a field of a record: what it holds, what is legal, how it stands on the wire of a schema.

The fields themselves are listed in one place, `syncproto.record.Record`. The functions that check, pack and read
records are made from that list when the program starts (`syncproto.layout`), as source text, so that they are as fast
as if they were written out. So each kind of field here gives expressions: of `{v}`, the field's value in a record (or
its column), for what is sent, and of `{0}`, `{1}`, ... for what is read. This module knows nothing of whole records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from math import nextafter
from typing import Any, get_type_hints

from syncproto.errors import Reason, SyncError
from syncproto.limits import DURATION_MAX_S, TIME_MAX_S

KEY_IPV4 = 13
KEY_IPV6 = 37
KEY_LENGTHS = (KEY_IPV4, KEY_IPV6)


def bad_record(what: str) -> SyncError:
    """The error that refuses a record; `what` is wrong with it."""
    return SyncError(Reason.BAD_RECORD, f"record: {what}")


@dataclass(frozen=True)
class Form:
    """What a schema does in its own way: `key` is written whole, turned or apart; a second has so many units, or is a
    real number; `states` are its numbers of the firewall's TCP states, by position."""

    key: str
    units_a_second: int | None
    states: tuple[int, ...]


@dataclass(frozen=True)
class WireForm:
    """A field as it stands on the wire: its types there, and the expressions for one record and for a column."""

    types: tuple[type, ...]
    sent: tuple[str, ...]
    read: str
    sent_column: tuple[str, ...]
    read_column: str


def _as_it_is(kind: type) -> WireForm:
    return WireForm((kind,), ("{v}",), "{0}", ("{v}",), "{0}")


@dataclass(frozen=True)
class Description:
    """A kind of field. `since` is the oldest schema that carries it: a peer with an older one neither gets nor gives
    it, and its records have the default. `held_as` is its name in a connection, where that is another one."""

    since: int = 1
    held_as: str = ""

    def wire(self, form: Form) -> WireForm:
        """How the field stands on the wire of a schema with this form."""
        raise NotImplementedError

    def check(self, name: str) -> str:
        """A statement that refuses record `r` if this field of it is not legal; nothing where reading it shows that."""
        return ""


@dataclass(frozen=True)
class Key(Description):
    """proto(1) src dst sport(2) dport(2), network order, initiator's direction."""

    def wire(self, form: Form) -> WireForm:
        if form.key == "whole":
            return _as_it_is(bytes)
        if form.key == "turned":
            return WireForm((bytes,), ("turned({v})",), "turned_back({0})", ("list(map(turned, {v}))",),
                        "list(map(turned_back, {0}))")  # fmt: skip
        return WireForm(
            (int, bytes, int, int),
            ("{v}[0]", "{v}[1:-4]", "({v}[-4] << 8) | {v}[-3]", "({v}[-2] << 8) | {v}[-1]"),
            "bytes(({0},)) + {1} + {2}.to_bytes(2, 'big') + {3}.to_bytes(2, 'big')",
            ("[k[0] for k in {v}]", "[k[1:-4] for k in {v}]", "(ports := ports_of({v}))[::2]", "ports[1::2]"),
            "keys_of({0}, {1}, {2}, {3})",
        )

    def check(self, name: str) -> str:
        return f"if len(r.{name}) not in KEY_LENGTHS: check_key(r.{name})"


@dataclass(frozen=True)
class OtherKey(Description):
    """The key of another connection, or empty. Which records have one is told by their flags."""

    def wire(self, form: Form) -> WireForm:
        if form.key != "turned":
            return _as_it_is(bytes)
        return WireForm((bytes,), ("turned({v}) if {v} else b''",), "turned_back({0}) if {0} else b''",
                    ("[turned(key) if key else b'' for key in {v}]",),
                    "[turned_back(key) if key else b'' for key in {0}]")  # fmt: skip

    def check(self, name: str) -> str:
        return f"if r.{name} or r.flags & OF_A_PARENT: check_parent(r)"


@dataclass(frozen=True)
class StateNumber(Description):
    """The number of a TCP state. An unknown one cannot be translated, and so is refused."""

    def wire(self, form: Form) -> WireForm:
        return WireForm((int,), ("to_state[{v}]",), "from_state[{0}]", ("list(map(to_state.__getitem__, {v}))",),
                    "list(map(from_state.__getitem__, {0}))")  # fmt: skip


@dataclass(frozen=True)
class Ranged(Description):
    """A number of a range; `what` names it in an error."""

    what: str = ""
    lowest: float = 0
    highest: float = 0

    def check(self, name: str) -> str:
        legal = f"{self.lowest!r} <= r.{name} <= {self.highest!r}"
        return f"if not {legal}: raise bad_record('{self.what} is out of range')"


@dataclass(frozen=True)
class Number(Ranged):
    """A whole number."""

    def wire(self, form: Form) -> WireForm:
        return _as_it_is(int)


@dataclass(frozen=True)
class Interval(Ranged):
    """Seconds that are left or that something lasts; rounded up to the schema's unit."""

    what: str = "a time"
    highest: float = DURATION_MAX_S

    def wire(self, form: Form) -> WireForm:
        units = form.units_a_second
        if units is None:
            return WireForm((float,), ("float({v})",), "{0}", ("list(map(float, {v}))",), "{0}")
        return WireForm((int,), (f"ceil({{v}} * {units})",), f"{{0}} / {units}",
                        (f"[ceil(s * {units}) for s in {{v}}]",), f"[t / {units} for t in {{0}}]")  # fmt: skip


@dataclass(frozen=True)
class Moment(Ranged):
    """A point in time, seconds; exact in every schema."""

    lowest: float = -nextafter(TIME_MAX_S, 0.0)
    highest: float = nextafter(TIME_MAX_S, 0.0)

    def wire(self, form: Form) -> WireForm:
        return WireForm((float,), ("float({v})",), "{0}", ("list(map(float, {v}))",), "{0}")


@dataclass(frozen=True)
class Text(Description):
    """Text of so many UTF-8 bytes at most."""

    what: str = ""
    longest: int = 0

    def wire(self, form: Form) -> WireForm:
        return _as_it_is(str)

    def check(self, name: str) -> str:
        slow = f"check_text({self.what!r}, r.{name}, {self.longest})"
        return f"if len(r.{name}) > {self.longest} or not r.{name}.isascii(): {slow}"


@dataclass(frozen=True)
class Field:
    """One field of a record class. `default` is what a record has that came in an older schema."""

    name: str
    description: Description
    default: Any = None

    @property
    def held_as(self) -> str:
        """The attribute of a connection that holds it."""
        return self.description.held_as or self.name


def fields_of(record: type) -> Iterator[Field]:
    """The fields of a dataclass whose annotations carry a `Description`, in its order."""
    hints = get_type_hints(record, include_extras=True)
    for field in fields(record):
        [description] = hints[field.name].__metadata__
        default = None if field.default is MISSING else field.default
        if description.since > 1 and field.default is MISSING:
            raise TypeError(f"{record.__name__}.{field.name}: older schemas have no such field, so it needs a default")
        yield Field(field.name, description, default)


def check_key(key: bytes) -> None:
    """SyncError for a key of a wrong length."""
    if len(key) not in KEY_LENGTHS:
        raise bad_record(f"key of {len(key)} bytes, expected {KEY_IPV4} or {KEY_IPV6}")


def check_text(what: str, text: str, longest: int) -> None:
    """SyncError for a text of more than `longest` UTF-8 bytes, or that is none."""
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise bad_record(f"{what} is not text") from None
    if length > longest:
        raise bad_record(f"{what} longer than {longest} bytes")
