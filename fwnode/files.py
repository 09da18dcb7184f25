"""Files that people write: read as YAML, checked by pydantic, all problems reported at once as `file: key: what`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class FileError(ValueError):
    """A file cannot be used; `problems` lists everything that is wrong with it, a line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Strict(BaseModel):
    """A model that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Loader(yaml.SafeLoader):
    """Safe, and without aliases: a few lines of them stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not read: write it out", mark)
        return super().compose_node(parent, index)


def load_yaml(path: Path) -> Any:
    """The document in a YAML file. Raises `FileError` with the line of a syntax error."""
    try:
        return yaml.load(path.read_text(), Loader=_Loader)
    except RecursionError as error:
        raise FileError([f"{path}: is nested too deeply"]) from error
    except OSError as error:
        raise FileError([f"{path}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise FileError([f"{path}: is not text (byte {error.start})"]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise FileError([f"{where}: {getattr(error, 'problem', None) or 'not YAML'}"]) from error
    except ValueError as error:  # what looks like a date and is none
        raise FileError([f"{path}: {error}"]) from error


def validate(model: type[Model], data: Any, where: str) -> Model:
    """`data` as `model`. Raises `FileError` with a line for every problem, each with its key."""
    if not isinstance(data, dict):
        raise FileError([f"{where}: must be a mapping of keys to values, is {type(data).__name__}"])
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise FileError([_line(where, e["loc"], e["msg"], e["type"]) for e in error.errors()]) from error


def _line(where: str, location: tuple[int | str, ...], message: str, kind: str) -> str:
    key = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        message = "unknown key"
    elif kind == "missing":
        message = "is missing"
    message = message.removeprefix("Value error, ")
    return f"{where}: {key}: {message}" if key else f"{where}: {message}"
