"""Tells the stories of `tests/tcp_stories.py` with kernel sockets in two network namespaces, and prints what was on the
wire between them as JSON: story -> [[seconds, word], …] each time. Started by `test_real_tcp` in its own namespace.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

CLIENT, SERVER, NOBODY, PORT = "192.0.2.1", "192.0.2.2", "192.0.2.3", 7000
MAC_OF_CLIENT, MAC_OF_NOBODY = "02:00:00:00:00:01", "02:00:00:00:00:09"
inside: list[str] = []
"""What a command begins with that is run in the server's namespace."""
FLAGS = ((2, "S"), (1, "F"), (4, "R"), (8, "P"), (16, "."))
SO_TIMESTAMPNS = 35
QUESTION, ANSWER, REST = b"Q 1\n", b"A Q 1\n", b"the rest"


def run(*command: str) -> None:
    subprocess.run(command, check=True)


class Wire:
    """Every TCP segment that passes the client's interface, with the kernel's own time of it."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.bind((interface, 0))
        self._socket.setblocking(False)

    def said(self) -> list[tuple[float, str]]:
        """Since the last call."""
        words = []
        while True:
            try:
                data, extra, _, (_, _, kind, *_) = self._socket.recvmsg(2048, 256)
            except BlockingIOError:
                return words
            if data[0] != 0x45 or data[9] != 6:
                continue
            seconds, nanoseconds = struct.unpack("qq", extra[0][2])
            flags = "".join(name for bit, name in FLAGS if data[33] & bit)
            length = int.from_bytes(data[2:4]) - 20 - (data[32] >> 4) * 4
            arrow = ">" if kind == socket.PACKET_OUTGOING else "<"
            words.append((seconds + nanoseconds / 1e9, f"{arrow}{flags}{length or ''}"))


class Asking(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.heard = asyncio.Event()
        self.over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.heard.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.over.set()

    async def ask(self) -> None:
        self.heard.clear()
        self.transport.write(QUESTION)
        await self.heard.wait()

    async def reset(self) -> None:
        """The end, at once: nothing is sent again any more."""
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
        await asyncio.sleep(0.1)


class Answering(asyncio.Protocol):
    """Answers; what it is asked on the next port it leaves, and has something to say after the client's end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)


class Late(Answering):
    def eof_received(self) -> bool:
        loop = asyncio.get_running_loop()
        loop.call_later(0.3, self.transport.write, REST)
        loop.call_later(0.6, self.transport.close)
        return True


async def connect(port: int = PORT, address: str = SERVER) -> Asking:
    _, protocol = await asyncio.get_running_loop().create_connection(Asking, address, port)
    return protocol


async def talk(think_s: float, exchanges: int) -> Asking:
    asking = await connect()
    for number in range(exchanges):
        if number:
            await asyncio.sleep(think_s)
        await asking.ask()
    return asking


async def later() -> None:
    (await talk(0.1, 3)).transport.write_eof()
    await asyncio.sleep(0.3)


async def quick() -> None:
    asking = await talk(0.01, 4)
    await asyncio.sleep(0.3)
    await asking.reset()


async def half_close() -> None:
    asking = await connect(PORT + 1)
    asking.transport.write_eof()
    await asking.over.wait()
    await asyncio.sleep(0.1)


async def refused() -> None:
    try:
        await connect(PORT + 2)
    except ConnectionRefusedError:
        return
    raise AssertionError("somebody listens")


async def dark_data() -> None:
    asking = await talk(0.1, 1)
    await asyncio.sleep(0.1)
    run("ip", "neigh", "replace", SERVER, "lladdr", MAC_OF_NOBODY, "dev", "near", "nud", "permanent")
    asking.transport.write(QUESTION)
    await asyncio.sleep(2.2)
    await asking.reset()


async def dark_syn() -> None:
    run("ip", "neigh", "replace", NOBODY, "lladdr", MAC_OF_NOBODY, "dev", "near", "nud", "permanent")
    try:
        async with asyncio.timeout(3.5):
            await connect(PORT, NOBODY)
    except TimeoutError:
        pass


async def slow() -> None:
    """The server's first answers go to nobody, and so does the first question after them."""
    run("ip", "neigh", "replace", SERVER, "nud", "failed", "dev", "near")
    far_client = ("ip", "neigh", "replace", CLIENT, "dev", "far", "nud", "permanent", "lladdr")
    run(*inside, *far_client, MAC_OF_NOBODY)
    begun = time.monotonic()
    opening = asyncio.create_task(connect())
    await asyncio.sleep(0.3)
    run(*inside, *far_client, MAC_OF_CLIENT)
    asking = await opening
    took_s = time.monotonic() - begun
    run("ip", "neigh", "replace", SERVER, "lladdr", MAC_OF_NOBODY, "dev", "near", "nud", "permanent")
    asking.transport.write(QUESTION)
    await asyncio.sleep(2.8 * took_s)
    await asking.reset()


async def serve() -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(Answering, SERVER, PORT)
    await loop.create_server(Late, SERVER, PORT + 1)
    print("ready", flush=True)
    await asyncio.sleep(600)


async def tell() -> None:
    wire = Wire("near")
    seen: dict[str, list[list[tuple[float, str]]]] = {}
    stories: list[tuple[Callable[[], Awaitable[None]], int]] = [
        (later, 5), (quick, 5), (half_close, 1), (refused, 1), (dark_syn, 1), (dark_data, 1),
        (slow, 1),
    ]  # fmt: skip
    for story, times in stories:
        for _ in range(times):
            await story()
            seen.setdefault(story.__name__, []).append(wire.said())
    print(json.dumps(seen))


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
        return
    behind = subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE)
    inside[:] = ["nsenter", "-t", str(behind.pid), "-n"]
    while subprocess.run([*inside, "true"], check=False).returncode or _same_network(behind.pid):
        pass  # it is on its way into a namespace of its own
    server = None
    try:
        pair = ("type", "veth", "peer", "name", "far", "netns", str(behind.pid))
        run("ip", "link", "add", "near", "address", MAC_OF_CLIENT, *pair)
        run("ip", "addr", "add", f"{CLIENT}/24", "dev", "near")
        run("ip", "link", "set", "near", "up")
        run(*inside, "ip", "addr", "add", f"{SERVER}/24", "dev", "far")
        run(*inside, "ip", "link", "set", "far", "up")
        line = [*inside, sys.executable, "-P", __file__, "serve"]
        server = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        asyncio.run(tell())
    finally:
        for process in (server, behind):
            if process is not None:
                process.kill()
                process.wait()


def _same_network(pid: int) -> bool:
    return Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()


if __name__ == "__main__":
    main()
