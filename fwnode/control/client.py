"""Asking a member: finds its control socket, sends requests, reads answers.

In a node of a lab, and on a machine that runs a member, the socket is at /run/fwpair. From outside it is on the /run of
a running lab (`fwnode.control.running`).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fwnode.control import running

RUN = Path("/run/fwpair")
ANSWER_TIMEOUT_S = 10.0


class MemberError(Exception):
    """A member can't be reached, or refused; the message says what to do."""


def run_directory(lab: str | None) -> Path:
    """Where the control sockets are. Raises `MemberError` when that is not clear."""
    if lab is None and RUN.is_dir() and any(RUN.glob("*.sock")):
        return RUN
    labs = {name: pid for name in running.names() if (pid := running.first_process(name))}
    if lab is not None and lab not in labs:
        up = ", ".join(labs) or "none"
        raise MemberError(f"no lab {lab!r} is up; up are: {up}. `fwlab up --name {lab}` starts it")
    if not labs:
        raise MemberError("no lab is up and no member runs here; `fwlab up` starts one")
    if lab is None and len(labs) > 1:
        raise MemberError(f"several labs are up ({', '.join(labs)}): name one with --lab")
    return Path(f"/proc/{labs[lab or next(iter(labs))]}/root") / RUN.relative_to("/")


class Control:
    """One connection to a control socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            there = {p.stem for p in path.parent.glob("*.sock")} - {path.stem, "supervisor"}
            others = ", ".join(sorted(there)) or "none"
            raise MemberError(
                f"{path.stem} does not answer: it is not running, or no such member (there are: {others})"
            ) from error
        self._lines = self._socket.makefile("rb")

    def ask(self, command: str, **arguments: Any) -> Any:
        """The result. Raises `MemberError` with the member's own words when it refuses."""
        return self.request({"command": command, "arguments": arguments})

    def request(self, message: dict[str, Any], timeout_s: float | None = ANSWER_TIMEOUT_S) -> Any:
        """One line out, one line in."""
        self._socket.settimeout(timeout_s)
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        answer = self._read()
        if not answer.get("ok"):
            raise MemberError(str(answer.get("error")))
        return answer.get("result")

    def follow(self) -> Iterator[dict[str, Any]]:
        """Events, until the member goes."""
        self._socket.settimeout(None)
        while True:
            try:
                yield self._read()["event"]
            except MemberError:
                return

    def _read(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except OSError as error:
            raise MemberError(f"no answer within {ANSWER_TIMEOUT_S:g} s") from error
        if not line:
            raise MemberError("the member has gone")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._lines.close()
        self._socket.close()
