"""The packet that tells a sender that its packet was rejected: a RST for TCP, an ICMP error for the rest.

Builds bytes and sends nothing. No reply is made to a RST, to ICMP, or to a packet without a unicast source.
"""

from __future__ import annotations

from struct import pack

from .packet import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, Packet

_TTL = 64
_IPV6_HEADER_BYTES = 40
_QUOTED_BYTES = 8
"""Of the rejected packet's transport header (RFC 792); enough to find the connection."""
_PACKET_MAX = 1_280
"""An ICMP error is no longer than the smallest IPv6 link carries (RFC 4443, 2.4 (c))."""
_ADMINISTRATIVELY_PROHIBITED = {4: (3, 13), 6: (1, 1)}
"""ICMP type and code (RFC 1812 5.2.7.1; RFC 4443 3.1)."""


def rejection(packet: Packet, data: bytes) -> bytes:
    """The whole IP packet to send back, or nothing when no answer is due."""
    if packet.protocol in (ICMP, ICMPV6) or not _is_unicast(packet.source):
        return b""
    if packet.protocol == TCP:
        return b"" if packet.flags & RST else _reset(packet, data)
    return _icmp_error(packet, data)


def _is_unicast(address: bytes) -> bool:
    # IPv4 from 224.0.0.0 on is multicast, reserved, or broadcast.
    return any(address) and (address[0] < 0xE0 if len(address) == 4 else address[0] != 0xFF)


def _reset(packet: Packet, data: bytes) -> bytes:
    """RFC 9293, 3.10.7.1: acknowledge what came, or take its acknowledgement as the sequence number."""
    at = packet.header_length
    sequence = int.from_bytes(data[at + 4 : at + 8])
    acknowledged = int.from_bytes(data[at + 8 : at + 12])
    if packet.flags & ACK:
        numbers, flags = (acknowledged, 0), RST
    else:
        consumed = bool(packet.flags & SYN) + bool(packet.flags & FIN)
        numbers, flags = (0, (sequence + consumed) & 0xFFFF_FFFF), RST | ACK
    segment = pack("!HHIIBBHHH", packet.destination_port, packet.source_port, *numbers, 5 << 4, flags, 0, 0, 0)
    total = checksum(_pseudo_header(packet, TCP, len(segment)) + segment)
    return _ip(packet, TCP, segment[:16] + pack("!H", total) + segment[18:])


def _icmp_error(packet: Packet, data: bytes) -> bytes:
    kind, code = _ADMINISTRATIVELY_PROHIBITED[packet.family]
    quoted = data[: packet.header_length + _QUOTED_BYTES]
    message = (pack("!BBHI", kind, code, 0, 0) + quoted)[: _PACKET_MAX - _IPV6_HEADER_BYTES]
    protocol = ICMP if packet.family == 4 else ICMPV6
    covered = message if packet.family == 4 else _pseudo_header(packet, ICMPV6, len(message)) + message
    return _ip(packet, protocol, message[:2] + pack("!H", checksum(covered)) + message[4:])


def _pseudo_header(packet: Packet, protocol: int, length: int) -> bytes:
    tail = pack("!BBH", 0, protocol, length) if packet.family == 4 else pack("!IBBBB", length, 0, 0, 0, protocol)
    return packet.destination + packet.source + tail


def _ip(packet: Packet, protocol: int, payload: bytes) -> bytes:
    """From the address that was asked for, to the sender."""
    if packet.family == 6:
        return pack("!IHBB", 6 << 28, len(payload), protocol, _TTL) + packet.destination + packet.source + payload
    header = pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, _TTL, protocol, 0) + packet.destination + packet.source
    return header[:10] + pack("!H", checksum(header)) + header[12:] + payload


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(padded[i : i + 2]) for i in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
