"""What is wrong with a lab file: where, what, and what to do; all of it at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError

from fwnode.explain import listed, slips
from fwnode.files import PROBLEMS_SHOWN, FileError

WORD_MAX = 40
"""Characters of a word that others are compared with."""


class LabFileError(FileError):
    """A lab file cannot be used. One line a problem, each `file: key: what; what to do`."""

    def __init__(self, file: str, problems: list[str]) -> None:
        super().__init__([f"{file}: {problem}" for problem in problems])


class Problems(list[str]):
    """The problems found so far."""

    def say(self, key: str, what: str) -> None:
        self.append(f"{key}: {what}" if key else what)

    def near(self, word: str, words: Iterable[str]) -> str:
        """What may have been meant. Looked for only as long as somebody will read it."""
        words = list(words)
        if len(self) >= PROBLEMS_SHOWN:
            return ""
        close = difflib.get_close_matches(word, words, 1) if len(word) <= WORD_MAX else []
        return f"; did you mean {close[0]}?" if close else f"; known: {listed(words)}"


def from_validation(error: ValidationError, value: object, where: str) -> list[str]:
    """pydantic's findings in our words."""
    return [f"{_joined(where, key)}: {what}" if where or key else what for key, what in slips(error, value)]


def _joined(where: str, key: str) -> str:
    return where + key if key.startswith("[") or not where else f"{where}.{key}" if key else where
