"""Two TCP endpoints joined by a pipe that may lose, delay and repeat segments, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tcp_stories import HANDSHAKE

from labs.simulation.loop import World
from labs.simulation.segments import ACK, FIN, PSH, RST, SYN, bare_segment, ends_of, read_segment, reset_for, turned
from labs.simulation.tcp_connection import TcpConnection, TcpState

DELAY_S = 0.001
CLIENT, SERVER = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))
_FLAGS = ((SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"), (ACK, "."))


class App:
    """Keeps what it is told. `answer` makes an answer of what has come; `reply_eof` closes when the other side did."""

    def __init__(self, side: Side, answer: Callable[[bytes], bytes] | None = None, reply_eof: bool = True) -> None:
        self.side, self.answer, self.reply_eof = side, answer, reply_eof
        self.data = bytearray()
        self.said: list[str] = []
        self.error: int | None = None

    def opened(self) -> None:
        self.said.append("opened")

    def received(self, data: bytes) -> None:
        self.data += data
        if self.answer is not None and self.side.connection is not None:
            self.side.connection.write(self.answer(data), self.side.pipe.world.now)

    def ended(self) -> None:
        self.said.append("ended")
        if self.reply_eof and self.side.connection is not None:
            self.side.connection.close(self.side.pipe.world.now)

    def sent(self) -> None:
        self.said.append("sent")

    def closed(self, error: int) -> None:
        self.error = error
        self.said.append("closed")


class Side:
    """A host with one connection at most; a `Below`."""

    def __init__(self, pipe: Pipe, address: bytes, arrow: str) -> None:
        self.pipe, self.address, self.arrow = pipe, address, arrow
        self.connection: TcpConnection | None = None
        self.app = App(self)
        self.listens = False
        self.is_gone = False

    def send(self, packet: bytes) -> None:
        self.pipe.carry(self, packet)

    def arm(self, when: float, connection: TcpConnection) -> None:
        self.pipe.world.at(when, lambda c: c.on_wakeup(self.pipe.world.now), connection)

    def established(self, connection: TcpConnection) -> None:
        connection.application = self.app
        self.app.opened()

    def gone(self, connection: TcpConnection) -> None:
        self.is_gone, self.connection = True, None

    def receive(self, packet: bytes) -> None:
        now = self.pipe.world.now
        size = 4 if packet[0] < 0x60 else 16
        at = 20 if size == 4 else 40
        ends = turned(packet[at - 2 * size : at + 4])
        bits = read_segment(packet, at + 4)[2]
        if self.connection is not None:
            self.connection.receive(packet, at, now)
        elif self.listens and bits & SYN and not bits & ACK:
            self.connection = TcpConnection.answer(self, ends, 7_000, packet, at, now)
        elif reset := reset_for(packet, at, ends):
            self.send(reset)


class Pipe:
    """`fate(random)` says after how long each copy of a segment arrives: nothing for one that is lost."""

    def __init__(self, fate: Callable[[Random], list[float]] | None = None, seed: int = 1,
                 ends: tuple[bytes, bytes] = (CLIENT, SERVER)) -> None:  # fmt: skip
        self.world = World(seed)
        self.start = self.world.now
        self.fate = fate or (lambda _: [DELAY_S])
        self.client, self.server = Side(self, ends[0], ">"), Side(self, ends[1], "<")
        self.server.listens = True
        self.log: list[tuple[float, str, str, int]] = []
        self.dark = False

    def carry(self, sender: Side, packet: bytes) -> None:
        at = 20 if packet[0] < 0x60 else 40
        bits = read_segment(packet, at + 4)[2]
        flags = "".join(name for bit, name in _FLAGS if bits & bit)
        length = len(packet) - at - (bits >> 12) * 4
        self.log.append((self.world.now - self.start, sender.arrow, flags, length))
        target = self.server if sender is self.client else self.client
        for delay in [] if self.dark else self.fate(self.world.random):
            self.world.at(self.world.now + delay, target.receive, packet)

    def connect(self, initial: int = 100, app: App | None = None) -> TcpConnection:
        ends = ends_of(self.client.address, self.server.address, 40_000, 80)
        self.client.app = app or self.client.app
        self.client.connection = TcpConnection.connect(self.client, ends, initial, self.client.app, self.world.now)
        return self.client.connection

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def said(self) -> str:
        """The segments so far as `>S <S. >.`, data with its length; the list begins anew."""
        words = [f"{arrow}{flags}{length or ''}" for _, arrow, flags, length in self.log]
        self.log.clear()
        return " ".join(words)

    def times(self) -> list[float]:
        """When each segment was sent, since the first of them."""
        found = [round(when - self.log[0][0], 3) for when, *_ in self.log]
        self.log.clear()
        return found

    def raw(self, flags: int, sequence: int, acknowledgement: int) -> None:
        """A segment from outside to the server, as from the client's port."""
        ends = ends_of(self.client.address, self.server.address, 40_000, 80)
        self.server.receive(bare_segment(ends, sequence, acknowledgement, flags))


def opened(pipe: Pipe, answer: Callable[[bytes], bytes] | None = lambda question: b"A " + question) -> TcpConnection:
    """The client's end of a connection whose server answers; the handshake is taken off the log."""
    pipe.server.app.answer = answer
    connection = pipe.connect()
    pipe.run(0.1)
    assert connection.state is TcpState.ESTABLISHED and pipe.said() == HANDSHAKE
    return connection
