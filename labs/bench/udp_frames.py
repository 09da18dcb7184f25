"""Frames of the load generator: one Ethernet frame for each UDP flow, the smallest that Ethernet carries. Pure.

Flow number n has a source and a destination port of its own, so a measurement that begins at another number meets
connections that nobody knows yet.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

FRAME_BYTES = 60
"""The smallest Ethernet frame without its check sum; with it the 64 bytes of every data sheet."""
SOURCE_FIRST, SOURCE_PORTS = 1_024, 60_000
DESTINATION_FIRST = 9_000
TTL = 64
_IP_HEADER, _UDP_HEADER, _ETHERNET = 20, 8, 14
_ETHERTYPE_IPV4 = 0x0800


def ports(flow: int) -> tuple[int, int]:
    """Source and destination port of a flow."""
    return SOURCE_FIRST + flow % SOURCE_PORTS, DESTINATION_FIRST + flow // SOURCE_PORTS


def frames(to: bytes, sender: bytes, source: str, destination: str, first: int, count: int) -> Iterator[bytes]:
    """One frame for each of `count` flows from number `first` on; `to` and `sender` are MAC addresses (6 bytes)."""
    payload = FRAME_BYTES - _ETHERNET - _IP_HEADER - _UDP_HEADER
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    length = _IP_HEADER + _UDP_HEADER + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, TTL, socket.IPPROTO_UDP, 0) + addresses
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    begin = to + sender + struct.pack("!H", _ETHERTYPE_IPV4) + header
    for number in range(first, first + count):
        # A checksum of 0 means "none" in IPv4, and costs nobody anything.
        yield begin + struct.pack("!HHHH", *ports(number), _UDP_HEADER + payload, 0) + bytes(payload)


def only_from(source: str) -> list[tuple[int, int, int, int]]:
    """A classic BPF program for a packet socket: UDP over IPv4 from this address, counted from the network header."""
    address = int.from_bytes(socket.inet_aton(source), "big")
    return [
        (0x30, 0, 0, 9),  # protocol
        (0x15, 0, 3, socket.IPPROTO_UDP),
        (0x20, 0, 0, 12),  # source
        (0x15, 0, 1, address),
        (0x06, 0, 0, 1),
        (0x06, 0, 0, 0),
    ]


def _checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
