"""What a control connection says about data connections to come: FTP lines, TFTP requests, SIP with SDP. Pure parsing.

Bytes come from the network: whatever they are, each function returns the announcements in them or raises
`AnnouncementRefused`, when what is announced must not be: an address that is not the announcing end's own (a third
host: FTP bounce), or a port under 1024. What is not understood announces nothing: its data connection does not pass.

An announced connection has a connection key with source port 0: any.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple

from .packet import TCP, UDP

PORT_MIN = 1_024
"""The product, too, opens no data connection to a well-known port."""
FTP_LIFETIME_S = 60.0
"""How long a data connection that FTP announced may take to begin. Lab's own: an FTP client's patience."""
TFTP_LIFETIME_S = 30.0
"""The same for TFTP. Lab's own: a few retransmissions of a request."""
SIP_LIFETIME_S = 180.0
"""The same for SIP. Lab's own: the ringing of a telephone (RFC 3261: timer C is over 3 minutes)."""
MEDIA_MAX = 4
"""Media streams of one SDP that are looked at. Lab's own."""
QUOTED_BYTES_MAX = 80
"""Of an announcement's words in the log."""


class Announcement(NamedTuple):
    """A data connection to come. `key` has source port 0."""

    key: bytes
    service: str
    lifetime_s: float


class AnnouncementRefused(Exception):
    """A control connection announces what it may not; the message has its words, and why."""


def _announce(
    protocol: int, source: bytes, destination: bytes, port: int, service: str, lifetime_s: float
) -> Announcement:
    return Announcement(bytes((protocol,)) + source + destination + bytes(2) + port.to_bytes(2), service, lifetime_s)


def _check(address: bytes, port: int, own: bytes, words: bytes) -> None:
    said = "".join(c if c.isprintable() else "?" for c in words[:QUOTED_BYTES_MAX].decode("latin-1"))
    if address != own:
        raise AnnouncementRefused(f"{said!r} announces a third host: it came from {ip_address(own)}")
    if port < PORT_MIN:
        raise AnnouncementRefused(f"{said!r} announces port {port}: a data connection needs one from {PORT_MIN} on")


# --- FTP (RFC 959, RFC 1123 4.1.2.6, RFC 2428) ----------------------------------------------------------------------

_SIX = rb"(\d{1,3}),(\d{1,3}),(\d{1,3}),(\d{1,3}),(\d{1,3}),(\d{1,3})"
_PORT = re.compile(rb"\s*PORT\s+" + _SIX + rb"\s*", re.IGNORECASE)
_PASSIVE = re.compile(rb"227 .*?(?<![\d,])" + _SIX + rb"(?![\d,]).*", re.DOTALL)
_EPRT = re.compile(rb"\s*EPRT\s+([\x21-\x7e])([12])\1([0-9A-Fa-f.:]{2,45})\1(\d{1,5})\1\s*", re.IGNORECASE)
_EXTENDED_PASSIVE = re.compile(rb"229 .*?\(([\x21-\x7e])\1\1(\d{1,5})\1\).*", re.DOTALL)


def ftp_command(line: bytes, client: bytes, server: bytes) -> Announcement | None:
    """PORT or EPRT: the server will open a connection to the client."""
    found = _PORT.fullmatch(line)
    if found:
        target = _address_and_port(found.groups())
    else:
        found = _EPRT.fullmatch(line)
        target = _extended_address_and_port(*found.groups()[1:]) if found else None
    if target is None:
        return None
    _check(*target, client, line)
    return _announce(TCP, server, client, target[1], "ftp-data", FTP_LIFETIME_S)


def ftp_reply(line: bytes, client: bytes, server: bytes) -> Announcement | None:
    """227 or 229: the client may open a connection to the server."""
    found = _PASSIVE.fullmatch(line)
    if found:
        target = _address_and_port(found.groups())
    else:
        found = _EXTENDED_PASSIVE.fullmatch(line)
        port = int(found[2]) if found else 0
        target = (server, port) if 0 < port < 65_536 else None
    if target is None:
        return None
    _check(*target, server, line)
    return _announce(TCP, client, server, target[1], "ftp-data", FTP_LIFETIME_S)


def _address_and_port(numbers: tuple[bytes, ...]) -> tuple[bytes, int] | None:
    values = [int(number) for number in numbers]
    if max(values) > 255:
        return None
    return bytes(values[:4]), values[4] << 8 | values[5]


def _extended_address_and_port(family: bytes, address: bytes, port: bytes) -> tuple[bytes, int] | None:
    packed = _packed(address)
    if packed is None or len(packed) != {b"1": 4, b"2": 16}[family] or int(port) > 65_535:
        return None
    return packed, int(port)


def _packed(address: bytes) -> bytes | None:
    try:
        return ip_address(address.decode("ascii")).packed
    except ValueError:  # a UnicodeDecodeError is one, too
        return None


# --- TFTP (RFC 1350) ------------------------------------------------------------------------------------------------

_TFTP_REQUEST = re.compile(rb"\0[\x01\x02][^\0]+\0[^\0]+\0.*", re.DOTALL)


def tftp_request(payload: bytes, client: bytes, server: bytes, client_port: int) -> Announcement | None:
    """A read or write request: the server answers from a new port."""
    if not _TFTP_REQUEST.fullmatch(payload):
        return None
    _check(client, client_port, client, payload[2:])
    return _announce(UDP, server, client, client_port, "tftp-data", TFTP_LIFETIME_S)


# --- SIP (RFC 3261) with SDP (RFC 8866) -----------------------------------------------------------------------------

_SIP_START = re.compile(rb"SIP/2\.0 \d{3} .*|[A-Z]+ \S+ SIP/2\.0")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CONTENT_LENGTH = re.compile(rb"\n(?:content-length|l)[ \t]*:[ \t]*(\d{1,9})[ \t]*(?=\n|$)", re.IGNORECASE)
_SDP_TYPE = re.compile(rb"\n(?:content-type|c)[ \t]*:[ \t]*application/sdp", re.IGNORECASE)
_CONNECTION = re.compile(rb"c=IN IP[46] ([^\s/]+)(?:/\S*)?\s*")
_MEDIA = re.compile(rb"m=(\S+) (\d{1,5})(?:/\d+)? RTP/S?AVPF?(?: .*)?")


def sip_message(payload: bytes, whole: bool, sender: bytes, receiver: bytes) -> list[Announcement]:
    """Where the sender of a SIP message wants to hear audio and video. `whole` is off for a message cut short."""
    end = _HEAD_END.search(payload)
    if end is None:
        return []
    head, body = payload[: end.start()].replace(b"\r\n", b"\n"), payload[end.end() :]
    if not _SIP_START.fullmatch(head.partition(b"\n")[0]) or not _SDP_TYPE.search(head):
        return []
    declared = _CONTENT_LENGTH.search(head)
    if declared:  # what follows the body is not of this message (RFC 3261, 18.3)
        whole = whole and int(declared[1]) <= len(body)
        body = body[: int(declared[1])]
    lines = body.replace(b"\r\n", b"\n").split(b"\n")
    return _media(lines if whole else lines[:-1], sender, receiver)


def _media(lines: list[bytes], sender: bytes, receiver: bytes) -> list[Announcement]:
    """Each media stream with its own address, or the session's."""
    session: bytes | None = None
    streams: list[tuple[bytes, int, bytes | None]] = []
    in_media = False
    for line in lines:
        if line.startswith(b"m="):
            in_media = True
            found = _MEDIA.fullmatch(line)
            wanted = found is not None and found[1] in (b"audio", b"video")
            streams.append((line, int(found[2]) if found and wanted else 0, None))
        elif connection := _CONNECTION.fullmatch(line):
            if in_media:
                streams[-1] = (*streams[-1][:2], connection[1])
            else:
                session = connection[1]
    announced: list[Announcement] = []
    for line, port, own in streams[:MEDIA_MAX]:
        address = own or session
        if not 0 < port < 65_536 or address is None or address in (b"0.0.0.0", b"::"):
            continue  # declined (RFC 3264, 6), or on hold as of old (RFC 2543)
        _check(_packed(address) or b"", port, sender, line + b" at " + address)
        announced.append(_announce(UDP, receiver, sender, port, "rtp", SIP_LIFETIME_S))
        if port < 65_535:
            announced.append(_announce(UDP, receiver, sender, port + 1, "rtcp", SIP_LIFETIME_S))
    return announced
