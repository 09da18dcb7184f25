"""Expectations over a run's document: a path, a comparison, and what was seen. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fwnode.fields import no_flag
from labs.traffic.durations import Duration

_MISSING = object()
COMPARISONS = {
    "is": "equals",
    "is_not": "is_not",
    "at_least": "at_least",
    "at_most": "at_most",
    "below": "below",
    "contains": "contains",
    "same_as": "same_as",
}
_OF_PATHS = ("same_as", "at_least", "at_most", "below")


Bound = Annotated[int | float | str, BeforeValidator(no_flag)]
"""A number, or the path of another figure of the run."""


class Expectation(BaseModel):
    """`{that: workloads.database.survived, is: 200, says: every session goes on}`; all its comparisons must hold."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    that: str
    equals: Any = Field(default=_MISSING, alias="is")
    is_not: Any = _MISSING
    at_least: Bound | None = None
    at_most: Bound | None = None
    below: Bound | None = None
    contains: str | None = None
    same_as: str | None = None
    says: str = ""
    warn: bool = False
    """Not held is a warning, not a failure."""

    @model_validator(mode="after")
    def _compares(self) -> Expectation:
        if not self.comparisons():
            raise ValueError(f"compares with nothing; add one of {', '.join(COMPARISONS)}")
        return self

    def comparisons(self) -> dict[str, Any]:
        """As written: comparison word -> value."""
        given = {word: getattr(self, attribute) for word, attribute in COMPARISONS.items()}
        return {
            word: value
            for word, value in given.items()
            if value is not (_MISSING if word in ("is", "is_not") else None)
        }

    @property
    def compares_tables(self) -> bool:
        """Whether it is about how the members' tables differ, which is looked at only when somebody wants to know."""
        return any(path.split(".")[0] == "differences" for path in self.paths())

    def paths(self) -> list[str]:
        others = (self.same_as, self.at_least, self.at_most, self.below)
        return [self.that, *(other for other in others if isinstance(other, str))]


class Until(Expectation):
    """Waits for it; the run fails when it does not come true within this time."""

    within: Duration


@dataclass(frozen=True)
class Judgement:
    """What was seen, and whether it was as expected."""

    text: str
    held: bool
    seen: Any
    that: str
    wanted: str
    warn: bool
    at: str  # "the end", or the step that checked

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def look_up(document: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or None. A drop reason, or a kind of connections, that was never counted is 0."""
    value: Any = document
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            counted = path.startswith("drops.") and path.count(".") == 2
            compared = path.startswith("differences.kinds.") and path.count(".") == 4
            return 0 if counted or compared else None
    return value


def judge(expectation: Expectation, document: Mapping[str, Any], at: str) -> Judgement:
    """Look whether the expectation holds in this document. `at` is when it was looked at: `the end`, or a step."""
    seen = look_up(document, expectation.that)
    comparisons = expectation.comparisons()
    wanted = " and ".join(_wanted(word, value, document) for word, value in comparisons.items())
    held = all(_holds(word, seen, value, document) for word, value in comparisons.items())
    if expectation.contains is not None and isinstance(seen, list):
        seen = next(_lines_with(expectation.contains, seen), seen)  # the line that was looked for, not the whole log
    text = expectation.says or f"{expectation.that} {wanted}"
    return Judgement(text, held, seen, expectation.that, wanted, expectation.warn, at)


def _lines_with(text: str, lines: list[Any]) -> Iterator[str]:
    return (line for line in lines if isinstance(line, str) and text in line)


def _wanted(word: str, value: Any, document: Mapping[str, Any]) -> str:
    other = f" ({look_up(document, value)})" if word in _OF_PATHS and isinstance(value, str) else ""
    return f"{word.replace('_', ' ')} {value}{other}"


def _holds(word: str, seen: Any, value: Any, document: Mapping[str, Any]) -> bool:
    if word == "is":
        return bool(seen == value)
    if word == "is_not":
        return bool(seen != value)
    if word == "same_as":
        return seen is not None and bool(seen == look_up(document, value))
    if word == "contains":
        if isinstance(seen, list):
            return value in seen or any(_lines_with(value, seen))
        return isinstance(seen, str | Mapping) and value in seen
    if isinstance(value, str):
        value = look_up(document, value)
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in (seen, value)):
        return False
    return bool({"at_least": seen >= value, "at_most": seen <= value, "below": seen < value}[word])
