"""Files that people write: one way to read them, one way to say what is wrong with them.

`load_yaml` reads, `validate` checks; what is wrong is told at once as `file: key: what; what to do`, the first problems
and a count. Whatever a file holds, and whatever is there instead of a file, only `FileError` comes out.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fwnode.explain import shown, slips
from fwnode.yaml_reader import ReadError, read

FILE_MAX = 32 * 2**20
"""Bytes of one file; a rule base of 100,000 rules has some 14 MB."""
PROBLEMS_SHOWN = 20
"""Problems that are told one by one; of the others the number."""
LINE_MAX = 500
"""Characters of one problem."""

Model = TypeVar("Model", bound=BaseModel)


class FileError(ValueError):
    """A file cannot be used; `problems` lists everything that is wrong with it, a line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(told(self.problems)))


def told(problems: list[str]) -> list[str]:
    """The lines that a person is shown: no more than can be read, and nothing that moves the cursor."""
    lines = [_line(problem) for problem in problems[:PROBLEMS_SHOWN]]
    more = len(problems) - len(lines)
    return [*lines, f"… and {more:,} more problems"] if more > 0 else lines


def _line(problem: str) -> str:
    text = problem if problem.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in problem)
    return text if len(text) <= LINE_MAX else f"{text[: LINE_MAX - 1]}…"


class Strict(BaseModel):
    """A model that refuses keys it does not know, and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def load_yaml(path: Path) -> Any:
    """The document in a YAML file. Raises `FileError` with the lines of its problems."""
    try:
        return read(_bytes(path))
    except ReadError as error:
        raise FileError([f"{path}: {problem}" for problem in error.problems]) from None
    except OSError as error:
        raise FileError([f"{path}: cannot be read: {error.strerror}"]) from None
    except ValueError:  # a path with a NUL in it
        raise FileError([f"{path}: cannot be read: no file can have this name"]) from None


def _bytes(path: Path) -> bytes:
    # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise ReadError(["is a folder; name a file"])
        if not stat.S_ISREG(mode):
            raise ReadError(["is no regular file; write what it says to one"])
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(FILE_MAX + 1)
    finally:
        os.close(descriptor)
    if len(data) > FILE_MAX:
        raise ReadError([f"has more than {FILE_MAX:,} bytes; write less into one file"])
    return data


def mapping(data: Any, where: str) -> dict[str, Any]:
    """`data`, if it is keys and values. Raises `FileError`."""
    if not isinstance(data, dict):
        raise FileError([f"{where}: must be a mapping of keys to values, is {shown(data)}"])
    return data


def validate(model: type[Model], data: Any, where: str) -> Model:
    """`data` as `model`. Raises `FileError` with a line for every problem, each with its key."""
    try:
        return model.model_validate(mapping(data, where))
    except ValidationError as error:
        raise FileError([f"{where}: {key}: {what}" if key else f"{where}: {what}"
                         for key, what in slips(error, data)]) from None  # fmt: skip
