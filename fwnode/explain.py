"""pydantic's findings in our words: `key: what is wrong; what to write`, one line for each slip.

A value that may be one of several kinds is refused by each of them, under inner names that are no keys of the file;
here that is one slip, under its key. It must not know files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

SHOWN_MAX = 60
"""Characters of a value that a message repeats."""
LISTED_MAX = 20
"""Names that a message lists."""
COMMA = "a text with a comma in it, inside {…}, has to be in quotes"


def shown(value: object) -> str:
    """A value as a message repeats it: on one line, and not all of a long one."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**SHOWN_MAX:
        return "a number of very many digits"
    if isinstance(value, str):
        text = repr(value[: SHOWN_MAX + 1])
    elif isinstance(value, list | tuple | set | frozenset):
        text = f"[{', '.join(map(shown, list(value)[:4]))}{', …' if len(value) > 4 else ''}]"
    elif isinstance(value, Mapping):
        text = f"{{{', '.join(f'{shown(k)}: …' for k in list(value)[:4])}}}"
    else:
        text = "nothing" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= SHOWN_MAX + 2 else f"{text[:SHOWN_MAX]}…"


def listed(names: Iterable[object]) -> str:
    """Names for a message, in order; of many the first ones and how many more there are."""
    every = sorted(map(str, names))
    more = len(every) - LISTED_MAX
    return ", ".join(every[:LISTED_MAX]) + (f" and {more:,} more" if more > 0 else "") or "none"


def slips(error: ValidationError, data: object) -> list[tuple[str, str]]:
    """What is wrong with `data`: (key, what), one for each key. A key reads `rules[3].service`."""
    found: dict[str, list[Any]] = {}
    for item in error.errors(include_url=False):
        found.setdefault(_key(item["loc"], data, item["type"]), []).append(item)
    return [(key, line) for key, items in found.items() for line in _lines(items)]


def _key(location: tuple[int | str, ...], data: Any, kind: str) -> str:
    """The part of a location that the data has; the rest is pydantic's own."""
    key, here = "", data
    for index, part in enumerate(location):
        if isinstance(part, int):
            if not isinstance(here, list | tuple) or part >= len(here):
                continue
            key, here = f"{key}[{part}]", here[part]
        elif isinstance(here, Mapping) and part in here:
            key, here = f"{key}.{part}" if key else part, here[part]
        elif kind == "missing" and index == len(location) - 1:
            key = f"{key}.{part}" if key else part
    return key


def _lines(items: list[Any]) -> list[str]:
    """One line for the alternatives of one value; a line for each of our own complaints."""
    own = [str(item["ctx"]["error"]) for item in items if item["type"] == "value_error"]
    if own:
        return list(dict.fromkeys(line for text in own for line in text.splitlines()))
    known = [_SAYS[item["type"]](item) for item in items if item["type"] in _SAYS]
    if known:
        return known[:1]
    wanted = list(dict.fromkeys(_wanted(item) for item in items))
    return [f"is {shown(items[0]['input'])}; write {' or '.join(wanted)}"]


def _wanted(item: Any) -> str:
    kind, context = item["type"], item.get("ctx", {})
    for end in ("_type", "_parsing", "_from_float", "_parsing_size"):
        if kind.removesuffix(end) in _KINDS:
            return _KINDS[kind.removesuffix(end)]
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return words.format(f"{context[bound]:,}" if isinstance(context[bound], int) else context[bound])
    if kind in ("literal_error", "enum"):
        return str(context["expected"]).replace("'", "")
    message = str(item["msg"])
    return f"what it takes ({message[:1].lower()}{message[1:]})"


_KINDS = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "string": "text",
    "list": "a list", "dict": "a mapping of keys to values", "mapping": "a mapping of keys to values",
    "model": "its keys as a mapping, {key: value, …}", "model_attributes": "its keys as a mapping, {key: value, …}",
    "finite_number": "a finite number",
}  # fmt: skip
_BOUNDS = {
    "greater_than": ("gt", "more than {}"), "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "less than {}"), "less_than_equal": ("le", "at most {}"),
    "too_short": ("min_length", "at least {} of them"), "too_long": ("max_length", "at most {} of them"),
    "string_too_short": ("min_length", "at least {} characters"),
    "string_too_long": ("max_length", "at most {} characters"),
    "string_pattern_mismatch": ("pattern", "text of the form {}"),
}  # fmt: skip
_SAYS: dict[str, Callable[[Any], str]] = {
    "missing": lambda item: "is missing; add it",
    # A key without a value is what YAML makes of `{says: first, then}`.
    "extra_forbidden": lambda item: f"unknown key; {COMMA if item['input'] is None else _SPELLING}",
    "invalid_key": lambda item: f"{shown(item['input'])} is no key; {COMMA}",
    "union_tag_invalid": lambda item: f"unknown kind {shown(item['ctx']['tag'])}; write one of "
                                      f"{item['ctx']['expected_tags']}",
    "union_tag_not_found": lambda item: "has no kind; write kind: and which one it is",
    "recursion_loop": lambda item: "contains itself; write it out",
}  # fmt: skip
_SPELLING = "remove it, or correct its spelling"
