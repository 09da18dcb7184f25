"""Applications with data connections, for tests: `ftp-server [BYTES_A_SECOND]`, `ftp ADDRESS PORT`, `tftp-server`,
`sip-server`, `sip ADDRESS OWN`. The ftp client does what its stdin says, a line at a time, and prints what became of
it."""

from __future__ import annotations

import ftplib
import socket
import sys
import tempfile
from pathlib import Path

SIZE = 1_000_000
SERVER4, SERVER6 = "198.51.100.100", "2001:db8:2::100"
RTP_CLIENT, RTP_SERVER = 40_000, 50_000


def _files() -> str:
    folder = tempfile.mkdtemp(dir="/run")  # the lab's own, gone with it
    (Path(folder) / "file").write_bytes(bytes(SIZE))
    return folder


def ftp_server(rate: int) -> None:
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler, ThrottledDTPHandler
    from pyftpdlib.servers import FTPServer

    class Data(ThrottledDTPHandler):  # type: ignore[misc]
        write_limit = rate

    class Handler(FTPHandler):  # type: ignore[misc]
        authorizer = DummyAuthorizer()
        dtp_handler = Data
        permit_foreign_addresses = permit_privileged_ports = True  # so that the firewall alone refuses

    Handler.authorizer.add_anonymous(_files())
    servers = [FTPServer((address, port), Handler) for address in (SERVER4, SERVER6) for port in (21, 2121)]
    print("ready", flush=True)
    servers[0].serve_forever(handle_exit=False)


class FtpClient:
    """`passive`, `active`: announce a data connection. `fetch`: use it. `raw TEXT`: a command as it stands."""

    def __init__(self, address: str, port: int) -> None:
        self._ftp = ftplib.FTP(timeout=8)
        self._ftp.connect(address, port)
        self._ftp.login()
        self.control_port: int = self._ftp.sock.getsockname()[1]  # type: ignore[union-attr]
        self._passive: tuple[str, int] | None = None
        self._listener: socket.socket | None = None

    def carry_out(self, what: str, text: str) -> str:
        if what == "passive":
            self._passive, self._listener = self._ftp.makepasv(), None
            return f"port {self._passive[1]}"
        if what == "active":
            self._listener = self._ftp.makeport()
            return f"port {self._listener.getsockname()[1]}"
        if what == "raw":
            self._ftp.sock.settimeout(2)  # type: ignore[union-attr]
            return self._ftp.sendcmd(text)
        if what == "connect":
            host = self._ftp.sock.getpeername()[0]  # type: ignore[union-attr]
            socket.create_connection((host, int(text)), timeout=2).close()
            return "connected"
        assert what == "fetch"
        return f"{self._fetch()} bytes"

    def _fetch(self) -> int:
        if self._listener is None:
            data = socket.create_connection(self._passive or ("", 0), timeout=8)
            self._ftp.sendcmd("RETR file")
        else:
            self._listener.settimeout(8)
            self._ftp.sendcmd("RETR file")
            data = self._listener.accept()[0]
        data.settimeout(8)
        total = 0
        while got := len(data.recv(65_536)):
            if not total:
                print("begun", flush=True)
            total += got
        data.close()
        self._ftp.voidresp()
        return total


def ftp(address: str, port: int) -> None:
    client = FtpClient(address, port)
    print(client.control_port, flush=True)
    for line in sys.stdin:
        what, _, text = line.strip().partition(" ")
        try:
            print(client.carry_out(what, text), flush=True)
        except TimeoutError:
            print("silence", flush=True)
        except (OSError, ftplib.Error, EOFError) as error:
            print(f"{type(error).__name__}: {error}", flush=True)


def tftp_server() -> None:
    import tftpy

    server = tftpy.TftpServer(_files())
    print("ready", flush=True)
    server.listen(SERVER4, 69)


def _bound(address: str, port: int) -> socket.socket:
    link = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    link.bind((address, port))
    link.settimeout(3)
    return link


def _sip(start: str, own: str, port: int) -> bytes:
    family = "IP6" if ":" in own else "IP4"
    body = (
        f"v=0\r\no=x 1 1 IN {family} {own}\r\ns=-\r\nc=IN {family} {own}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    )
    head = (
        f"{start}\r\nVia: SIP/2.0/UDP {own}:5060;branch=z9hG4bK1\r\nFrom: <sip:a@{own}>;tag=1\r\nTo: <sip:b@{own}>\r\n"
        f"Call-ID: 1@{own}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@{own}>\r\nContent-Type: application/sdp\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


def sip_server() -> None:
    """Answers one call, echoes one RTP packet, and sends one of RTCP on its own."""
    import selectors

    selector = selectors.DefaultSelector()
    for address in (SERVER4, SERVER6):
        link = _bound(address, 5060)
        media = _bound(address, RTP_SERVER), _bound(address, RTP_SERVER + 1)
        selector.register(link, selectors.EVENT_READ, (address, *media))
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            address, rtp, rtcp = key.data
            link = key.fileobj
            assert isinstance(link, socket.socket)
            _, caller = link.recvfrom(4_096)
            link.sendto(_sip("SIP/2.0 200 OK", address, RTP_SERVER), caller)
            voice, speaker = rtp.recvfrom(2_000)
            rtp.sendto(voice, speaker)
            rtcp.sendto(b"report", (caller[0], RTP_CLIENT + 1))


def sip(address: str, own: str) -> None:
    link, rtp, rtcp = (_bound(own, port) for port in (5060, RTP_CLIENT, RTP_CLIENT + 1))
    link.sendto(_sip("INVITE sip:b@example.com SIP/2.0", own, RTP_CLIENT), (address, 5060))
    print(link.recv(4_096).decode().partition("\r\n")[0], flush=True)
    rtp.sendto(b"voice", (address, RTP_SERVER))
    print(rtp.recv(2_000).decode(), rtcp.recv(2_000).decode(), flush=True)
    rtp.sendto(b"voice", (address, RTP_SERVER + 8))


if __name__ == "__main__":
    program, *arguments = sys.argv[1:]
    if program == "ftp-server":
        ftp_server(int(arguments[0]) if arguments else 0)
    elif program == "ftp":
        ftp(arguments[0], int(arguments[1]))
    elif program == "tftp-server":
        tftp_server()
    elif program == "sip-server":
        sip_server()
    else:
        sip(*arguments)
