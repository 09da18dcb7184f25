"""Round trips of one established UDP flow, one at a time: a probe at the client, an echo at the server.

Both are processes in their nodes. The probe's answer is a line of JSON: a `Trip` for each round trip.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from subprocess import PIPE
from typing import NamedTuple

from labs.network.errors import LabError
from labs.network.lab import Lab
from labs.python import python_command

PORT = 7
ANSWER_S = 1
"""Seconds after which a round trip is lost."""
WARM_UP = 200
"""Round trips before those that count."""
_PATIENCE_S = 60.0


@asynccontextmanager
async def echo(lab: Lab) -> AsyncIterator[None]:
    """A server that sends every datagram back."""
    server = await lab.spawn("server", python_command(__name__, "echo"), stdout=PIPE)
    assert server.stdout is not None
    if not await server.stdout.readline():
        raise LabError("the echo server does not start")
    try:
        yield
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


class Trip(NamedTuple):
    """One round trip: when it began (on the monotonic clock), and the microseconds that it took."""

    at: float
    took: float


async def round_trips(
    lab: Lab, *, count: int = 0, pause: float = 0.0, during: Awaitable[None] | None = None
) -> list[Trip]:
    """`count` round trips, or as many as there are while something else happens; `pause` seconds between them."""
    address = next(str(a) for a in lab.topology.hosts["server"].addresses if a.version == 4)
    argv = python_command(__name__, "probe", address, str(count), str(pause))
    process = await lab.spawn("client", argv, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    try:
        if during is not None:
            await during
        async with asyncio.timeout(_PATIENCE_S):
            answer, complaint = await process.communicate(b"")  # its input ends, and then it does
    except TimeoutError:
        raise LabError("the round trips do not come to an end") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise LabError(f"round trips: {complaint.decode(errors='replace').strip().splitlines()[-1]}")
    return [Trip(*each) for each in json.loads(answer)]


# -- in the nodes ------------------------------------------------------------------------------------------------------


def serve() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("", PORT))
        print("listening", flush=True)
        while True:
            data, sender = link.recvfrom(2_048)
            link.sendto(data, sender)


def probe(address: str, count: int, pause: float) -> list[Trip]:
    """`count` round trips; without a count, until the input ends."""
    trips: list[Trip] = []
    waiting = threading.Thread(target=sys.stdin.read, daemon=True)
    if not count:
        waiting.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        # Not `settimeout`, with which Python asks for readiness before it receives: a system call more.
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", ANSWER_S, 0))
        link.connect((address, PORT))
        clock, data = time.perf_counter_ns, bytes(18)
        for _ in range(WARM_UP):
            link.send(data)
            link.recv(64)
        while len(trips) < count or waiting.is_alive():
            at, begin = time.monotonic(), clock()
            link.send(data)
            link.recv(64)
            trips.append(Trip(at, (clock() - begin) / 1e3))
            if pause:
                time.sleep(pause)
    return trips


def main(argv: list[str]) -> None:
    if argv[0] == "echo":
        serve()
        return
    try:
        print(json.dumps(probe(argv[1], int(argv[2]), float(argv[3]))))
    except BlockingIOError:
        sys.exit(f"no answer within {ANSWER_S} s")


if __name__ == "__main__":
    main(sys.argv[1:])
