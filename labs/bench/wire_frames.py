"""What the sync network carried, counted from captured Ethernet frames. Pure: bytes in, figures out.

A frame is counted as a packet socket sees it: Ethernet header included, preamble, padding and check sum not. The sync
network speaks IPv4. Heartbeats and greetings are there without a single connection, and are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from labs.bench.figures import per
from labs.network.capture import PCAP_MAGIC_NANOSECONDS
from labs.network.errors import LabError
from syncproto.codec import Envelope, StreamDecoder, SyncError, decode
from syncproto.limits import FULL_SYNC_PORT
from syncproto.message import Delta, FullSlice, Kind

DELTA_PORT = 8116
DELTA_SYNC = frozenset({Kind.DELTA, Kind.ACK, Kind.RETRANSMIT, Kind.REJECT})
"""The kinds of message that delta sync costs."""
_PCAP_HEADER, _PCAP_RECORD = struct.Struct("=IHHiIII"), struct.Struct("=IIII")
_ETHERNET, _ETHERTYPE_IPV4 = 14, 0x0800
_TCP, _UDP = 6, 17
_UDP_HEADER = 8
_SHORTEST = {_TCP: 20, _UDP: _UDP_HEADER}
_SEQUENCE_SPACE = 1 << 32
_SYN = 0x02


@dataclass
class DeltaTraffic:
    """Delta sync. A datagram that was sent again counts on the wire, and not as records once more."""

    datagrams: int = 0
    records: int = 0
    payload_bytes: int = 0
    """UDP payload of those datagrams."""
    repeated: int = 0
    wire_bytes: int = 0
    """Whole frames, both ways: updates first sent and sent again, what acknowledges them, and what asks for them."""
    _seen: set[tuple[int, int, int]] = field(default_factory=set)

    @property
    def bytes_per_record(self) -> float:
        return per(self.payload_bytes, self.records)

    @property
    def records_per_datagram(self) -> float:
        return per(self.records, self.datagrams)

    @property
    def wire_bytes_per_record(self) -> float:
        return per(self.wire_bytes, self.records)

    def add(self, envelope: Envelope, payload: int, frame: int) -> None:
        """One datagram of the cluster protocol, with the lengths of its payload and of its frame."""
        message = envelope.message
        if message.kind not in DELTA_SYNC:
            return
        self.wire_bytes += frame
        if not isinstance(message, Delta):
            return
        number = (envelope.sender, envelope.incarnation, message.sequence)
        if number in self._seen:
            self.repeated += 1
            return
        self._seen.add(number)
        self.datagrams += 1
        self.records += len(message.updates)
        self.payload_bytes += payload


@dataclass
class StreamTraffic:
    """Full sync: the bytes of its TCP streams, both ways, without what TCP sent again."""

    records: int = 0
    stream_bytes: int = 0

    @property
    def bytes_per_record(self) -> float:
        return per(self.stream_bytes, self.records)


@dataclass(frozen=True)
class _Segment:
    """What lies in a frame above IPv4; `body` begins with its own header, and padding is cut off."""

    protocol: int
    ends: tuple[bytes, bytes]
    source: int
    target: int
    body: bytes


def frames(pcap: bytes) -> Iterator[bytes]:
    """The frames of a capture by `labs.network.capture`. `LabError` where it is cut off or none of its own."""
    if len(pcap) < _PCAP_HEADER.size or _PCAP_HEADER.unpack_from(pcap)[0] != PCAP_MAGIC_NANOSECONDS:
        raise LabError("the capture of the sync network does not begin as a capture")
    at = _PCAP_HEADER.size
    while at < len(pcap):
        begin = at + _PCAP_RECORD.size
        length = _PCAP_RECORD.unpack_from(pcap, at)[2] if begin <= len(pcap) else 0
        at = begin + length
        if at > len(pcap):
            raise LabError("the capture of the sync network is cut off in a frame")
        yield pcap[begin:at]


def delta_traffic(captured: Iterable[bytes], cluster: int) -> DeltaTraffic:
    """What delta sync sent. `LabError` for a datagram that is not the protocol's: the figures would miss it."""
    traffic = DeltaTraffic()
    for frame in captured:
        segment = _segment(frame)
        if segment is None or segment.protocol != _UDP or segment.target != DELTA_PORT:
            continue
        payload = segment.body[_UDP_HEADER:]
        try:
            envelope = decode(payload, cluster=cluster)
        except SyncError as error:
            raise LabError(f"a datagram on the sync network cannot be read: {error}") from None
        traffic.add(envelope, len(payload), len(frame))
    return traffic


def stream_traffic(captured: Iterable[bytes], cluster: int) -> StreamTraffic:
    """What full sync sent. `LabError` where a stream has a hole or cannot be read."""
    ways: dict[tuple[bytes, bytes, int, int], dict[int, bytes]] = {}
    begins: dict[tuple[bytes, bytes, int, int], int] = {}
    for frame in captured:
        segment = _segment(frame)
        if segment is None or segment.protocol != _TCP or FULL_SYNC_PORT not in (segment.source, segment.target):
            continue
        way = (*segment.ends, segment.source, segment.target)
        sequence, length, flags = struct.unpack_from("!4xI4xBB", segment.body)
        if flags & _SYN:
            begins[way] = sequence + 1
        elif payload := segment.body[(length >> 4) * 4 :]:
            parts = ways.setdefault(way, {})
            offset = (sequence - begins.get(way, sequence)) % _SEQUENCE_SPACE
            parts[offset] = max(parts.get(offset, b""), payload, key=len)
    traffic = StreamTraffic()
    for way, parts in ways.items():
        if way not in begins:
            raise LabError("the capture missed the beginning of a full sync")
        stream = _joined(parts)
        traffic.stream_bytes += len(stream)
        traffic.records += _records(stream, cluster)
    return traffic


def _segment(frame: bytes) -> _Segment | None:
    """The UDP or TCP part of a whole IPv4 packet; None for everything else."""
    if len(frame) < _ETHERNET + 20 or int.from_bytes(frame[12:14], "big") != _ETHERTYPE_IPV4:
        return None
    packet = frame[_ETHERNET:]
    begin, total, protocol = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big"), packet[9]
    body = packet[begin:total]
    if len(body) < _SHORTEST.get(protocol, len(body) + 1):
        return None
    source, target = struct.unpack_from("!HH", body)
    return _Segment(protocol, (packet[12:16], packet[16:20]), source, target, body)


def _joined(parts: dict[int, bytes]) -> bytes:
    """The stream of its segments, by their offset in it; each byte once."""
    stream = bytearray()
    for offset in sorted(parts):
        if offset > len(stream):
            raise LabError(f"the capture missed {offset - len(stream)} bytes of a full sync")
        stream += parts[offset][len(stream) - offset :]
    return bytes(stream)


def _records(stream: bytes, cluster: int) -> int:
    try:
        envelopes = StreamDecoder(cluster=cluster).feed(stream)
    except SyncError as error:
        raise LabError(f"a full sync cannot be read: {error}") from None
    messages = (envelope.message for envelope in envelopes)
    return sum(len(some.columns or ()) for some in messages if isinstance(some, FullSlice))
