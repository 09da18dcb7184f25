"""A rule base that comes in pieces: what has come so far, until the caller says that it is whole. Pure."""

from __future__ import annotations

from typing import Any

from fwnode.control.conversation import Caller
from fwnode.control.protocol import POLICY_MAX, RequestError, add_piece


class Draft:
    """At most one of a member; it goes with the caller that sends it."""

    def __init__(self) -> None:
        self._owner: Caller | None = None
        self._policy: dict[str, Any] = {}
        self._bytes = 0

    def add(self, caller: Caller, piece: dict[str, Any]) -> None:
        """Sections of a rule base, or parts of them. Raises `RequestError`."""
        if self._owner is not caller:
            if self._owner is not None and not self._owner.gone:
                raise RequestError("another rule base is being sent to this member; try again later")
            self._owner, self._policy, self._bytes = caller, {}, 0
        self._bytes += caller.request_bytes
        if self._bytes > POLICY_MAX:
            self.forget()
            raise RequestError(f"a rule base has at most {POLICY_MAX >> 20} MiB")
        add_piece(self._policy, piece)

    def complete(self, caller: Caller, rest: dict[str, Any]) -> dict[str, Any]:
        """The whole rule base of this caller; the draft is empty again."""
        if self._owner is not caller:
            return rest
        whole = {**rest, **self._policy}
        self.forget()
        return whole

    def forget(self) -> None:
        """Drop what has come: its caller is gone."""
        self._owner, self._policy, self._bytes = None, {}, 0
