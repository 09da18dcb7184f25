"""A simulated host's transport: ports, errors that come by ICMP, and what an application hears of them."""

from __future__ import annotations

import asyncio
import errno

import pytest
from test_loads import Lan

from labs.simulation import stack as stack_module
from labs.simulation.ip_packets import packed
from labs.simulation.loop import VirtualLoop
from labs.simulation.segments import SYN, bare_segment, turned
from labs.simulation.tcp_connection import TcpState
from labs.simulation.transports import connect, listen
from labs.simulation.wires import WIRE_S

A, B, NOBODY, ELSEWHERE = "192.0.2.1", "192.0.2.2", "192.0.2.77", "203.0.113.9"
A6, B6, NOBODY6 = "2001:db8::1", "2001:db8::2", "2001:db8::77"
PORT = 7000


class Quiet(asyncio.Protocol):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.heard.append(error)


def run(lan: Lan, main):
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(lan.world)) as runner:
        return runner.run(main)


def failure(lan: Lan, address: str) -> tuple[int | None, float]:
    """The error of a connection that cannot be opened, and after how long it came."""
    begin = lan.world.now
    with pytest.raises(OSError) as error:
        run(lan, connect(lan.loads.stack("client"), Quiet, address, PORT))
    return error.value.errno, lan.world.now - begin


def test_why_a_connection_cannot_be_opened() -> None:
    lan = Lan()
    lan.loads.stack("server")
    assert failure(lan, B) == (errno.ECONNREFUSED, pytest.approx(0, abs=0.01))
    assert failure(lan, B6) == (errno.ECONNREFUSED, pytest.approx(0, abs=0.01))
    assert failure(lan, NOBODY) == (errno.EHOSTUNREACH, pytest.approx(3, abs=0.1)), "three questions without an answer"
    assert failure(lan, NOBODY6) == (errno.EHOSTUNREACH, pytest.approx(3, abs=0.1))
    assert failure(lan, ELSEWHERE) == (errno.ENETUNREACH, 0)
    lan.fault("server", cut=True)
    assert failure(lan, B) == (errno.ETIMEDOUT, pytest.approx(131, abs=1))


@pytest.mark.parametrize(("address", "nobody"), [(B, NOBODY), (B6, NOBODY6)])
def test_a_connected_udp_socket_hears_of_a_closed_port_and_an_absent_host(address: str, nobody: str) -> None:
    lan = Lan()
    lan.loads.stack("server")
    heard: list[int] = []
    for target in (address, nobody):
        socket = lan.loads.stack("client").socket(lambda *_: None)
        socket.connect(packed(target), PORT, heard.append)
        socket.send(b"there?", packed(target), PORT)
        lan.world.run(lan.world.now + 4)
    assert heard == [errno.ECONNREFUSED, errno.EHOSTUNREACH]


def test_datagrams_and_their_answers() -> None:
    lan = Lan()
    server = lan.loads.stack("server")
    answering = server.socket(lambda data, *sender: answering.send(data[::-1], *sender), PORT)
    heard: list[tuple[bytes, bytes, int]] = []
    asking = lan.loads.stack("client").socket(lambda *what: heard.append(what))
    for target in (B, B6):
        asking.send(b"abc", packed(target), PORT)
    lan.world.run(lan.world.now + 1)
    assert heard == [(b"cba", packed(B), PORT), (b"cba", packed(B6), PORT)]
    with pytest.raises(OSError, match="in use"):
        server.socket(lambda *_: None, PORT)


def test_a_port_is_taken_once_and_all_of_them_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "PORT_LAST", stack_module.PORT_FIRST + 9)
    lan = Lan()
    listen(lan.loads.stack("server"), Quiet, "0.0.0.0", PORT)
    with pytest.raises(OSError, match="in use"):
        listen(lan.loads.stack("server"), Quiet, "0.0.0.0", PORT)

    async def main() -> None:
        opened = [await connect(lan.loads.stack("client"), Quiet, B, PORT) for _ in range(10)]
        assert len({transport.get_extra_info("sockname") for transport in opened}) == 10
        with pytest.raises(OSError, match="Cannot assign"):
            await connect(lan.loads.stack("client"), Quiet, B, PORT)
        opened[3].abort()
        await connect(lan.loads.stack("client"), Quiet, B, PORT)

    run(lan, main())


def test_a_new_connection_takes_the_place_of_one_in_time_wait() -> None:
    """Of the side that closed first; the other one forgets at once."""
    lan = Lan()
    client, server = lan.loads.stack("client"), lan.loads.stack("server")
    listen(server, Quiet, "0.0.0.0", PORT)

    async def main() -> bytes:
        await connect(client, Quiet, B, PORT)
        await asyncio.sleep(0.1)
        (connection,) = server.connections.values()
        assert connection.application is not None
        connection.application.close()  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        assert connection.state is TcpState.TIME_WAIT and not client.connections
        return connection.ends

    ends = run(lan, main())
    for number, state in ((5, TcpState.TIME_WAIT), (1 << 30, TcpState.SYN_RECEIVED)):  # an old number, and a new one
        lan.machines["client"].send_ip(bare_segment(turned(ends), number, 0, SYN))
        lan.world.run(lan.world.now + 1.5 * WIRE_S)
        assert [each.state for each in server.connections.values()] == [state]


def test_what_was_cut_off_is_told_and_what_was_closed_is_not_an_error() -> None:
    lan = Lan()
    client, server = lan.loads.stack("client"), lan.loads.stack("server")
    protocols: list[Quiet] = []

    def made() -> Quiet:
        protocols.append(Quiet())
        return protocols[-1]

    listen(server, made, "0.0.0.0", PORT)

    async def main() -> None:
        one, two = [await connect(client, Quiet, B, PORT) for _ in range(2)]
        one.write(b"last words")
        one.close()
        two.abort()
        await asyncio.sleep(1)

    run(lan, main())
    assert protocols[0].heard == [b"last words", None]
    (error,) = protocols[1].heard
    assert isinstance(error, ConnectionResetError)


def test_writing_is_paused_while_nothing_gets_through() -> None:
    lan = Lan()
    client = lan.loads.stack("client")
    listen(lan.loads.stack("server"), Quiet, "0.0.0.0", PORT)
    said: list[str] = []

    class Writer(Quiet):
        def pause_writing(self) -> None:
            said.append("pause")

        def resume_writing(self) -> None:
            said.append("resume")

    async def main() -> None:
        transport = await connect(client, Writer, B, PORT)
        lan.fault(cut=True)
        transport.write(bytes(50_000))
        assert said == []
        transport.write(bytes(50_000))
        assert said == ["pause"] and transport.get_write_buffer_size() == 100_000
        lan.fault()
        await asyncio.sleep(5)
        assert said == ["pause", "resume"] and transport.get_write_buffer_size() == 0

    run(lan, main())
