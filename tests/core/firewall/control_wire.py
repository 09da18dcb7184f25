"""Control connections packet by packet. Helpers of the tests of inspection."""

from __future__ import annotations

from typing import Any

from firewall_wire import CLIENT, SERVER, address, firewall, ip
from scapy.layers.inet import TCP, UDP
from scapy.packet import Raw

from fwnode.firewall.firewall import Firewall
from fwnode.firewall.verdict import Hook

ONLY_CONTROL: dict[str, Any] = {
    "services": {"upload": {"protocol": "tcp", "port": 2121, "inspect": "ftp"}},
    "rules": [
        {"name": "control", "source": "inside", "destination": "outside", "action": "accept",
         "service": ["ftp", "upload", "tftp", "sip"]},
        {"name": "cleanup", "action": "drop", "track": "log"},
    ],
}  # fmt: skip
CLIENT_START, SERVER_START = 1_000, 2**32 - 20
"""The server's numbers wrap early."""


def control_firewall(policy: dict[str, Any] | None = None, **parameters: int) -> Firewall:
    return firewall(policy=ONLY_CONTROL | (policy or {}), **parameters)


def sent(fw: Firewall, packet: Any, now: float = 0.0) -> str:
    """`ACCEPT`, or the reason of the drop, for a packet that came with its payload."""
    verdict = fw.decide_inspected(bytes(packet), Hook.FORWARD, now)
    return "ACCEPT" if verdict.accept else verdict.reason.name if verdict.reason else "?"


class FtpControl:
    """An FTP control connection through a firewall. `fw` may be changed on the way: a failover."""

    def __init__(self, fw: Firewall, family: int = 4, port: int = 21, now: float = 0.0) -> None:
        self.fw, self.family, self.port, self.now = fw, family, port, now
        self.next = {">": CLIENT_START, "<": SERVER_START}
        for way, flags in ((">", "S"), ("<", "SA"), (">", "A")):
            assert sent(fw, self.segment(way, flags=flags), now) == "ACCEPT"
            if "S" in flags:
                self.next[way] += 1

    def segment(self, way: str, text: bytes = b"", flags: str = "PA", sequence: int | None = None) -> Any:
        ends, ports = ((CLIENT, SERVER), (40001, self.port)) if way == ">" else ((SERVER, CLIENT), (self.port, 40001))
        other = "<" if way == ">" else ">"
        number = (self.next[way] if sequence is None else sequence) % 2**32
        header = TCP(sport=ports[0], dport=ports[1], flags=flags, seq=number, ack=self.next[other] % 2**32)
        return ip(*ends, self.family) / header / Raw(text)

    def say(self, way: str, text: bytes) -> str:
        """One segment; it counts as sent when it passes."""
        verdict = sent(self.fw, self.segment(way, text), self.now)
        if verdict == "ACCEPT":
            self.next[way] += len(text)
        return verdict

    def open(self, way: str, port: int, source_port: int = 20_000) -> str:
        """A data connection that way, to `port`."""
        ends = (CLIENT, SERVER) if way == ">" else (SERVER, CLIENT)
        return sent(self.fw, ip(*ends, self.family) / TCP(sport=source_port, dport=port, flags="S"), self.now)

    def expected(self) -> list[tuple[bytes, bytes, int]]:
        """Source, destination and port of what is announced."""
        size = 4 if self.family == 4 else 16
        keys = [known.key for known in self.fw.connections.expected]
        return [(k[1 : 1 + size], k[1 + size : 1 + 2 * size], int.from_bytes(k[-2:])) for k in keys]

    @property
    def client(self) -> bytes:
        return address(CLIENT[self.family])

    @property
    def server(self) -> bytes:
        return address(SERVER[self.family])


def datagram(way: str, text: bytes, client_port: int, server_port: int, family: int = 4) -> Any:
    if way == ">":
        return ip(CLIENT, SERVER, family) / UDP(sport=client_port, dport=server_port) / Raw(text)
    return ip(SERVER, CLIENT, family) / UDP(sport=server_port, dport=client_port) / Raw(text)


def invite(host: str, port: int, *, start: str = "INVITE sip:b@example.com SIP/2.0", more: str = "") -> bytes:
    """A SIP message with the sender's SDP."""
    family = "IP6" if ":" in host else "IP4"
    origin = f"v=0\r\no=a 1 1 IN {family} {host}\r\ns=-\r\n"
    body = f"{origin}c=IN {family} {host}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n{more}"
    head = f"{start}\r\nCall-ID: 1@{host}\r\nContent-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()
