"""File transfers on the loopback: real FTP and TFTP servers and clients, a real ping, and what became of each."""

import asyncio
import errno
import ftplib
import shutil
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from test_labs_traffic import free_port, play

from labs.network.private import system_path
from labs.traffic.driver import Traffic, TrafficError
from labs.traffic.fates import Fate, Tally, fate_of
from labs.traffic.threads import threaded
from labs.traffic.transfers import content
from labs.traffic.workload import Ftp, Ping, Tftp


def ftp(**keys: Any) -> Ftp:
    return Ftp.model_validate({"kind": "ftp", "count": 2, "port": free_port(), "size": "100kB", **keys})


async def once(traffic: Traffic) -> Tally:
    await traffic.open()
    assert await traffic.transfer(True) == {"transferred": 2, "failed": 0}
    return await traffic.finish()


@pytest.mark.parametrize(
    ("address", "keys"),
    [
        ("127.0.0.1", {}), ("127.0.0.1", {"mode": "active"}), ("127.0.0.1", {"extended": True, "split": True}),
        ("127.0.0.1", {"mode": "active", "extended": True}), ("::1", {"family": "ipv6"}),
        ("::1", {"family": "ipv6", "mode": "active", "split": True}),
    ],
)  # fmt: skip
def test_every_way_of_ftp(address: str, keys: dict[str, Any]) -> None:
    tally = play(ftp(**keys), once, address)
    assert tally.figures == {"transfers": 2, "transferred": 2, "failed": 0}
    assert (tally.sessions, tally.fates[Fate.FINISHED], tally.answers) == (2, 2, 2)


def test_a_transfer_goes_on_while_other_things_happen() -> None:
    async def story(traffic: Traffic) -> Tally:
        await traffic.open()
        assert await traffic.transfer(False) == {"started": 2, "failed": 0}
        server = traffic._server
        assert server is not None
        server._process.send_signal(signal.SIGSTOP)
        under_way = await traffic.report()
        server._process.send_signal(signal.SIGCONT)
        assert (under_way.open, under_way.figures["transferred"]) == (2, 0)
        return await traffic.finish()

    tally = play(ftp(size="200kB", pace="400kB"), story)
    assert (tally.figures["transferred"], tally.fates[Fate.FINISHED]) == (2, 2)


@pytest.mark.parametrize("mode", ["passive", "active"])
def test_what_was_announced_is_used(mode: str) -> None:
    async def story(traffic: Traffic) -> Tally:
        await traffic.open()
        assert await traffic.announce() == {"announced": 2, "failed": 0}
        assert await traffic.transfer(True) == {"transferred": 2, "failed": 0}
        assert await traffic.transfer(True) == {"transferred": 2, "failed": 0}  # announces by itself
        return await traffic.finish()

    assert play(ftp(mode=mode), story).figures["transferred"] == 4


@pytest.mark.parametrize("extended", [False, True])
def test_an_active_data_connection_is_opened_by_its_transfer(extended: bool) -> None:
    """And not by its announcement: a cluster can fail over in between."""

    async def story(traffic: Traffic) -> Tally:
        from labs.traffic.ftp_client import FtpClient

        orders = {**traffic._orders, "patience": 60}
        client = FtpClient(orders)
        client.log_in()
        client.announce()
        listener = client._announced
        assert isinstance(listener, socket.socket)
        listener.setblocking(False)
        client.ftp.voidcmd("NOOP")  # the server has done what PORT made it do
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.settimeout(3)
        assert client.fetch(lambda: None) == content(orders["size"])
        client.log_out()
        return Tally()

    play(ftp(mode="active", extended=extended), story)


def end_the_server(traffic: Traffic) -> Awaitable[int]:
    server = traffic._server
    assert server is not None
    server._process.kill()
    return server._process.wait()


def test_a_transfer_whose_server_dies_is_not_complete() -> None:
    async def story(traffic: Traffic) -> Tally:
        await traffic.open()
        await traffic.transfer(False)
        await end_the_server(traffic)
        tally = await traffic.finish()
        assert await traffic.transfer(True) == {"transferred": 0, "failed": 2}  # a new session each, and nobody there
        assert (await traffic.report()).fates[Fate.REFUSED] == 2
        return tally

    tally = play(ftp(size="1MB", pace="100kB"), story)
    assert tally.figures == {"transfers": 2, "transferred": 0, "failed": 2}
    assert tally.fates[Fate.RESET] == 2


def test_a_split_command_leaves_in_two_segments() -> None:
    from labs.traffic.ftp_client import _Ftp

    class Wire:
        def __init__(self) -> None:
            self.sent: list[bytes] = []

        def sendall(self, data: bytes) -> None:
            self.sent.append(data)

    ftp = _Ftp()
    for ftp.split, segments in ((False, 1), (True, 2)):
        ftp.sock = wire = Wire()  # type: ignore[assignment]
        ftp.putline("PORT 192,0,2,100,4,1")
        assert (len(wire.sent), b"".join(wire.sent)) == (segments, b"PORT 192,0,2,100,4,1\r\n")


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (TimeoutError(), Fate.HUNG), (OSError(errno.EHOSTUNREACH, ""), Fate.HUNG), (EOFError(), Fate.RESET),
        (ConnectionResetError(), Fate.RESET), (ConnectionRefusedError(), Fate.REFUSED),
        (ftplib.error_temp("425 no"), Fate.REFUSED),
    ],
)  # fmt: skip
def test_what_an_error_makes_of_a_transfer(error: Exception, fate: Fate) -> None:
    assert fate_of(error) is fate


@pytest.mark.parametrize("alter", [lambda data: data[:-1], lambda data: data[::-1], lambda data: data + b"x"])
def test_wrong_bytes_are_not_a_transfer(alter: Callable[[bytes], bytes]) -> None:
    class Liar:
        lasting = False
        log_in = announce = log_out = drop = lambda self: None

        def fetch(self, heard: Callable[[], None]) -> bytes:
            heard()
            return alter(content(1000))

    async def story() -> Tally:
        transfers = threaded({"count": 1, "size": 1000}, Liar)
        assert await transfers.transfer(True) == {"transferred": 0, "failed": 1}
        return Tally.from_json((await transfers.report())["tally"])

    assert asyncio.run(story()).fates[Fate.RESET] == 1


def tftp(**keys: Any) -> Tftp:
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return Tftp.model_validate({"kind": "tftp", "count": 2, "port": port, **keys})


def test_tftp_transfers_are_a_session_each() -> None:
    async def story(traffic: Traffic) -> Tally:
        await traffic.open()
        assert await traffic.transfer(False) == {"started": 2, "failed": 0}
        assert await traffic.transfer(True) == {"transferred": 2, "failed": 0}
        return await traffic.finish()

    tally = play(tftp(), story)
    assert tally.figures == {"transfers": 4, "transferred": 4, "failed": 0}
    assert (tally.sessions, tally.fates[Fate.FINISHED]) == (4, 4)


def test_a_session_outlives_a_data_connection_that_cannot_be_opened() -> None:
    from labs.traffic.ftp_client import FtpClient

    class Unlucky(FtpClient):
        def _passive(self) -> tuple[str, int]:
            host, port = super()._passive()
            lucky.append(port)
            return host, free_port() if len(lucky) == 1 else port

    lucky: list[int] = []

    async def story(traffic: Traffic) -> Tally:
        transfers = threaded(traffic._orders, lambda: Unlucky(traffic._orders))
        assert await transfers.open() == {"opened": 1, "failed": 0}
        assert await transfers.transfer(True) == {"transferred": 0, "failed": 1}
        assert await transfers.transfer(True) == {"transferred": 1, "failed": 0}
        return Tally.from_json((await transfers.finish())["tally"])

    tally = play(ftp(count=1), story)
    assert (tally.sessions, tally.fates[Fate.FINISHED]) == (1, 1)
    assert tally.figures == {"transfers": 2, "transferred": 1, "failed": 1}


def test_tftp_without_an_answer_hangs() -> None:
    async def story(traffic: Traffic) -> Tally:
        await end_the_server(traffic)
        await traffic.transfer(True)
        return await traffic.finish()

    tally = play(tftp(count=1, patience="20s"), story)
    assert (tally.fates[Fate.HUNG], tally.figures["failed"]) == (1, 1)


def test_a_taken_port_is_said() -> None:
    async def story(traffic: Traffic) -> Tally:
        raise AssertionError("did not start")

    workload = ftp()
    told = f"cannot listen on port {workload.port}"
    with socket.create_server(("0.0.0.0", workload.port)), pytest.raises(TrafficError, match=told):
        play(workload, story)
    other = tftp()
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", other.port))
        with pytest.raises(TrafficError, match=f"cannot listen on port {other.port}"):
            play(other, story)


@pytest.fixture
def ping_of_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own ping, in a private network: where its file has no capabilities, an ordinary user may not
    run it otherwise."""
    program = tmp_path / "ping"
    command = f"""ip link set lo up; exec {shutil.which("ping")} "$@" """
    program.write_text(f"#!/bin/sh\nexec unshare -rn sh -c '{command}' ping \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{system_path()}")


@pytest.mark.usefixtures("ping_of_anybody")
def test_pings_are_counted() -> None:
    async def story(traffic: Traffic) -> Tally:
        await traffic.open()
        while (await traffic.report()).figures["answered"] < 3:
            await asyncio.sleep(0.01)
        return await traffic.finish()

    async def counted(traffic: Traffic) -> Tally:
        await traffic.open()
        assert (await traffic.finish()).figures == {"sent": 2, "answered": 2}
        await traffic.open()
        return await traffic.finish()

    assert play(Ping.model_validate({"kind": "ping", "rate": 50, "count": 2}), counted).figures["answered"] == 4
    tally = play(Ping.model_validate({"kind": "ping", "rate": 50}), story)
    assert tally.figures["sent"] == tally.figures["answered"] == tally.fates[Fate.FINISHED] >= 3
