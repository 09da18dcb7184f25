"""The client process of an FTP workload: ftplib clients that log in and fetch the file."""

from __future__ import annotations

import asyncio
import contextlib
import ftplib
import json
import socket
import sys
from typing import Any

from fwnode.node_process import raise_file_limit
from labs.traffic.threads import serve
from labs.traffic.transfers import Heard, NoDataConnection, patience_of

FILE = "file"
CHUNK = 65_536


class _Ftp(ftplib.FTP):
    """ftplib, whose commands may go out in two segments."""

    split = False

    def putline(self, line: str) -> None:
        if not self.split:
            return super().putline(line)
        assert self.sock is not None
        data = f"{line}\r\n".encode(self.encoding)
        half = len(data) // 2
        self.sock.sendall(data[:half])  # TCP_NODELAY: it leaves at once
        self.sock.sendall(data[half:])
        return None


class FtpClient:
    """A `FileClient`, and blocks: `ftplib`."""

    lasting = True

    def __init__(self, orders: dict[str, Any]) -> None:
        self.orders = orders
        self.patience_s = patience_of(orders)
        self.ftp = _Ftp()
        self._announced: tuple[str, int] | socket.socket | None = None

    def log_in(self) -> None:
        self.ftp = _Ftp()
        self.ftp.connect(self.orders["address"], self.orders["port"], timeout=self.patience_s)
        assert self.ftp.sock is not None
        self.ftp.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ftp.split = self.orders["split"]
        self.ftp.login()
        self.ftp.voidcmd("TYPE I")

    def announce(self) -> None:
        """Where the data connection will go, or come from."""
        self._forget()
        self._announced = self._passive() if self.orders["mode"] == "passive" else self._active()

    def fetch(self, heard: Heard) -> bytes:
        if self._announced is None:
            self.announce()
        announced, self._announced = self._announced, None
        chunks = []
        with self._data_connection(announced) as connection:
            while chunk := connection.recv(CHUNK):
                heard()
                chunks.append(chunk)
        self.ftp.voidresp()
        return b"".join(chunks)

    def log_out(self) -> None:
        self._forget()
        self.ftp.quit()

    def drop(self) -> None:
        self._forget()
        with contextlib.suppress(OSError):
            if self.ftp.sock is not None:
                self.ftp.sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for it
            self.ftp.close()

    def _data_connection(self, announced: tuple[str, int] | socket.socket | None) -> socket.socket:
        if isinstance(announced, socket.socket):
            with announced:
                self._retrieve()
                connection, _ = announced.accept()
                connection.settimeout(self.patience_s)
        else:
            assert announced is not None
            try:
                connection = socket.create_connection(announced, timeout=self.patience_s)
            except OSError as error:
                raise NoDataConnection(str(error)) from None
            try:
                self._retrieve()
            except BaseException:
                connection.close()
                raise
        return connection

    def _retrieve(self) -> None:
        answer = self.ftp.sendcmd(f"RETR {FILE}")
        if not answer.startswith("1"):
            raise ftplib.error_reply(answer)

    def _passive(self) -> tuple[str, int]:
        if self.orders["extended"]:
            assert self.ftp.sock is not None
            host, port = ftplib.parse229(self.ftp.sendcmd("EPSV"), self.ftp.sock.getpeername())
            return str(host), int(port)
        return self.ftp.makepasv()

    def _active(self) -> socket.socket:
        assert self.ftp.sock is not None
        host = self.ftp.sock.getsockname()[0]
        listener = socket.create_server((host, 0), family=self.ftp.sock.family, backlog=1)
        listener.settimeout(self.patience_s)
        port = listener.getsockname()[1]
        try:
            if self.orders["extended"] or self.ftp.sock.family == socket.AF_INET6:
                self.ftp.sendeprt(host, port)
            else:
                self.ftp.sendport(host, port)
        except BaseException:
            listener.close()
            raise
        return listener

    def _forget(self) -> None:
        if isinstance(self._announced, socket.socket):
            self._announced.close()
        self._announced = None


async def main(orders: dict[str, Any]) -> None:
    await serve(orders, lambda: FtpClient(orders))


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(main(json.loads(sys.argv[1])))
