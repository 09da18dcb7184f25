"""The packets of a flood, one a connection, and what tells connections apart in them. Pure.

Connection number n goes from a source port of its own to one of the flood's server ports; together they name it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from labs.traffic.workload import FLOOD_SOURCE_FIRST

PAYLOAD = b"flood"
TTL = 64
SYN = 0x02
WINDOW = 64_240
_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_CHECKSUM_AT = {"tcp": 16, "udp": 6}


def packets(source: str, target: str, protocol: str, ports: range, count: int) -> Iterator[bytes]:
    """One whole IP packet for each of so many connections."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, target)
    segment = _segment(protocol)
    header = _header(addresses, _NUMBERS[protocol], len(segment))
    at = _CHECKSUM_AT[protocol]
    # What is the same in all of them is summed up once.
    base = _sum(addresses) + _NUMBERS[protocol] + len(segment) + _sum(segment)
    for number in range(count):
        from_port = FLOOD_SOURCE_FIRST + number // len(ports)
        to_port = ports[number % len(ports)]
        total = base + from_port + to_port
        total = (total & 0xFFFF) + (total >> 16)
        checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF or 0xFFFF
        ports_now = struct.pack("!HH", from_port, to_port)
        yield b"".join((header, ports_now, segment[4:at], struct.pack("!H", checksum), segment[at + 2 :]))


def _segment(protocol: str) -> bytes:
    """Ports and checksum are zero yet."""
    if protocol == "udp":
        return struct.pack("!HHHH", 0, 0, 8 + len(PAYLOAD), 0) + PAYLOAD
    return struct.pack("!HHIIBBHHH", 0, 0, 1, 0, 5 << 4, SYN, WINDOW, 0, 0)


def _header(addresses: bytes, protocol: int, length: int) -> bytes:
    if len(addresses) == 32:
        return struct.pack("!IHBB", 6 << 28, length, protocol, TTL) + addresses
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, TTL, protocol, 0) + addresses
    total = _sum(header)
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + header[12:]


def _sum(data: bytes) -> int:
    """Of 16-bit words, not folded."""
    data += b"\0" * (len(data) % 2)
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def flow(packet: bytes) -> bytes:
    """Source and target port of a packet without extension headers, as it lies in the packet."""
    begin = 40 if packet[0] >> 4 == 6 else (packet[0] & 15) * 4
    return packet[begin : begin + 4]


def packet_filter(ipv6: bool, protocol: str, ports: range) -> list[tuple[int, int, int, int]]:
    """A classic BPF program that takes this flood's packets alone, at the network header."""
    ldb, ldh, ldh_x, ldx_msh, jeq, jset, jge, jgt, ret = 0x30, 0x28, 0x48, 0xB1, 0x15, 0x45, 0x35, 0x25, 0x06
    tail = [(jge, 0, 2, ports[0]), (jgt, 1, 0, ports[-1]), (ret, 0, 0, 0xFFFF), (ret, 0, 0, 0)]
    if ipv6:
        return [(ldb, 0, 0, 6), (jeq, 0, 4, _NUMBERS[protocol]), (ldh, 0, 0, 42), *tail]
    return [(ldb, 0, 0, 9), (jeq, 0, 7, _NUMBERS[protocol]), (ldh, 0, 0, 6), (jset, 5, 0, 0x1FFF),
            (ldx_msh, 0, 0, 0), (ldh_x, 0, 0, 2), *tail]
