"""The server process of an FTP workload: pyftpdlib, which serves one file to whoever asks. Nothing touches a disk."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
import sys
import threading
from typing import Any

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.filesystems import AbstractedFS
from pyftpdlib.handlers import DTPHandler, FTPHandler
from pyftpdlib.servers import FTPServer

from fwnode.node_process import raise_file_limit
from labs.traffic.stdio_commands import say, serve_commands
from labs.traffic.transfers import content

BACKLOG = 1024
CHUNK = 65_536
CHUNK_MIN = 512
CHUNK_S = 0.05
"""A paced data connection sends as much at a time as its pace is worth in so many wall seconds."""


class PacedData(DTPHandler):  # type: ignore[misc]
    """A data connection that rests after each chunk for as long as its pace allows no more.

    The library's own throttle lets twice its rate pass before it first waits, which may be the whole file.
    """

    pace: int | None = None
    _rest: Any = None

    def send(self, data: bytes) -> int:
        sent = int(super().send(data))
        if self.pace and sent:
            self.del_channel()
            self._rest = self.ioloop.call_later(sent / self.pace, self._go_on, _errback=self.handle_error)
        return sent

    def _go_on(self) -> None:
        self.add_channel(events=self.ioloop.WRITE)

    def close(self) -> None:
        if self._rest is not None and not self._rest.cancelled:
            self._rest.cancel()
        super().close()


class Connecting(FTPHandler.active_dtp):  # type: ignore[misc]
    """Opens the data connection of a transfer that has begun, and lets go of it once it is handed over.

    The library's own goes on to wait for its events, and closes it again at the next PORT by its number, which may be
    another client's connection by then.
    """

    _handed_over = False

    def handle_connect(self) -> None:
        self.cmd_channel.answers_port = False
        super().handle_connect()
        self.cmd_channel.answers_port = True
        self._handed_over = True

    def initiate_send(self) -> None:
        if not self._handed_over:
            super().initiate_send()

    def close(self) -> None:
        if not self._handed_over:
            super().close()


class PortAddress:
    """Where PORT said that the client waits. The library would connect at once; most servers do when they send."""

    def __init__(self, host: str, port: int, cmd_channel: Any) -> None:
        self._where = (host, port)
        cmd_channel.respond("200 PORT command successful.")

    def connect(self, cmd_channel: Any) -> Connecting:
        return Connecting(*self._where, cmd_channel)

    def close(self) -> None:
        """Nothing is open yet."""


class PatientControl(FTPHandler):  # type: ignore[misc]
    """A control connection whose active data connections are opened by their transfers."""

    active_dtp = PortAddress
    answers_port = True
    _dtp_connector: Any

    def push_dtp_data(self, *what: Any, **how: Any) -> None:
        super().push_dtp_data(*what, **how)
        if isinstance(self._dtp_connector, PortAddress):
            self._dtp_connector = self._dtp_connector.connect(self)

    def respond(self, answer: str, *how: Any, **more: Any) -> None:
        if self.answers_port or not answer.startswith("200"):  # PORT has had its answer
            super().respond(answer, *how, **more)


class _File(io.BytesIO):
    name = "file"


def make_server(orders: dict[str, Any]) -> Any:
    """Listening; OSError where the port is taken."""
    data = content(orders["size"])

    class OneFile(AbstractedFS):  # type: ignore[misc]
        """Whatever is asked for, it is the file."""

        def open(self, _name: str, _mode: str) -> _File:
            return _File(data)

    class Data(PacedData):
        pace = orders["pace"]
        ac_out_buffer_size = CHUNK if pace is None else max(CHUNK_MIN, min(CHUNK, int(pace * CHUNK_S)))

    class Control(PatientControl):
        authorizer = DummyAuthorizer()
        abstracted_fs = OneFile
        dtp_handler = Data
        use_sendfile = False  # it wants a file on a disk
        banner = "fwpair-lab"

    Control.authorizer.add_anonymous("/")
    ipv6 = orders["family"] == "ipv6"
    # Ours, because the library's own IPv6 socket takes the IPv4 port as well.
    listener = socket.create_server(("::" if ipv6 else "0.0.0.0", orders["port"]), backlog=BACKLOG,
                                    family=socket.AF_INET6 if ipv6 else socket.AF_INET)  # fmt: skip
    return FTPServer(listener, Control, backlog=BACKLOG)


async def main(orders: dict[str, Any]) -> None:
    logging.disable(logging.CRITICAL)
    try:
        server = make_server(orders)
    except OSError as error:
        say({"milestone": "failed", "error": f"cannot listen on port {orders['port']}: {error}"})
        return
    threading.Thread(target=lambda: server.serve_forever(handle_exit=False), daemon=True).start()
    say({"milestone": "ready"})
    await serve_commands({})


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(main(json.loads(sys.argv[1])))
