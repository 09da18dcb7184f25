"""What is wrong with a file that somebody wrote: where, what, and what to do; all of it at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fwnode.files import FileError, load_yaml
from labs.traffic.workload import KINDS

_COMMA = "a text with a comma in it, inside {…}, has to be in quotes"


class LabFileError(FileError):
    """A lab file cannot be used. One line a problem, each `file: key: what; what to do`."""

    def __init__(self, file: str, problems: list[str]) -> None:
        super().__init__([f"{file}: {problem}" for problem in problems])


@dataclass
class _Open:
    """A mapping or list whose end was not read yet; `nodes` counts a mapping's keys and values."""

    is_mapping: bool
    nodes: int = 0
    keys: set[str] = field(default_factory=set)


def read_yaml(path: Path) -> Any:
    """As `load_yaml`; also refuses a key that is written twice: the first would be lost without a word."""
    document = load_yaml(path)
    twice = [f"{_place(key.start_mark)}: the key {key.value!r} is written twice; remove one"
             for key in _repeated_keys(path.read_text())]  # fmt: skip
    if twice:
        raise LabFileError(str(path), twice)
    return document


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _repeated_keys(text: str) -> Iterator[yaml.ScalarEvent]:
    """By events: they do not recurse, however deep the text is."""
    within = [_Open(is_mapping=False)]
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.NodeEvent):
            parent = within[-1]
            parent.nodes += 1
            if parent.is_mapping and parent.nodes % 2 and isinstance(event, yaml.ScalarEvent):
                if event.value in parent.keys:
                    yield event
                parent.keys.add(event.value)
        if isinstance(event, yaml.CollectionStartEvent):
            within.append(_Open(isinstance(event, yaml.MappingStartEvent)))
        elif isinstance(event, yaml.CollectionEndEvent):
            within.pop()


def from_validation(error: ValidationError, where: str) -> list[str]:
    """pydantic's findings in our words."""
    return [f"{_key(where, found['loc'])}: {_what(found)}" for found in error.errors()]


def one_of(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _key(where: str, loc: tuple[int | str, ...]) -> str:
    key = where
    for part in loc:
        if isinstance(part, int):
            key += f"[{part}]"
        elif part not in KINDS or key.count(".") != 1 or not key.startswith("workloads."):
            key += f".{part}" if key else part  # the kind of a workload is no key of the file
    return key


def _what(found: Any) -> str:
    kind, message = found["type"], found["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return "is missing; add it"
    if kind == "extra_forbidden":
        cut_off = found["input"] is None  # what YAML makes of `{says: first, then}`
        return f"unknown key; {_COMMA if cut_off else 'remove it, or correct its spelling'}"
    if kind in ("model_type", "model_attributes_type"):
        return f"is {found['input']!r}; write its keys as a mapping, {{key: value, …}}"
    if kind == "invalid_key":
        return f"{found['input']!r} is no key; {_COMMA}"
    if kind == "union_tag_invalid":
        return f"unknown kind {found['ctx']['tag']!r}; write one of {found['ctx']['expected_tags']}"
    if kind == "union_tag_not_found":
        return f"has no kind; write kind: and one of {', '.join(KINDS)}"
    if kind == "value_error":
        return str(message)
    return f"{message[0].lower()}{message[1:]}; it is {found['input']!r}"
