"""The schemas of a record, and the functions that write and read them, made from the list of fields.

| schema | releases | first field | key | times | state |
| --- | --- | --- | --- | --- | --- |
| 1 | R75 | state | one string: dst src dport sport proto | ticks of 100 ms | ESTABLISHED is 1, handshake 2 and 3 |
| 2 | R77 | key | one string: proto src dst sport dport | milliseconds | as in the firewall |
| 3 | R80, R81 | born | proto, addresses, ports apart | seconds, float | one bit a state |

A field that `order` does not name stands at the end, in every schema from its `since` on. This module knows nothing of
updates, of frames, or of what a field means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil
from struct import Struct
from struct import unpack as struct_unpack
from typing import Any

from syncproto.record_field import (
    KEY_LENGTHS,
    Field,
    Form,
    WireForm,
    bad_record,
    check_key,
    check_text,
)


@dataclass(frozen=True)
class Layout:
    """One schema: the order of the fields that it had from the first, and how it writes them."""

    schema: int
    order: tuple[str, ...]
    form: Form

    def carried(self, fields: Iterable[Field]) -> list[Field]:
        """Those of these fields that it carries, as they stand on the wire."""
        known = {field.name: field for field in fields}
        further = (f for f in known.values() if f.name not in self.order and f.description.since <= self.schema)
        return [*(known[name] for name in self.order), *further]


LAYOUTS = {layout.schema: layout for layout in (
    Layout(
        1,
        ("state", "key", "timeout_s", "ttl_s", "rule", "service", "flags", "revision", "born", "parent"),
        Form("turned", 10, (0, 2, 3, 1, 4, 5, 6)),
    ),
    Layout(
        2,
        ("key", "state", "ttl_s", "timeout_s", "rule", "service", "flags", "born", "revision", "parent"),
        Form("whole", 1000, (0, 1, 2, 3, 4, 5, 6)),
    ),
    Layout(
        3,
        ("born", "revision", "key", "state", "timeout_s", "ttl_s", "service", "rule", "flags", "parent"),
        Form("apart", None, (0x00, 0x01, 0x02, 0x04, 0x08, 0x10, 0x20)),
    ),
)}  # fmt: skip
STATES = len(LAYOUTS[1].form.states)
"""How many states there are: 0 and up."""


def turned(key: bytes) -> bytes:
    """Schema 1's key: dst src dport sport proto: everything in the opposite order."""
    half = (len(key) - 5) // 2
    return key[1 + half : 1 + 2 * half] + key[1 : 1 + half] + key[-2:] + key[-4:-2] + key[:1]


def turned_back(key: bytes) -> bytes:
    """The key that `turned` gave this one for. SyncError for a wrong length."""
    if len(key) not in KEY_LENGTHS:
        check_key(key)
    half = (len(key) - 5) // 2
    return key[-1:] + key[half : 2 * half] + key[:half] + key[-3:-1] + key[-5:-3]


def ports_of(keys: list[bytes]) -> list[int]:
    """Source and destination port of each key, one after the other."""
    return list(struct_unpack(f"!{2 * len(keys)}H", b"".join([key[-4:] for key in keys])))


_PORTS = Struct("!HH")
_PROTOCOLS = [bytes((number,)) for number in range(256)]


def keys_of(protocols: list[int], addresses: list[bytes], sources: list[int], targets: list[int]) -> list[bytes]:
    """Keys that came in parts."""
    if min(protocols) < 0:
        raise bad_record("protocol out of range")
    pack = _PORTS.pack
    return [
        _PROTOCOLS[protocol] + between + pack(source, target)
        for protocol, between, source, target in zip(protocols, addresses, sources, targets, strict=True)
    ]


# --- Functions made from the list -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Codec:
    """`types` of what stands on the wire, in order; `pack` makes it, `read` reads it."""

    types: list[type]
    pack: Callable[[Any], list[Any]]
    read: Callable[[list[Any]], Any]


def record_codec(layout: Layout, fields: Iterable[Field], make: Callable[..., Any]) -> Codec:
    """Of single records. `make` takes the values of all fields, in their order."""
    return _codec(layout, list(fields), make, one=True)


def column_codec(layout: Layout, fields: Iterable[Field], make: Callable[..., Any]) -> Codec:
    """Of many records: each field is a list over all of them. `make` takes those lists."""
    return _codec(layout, list(fields), make, one=False)


def _codec(layout: Layout, fields: list[Field], make: Callable[..., Any], *, one: bool) -> Codec:
    carried = [(field, field.description.wire(layout.form)) for field in layout.carried(fields)]
    sent, arrived, read, types = list[str](), list[str](), dict[str, str](), list[type]()
    for field, wire in carried:
        names = [f"w{len(arrived) + n}" for n in range(len(wire.types))]
        arrived += names
        types += wire.types
        value = f"r.{field.name}" if len(names) == 1 else field.name
        sent += [text.format(v=value) for text in (wire.sent if one else wire.sent_column)]
        read[field.name] = (wire.read if one else wire.read_column).format(*names)
    missing = "{!r}" if one else "[{!r}] * len(w0)"
    values = [read.get(field.name, missing.format(field.default)) for field in fields]
    local = [f"    {field.name} = r.{field.name}" for field, wire in carried if len(wire.types) > 1]
    source = "\n".join([
        "def pack(r):", *local, f"    return [{', '.join(sent)}]",
        "def read(f):", f"    {', '.join(arrived)} = f", f"    return make({', '.join(values)})",
    ])  # fmt: skip
    states = layout.form.states
    made = compiled(
        source, f"schema {layout.schema}", make=make, to_state=states,
        from_state={wire: state for state, wire in enumerate(states)},
        ceil=ceil, turned=turned, turned_back=turned_back, ports_of=ports_of, keys_of=keys_of,
    )  # fmt: skip
    return Codec(types, made["pack"], made["read"])


RecordCheck = Callable[[Any], None]
"""Raises SyncError for a record of which a field is not legal."""


def record_check(fields: Iterable[Field], check_parent: RecordCheck, of_a_parent: int) -> RecordCheck:
    """The check of these fields. `check_parent` is asked about records that have, or should have, another's key."""
    checks = [f"    {text}" for field in fields if (text := field.description.check(field.name))]
    names = {"KEY_LENGTHS": KEY_LENGTHS, "OF_A_PARENT": of_a_parent, "bad_record": bad_record}
    made = compiled(
        "\n".join(["def check(r):", *checks]), "check",
        check_key=check_key, check_text=check_text, check_parent=check_parent, **names,
    )  # fmt: skip
    check: RecordCheck = made["check"]
    return check


def compiled(source: str, what: str, **names: Any) -> dict[str, Any]:
    """The functions of a source text that was made from the list of fields; `names` are what it may use."""
    exec(compile(source, f"<fields: {what}>", "exec"), names)
    return names


__all__ = [
    "LAYOUTS", "STATES", "Codec", "Layout", "WireForm", "column_codec", "compiled", "record_check", "record_codec",
]  # fmt: skip
