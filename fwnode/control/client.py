"""Asking a member: finds its control socket, sends requests, reads answers.

In a node of a lab, and on a machine that runs a member, the socket is at /run/fwpair. From outside it is on the /run of
a running lab (`fwnode.control.running`).
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fwnode.control import protocol, running

RUN = Path("/run/fwpair")
ANSWER_TIMEOUT_S = 10.0
"""Wall seconds between a request, or a part of its answer, and the next part."""
KNOCK_INTERVAL_S = 0.05
"""Wall seconds between two tries to connect to a member for which too many wait already."""
SUPERVISOR = "supervisor"


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


def members_here(directory: Path) -> list[str]:
    """Members whose sockets are there."""
    return sorted(path.stem for path in directory.glob("*.sock") if path.stem != SUPERVISOR)


class Control:
    """One connection to a control socket."""

    def __init__(self, path: Path, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._name = path.stem
        self._timeout_s = timeout_s
        self._socket = _connect(path, timeout_s)
        self._lines = self._socket.makefile("rb")

    def ask(self, command: str, **arguments: Any) -> Any:
        """The result. Raises `MemberError` with the member's own words when it refuses."""
        return protocol.put_together(self.parts(command, **arguments))

    def parts(self, command: str, **arguments: Any) -> Iterator[Any]:
        """The result as it comes, in parts. Raises `MemberError` when the member refuses, or ends on the way."""
        *before, last = protocol.requests(command, arguments)
        for message in before:
            self.request(message, self._timeout_s)
        return self._answer(last, self._timeout_s)

    def request(self, message: Mapping[str, Any], timeout_s: float | None = ANSWER_TIMEOUT_S) -> Any:
        """One message, and its whole answer."""
        return protocol.put_together(self._answer(message, timeout_s))

    def _answer(self, message: Mapping[str, Any], timeout_s: float | None) -> Iterator[Any]:
        self._socket.settimeout(timeout_s)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have said why before it closed
            try:
                self._socket.sendall(protocol.encode(message))
            except TimeoutError as error:
                raise self._silent() from error
        while True:
            answer = self._read()
            if not answer.get("ok"):
                raise MemberError(str(answer.get("error")))
            yield answer.get("result")
            if not answer.get("more"):
                return

    def follow(self) -> Iterator[dict[str, Any]]:
        """Events, until the member goes; where some were lost, `{"dropped": …}`."""
        self._socket.settimeout(None)
        while True:
            try:
                message = self._read()
            except MemberError:
                return
            yield message.get("event", message)

    def wait_for_end(self) -> None:
        """Return when the member has closed the connection. `MemberError` where it goes on being there."""
        self._socket.settimeout(self._timeout_s)
        try:
            while self._lines.readline():
                pass
        except ConnectionError:
            return
        except TimeoutError as error:
            raise MemberError(f"{self._name} agreed to stop and still runs after {self._timeout_s:g} s") from error

    def _read(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise MemberError(f"{self._name} has gone: {error.strerror}") from error
        if not line.endswith(b"\n"):
            raise MemberError(f"{self._name} has gone")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _silent(self) -> MemberError:
        return _silent(self._name, self._timeout_s)

    def close(self) -> None:
        """End the connection; no request may follow."""
        self._lines.close()
        self._socket.close()


def _silent(name: str, timeout_s: float) -> MemberError:
    return MemberError(f"{name} does not answer within {timeout_s:g} s; its process is there, but busy or paused")


def _connect(path: Path, timeout_s: float) -> socket.socket:
    """A connection to whom the socket belongs. Raises `MemberError` with the reason why there is none."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(timeout_s)
    ends = time.monotonic() + timeout_s
    while True:
        try:
            link.connect(str(path))
        except BlockingIOError as error:  # the queue of those who want to be let in is full
            if time.monotonic() < ends:
                time.sleep(KNOCK_INTERVAL_S)
                continue
            link.close()
            raise _silent(path.stem, timeout_s) from error
        except OSError as error:
            link.close()
            raise MemberError(_not_there(path, error)) from error
        return link


def _not_there(path: Path, error: OSError) -> str:
    name, others = path.stem, [member for member in members_here(path.parent) if member != path.stem]
    if isinstance(error, PermissionError):
        return f"{name}: its control socket may not be used by this user"
    if isinstance(error, ConnectionRefusedError):
        return f"{name} does not run: its process has ended; `fwctl {name} start` starts it"
    near = get_close_matches(name, others, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{name} does not run, or there is no such member: {hint}There are: {', '.join(others) or 'none'}"
