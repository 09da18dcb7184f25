"""What a run's document holds: which paths lead to a figure, and of what kind it is. Pure.

Read from the same examples that the document is made of, so that `fwlab check` knows what an expectation can find.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from fwnode.cluster.membership import MemberState
from labs.procedure.document import EMPTY_STATUS, SAID, Takeover
from labs.procedure.expectations import Expectation
from labs.traffic.fates import Fate
from labs.traffic.workload import AnyWorkload

NUMBER, TEXT, FLAG, ANYTHING = "a number", "text", "true or false", "anything"
STATES = frozenset({*(state.label for state in MemberState), "Stopped", "Killed", "Died", "Power cut", "Paused"})
"""What a member's `state` can be: its own word, and how its process ended."""


@dataclass(frozen=True)
class Every:
    """The same beneath each of the names, or beneath any name where they are not known before."""

    beneath: Any
    names: frozenset[str] | None = None


class Open(dict[str, Any]):
    """Names that are known, besides others."""


@dataclass(frozen=True)
class Listing:
    """A list; its entries are counted from 0."""

    beneath: Any


def shape(example: Any) -> Any:
    """Of a document like this one. What is empty here may hold anything."""
    if isinstance(example, bool):
        return FLAG
    if isinstance(example, int | float):
        return NUMBER
    if isinstance(example, str):
        return TEXT
    if isinstance(example, Mapping) and example:
        return {name: shape(value) for name, value in example.items()}
    return ANYTHING


WORKLOAD_FIELDS = frozenset(
    {"kind", "sessions", "open", *map(str, Fate), "answers", "longest_silence_s", "longest_open_s", "last_answer"}
)
KINDS = get_args(AnyWorkload)
_MEMBER = {
    "state": TEXT, "release": TEXT, "running": FLAG, "starts": NUMBER, "log": Listing(TEXT),
    **{name: shape(EMPTY_STATUS[name]) for name in SAID},
    **{name: Open(shape(EMPTY_STATUS[name])) for name in ("sync", "full_sync", "records")},
}  # fmt: skip
MEMBER_FIELDS = frozenset(_MEMBER)
FIGURES = {name: frozenset(found) for name, found in _MEMBER.items()
           if isinstance(found, dict) and not isinstance(found, Open)}  # fmt: skip
"""Of a member: figures that have names of their own beneath the field."""


def workload_fields(workload: AnyWorkload | None) -> frozenset[str]:
    """What is told of a workload, or of one whose kind is not known."""
    figures = [workload.figures] if workload is not None else [kind.figures for kind in KINDS]
    return WORKLOAD_FIELDS.union(*figures)


_WORKLOAD = {
    **dict.fromkeys(workload_fields(None), NUMBER),
    "kind": TEXT, "last_answer": Every(Listing(NUMBER), frozenset({"open", *map(str, Fate)})),
}  # fmt: skip
DOCUMENT: dict[str, Any] = {
    "seconds": NUMBER,
    "workloads": Every(_WORKLOAD),
    "members": Every(_MEMBER),
    "drops": Every(Every(NUMBER)),
    "differences": {"different": NUMBER, "equal": FLAG, "unsynchronised": NUMBER, "missing": Every(NUMBER),
                    "kinds": Every(Every(Every(NUMBER)))},
    "takeovers": Listing({field.name: TEXT if field.type == "str" else NUMBER for field in fields(Takeover)}),
}  # fmt: skip


def find(path: str) -> tuple[Any, str]:
    """What stands at a path whose names are right, and what is wrong with the path otherwise."""
    here: Any = DOCUMENT
    gone: list[str] = []
    for part in path.split("."):
        there = ".".join(gone)
        if isinstance(here, Every):
            if here.names is not None and part not in here.names:
                return ANYTHING, f"{path}: {there} has no {part!r}; known: {', '.join(sorted(here.names))}"
            here = here.beneath
        elif isinstance(here, Open):
            here = here.get(part, ANYTHING)
        elif isinstance(here, dict):
            if part not in here:
                return ANYTHING, f"{path}: {there or 'a run'} has no {part!r}; known: {', '.join(sorted(here))}"
            here = here[part]
        elif isinstance(here, Listing):
            if not (part.isascii() and part.isdigit()):
                return ANYTHING, f"{path}: {there} is a list; go on with a number from 0 on"
            here = here.beneath
        elif here != ANYTHING:
            return ANYTHING, f"{path}: {there} is {here}; there is nothing beneath it"
        gone.append(part)
    return here, ""


def mistakes(expectation: Expectation) -> Iterable[str]:
    """Comparisons that can never hold, or always do, whatever happens in a run. Its paths are in order."""
    that = expectation.that
    here, _ = find(that)
    name = _name(here)
    for word, value in expectation.comparisons().items():
        if word in ("is", "is_not"):
            yield from _equal(that, here, value)
        elif word == "same_as":
            other = find(value)[0]
            if ANYTHING not in (here, other) and _name(other) != name:
                yield f"{that} is {name} and {value} is {_name(other)}; compare what is of one kind"
        elif word == "contains":
            if here in (NUMBER, FLAG):
                yield f"{that} is {name}, which contains nothing; write is, or at_least"
        elif here not in (NUMBER, ANYTHING):
            yield f"{that} is {name}; {word} is for numbers"
        elif isinstance(value, str) and (other := find(value)[0]) not in (NUMBER, ANYTHING):
            yield f"{word}: {value} is {_name(other)}; name a number"


def _equal(that: str, here: Any, value: Any) -> Iterable[str]:
    fits = {NUMBER: isinstance(value, int | float) and not isinstance(value, bool), TEXT: isinstance(value, str),
            FLAG: isinstance(value, bool)}  # fmt: skip
    if isinstance(here, str) and not fits.get(here, True) and value is not None:
        yield f"{that} is {here}, and never {value!r}; write {here}"
    elif isinstance(here, dict | Every):
        yield f"{that} has several figures; name one of them"
    elif isinstance(here, Listing) and not isinstance(value, list):
        yield f"{that} is a list; write contains, or name one of its entries"
    elif that.startswith("members.") and that.endswith(".state") and that.count(".") == 2 and value not in STATES:
        yield f"{that} is never {value!r}; it is one of {', '.join(sorted(STATES))}"


def _name(here: Any) -> str:
    return here if isinstance(here, str) else "a list" if isinstance(here, Listing) else "a group of figures"
