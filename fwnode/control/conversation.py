"""One caller of the control socket: bytes in, requests out; answers in, bytes out. Pure, holds no socket.

Work for a caller is done one `step` at a time, and each is bounded: it begins one request, or makes one more part of an
answer, or takes some of the events that the caller follows. While there is something to do or to send, the server reads
nothing more of this caller: what it sends meanwhile waits in the kernel, until that is full and the caller waits.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fwnode.control.protocol import REQUEST_MAX, RequestError, encode, parse_request
from fwnode.control.streams import Stream

EVENTS_A_STEP = 64
"""Events that one step takes; about half a millisecond."""
LOGGED_MAX = 200
"""Bytes of a request, and characters of the error, that are shown when the member made a mistake."""
TRACEBACK_MAX = 4_000
"""Characters of the traceback that the log shows of it."""
_BLANK = b" \t\r\n"

log = logging.getLogger("fwnode")

Result = Mapping[str, Any] | Iterator[Mapping[str, Any]]
"""An answer: whole, or its parts one after the other."""
RequestHandler = Callable[[str, dict[str, Any], "Caller"], Result]


class Caller:
    """Where a caller stands. `handle(command, arguments, caller)` gives the answer or raises `RequestError`."""

    def __init__(self, handle: RequestHandler, streams: Mapping[str, Stream[Any]]) -> None:
        self._handle = handle
        self._streams = streams
        self._received = bytearray()
        self._searched = 0
        self._answer: Iterator[Mapping[str, Any]] | None = None
        self._following: dict[str, int] = {}
        self.unsent = bytearray()
        """What the socket is to take."""
        self.last = False
        """Nothing more can be understood: close when all is sent."""
        self.request_bytes = 0
        """Length of the request that is being done."""
        self.gone = False
        """The connection is closed; set by the server."""

    def receive(self, data: bytes) -> None:
        """What was read from the caller."""
        self._received += data
        self._skip_blank()
        if not self._has_request() and len(self._received) > REQUEST_MAX:
            self._received.clear()
            self._refuse(f"a request has at most {REQUEST_MAX} bytes")
            self.last = True

    def _has_request(self) -> bool:
        """Whether a line is complete; no byte is looked at twice, however slowly they come."""
        if self._searched >= 0:
            found = self._received.find(b"\n", self._searched)
            self._searched = -1 if found >= 0 else len(self._received)
        return self._searched < 0

    @property
    def busy(self) -> bool:
        """Whether there is something to do or to send."""
        if self.unsent or self._answer is not None or (self._has_request() and not self.last):
            return True
        return any(self._streams[name].number > number for name, number in self._following.items())

    def step(self) -> None:
        """The next piece of work, if there is any."""
        if self.last:
            return
        if self._answer is not None:
            self._do(self._go_on)
        elif self._has_request():
            self._do(self._begin)
        else:
            self.take_events()

    def follow(self, name: str, *, past: bool) -> None:
        """From now on the caller gets what comes in this stream, and the past of it as far as it is kept."""
        stream = self._streams[name]
        self._following[name] = stream.before if past else stream.number

    def take_events(self) -> None:
        """The next events of what the caller follows become bytes to send."""
        for name, number in self._following.items():
            lost, entries = self._streams[name].after(number, EVENTS_A_STEP)
            if lost:
                self._say({"dropped": lost})
            for entry in entries:
                self._say({"event": entry})
            self._following[name] = number + lost + len(entries)

    def _take_request(self) -> bytes:
        line, _, _ = bytes(self._received).partition(b"\n")
        del self._received[: len(line) + 1]
        self._searched = 0
        self._skip_blank()
        return line

    def _skip_blank(self) -> None:
        if self._received[:1].isspace():
            blank = len(self._received) - len(self._received.lstrip(_BLANK))
            del self._received[:blank]
            self._searched = 0

    def _begin(self) -> None:
        line = self._take_request()
        self.request_bytes = len(line)
        command, arguments = parse_request(line)
        try:
            result = self._handle(command, arguments, self)
        except RequestError:
            raise
        except Exception:
            log.error("control request %r", line[:LOGGED_MAX])
            raise
        if isinstance(result, Mapping):
            self._say({"ok": True, "result": result})
        else:
            self._answer = result
            self._go_on()

    def _go_on(self) -> None:
        assert self._answer is not None
        part = next(self._answer, None)
        if part is not None:
            self._say({"ok": True, "result": part, "more": True})
        else:
            self._answer = None
            self._say({"ok": True, "result": {}})

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except RequestError as error:
            self._answer = None
            self._refuse(str(error))
        except Exception as error:  # a mistake in showing something must not take the firewall down
            self._answer = None
            log.error("%s", traceback.format_exc()[-TRACEBACK_MAX:])
            what = repr(error)[:LOGGED_MAX]
            self._refuse(f"internal error in the member: {what}; its log has the details")

    def _refuse(self, text: str) -> None:
        self._say({"ok": False, "error": text})

    def _say(self, message: Mapping[str, Any]) -> None:
        self.unsent += encode(message)

    def close(self) -> None:
        """The connection is over; an answer that was being made is let go."""
        self.gone = True
        if self._answer is not None:
            close = getattr(self._answer, "close", None)
            self._answer = None
            if close is not None:
                close()
