"""What arguments a command takes, read from its method's signature once; what callers send is checked against it.
Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fwnode.control.protocol import RequestError

SHOWN_MAX = 60
"""Characters of a wrong value that its refusal shows."""
_GIVEN = ("self", "caller")
"""Parameters that no caller sends."""


class MemberCommand:
    """A method that carries out a command. Its annotations are the arguments' types and ranges."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        parameters = inspect.signature(method, eval_str=True).parameters
        self._wants_caller = "caller" in parameters
        own = {name: parameter for name, parameter in parameters.items() if name not in _GIVEN}
        self._types: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(p.annotation) for name, p in own.items()}
        self._needed = [name for name, p in own.items() if p.default is p.empty]

    def check(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments of the command of this name, checked. Raises `RequestError` with all that is wrong."""
        takes = f"it takes {', '.join(self._types) or 'none'}"
        unknown = [given for given in arguments if given not in self._types]
        problems = [f"no argument {given[:SHOWN_MAX]!r}; {takes}" for given in unknown]
        problems += [f"argument {needed!r} is missing" for needed in self._needed if needed not in arguments]
        checked = {}
        for given, value in arguments.items():
            if given in self._types:
                try:
                    checked[given] = self._types[given].validate_python(value, strict=True)
                except ValidationError as error:
                    problems.append(f"{given}: {_what(error)}, not {_shown(value)}")
        if problems:
            raise RequestError("\n".join(f"{name}: {problem}" for problem in problems[:5]))
        return checked

    def __call__(self, owner: Any, caller: Any, arguments: dict[str, Any]) -> Any:
        """Carry it out with checked arguments."""
        if self._wants_caller:
            return self._method(owner, caller, **arguments)
        return self._method(owner, **arguments)


def _what(error: ValidationError) -> str:
    said = [e["msg"].partition(" ")[2] for e in error.errors(include_url=False)]  # "Input should be …"
    return " or ".join(dict.fromkeys(said))


def _shown(value: Any) -> str:
    if isinstance(value, (str, int, float)):
        text = repr(value)
        return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "…"
    return type(value).__name__
