"""One member of a firewall cluster, whole: the same in a kernel, in a test and in the simulator. Pure.

What comes in: a packet with its hook (`decide`), a datagram with its interface, a full sync's stream, a link state, a
command, the time. What comes out: verdicts, and effects through `fwnode.edges.Edges`. Nothing here reads a clock or
touches a socket, so a world decides when anything happens, and the same calls give the same answers.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from fwnode.control.commands import Commands
from fwnode.control.conversation import Caller, Result
from fwnode.control.streams import Stream
from fwnode.control.watching import streams
from fwnode.core import Core


class Member(Core):
    """A `Core` that answers its operator."""

    @cached_property
    def _commands(self) -> Commands:
        return Commands(self)

    def handle(self, command: str, arguments: dict[str, Any], caller: Caller) -> Result:
        """The answer to a command, whole or in parts. Raises `RequestError`."""
        return self._commands.handle(command, arguments, caller)

    def streams(self) -> dict[str, Stream[Any]]:
        """What callers may follow, by name."""
        return streams(self)
