"""TCP segments and UDP datagrams as IP packets of either family, and their fields read back. Pure.

Checksums are left 0: in the simulated world nobody verifies them, since links lose packets and do not damage them.
Sizes are those of Linux: a SYN carries 20 bytes of options, every other segment of a connection 12 (timestamps).
"""

from __future__ import annotations

from struct import Struct

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MASK = 0xFFFFFFFF
HALF = 1 << 31
MTU = 1_500
MSS = {12: MTU - 52, 36: MTU - 72}
"""Bytes of data in a full segment, by the length of a connection's ends."""
SCALE = 7
"""What the window in a segment is shifted by (Linux, with its default buffers)."""
TIMESTAMPS = 0x0101080A
"""Two fillers, kind and length of the timestamps option; what was sent when and what is echoed follow."""
TICKS = 100_000
"""Of a timestamp, a second."""
_SYN_OPTIONS = Struct("!8sII4s").pack
_BEFORE_TIMESTAMPS, _AFTER_TIMESTAMPS = bytes((2, 4, 5, 180, 4, 2, 8, 10)), bytes((1, 3, 3, SCALE))

pack_ipv4 = Struct("!HHIHH12sIIHHIIII").pack
"""0x4500, total length, 0x4000, 0x4006, 0, ends, sequence, acknowledgement, bits, window, 0,
TIMESTAMPS, own, echoed."""
pack_ipv6 = Struct("!IHH36sIIHHIIII").pack
"""0x60000000, payload length, 0x0640, ends, sequence, acknowledgement, bits, window, 0, TIMESTAMPS, own, echoed."""
WITH_OPTIONS = 0x8000
"""The upper bits of `bits`: a TCP header of 32 bytes."""
read_segment = Struct("!IIHH").unpack_from
"""Sequence, acknowledgement, bits and window, from four bytes behind the begin of the TCP header."""
read_timestamps = Struct("!II").unpack_from
"""Own and echoed, 24 bytes behind the begin of a TCP header of 32, 28 of one of 40."""
_BARE_IPV4, _BARE_IPV6 = Struct("!HHIHH12sIIHHI").pack, Struct("!IHH36sIIHHI").pack
_UDP_IPV4, _UDP_IPV6 = Struct("!HHIHH12sHH").pack, Struct("!IHH36sHH").pack


def ends_of(source: bytes, destination: bytes, source_port: int, destination_port: int) -> bytes:
    """Both addresses and both ports, as they lie in a packet: what tells connections apart."""
    return source + destination + source_port.to_bytes(2) + destination_port.to_bytes(2)


def turned(ends: bytes) -> bytes:
    """The same as the other side writes them."""
    size = (len(ends) - 4) // 2
    return ends[size : 2 * size] + ends[:size] + ends[-2:] + ends[-4:-2]


def bare_segment(ends: bytes, sequence: int, acknowledgement: int, flags: int, window: int = 0,
                 options: bytes = b"") -> bytes:  # fmt: skip
    """A segment without data: of a handshake, or a RST for what is unknown."""
    length = 20 + len(options)
    bits = length << 10 | flags
    if len(ends) == 12:
        head = _BARE_IPV4(0x4500, 20 + length, 0x4000, 0x4006, 0, ends, sequence & MASK, acknowledgement & MASK, bits,
                          window, 0)  # fmt: skip
    else:
        head = _BARE_IPV6(0x60000000, length, 0x0640, ends, sequence & MASK, acknowledgement & MASK, bits, window, 0)
    return head + options


def syn_options(own: int = 0, echoed: int = 0) -> bytes:
    """Segment size, selective acknowledgements, timestamps, scale, as Linux orders them; only timestamps are read."""
    return _SYN_OPTIONS(_BEFORE_TIMESTAMPS, own, echoed, _AFTER_TIMESTAMPS)


def datagram(ends: bytes, payload: bytes) -> bytes:
    """An IP packet with a UDP datagram; `ends` as of `ends_of`."""
    length = 8 + len(payload)
    if len(ends) == 12:
        return _UDP_IPV4(0x4500, 20 + length, 0x4000, 0x4011, 0, ends, length, 0) + payload
    return _UDP_IPV6(0x60000000, length, 0x1140, ends, length, 0) + payload


def reset_for(packet: bytes, at: int, ends: bytes) -> bytes:
    """The RST that answers a segment of no connection, whose TCP header begins at `at`; nothing for a RST. `ends` are
    those of the answer."""
    sequence, acknowledgement, bits, _ = read_segment(packet, at + 4)
    if bits & RST:
        return b""
    if bits & ACK:
        return bare_segment(ends, acknowledgement, 0, RST)
    covered = len(packet) - at - (bits >> 12) * 4 + bool(bits & SYN) + bool(bits & FIN)
    return bare_segment(ends, 0, sequence + covered, RST | ACK)
