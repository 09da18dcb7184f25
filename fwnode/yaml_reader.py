"""YAML text as plain data: mappings with text as keys, lists, text, finite numbers, true, false, nothing.

Built from the parser's events, so that no depth recurses and no alias multiplies. YAML's surprises (dates, sets,
binaries, tags, octal and sixty-based numbers, a key that is written twice) are refused with their place and key, all
of them at once. It must not know files or what the data means.
"""

from __future__ import annotations

import re
from contextlib import suppress
from math import isfinite
from typing import Any

import yaml

DEPTH_MAX = 64
"""Levels of lists and mappings; a lab file has six."""
NODES_MAX = 3_000_000
"""Values and keys in one document; a rule base of 100,000 rules has some 1,700,000."""
DIGITS_MAX = 18
"""Characters of a number: what fits into 64 bits."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVERS = yaml.SafeLoader.yaml_implicit_resolvers
_TAG = "tag:yaml.org,2002:"
_TRUE = frozenset({"yes", "true", "on"})
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff]")
_ESCAPED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff]")
"""In a text that was written with escapes, a carriage return too."""
_MISSING = object()


class ReadError(ValueError):
    """The text cannot be used; `problems` lists what is wrong, each with its line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read(data: bytes) -> Any:
    """The one document in `data`. Raises `ReadError` and nothing else."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReadError([f"is not text: byte {error.start} is not UTF-8; save the file as UTF-8"]) from None
    control = _CONTROL.search(text)
    if control:
        line, column = text.count("\n", 0, control.start()) + 1, control.start() - text.rfind("\n", 0, control.start())
        raise ReadError([f"line {line}, column {column}: the control character {control[0]!r}; remove it"])
    return _Document().read(text)


class _Open:
    """A list or mapping whose end was not read yet."""

    __slots__ = ("items", "key", "waiting")

    def __init__(self, items: Any) -> None:
        self.items: Any = items
        self.key = ""
        self.waiting = False
        """Of a mapping: the key is there, its value is not."""


class _Document:
    """One reading."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.open: list[_Open] = []
        self.known: dict[str, Any] = {}
        """Plain text that was read before, and its value."""

    def read(self, text: str) -> Any:
        try:
            document = self._build(text)
        except yaml.YAMLError as error:
            mark, what = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "is not YAML"
            self.problems.append(f"{_place(mark)}: {what}" if mark else what)
        if self.problems:
            raise ReadError(self.problems)
        return document

    def _build(self, text: str) -> Any:
        document: Any = None
        documents = nodes = 0
        for event in yaml.parse(text, Loader=_LOADER):
            kind = type(event)
            if kind is yaml.ScalarEvent:
                value = self._scalar(event)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._must_have_no_tag(event)
                self.open.append(_Open({} if kind is yaml.MappingStartEvent else []))
                if len(self.open) > DEPTH_MAX:
                    raise ReadError([f"{_place(event.start_mark)}: is nested too deeply, over {DEPTH_MAX} levels"])
                continue
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                value = self.open.pop().items
            elif kind is yaml.AliasEvent:
                self._say(event, "aliases (*name) are not read: write it out")
                value = None
            else:
                documents += kind is yaml.DocumentStartEvent
                if documents > 1:
                    raise ReadError([f"{_place(event.start_mark)}: a second document begins; a file holds one"])
                continue
            nodes += 1
            if nodes > NODES_MAX:
                raise ReadError([f"holds more than {NODES_MAX:,} values; write less into one file"])
            if self.open:
                self._place_in(self.open[-1], value, event)
            else:
                document = value
        return document

    def _place_in(self, within: _Open, value: Any, event: Any) -> None:
        if type(within.items) is list:
            within.items.append(value)
        elif within.waiting:
            within.items[within.key] = value
            within.waiting = False
        else:
            if type(value) is not str:
                self._say(event, f"the key {_written(event)} is not text; put it in quotes")
                value = str(len(within.items))
            elif value in within.items:
                self._say(event, f"the key {_short(value)} is written twice; remove one")
            within.key, within.waiting = value, True

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if not event.style and event.tag is None:
            value = self.known.get(text, _MISSING)
            if value is _MISSING:
                before = len(self.problems)
                value = self._plain(event, text)
                if len(self.problems) == before:  # else each place is told
                    self.known[text] = value
            return value
        self._must_have_no_tag(event)
        if event.style == '"' and (control := _ESCAPED.search(text)):
            self._say(event, f"the text has the control character {control[0]!r}; remove it")
        return text

    def _plain(self, event: Any, text: str) -> Any:
        """A text without quotes, by YAML's rules."""
        tag = next((tag for tag, pattern in _RESOLVERS.get(text[:1], ()) if pattern.match(text)), "")
        kind = tag.removeprefix(_TAG)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in _TRUE
        if kind in ("int", "float"):
            return self._number(event, text, kind)
        if kind == "timestamp":
            self._say(event, f"{_short(text)} is a date to YAML; put it in quotes")
        elif kind == "merge":
            self._say(event, "merge keys (<<) are not read: write it out")
        return text

    def _number(self, event: Any, text: str, kind: str) -> Any:
        digits = text.replace("_", "").lstrip("+-").lower()
        if len(digits) > DIGITS_MAX and kind == "int":
            complaint = f"is a number of {len(digits):,} digits; write at most {DIGITS_MAX}"
        elif ":" in digits:
            complaint = "is a number to the base of sixty to YAML; put it in quotes"
        elif kind == "int" and digits[:1] == "0" and digits[1:2].isdigit():
            complaint = "is an octal number to YAML; write it without the zero, or in quotes"
        else:
            complaint = "is no finite number; write one"
            with suppress(ValueError):
                value = int(digits, 0) if kind == "int" else float(digits)
                if isfinite(value):
                    return -value if text.startswith("-") else value
        self._say(event, f"{_short(text)} {complaint}")
        return 0

    def _must_have_no_tag(self, event: Any) -> None:
        if event.tag not in (None, "!"):
            self._say(event, f"tags ({_short(event.tag.replace(_TAG, '!!'))}) are not read; remove it")

    def _say(self, event: Any, what: str) -> None:
        key = self._key()
        self.problems.append(f"{_place(event.start_mark)}: {key}: {what}" if key
                             else f"{_place(event.start_mark)}: {what}")  # fmt: skip

    def _key(self) -> str:
        """Where in the document the reading is, such as `rules[3].service`."""
        key = ""
        for within in self.open:
            if type(within.items) is list:
                key += f"[{len(within.items)}]"
            elif within.waiting:
                key += f".{_bare(within.key)}" if key else _bare(within.key)
        return key


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _bare(key: str) -> str:
    return key if len(key) <= 60 else f"{key[:57]}..."


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."


def _written(event: Any) -> str:
    return _short(event.value) if isinstance(event, yaml.ScalarEvent) else "that is a list or mapping"
