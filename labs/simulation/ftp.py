"""FTP in the simulated world: the client and the server of the real workload, on a host's simulated TCP.

The client says what `ftplib` says, the server what `pyftpdlib` says, since firewalls read it. Their waits and their
errors are the same, too, so that a transfer has the fate that it would have on real packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import ftplib
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, TypeVar

from labs.simulation.stack import Stack
from labs.simulation.transports import connect, listen
from labs.traffic.transfers import Heard, NoDataConnection, content, patience_of

FILE = "file"
CHUNK = 65_536
CHUNK_MIN = 512
CHUNK_S = 0.05
"""As `labs.traffic.ftp_server` paces a data connection."""
CONTROL_IDLE_S = 300.0  # pyftpdlib: FTPHandler.timeout
DATA_WAIT_S = 30.0  # pyftpdlib: PassiveDTP.timeout, ActiveDTP.timeout
AFTER_QUIT_S = 1e-3
"""From the answer to QUIT to the close: a program hears the server's own close before that, captures show."""

T = TypeVar("T")


class Line:
    """A connection's reader and writer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.own: tuple[str, int] = writer.get_extra_info("sockname")
        self.peer: tuple[str, int] = writer.get_extra_info("peername")

    async def read_line(self) -> str:
        """Raises `EOFError` at the end."""
        line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line.decode().rstrip("\r\n")


async def open_line(stack: Stack, address: str, port: int) -> Line:
    """Raises `OSError`."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport = await connect(stack, lambda: protocol, address, port)
    return Line(reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop()))


def listen_for_lines(stack: Stack, address: str, port: int, begin: Callable[[Line], Awaitable[None]]) -> None:
    """`begin` runs as a task for each connection. Raises `OSError`."""

    def factory() -> asyncio.BaseProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), lambda r, w: begin(Line(r, w)))

    listen(stack, factory, address, port)


class Listener:
    """Waits for one data connection on a port of its own."""

    def __init__(self, stack: Stack, address: str) -> None:
        self._stack = stack
        self.address = ip_address(address).packed
        self.port = stack.free_port(self.address)
        self.came: asyncio.Future[Line] = asyncio.get_running_loop().create_future()
        listen_for_lines(stack, address, self.port, self._accept)

    async def _accept(self, line: Line) -> None:
        if self.came.done():
            line.writer.close()
        else:
            self.came.set_result(line)
            self._stack.stop_listening(self.address, self.port)

    def close(self) -> None:
        self._stack.stop_listening(self.address, self.port)
        if not self.came.done():
            self.came.cancel()
        elif not self.came.cancelled():
            self.came.result().writer.close()


class SimulatedFtpClient:
    """A `FileClient`."""

    lasting = True

    def __init__(self, stack: Stack, orders: dict[str, Any]) -> None:
        self.orders = orders
        self.patience_s = patience_of(orders)
        self._stack = stack
        self._line: Line | None = None
        self._announced: tuple[str, int] | Listener | None = None

    async def log_in(self) -> None:
        async with asyncio.timeout(self.patience_s):
            self._line = await open_line(self._stack, self.orders["address"], self.orders["port"])
        await self._answer()
        for command in ("USER anonymous", "PASS anonymous@"):
            await self._ask(command)
        await self._do("TYPE I")

    async def announce(self) -> None:
        self._forget()
        self._announced = await (self._passive() if self.orders["mode"] == "passive" else self._active())

    async def fetch(self, heard: Heard) -> bytes:
        if self._announced is None:
            await self.announce()
        announced, self._announced = self._announced, None
        assert announced is not None
        line = await self._data_connection(announced)
        chunks = []
        try:
            while chunk := await self._within(line.reader.read(CHUNK)):
                heard()
                chunks.append(chunk)
        finally:
            line.writer.close()
        await self._expect("2", await self._answer())
        return b"".join(chunks)

    async def log_out(self) -> None:
        self._forget()
        await self._do("QUIT")
        await asyncio.sleep(AFTER_QUIT_S)
        self.drop()

    def drop(self) -> None:
        self._forget()
        if self._line is not None:
            self._line.writer.close()
            self._line = None

    async def _data_connection(self, announced: tuple[str, int] | Listener) -> Line:
        if isinstance(announced, Listener):
            try:
                await self._retrieve()
                return await self._within(asyncio.shield(announced.came))
            except BaseException:
                announced.close()
                raise
        try:
            line = await self._within(open_line(self._stack, *announced))
        except OSError as error:
            raise NoDataConnection(str(error)) from None
        try:
            await self._retrieve()
        except BaseException:
            line.writer.close()
            raise
        return line

    async def _retrieve(self) -> None:
        await self._expect("1", await self._ask(f"RETR {FILE}"))

    async def _passive(self) -> tuple[str, int]:
        peer = self._control().peer
        if self.orders["extended"] or ":" in peer[0]:
            host, port = ftplib.parse229(await self._ask("EPSV"), peer)
            return str(host), int(port)
        _, port = ftplib.parse227(await self._ask("PASV"))
        return peer[0], int(port)

    async def _active(self) -> Listener:
        own = self._control().own[0]
        listener = Listener(self._stack, own)
        try:
            if self.orders["extended"] or ":" in own:
                await self._do(f"EPRT |{2 if ':' in own else 1}|{own}|{listener.port}|")
            else:
                await self._do(f"PORT {_six(own, listener.port)}")
        except BaseException:
            listener.close()
            raise
        return listener

    def _forget(self) -> None:
        if isinstance(self._announced, Listener):
            self._announced.close()
        self._announced = None

    # -- the control connection

    def _control(self) -> Line:
        if self._line is None:
            raise EOFError
        return self._line

    async def _ask(self, command: str) -> str:
        writer, data = self._control().writer, f"{command}\r\n".encode()
        half = len(data) // 2 if self.orders["split"] else len(data)
        writer.write(data[:half])
        if data[half:]:
            writer.write(data[half:])
        return await self._answer()

    async def _do(self, command: str) -> None:
        await self._expect("2", await self._ask(command))

    async def _answer(self) -> str:
        line = await self._within(self._control().read_line())
        if line[:1] in "123":
            return line
        raise {"4": ftplib.error_temp, "5": ftplib.error_perm}.get(line[:1], ftplib.error_proto)(line)

    @staticmethod
    async def _expect(kind: str, answer: str) -> None:
        if not answer.startswith(kind):
            raise ftplib.error_reply(answer)

    async def _within(self, wait: Awaitable[T]) -> T:
        async with asyncio.timeout(self.patience_s):
            return await wait


def _six(address: str, port: int) -> str:
    return f"{address.replace('.', ',')},{port >> 8},{port & 255}"


class SimulatedFtpServer:
    """Serves the file to whoever asks."""

    def __init__(self, stack: Stack, orders: dict[str, Any]) -> None:
        """Listening. Raises `OSError`."""
        self.stack = stack
        self.data = content(orders["size"])
        self.pace: int | None = orders["pace"]
        listen_for_lines(stack, "::" if orders["family"] == "ipv6" else "0.0.0.0", orders["port"], self._serve)

    async def _serve(self, line: Line) -> None:
        visit = _Visit(self, line)
        with contextlib.suppress(OSError, EOFError, UnicodeDecodeError):
            await visit.serve()
        visit.close()


class _Visit:
    """One control connection."""

    def __init__(self, server: SimulatedFtpServer, line: Line) -> None:
        self._server = server
        self._line = line
        self._passive: Listener | None = None
        self._target: tuple[str, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._said: dict[str, str] = {
            "USER": "331 Username ok, send password.", "PASS": "230 Login successful.",
            "TYPE": "200 Type set to: Binary.", "QUIT": "221 Goodbye.", "NOOP": "200 I successfully did nothing'.",
        }  # fmt: skip

    async def serve(self) -> None:
        self._say("220 fwpair-lab")
        while True:
            try:
                async with asyncio.timeout(CONTROL_IDLE_S):
                    command, _, argument = (await self._line.read_line()).partition(" ")
            except TimeoutError:
                self._say("421 Control connection timed out.")
                return
            if command in ("PASV", "EPSV"):
                self._wait(command)
            elif command in ("PORT", "EPRT"):
                self._aim(command, argument)
            elif command == "RETR":
                await self._send_file()
            else:
                self._say(self._said.get(command, f'500 Command "{command}" not understood.'))
                if command == "QUIT":
                    return

    def close(self) -> None:
        self._forget()
        self._line.writer.close()

    def _say(self, text: str) -> None:
        self._line.writer.write(f"{text}\r\n".encode())

    def _wait(self, command: str) -> None:
        self._forget()
        own = self._line.own[0]
        self._passive = Listener(self._server.stack, own)
        self._timer = asyncio.get_running_loop().call_later(DATA_WAIT_S, self._waited)
        if command == "PASV":
            self._say(f"227 Entering passive mode ({_six(own, self._passive.port)}).")
        else:
            self._say(f"229 Entering extended passive mode (|||{self._passive.port}|).")

    def _waited(self) -> None:
        """Nobody came."""
        if self._passive is not None and not self._passive.came.done():
            self._forget()
            self._say("421 Passive data channel timed out.")

    def _aim(self, command: str, argument: str) -> None:
        self._forget()
        if command == "PORT":
            numbers = argument.split(",")
            self._target = ".".join(numbers[:4]), int(numbers[4]) << 8 | int(numbers[5])
        else:
            _, _, host, port, _ = argument.split(argument[0])
            self._target = host, int(port)
        self._say("200 PORT command successful.")

    async def _send_file(self) -> None:
        line = await self._data_connection()
        if line is None:
            return
        pace = self._server.pace
        chunk = CHUNK if pace is None else max(CHUNK_MIN, min(CHUNK, int(pace * CHUNK_S)))
        try:
            for begin in range(0, len(self._server.data), chunk):
                part = self._server.data[begin : begin + chunk]
                line.writer.write(part)
                await line.writer.drain()
                if pace:
                    await asyncio.sleep(len(part) / pace)
        except OSError:
            self._say("426 Connection error; transfer aborted.")
        else:
            self._say("226 Transfer complete.")
        finally:
            line.writer.close()
            self._forget()

    async def _data_connection(self) -> Line | None:
        if self._target is not None:
            target, self._target = self._target, None
            self._say("150 File status okay. About to open data connection.")
            try:
                async with asyncio.timeout(DATA_WAIT_S):
                    return await open_line(self._server.stack, *target)
            except OSError as error:
                late = isinstance(error, TimeoutError) and not error.errno
                self._say("421 Active data channel timed out." if late else "425 Can't connect to specified address.")
                return None
        if self._passive is None:
            self._say("425 Can't build data connection.")
            return None
        if self._passive.came.done():
            self._say("125 Data connection already open. Transfer starting.")
        else:
            self._say("150 File status okay. About to open data connection.")
        passive = self._passive
        await asyncio.wait([passive.came])
        return None if passive.came.cancelled() else passive.came.result()

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._passive is not None:
            self._passive.close()
            self._passive = None
        self._target = None
