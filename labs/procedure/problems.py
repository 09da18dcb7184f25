"""What is wrong with a file that somebody wrote: where, what, and what to do; all of it at once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

_COMMA = "a text with a comma in it, inside {…}, has to be in quotes"


class LabFileError(Exception):
    """A lab file cannot be used. One line a problem, each `file: key: what; what to do`."""

    def __init__(self, file: str, problems: list[str]) -> None:
        self.file = file
        self.problems = problems
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice: the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                what = f"the key {key!r} is written twice"
                raise yaml.MarkedYAMLError(problem=what, problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LabFileError(str(path), [f"cannot be read: {error}"]) from None
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise LabFileError(str(path), [f"{where}: {error.problem}; correct the YAML there"]) from None
    except yaml.YAMLError as error:
        raise LabFileError(str(path), [f"no YAML: {error}"]) from None


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
        elif part not in ("sessions", "short") or key.count(".") != 1 or not key.startswith("workloads."):
            key += f".{part}" if key else part  # the kind of a workload is no key of the file
    return key


def _what(found: Any) -> str:
    kind, message = found["type"], found["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return "is missing; add it"
    if kind == "extra_forbidden":
        cut_off = found["input"] is None  # what YAML makes of `{says: first, then}`
        return f"unknown key; {_COMMA if cut_off else 'remove it, or correct its spelling'}"
    if kind == "invalid_key":
        return f"{found['input']!r} is no key; {_COMMA}"
    if kind == "union_tag_invalid":
        return f"unknown kind {found['ctx']['tag']!r}; write one of {found['ctx']['expected_tags']}"
    if kind == "union_tag_not_found":
        return "has no kind; write kind: sessions or kind: short"
    if kind == "value_error":
        return str(message)
    return f"{message[0].lower()}{message[1:]}; it is {found['input']!r}"
