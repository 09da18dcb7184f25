"""New UDP connections for tests: `send ADDRESS PORT` opens what it is told on stdin, `receive PORT` says what arrived.

Each line on stdin of `send` is `FIRST COUNT`: a datagram from each of these source ports; the line on stdout says that
they are sent. Each line on stdin of `receive` is a source port, and the answer whether it was heard: `yes` or `no`.
"""

from __future__ import annotations

import socket
import sys
import threading


def send(address: str, port: int) -> None:
    for line in sys.stdin:
        first, count = map(int, line.split())
        for source in range(first, first + count):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
                link.bind(("", source))
                link.sendto(b"x", (address, port))
        print("sent", flush=True)


def receive(port: int) -> None:
    heard: set[int] = set()
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.bind(("", port))

    def listen() -> None:
        while True:
            heard.add(link.recvfrom(64)[1][1])

    threading.Thread(target=listen, daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        print("yes" if int(line) in heard else "no", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], int(sys.argv[3]))
    else:
        receive(int(sys.argv[2]))
