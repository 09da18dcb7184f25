"""The streams of full syncs: TCP on the sync network (port 256 of the active member), watched in the loop's selector.

Moves bytes between each socket and the protocol object at this end of it (`syncproto.full`), a slice at a time: packets
come first. Who may connect, when a slice may follow, and what an end says are the member's business.
"""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable

from fwnode.edges import FullSyncEnd
from fwnode.links.stream import FullSyncStream, connect, listen
from syncproto.errors import SyncError

_READ_WRITE = selectors.EVENT_READ | selectors.EVENT_WRITE


class FullSyncStreams:
    """`clock()` is wire time. `accept(address, now)` gives the end for who has connected, or None; `ended(end, now)`
    hears of a stream that is closed, because its end had finished or failed; `pause(now)` gives the seconds until the
    next slice may follow."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        clock: Callable[[], float],
        accept: Callable[[str, float], FullSyncEnd | None],
        ended: Callable[[FullSyncEnd, float], None],
        pause: Callable[[float], float],
    ) -> None:
        self._selector = selector
        self._clock = clock
        self._accept = accept
        self._ended = ended
        self._pause = pause
        self._streams: list[FullSyncStream] = []
        self._listener: socket.socket | None = None

    def listen(self, address: str, port: int) -> None:
        """Raises `OSError` when the port is taken."""
        self._listener = listen(address, port)
        self._selector.register(self._listener, selectors.EVENT_READ, lambda _mask: self._let_in())

    def open(self, own: str, peer: str, port: int, end: FullSyncEnd) -> None:
        """Connect; what comes of it, the end hears. Raises `OSError` where it cannot be begun."""
        self._add(FullSyncStream(connect(own, peer, port), end))

    def _let_in(self) -> None:
        assert self._listener is not None
        try:
            connection, address = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        end = self._accept(address[0], self._clock())
        if end is None:
            connection.close()
        else:
            self._add(FullSyncStream(connection, end, accepted=True))

    def _add(self, stream: FullSyncStream) -> None:
        self._streams.append(stream)
        self._selector.register(stream.socket, _READ_WRITE, lambda mask: self._on_stream(stream, mask))

    def _on_stream(self, stream: FullSyncStream, mask: int) -> None:
        now = self._clock()
        if mask & selectors.EVENT_READ:
            _yield_processor()
            stream.on_readable(now)
        self._serve(stream, now)

    def advance(self, now: float) -> None:
        """After the member had the time: send what there is, and close what is over."""
        for stream in list(self._streams):
            self._serve(stream, now)

    def next_wakeup(self) -> float | None:
        """When a slice that had to wait may follow."""
        return min((s.resume_at for s in self._streams if s.resume_at), default=None)

    def _serve(self, stream: FullSyncStream, now: float) -> None:
        if stream not in self._streams or now < stream.resume_at:
            return
        stream.resume_at = 0.0
        _yield_processor()
        try:
            more = stream.pump(now)
        except SyncError as error:  # a record that no message carries
            stream.end.connection_lost(str(error))
            more = False
        if stream.over:
            self._remove(stream)
            self._ended(stream.end, now)
            return
        pause = self._pause(now) if more else 0.0
        if pause:
            stream.resume_at = now + pause
        wanted = _READ_WRITE if more and not pause else selectors.EVENT_READ
        key = self._selector.get_key(stream.socket)
        if key.events != wanted:
            self._selector.modify(stream.socket, wanted, key.data)

    def _remove(self, stream: FullSyncStream) -> None:
        self._selector.unregister(stream.socket)
        stream.close()
        self._streams.remove(stream)

    def drains(self, end: FullSyncEnd) -> bool:
        """Whether what the kernel keeps of this end's stream has changed since the last question."""
        return any(stream.drains() for stream in self._streams if stream.end is end)

    def refuse_waiting(self) -> None:
        """Close what waits to be accepted, and what was accepted."""
        while self._listener is not None and _refuse_one(self._listener):
            pass
        for stream in [s for s in self._streams if s.accepted]:
            self._remove(stream)

    def close(self) -> None:
        """Close the listener and every stream, without telling their ends."""
        for stream in self._streams:
            stream.close()
        if self._listener:
            self._listener.close()


def _refuse_one(listener: socket.socket) -> bool:
    """Close one connection that waits to be accepted; False when there is none."""
    try:
        listener.accept()[0].close()
    except OSError:
        return False
    return True


def _yield_processor() -> None:
    """Before the work of a slice: whoever a packet has just woken, on this processor, may handle it first."""
    os.sched_yield()
