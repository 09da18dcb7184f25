"""A small application for tests: `serve PORT` answers, `ask ADDRESS PORT` asks what it is told on stdin.

Each line on stdin is `PATIENCE_S TEXT`; each line on stdout is what became of it: the text, `silence`, `reset`,
`closed` or `refused`.
"""

from __future__ import annotations

import selectors
import socket
import sys


def serve(port: int) -> None:
    selector = selectors.DefaultSelector()
    for family in (socket.AF_INET, socket.AF_INET6):
        server = socket.socket(family, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("", port))
        server.listen(128)
        selector.register(server, selectors.EVENT_READ, True)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            if key.data:
                selector.register(key.fileobj.accept()[0], selectors.EVENT_READ, False)
                continue
            try:
                data = key.fileobj.recv(65_536)
                key.fileobj.sendall(data)
            except OSError:
                data = b""
            if not data:
                selector.unregister(key.fileobj)
                key.fileobj.close()


def ask(address: str, port: int) -> None:
    link: socket.socket | None = None
    for line in sys.stdin:
        patience, _, text = line.strip().partition(" ")
        try:
            if link is None:
                link = socket.create_connection((address, port), timeout=float(patience))
            link.settimeout(float(patience))
            link.sendall(text.encode())
            got = link.recv(65_536).decode() or "closed"
        except TimeoutError:
            got = "silence"
        except ConnectionRefusedError:
            got = "refused"
        except ConnectionError:
            got = "reset"
        print(got, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        ask(sys.argv[2], int(sys.argv[3]))
