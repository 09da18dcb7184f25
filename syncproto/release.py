"""Software releases, and the gate: what two releases may exchange, and why not.

The table of releases is data (`releases.yaml`), read at the edge; here it arrives as a plain mapping. All problems of
a table are reported at once. This module knows nothing of messages, sessions or files; `BUILTIN_RELEASES` is only the
name of the file that comes with the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from syncproto.errors import Reason, SyncError
from syncproto.limits import FULL_SYNC_PORT, NAME_MAX, SCHEMAS

BUILTIN_RELEASES: str = __file__.rpartition("/")[0] + "/releases.yaml"

RELEASE_MISMATCH = "Release version mismatch"
RELEASES_MAX = 1_000
"""Releases, and rules, of one file. Lab's own; the built-in table has a tenth of it."""


class Exchange(IntEnum):
    """What two members may exchange; a larger number allows more. In the file: lower case, with hyphens."""

    NOTHING = 0
    NEW_CONNECTIONS = 1
    FULL = 2
    TRANSLATED = 3


@dataclass(frozen=True)
class Release:
    """One software release, as a member runs it."""

    name: str
    version: str
    hotfix: str
    schema: int
    full_sync_port: int
    defaults: Mapping[str, int]


@dataclass(frozen=True)
class Gate:
    """The decision for two releases. `reason` is what the operator sees; `schema` is what both can read."""

    exchange: Exchange
    reason: str
    schema: int | None

    @property
    def is_open(self) -> bool:
        """Whether anything may be exchanged at all."""
        return self.exchange is not Exchange.NOTHING

    @property
    def allows_full_sync(self) -> bool:
        """Whether a whole table may be exchanged."""
        return self.exchange >= Exchange.FULL


@dataclass(frozen=True)
class GateRule:
    """One rule of the table. It matches a pair in either order when both patterns fit and `same` holds."""

    between: tuple[str, str]
    same: tuple[str, ...]
    exchange: Exchange
    reason: str

    def matches(self, ours: Release, theirs: Release) -> bool:
        """Whether the rule is about these two releases, in either order."""
        one, other = self.between
        fits = (_fits(one, ours.name) and _fits(other, theirs.name)) or (
            _fits(other, ours.name) and _fits(one, theirs.name)
        )
        return fits and all(getattr(ours, what) == getattr(theirs, what) for what in self.same)


_EXCHANGES = {exchange.name.lower().replace("_", "-"): exchange for exchange in Exchange}
_RELEASE_KEYS = ("version", "hotfix", "schema", "full_sync_port", "defaults")
_RULE_KEYS = ("between", "same", "exchange", "reason")
_SAME = ("name", "version", "schema")


def _fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _is_name(text: Any) -> bool:
    """What a message carries and a terminal can show."""
    return isinstance(text, str) and text.isprintable() and len(text.encode()) <= NAME_MAX


@lru_cache(maxsize=64)  # asked for with every heartbeat
def version_numbers(version: str) -> tuple[int, ...] | None:
    """`R80.10` -> (80, 10); None for what is not a version."""
    parts = version[1:].split(".")
    if version[:1] != "R" or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        return None
    return tuple(int(part) for part in parts)


class Compatibility:
    """The table of releases and of what they may exchange. Immutable; `merged` makes another one."""

    def __init__(self, releases: Mapping[str, Release], rules: tuple[GateRule, ...]) -> None:
        self._releases = dict(releases)
        self._rules = rules

    @classmethod
    def from_mapping(cls, data: Any, where: str = "releases") -> Compatibility:
        """A table from loaded YAML. SyncError lists every problem as `where: key: what is wrong`."""
        return cls({}, ()).merged(data, where)

    def merged(self, data: Any, where: str = "releases") -> Compatibility:
        """This table with another on top: its releases replace those of the same name, its rules are asked first."""
        reader = _Reader(where)
        table = reader.table(data)
        releases = {**self._releases, **reader.releases(table.get("releases"))}
        # An entry that is itself wrong is reported as such, not again as unknown by each rule that names it.
        written = table.get("releases")
        known = {*releases, *(written if isinstance(written, Mapping) else ())}
        rules = reader.rules(table.get("rules"), known)
        if reader.problems:
            raise SyncError(Reason.BAD_RELEASES, "\n".join(reader.problems), reader.problems)
        return Compatibility(releases, rules + self._rules)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all releases."""
        return tuple(self._releases)

    @property
    def rules(self) -> tuple[GateRule, ...]:
        """The rules, in the order in which they are asked: the first that matches decides."""
        return self._rules

    def release(self, name: str) -> Release:
        """The release of that name; SyncError names the known ones."""
        release = self._releases.get(name)
        if release is None:
            known = ", ".join(sorted(self._releases)) or "none"
            raise SyncError(Reason.UNKNOWN_RELEASE, f"release {name!r} is unknown; known are: {known}")
        return release

    def gate(self, ours: str, theirs: str) -> Gate:
        """What the two may exchange. A peer's release that this table does not know may exchange nothing."""
        own = self.release(ours)
        other = self._releases.get(theirs)
        if other is None:
            return Gate(Exchange.NOTHING, RELEASE_MISMATCH, None)
        for rule in self._rules:
            if rule.matches(own, other):
                schema = None if rule.exchange is Exchange.NOTHING else min(own.schema, other.schema)
                return Gate(rule.exchange, rule.reason, schema)
        return Gate(Exchange.NOTHING, RELEASE_MISMATCH, None)

    def newer(self, a: str, b: str) -> int:
        """1 when release `a` has the newer version, -1 when `b` has, 0 when equal. Hotfixes don't count.

        A name that is not in the table is read as `VERSION[-ANYTHING]`; one that cannot be read compares as equal,
        since it may have come from the network.
        """
        one, other = self._version(a), self._version(b)
        if one is None or other is None:
            return 0
        return (one > other) - (one < other)

    def _version(self, name: str) -> tuple[int, ...] | None:
        release = self._releases.get(name)
        return version_numbers(release.version if release else name.partition("-")[0])


class _Reader:
    """Reads a loaded table and collects problems, so that all of them are told at once."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.problems: list[str] = []

    def problem(self, key: str, text: str) -> None:
        self.problems.append(f"{self.where}: {key}: {text}" if key else f"{self.where}: {text}")

    def table(self, data: Any) -> Mapping[str, Any]:
        if not isinstance(data, Mapping):
            self.problem("", "expected a mapping with `releases` and `rules`")
            return {}
        self.unknown_keys("", data, ("releases", "rules"))
        return data

    def unknown_keys(self, key: str, data: Mapping[Any, Any], known: tuple[str, ...]) -> None:
        for name in data:
            if name not in known:
                self.problem(f"{key}.{name}" if key else str(name), f"unknown key; known are: {', '.join(known)}")

    def releases(self, data: Any) -> dict[str, Release]:
        if data is None:
            return {}
        if not isinstance(data, Mapping):
            self.problem("releases", "expected a mapping of release names")
            return {}
        if len(data) > RELEASES_MAX:
            self.problem("releases", f"{len(data):,} of them; at most {RELEASES_MAX:,}")
            return {}
        found: dict[str, Release] = {}
        for name, entry in data.items():
            release = self.release(name, entry)
            if release is not None:
                found[release.name] = release
        return found

    def release(self, name: Any, entry: Any) -> Release | None:
        before = len(self.problems)
        key = f"releases.{name}"
        if not _is_name(name) or not name or "*" in name:
            self.problem(key, f"a release's name is text of up to {NAME_MAX} bytes that can be shown, without `*`")
        if not isinstance(entry, Mapping):
            self.problem(key, "expected a mapping with at least `version` and `schema`")
            return None
        self.unknown_keys(key, entry, _RELEASE_KEYS)
        version, hotfix = entry.get("version"), entry.get("hotfix", "")
        if not isinstance(version, str) or version_numbers(version) is None:
            self.problem(f"{key}.version", f"{version!r} is not a version; write it as R80.10")
        if hotfix is not None and (isinstance(hotfix, bool) or not isinstance(hotfix, str | int)):
            self.problem(f"{key}.hotfix", f"{hotfix!r} is neither text nor a number")
        schema, port = entry.get("schema"), entry.get("full_sync_port", FULL_SYNC_PORT)
        if type(schema) is not int or schema not in SCHEMAS:
            self.problem(f"{key}.schema", f"{schema!r} is unknown; known are: {', '.join(map(str, SCHEMAS))}")
        if type(port) is not int or not 0 < port < 65536:
            self.problem(f"{key}.full_sync_port", f"{port!r} is not a port")
        defaults = self.defaults(f"{key}.defaults", entry.get("defaults"))
        if len(self.problems) > before:
            return None
        return Release(str(name), str(version), str(hotfix or ""), int(schema or 0), port, MappingProxyType(defaults))

    def defaults(self, key: str, data: Any) -> dict[str, int]:
        if data is None:
            return {}
        if not isinstance(data, Mapping):
            self.problem(key, "expected a mapping of kernel parameters")
            return {}
        for name, value in data.items():
            if not isinstance(name, str) or type(value) is not int:
                self.problem(f"{key}.{name}", f"{value!r} is not a whole number")
        return {str(name): value for name, value in data.items() if type(value) is int}

    def rules(self, data: Any, known: set[Any]) -> tuple[GateRule, ...]:
        if data is None:
            return ()
        if not isinstance(data, list):
            self.problem("rules", "expected a list of rules")
            return ()
        if len(data) > RELEASES_MAX:
            self.problem("rules", f"{len(data):,} of them; at most {RELEASES_MAX:,}")
            return ()
        found = [self.rule(f"rules[{index}]", entry, known) for index, entry in enumerate(data)]
        return tuple(rule for rule in found if rule is not None)

    def rule(self, key: str, entry: Any, known: set[Any]) -> GateRule | None:
        before = len(self.problems)
        if not isinstance(entry, Mapping):
            self.problem(key, "expected a mapping with at least `exchange`")
            return None
        self.unknown_keys(key, entry, _RULE_KEYS)
        between = entry.get("between", ["*", "*"])
        if not isinstance(between, list) or len(between) != 2 or not all(isinstance(name, str) for name in between):
            self.problem(f"{key}.between", "expected two release names (a `*` at the end stands for anything)")
            between = ["*", "*"]
        for name in between:
            if not name.endswith("*") and name not in known:
                names = ", ".join(sorted(map(str, known))) or "none"
                self.problem(f"{key}.between", f"release {name!r} is unknown; known are: {names}")
        same = entry.get("same", [])
        same = [same] if isinstance(same, str) else same
        if not isinstance(same, list) or not all(isinstance(what, str) and what in _SAME for what in same):
            self.problem(f"{key}.same", f"{same!r}: expected some of {', '.join(_SAME)}")
            same = []
        exchange = entry.get("exchange")
        if not isinstance(exchange, str) or exchange not in _EXCHANGES:
            self.problem(f"{key}.exchange", f"{exchange!r} is unknown; known are: {', '.join(_EXCHANGES)}")
            return None
        reason = entry.get("reason", RELEASE_MISMATCH if exchange == "nothing" else "")
        if not _is_name(reason):
            self.problem(f"{key}.reason", f"expected text of up to {NAME_MAX} bytes that can be shown")
        if len(self.problems) > before:
            return None
        return GateRule((between[0], between[1]), tuple(same), _EXCHANGES[exchange], reason)
