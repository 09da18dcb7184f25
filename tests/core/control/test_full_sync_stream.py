"""Full sync's TCP streams on real sockets."""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from fwnode.edges import FullSyncEnd
from fwnode.links.full_sync_streams import FullSyncStreams
from fwnode.links.stream import CHUNK_BYTES, FullSyncStream

HERE = "127.0.0.1"
TABLE = bytes(range(256)) * 4_096


class End:
    """Sends `out` in chunks, and is finished when it has sent all and received `wanted` bytes."""

    def __init__(self, out: bytes = b"", wanted: int = 0) -> None:
        self.out = out
        self.wanted = wanted
        self.received = b""
        self.failed = ""

    @property
    def finished(self) -> bool:
        return not self.out and len(self.received) >= self.wanted

    def receive_data(self, data: bytes, now: float) -> None:
        self.received += data

    def outgoing(self, now: float) -> bytes:
        chunk, self.out = self.out[:CHUNK_BYTES], self.out[CHUNK_BYTES:]
        return chunk

    def next_wakeup(self) -> float | None:
        return None

    def on_wakeup(self, now: float) -> None: ...

    def connection_lost(self, reason: str) -> None:
        self.failed = self.failed or reason


class Loop:
    """The streams of one machine on a clock of its own, which the test moves."""

    def __init__(self, accept: Callable[[str, float], FullSyncEnd | None]) -> None:
        self.now = 0.0
        self.pause_s = 0.0
        self.ended: list[FullSyncEnd] = []
        self.selector = selectors.EpollSelector()
        self.streams = FullSyncStreams(
            self.selector, lambda: self.now, accept, lambda end, _now: self.ended.append(end), lambda _now: self.pause_s
        )

    def turn(self) -> None:
        for key, mask in self.selector.select(0.01):
            key.data(mask)
        self.streams.advance(self.now)

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(2_000):
            if condition():
                return
            self.turn()
        raise AssertionError("it does not come to that")


@pytest.fixture
def listening() -> Iterator[tuple[Loop, list[End], int]]:
    """Streams that take members from here, the ends they made, and their port."""
    ends: list[End] = []

    def accept(address: str, _now: float) -> FullSyncEnd | None:
        if address != HERE:
            return None
        ends.append(End(TABLE, wanted=4))
        return ends[-1]

    with socket.socket() as free:
        free.bind((HERE, 0))
        port = free.getsockname()[1]
    loop = Loop(accept)
    loop.streams.listen(HERE, port)
    yield loop, ends, port
    loop.streams.close()
    loop.selector.close()


def test_both_ends_get_what_the_other_sends_and_the_stream_is_closed(listening: tuple[Loop, list[End], int]) -> None:
    loop, sources, port = listening
    sink = End(b"all?", wanted=len(TABLE))
    loop.streams.open(HERE, HERE, port, sink)
    loop.until(lambda: len(loop.ended) == 2)
    assert sink.received == TABLE and sources[0].received == b"all?"
    assert not sink.failed and not sources[0].failed
    assert len(loop.selector.get_map()) == 1, "only the listening socket is watched"


def test_a_pause_stops_what_is_sent_until_it_is_over(listening: tuple[Loop, list[End], int]) -> None:
    loop, _, port = listening
    loop.pause_s = 5.0
    sink = End(b"all?", wanted=len(TABLE))
    loop.streams.open(HERE, HERE, port, sink)
    loop.until(lambda: len(sink.received) == CHUNK_BYTES)
    for _ in range(20):
        loop.turn()
    assert len(sink.received) == CHUNK_BYTES, "one slice, and the next one waits"
    assert loop.streams.next_wakeup() == 5.0
    loop.now = 5.0
    loop.until(lambda: len(sink.received) == 2 * CHUNK_BYTES)


def test_a_stranger_is_closed_and_makes_no_end(listening: tuple[Loop, list[End], int]) -> None:
    loop, sources, port = listening
    with socket.create_connection((HERE, port), source_address=("127.0.0.9", 0)) as stranger:
        stranger.setblocking(False)
        closed = False
        while not closed:
            loop.turn()
            with contextlib.suppress(BlockingIOError):
                closed = not stranger.recv(1)
    assert not sources


def test_what_waits_and_what_was_accepted_is_refused_and_what_this_member_asked_for_goes_on(
    listening: tuple[Loop, list[End], int],
) -> None:
    loop, sources, port = listening
    loop.pause_s = 5.0
    sink = End(b"all?", wanted=len(TABLE))
    loop.streams.open(HERE, HERE, port, sink)
    loop.until(lambda: sources)
    with socket.create_connection((HERE, port)) as waiting:
        loop.streams.refuse_waiting()
        assert waiting.recv(1) == b""
    assert len(sources) == 1 and not loop.ended, "nobody hears of those that were refused"
    loop.now = 5.0  # it, too, pauses after what it has sent
    loop.until(lambda: loop.ended)
    assert loop.ended == [sink] and sink.failed


def test_an_end_that_fails_before_anybody_takes_what_it_says_is_closed_at_once(
    listening: tuple[Loop, list[End], int],
) -> None:
    """A policy that drops its SYNs: TCP would send them for two minutes, and be let in when that policy has changed."""
    loop, _, _ = listening
    with socket.create_server((HERE, 0), backlog=0) as nobody, socket.create_connection(nobody.getsockname()):
        sink = End(b"all?", wanted=1)
        loop.streams.open(HERE, *nobody.getsockname(), sink)
        for _ in range(5):
            loop.turn()
        assert not loop.ended, "it is still connecting"
        sink.failed = "no answer"
        loop.streams.advance(loop.now)
        assert loop.ended == [sink]


def test_an_end_that_fails_says_why(listening: tuple[Loop, list[End], int]) -> None:
    loop, sources, port = listening
    sink = End(b"all?", wanted=len(TABLE))
    loop.streams.open(HERE, HERE, port, sink)
    loop.until(lambda: sources)
    sources[0].out, sources[0].failed = b"the reason", "the reason"
    loop.until(lambda: len(loop.ended) == 2)
    assert sink.received.endswith(b"the reason")


def test_what_the_kernel_still_sends_counts_as_moving() -> None:
    """Its buffer is full: nothing can be given to it, and yet the other side gets on."""
    with socket.create_server((HERE, 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
    with sender, receiver:
        sender.setblocking(False)
        stream = FullSyncStream(sender, SimpleNamespace())  # type: ignore[arg-type]
        assert not stream.drains()
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.send(bytes(65536))
        assert stream.drains()
        while stream.drains():
            select.select([], [], [], 0.05)  # what is under way arrives; then the receiver takes nothing
        while not stream.drains():
            receiver.recv(1 << 20)
