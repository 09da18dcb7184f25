"""The member's control socket: lets callers in, reads and writes; what they say is `Caller`'s, what a command does the
node's business.

Packets come first: one `turn` does a few bounded steps for callers in turn, then the loop looks at its packets again,
whatever and however many they ask. An own epoll inside the loop's selector hands the callers out in turn.
"""

from __future__ import annotations

import contextlib
import logging
import select
import selectors
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from fwnode.control import running
from fwnode.control.conversation import Caller, RequestHandler
from fwnode.control.protocol import encode
from fwnode.control.streams import Stream

CALLERS_MAX = 256
"""Connections at a time; one more is told so and closed. Each holds at most some 200 KiB: lab's own."""
READ_BYTES = 64 << 10
"""Bytes that are read of a caller at once, and only when it has nothing else to do."""
TURN_S = 0.002
"""Wall seconds after which a turn begins no further step: packets wait no longer than they do for expiry."""
TURN_STEPS_MAX = 16
"""Steps of one turn."""
LAST_STEPS_MAX = 20
"""Steps for a follower when the member ends: all events that are kept."""
BACKLOG = 128
"""Connections that wait in the kernel to be let in."""

log = logging.getLogger("fwnode")


class _Link:
    """A caller and its socket. `watched` is what epoll waits for: input when there is nothing to do for the caller,
    else room to send."""

    def __init__(self, connection: socket.socket, caller: Caller) -> None:
        self.socket = connection
        self.caller = caller
        self.watched = select.EPOLLIN


class ControlServer:
    """Listens at `path`; `streams` are what callers may follow, `tell` takes what an operator should know.

    A stale socket file of a member that died is replaced; that of a living one is an error (`OSError`).
    """

    def __init__(
        self,
        path: Path,
        selector: selectors.BaseSelector,
        handle: RequestHandler,
        streams: Mapping[str, Stream[Any]] | None = None,
        tell: Callable[[str], None] = log.warning,
    ) -> None:
        self.path = path
        self.turned_away = 0
        """Callers for whom there was no room."""
        self.not_let_in = 0
        """How often the kernel refused to let a caller in."""
        self.steps = 0
        self._selector = selector
        self._handle = handle
        self._streams = streams or {}
        self._tell = tell
        self._links: dict[int, _Link] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if running.listens(path):
            raise OSError(f"{path}: another process answers here; is this member running already?")
        path.unlink(missing_ok=True)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._socket.listen(BACKLOG)
        self._poll = select.epoll()
        self._poll.register(self._socket, select.EPOLLIN)
        self._listening = True
        selector.register(self._poll, selectors.EVENT_READ, lambda _mask: self.turn())

    def turn(self) -> None:
        """A few steps, for the callers in turn; the kernel puts each behind the others when it was handed out."""
        ends = monotonic() + TURN_S
        for _ in range(TURN_STEPS_MAX):
            ready = self._poll.poll(0, 1)
            if not ready:
                return
            self.steps += 1
            descriptor, _ = ready[0]
            if descriptor == self._socket.fileno():
                self._let_in()
            else:
                self._serve(self._links[descriptor])
            if monotonic() >= ends:
                return

    def on_tick(self) -> None:
        """Now and then: see what is new in the streams, and try again what the kernel refused."""
        for link in self._links.values():
            if link.watched != select.EPOLLOUT:
                self._watch(link)
        self._listen_again()

    def _listen_again(self) -> None:
        if not self._listening:
            self._listening = True
            self._poll.register(self._socket, select.EPOLLIN)

    # -- callers -------------------------------------------------------------------------------------------------

    def _let_in(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self._rest(error)
            return
        connection.setblocking(False)
        if len(self._links) >= CALLERS_MAX:
            self.turned_away += 1
            with contextlib.suppress(OSError):
                connection.send(encode({"ok": False, "error": f"{CALLERS_MAX} callers are connected; try again later"}))
            connection.close()
            return
        try:
            self._poll.register(connection, select.EPOLLIN)
        except OSError as error:
            connection.close()
            self._rest(error)
            return
        self._links[connection.fileno()] = _Link(connection, Caller(self._handle, self._streams))

    def _rest(self, error: OSError) -> None:
        """The kernel has no room for another caller. Who waits stays ready, so it is not asked again at once."""
        self._listening = False
        self._poll.unregister(self._socket)
        self.not_let_in += 1
        if self.not_let_in & (self.not_let_in - 1) == 0:  # the first time, then ever more seldom
            times = f"so far {self.not_let_in} times"
            self._tell(f"a caller of the control socket cannot be let in: {error.strerror} ({times})")

    def _serve(self, link: _Link) -> None:
        caller = link.caller
        try:
            if link.watched == select.EPOLLIN:
                data = link.socket.recv(READ_BYTES)
                if not data:
                    self._forget(link)
                    return
                caller.receive(data)
            if not caller.unsent:
                caller.step()
            self._send(link)
        except BlockingIOError:
            pass
        except OSError:
            self._forget(link)
            return
        if caller.last and not caller.unsent:
            self._forget(link)
            return
        self._watch(link)

    def _send(self, link: _Link) -> None:
        if link.caller.unsent:
            del link.caller.unsent[: link.socket.send(link.caller.unsent)]

    def _watch(self, link: _Link) -> None:
        wanted = select.EPOLLOUT if link.caller.busy else select.EPOLLIN
        if wanted != link.watched:
            link.watched = wanted
            self._poll.modify(link.socket, wanted)

    def _forget(self, link: _Link) -> None:
        del self._links[link.socket.fileno()]
        self._poll.unregister(link.socket)
        link.socket.close()
        link.caller.close()
        self._listen_again()  # its place is free

    def close(self) -> None:
        """What is on the way goes out as far as the callers take it; then all is closed."""
        for link in list(self._links.values()):
            with contextlib.suppress(OSError):
                for _ in range(LAST_STEPS_MAX):
                    self._send(link)
                    if not link.caller.unsent:
                        link.caller.take_events()
                    if not link.caller.unsent:
                        break
            self._forget(link)
        self._selector.unregister(self._poll)
        self._poll.close()
        self._socket.close()
        self.path.unlink(missing_ok=True)
