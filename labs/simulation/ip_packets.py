"""IP headers and ICMP errors as bytes, and addresses as the four or sixteen bytes that stand in packets. Pure.

IPv4 header checksums are left 0 in the simulated world: links lose packets, they do not damage them.
"""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack

from fwnode.firewall.reject import checksum

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
TTL = 64
_QUOTED_MAX = {4: 548, 16: 1_232}
"""Bytes of a packet that an ICMP error quotes, by address length: 576 or 1,280 in all (RFC 1812 4.3.2.3; RFC 4443)."""

NET_UNREACHABLE, HOST_UNREACHABLE, PORT_UNREACHABLE, TIME_EXCEEDED = "net", "host", "port", "ttl"
_ERRORS = {
    4: {NET_UNREACHABLE: (3, 0), HOST_UNREACHABLE: (3, 1), PORT_UNREACHABLE: (3, 3), TIME_EXCEEDED: (11, 0)},
    16: {NET_UNREACHABLE: (1, 0), HOST_UNREACHABLE: (1, 3), PORT_UNREACHABLE: (1, 4), TIME_EXCEEDED: (3, 0)},
}
_ERROR_TYPES = {4: frozenset((3, 4, 5, 11, 12)), 16: frozenset(range(128))}
_LESS = [bytes((max(0, ttl - 1),)) for ttl in range(256)]


def packed(address: str) -> bytes:
    """The four or sixteen bytes of an address as people write it."""
    return ip_address(address).packed


def ends(packet: bytes) -> tuple[bytes, bytes]:
    """Source and destination of an IP packet."""
    return (packet[12:16], packet[16:20]) if packet[0] < 0x60 else (packet[8:24], packet[24:40])


def protocol_of(packet: bytes) -> int:
    """The number of the protocol in an IP packet (IPv6: its next header)."""
    return packet[9] if packet[0] < 0x60 else packet[6]


def payload_of(packet: bytes) -> bytes:
    """What follows the IP header."""
    return packet[(packet[0] & 15) << 2 :] if packet[0] < 0x60 else packet[40:]


def less_ttl(packet: bytes) -> bytes:
    """The packet with one hop less to go."""
    if packet[0] < 0x60:
        return packet[:8] + _LESS[packet[8]] + packet[9:]
    return packet[:7] + _LESS[packet[7]] + packet[8:]


def ip_packet(source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    """An IP packet of the family of its addresses."""
    if len(source) == 4:
        return pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, TTL, protocol, 0) + source + destination + payload
    return pack("!IHBB", 6 << 28, len(payload), protocol, TTL) + source + destination + payload


def icmp_message(source: bytes, destination: bytes, kind: int, code: int, rest: bytes) -> bytes:
    """An IP packet with this ICMP message; `rest` follows the checksum."""
    protocol = ICMP if len(source) == 4 else ICMPV6
    length = 4 + len(rest)
    pseudo = b"" if protocol == ICMP else source + destination + pack("!II", length, ICMPV6)
    total = checksum(pseudo + bytes((kind, code, 0, 0)) + rest)
    return ip_packet(source, destination, protocol, pack("!BBH", kind, code, total) + rest)


def icmp_error(about: bytes, source: bytes, reason: str) -> bytes:
    """What a kernel with this address says about a packet to its sender; nothing where an error calls for none."""
    sender, _ = ends(about)
    length = len(sender)
    if not any(sender) or sender[0] >= (0xE0 if length == 4 else 0xFF):
        return b""
    if protocol_of(about) == (ICMP if length == 4 else ICMPV6) and payload_of(about)[0] in _ERROR_TYPES[length]:
        return b""
    kind, code = _ERRORS[length][reason]
    return icmp_message(source, sender, kind, code, bytes(4) + about[: _QUOTED_MAX[length]])
