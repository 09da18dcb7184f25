"""Round trips of one established UDP flow, one at a time: a probe at the client, an echo at the server.

Both are processes in their nodes. The probe's answer is a line of JSON: the microseconds of each round trip.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import PIPE

from labs.network.errors import LabError
from labs.network.lab import Lab

PORT = 7
ANSWER_S = 1
"""Seconds after which a round trip is lost."""
WARM_UP = 200
"""Round trips before those that count."""
_PATIENCE_S = 60.0


@asynccontextmanager
async def echo(lab: Lab) -> AsyncIterator[None]:
    """A server that sends every datagram back."""
    server = await lab.spawn("server", [sys.executable, "-m", __name__, "echo"], stdout=PIPE)
    assert server.stdout is not None
    if not await server.stdout.readline():
        raise LabError("the echo server does not start")
    try:
        yield
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


async def round_trips(lab: Lab, *, count: int = 0, seconds: float = 0.0, pause: float = 0.0) -> list[float]:
    """Microseconds of each of `count` round trips, or of all within `seconds`; `pause` seconds between them."""
    address = next(str(a) for a in lab.topology.hosts["server"].addresses if a.version == 4)
    orders = [address, str(count), str(seconds), str(pause)]
    process = await lab.spawn("client", [sys.executable, "-m", __name__, "probe", *orders], stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(seconds + _PATIENCE_S):
            answer, complaint = await process.communicate()
    except BaseException as error:
        if process.returncode is None:
            process.kill()
        if isinstance(error, TimeoutError):
            raise LabError("the round trips do not come to an end") from None
        raise
    if process.returncode:
        raise LabError(f"round trips: {complaint.decode(errors='replace').strip().splitlines()[-1]}")
    return [float(each) for each in json.loads(answer)]


# -- in the nodes ------------------------------------------------------------------------------------------------------


def serve() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("", PORT))
        print("listening", flush=True)
        while True:
            data, sender = link.recvfrom(2_048)
            link.sendto(data, sender)


def probe(address: str, count: int, seconds: float, pause: float) -> list[float]:
    took: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        # Not `settimeout`, with which Python asks for readiness before it receives: a system call more.
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", ANSWER_S, 0))
        link.connect((address, PORT))
        clock, data = time.perf_counter_ns, bytes(18)
        for _ in range(WARM_UP):
            link.send(data)
            link.recv(64)
        end = clock() + int(seconds * 1e9)
        while (len(took) < count) if count else (clock() < end):
            begin = clock()
            link.send(data)
            link.recv(64)
            took.append((clock() - begin) / 1e3)
            if pause:
                time.sleep(pause)
    return took


def main(argv: list[str]) -> None:
    if argv[0] == "echo":
        serve()
        return
    try:
        print(json.dumps(probe(argv[1], int(argv[2]), float(argv[3]), float(argv[4]))))
    except BlockingIOError:
        sys.exit(f"no answer within {ANSWER_S} s")


if __name__ == "__main__":
    main(sys.argv[1:])
