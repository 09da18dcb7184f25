"""Whether the members' connection tables are equal: what each lacks, by kind. Pure: tables in, figures out.

A connection that is on its way to the peers is no difference, so a difference counts when two looks, a few sync ticks
apart, both show it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fwnode.firewall.connection import Connection
from fwnode.firewall.packet import ICMP, ICMPV6, IPV4_KEY_BYTES, IPV6_KEY_BYTES, TCP, UDP

LOOKS_APART_S = 0.4
"""Wall seconds between two looks: four sync ticks."""
_KINDS = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMPV6: "ICMP"}
_OTHER = "other"

StatesByKey = dict[bytes, int]
"""Connection key -> state."""
Difference = tuple[str, bytes, str]
"""Member, connection key, `missing` or the state that it says."""


def pack(connections: Iterable[Connection], now: float) -> dict[str, Any]:
    """Part of a table as a member hands it over: keys, each with its state, in one string for each family, after the
    length of its keys. What its service keeps from the peers is only counted."""
    packed: dict[int, list[bytes]] = {IPV4_KEY_BYTES: [], IPV6_KEY_BYTES: []}
    unsynchronised = 0
    for connection in connections:
        if connection.sync_at > now and not connection.told:
            unsynchronised += 1
        else:
            packed[len(connection.key)].append(connection.key + bytes((connection.state,)))
    keys = [[size, b64encode(b"".join(entries)).decode()] for size, entries in packed.items() if entries]
    return {"keys": keys, "unsynchronised": [unsynchronised]}


def unpack(answer: Mapping[str, Any]) -> StatesByKey:
    """The table in a member's answer."""
    table: StatesByKey = {}
    for size, packed in answer.get("keys", ()):
        data = b64decode(packed)
        for at in range(0, len(data), size + 1):
            table[data[at : at + size]] = data[at + size]
    return table


def unsynchronised(answers: Iterable[Mapping[str, Any]]) -> int:
    """How many connections these members keep to themselves."""
    return sum(sum(answer.get("unsynchronised", ())) for answer in answers)


def differences(tables: Mapping[str, StatesByKey]) -> set[Difference]:
    """Every member's deviations from what the cluster knows: a connection that it lacks, or another state."""
    everything: dict[bytes, int] = {}
    for table in tables.values():
        for key, state in table.items():
            if state > everything.get(key, -1):
                everything[key] = state
    return {
        (member, key, "missing" if key not in table else str(table[key]))
        for member, table in tables.items()
        if table != everything
        for key, state in everything.items()
        if table.get(key) != state
    }


def summary(
    tables: Mapping[str, StatesByKey], lasting: Iterable[Difference], unsynchronised: int = 0
) -> dict[str, Any]:
    """By kind and member: `has`, `missing`, `other_state`; `different` connections in all."""
    kinds: defaultdict[str, dict[str, Counter[str]]] = defaultdict(lambda: {name: Counter() for name in tables})
    for member, table in tables.items():
        for protocol, has in Counter(key[0] for key in table).items():
            kinds[_KINDS.get(protocol, _OTHER)][member]["has"] += has
    different: set[bytes] = set()
    missing = dict.fromkeys(tables, 0)
    for member, key, what in lasting:
        different.add(key)
        kinds[_KINDS.get(key[0], _OTHER)][member]["missing" if what == "missing" else "other_state"] += 1
        missing[member] += what == "missing"
    figures = ("has", "missing", "other_state")
    return {
        "equal": not different,
        "different": len(different),
        "missing": missing,
        "unsynchronised": unsynchronised,
        "kinds": {
            kind: {member: {name: counts[name] for name in figures} for member, counts in of_kind.items()}
            for kind, of_kind in sorted(kinds.items())
        },
    }


def show(data: Mapping[str, Any]) -> Iterator[str]:
    """The summary, for people."""
    yield f"{'KIND':<10}{'MEMBER':<10}{'HAS':>10}{'MISSING':>10}{'OTHER STATE':>14}"
    for kind, of_kind in data["kinds"].items():
        for member, counts in of_kind.items():
            yield f"{kind:<10}{member:<10}{counts['has']:>10}{counts['missing']:>10}{counts['other_state']:>14}"
    if data["unsynchronised"]:
        yield f"{data['unsynchronised']} more are not synchronised, by their service"
    if data["equal"]:
        yield "The tables are equal."
    else:
        lacks = ", ".join(f"{member} lacks {count}" for member, count in data["missing"].items() if count)
        yield f"The tables differ in {data['different']} connections{': ' + lacks if lacks else ''}."
