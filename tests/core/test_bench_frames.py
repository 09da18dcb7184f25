"""What the sync network carried, counted from frames: records, payload, and everything that delta sync costs."""

from __future__ import annotations

import struct

import pytest

from labs.bench.wire import Measured, rows
from labs.bench.wire_frames import DeltaTraffic, StreamTraffic, delta_traffic, frames, stream_traffic
from labs.network.errors import LabError
from syncproto.codec import encode, encode_stream
from syncproto.columns import Columns, pack_columns
from syncproto.message import Ack, Delta, FullRequest, FullSlice, Message
from syncproto.record import Op, Record, Update, join, pack_update

CLUSTER, SCHEMA = 1, 3
ACTIVE, PEER = 1, 2
HEADERS = 14 + 20 + 8
"""Ethernet, IPv4, UDP."""


def record(number: int) -> Record:
    key = bytes([17, 192, 0, 2, 1, 198, 51, 100, 1]) + number.to_bytes(4, "big")
    return Record(key, state=0, ttl_s=40.0, timeout_s=40.0, rule=1, service="", flags=0, born=0.0, revision=1)


def payload(message: Message, sender: int) -> bytes:
    return encode(message, cluster=CLUSTER, sender=sender, incarnation=7)


def delta(sequence: int, count: int) -> bytes:
    items = [pack_update(Update(Op.SET, record(n).key, record(n)), SCHEMA) for n in range(count)]
    return payload(Delta(sequence, SCHEMA, join(items)), ACTIVE)


def ipv4(protocol: int, body: bytes, source: int = ACTIVE) -> bytes:
    ends = bytes([203, 0, 113, source, 203, 0, 113, 3 - source])
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0) + ends
    return bytes(12) + b"\x08\x00" + header + body


def udp(data: bytes, source: int = ACTIVE, port: int = 8116) -> bytes:
    return ipv4(17, struct.pack("!HHHH", port, port, 8 + len(data), 0) + data, source)


def tcp(sequence: int, data: bytes = b"", flags: int = 0x10, to_port_256: bool = False) -> bytes:
    ports = (40_000, 256) if to_port_256 else (256, 40_000)
    header = struct.pack("!HHIIBBHHH", *ports, sequence % 2**32, 0, 5 << 4, flags, 1000, 0, 0)
    return ipv4(6, header + data, PEER if to_port_256 else ACTIVE)


def test_delta_sync_is_counted_with_its_headers_and_acknowledgements():
    first, second, ack = delta(1, 3), delta(2, 1), payload(Ack(7, 2), PEER)
    traffic = delta_traffic([udp(first), udp(second), udp(ack, PEER)], CLUSTER)
    assert (traffic.records, traffic.datagrams, traffic.records_per_datagram) == (4, 2, 2.0)
    assert traffic.bytes_per_record == (len(first) + len(second)) / 4
    assert traffic.wire_bytes_per_record == (len(first) + len(second) + len(ack) + 3 * HEADERS) / 4


def test_an_update_sent_again_costs_bytes_on_the_wire_and_is_no_new_record():
    data = delta(1, 3)
    traffic = delta_traffic([udp(data), udp(data)], CLUSTER)
    assert (traffic.records, traffic.datagrams, traffic.repeated) == (3, 1, 1)
    assert (traffic.payload_bytes, traffic.wire_bytes) == (len(data), 2 * (len(data) + HEADERS))


def test_padding_other_ports_and_other_protocols_are_not_sync():
    data = payload(Ack(7, 2), PEER)
    padded, arp, short = udp(data) + bytes(18), bytes(12) + b"\x08\x06" + bytes(28), b"\0" * 20
    traffic = delta_traffic([padded, udp(data, port=53), arp, short, ipv4(17, b"\0"), tcp(1, b"x")], CLUSTER)
    assert traffic.wire_bytes == len(padded)
    assert (traffic.bytes_per_record, traffic.records_per_datagram) == (0.0, 0.0), "no records, no division"


def test_a_datagram_that_cannot_be_read_is_an_error_and_not_a_smaller_figure():
    with pytest.raises(LabError, match="cannot be read"):
        delta_traffic([udp(b"\xff")], CLUSTER)


def test_a_full_sync_is_counted_once_whatever_tcp_repeats_and_reorders():
    body = pack_columns(Columns.of(map(record, range(5))), SCHEMA)
    stream = encode_stream(FullSlice(0, SCHEMA, body), cluster=CLUSTER, sender=ACTIVE, incarnation=7)
    request = encode_stream(FullRequest("R77.30", SCHEMA), cluster=CLUSTER, sender=PEER, incarnation=8)
    start = 2**32 - 20  # its sequence numbers wrap
    seen = [
        tcp(99, flags=0x02, to_port_256=True), tcp(start, flags=0x12), tcp(100, request, to_port_256=True),
        tcp(start + 41, stream[40:]), tcp(start + 1, stream[:50]), tcp(start + 41, stream[40:]), tcp(start + 11, b""),
    ]  # fmt: skip
    traffic = stream_traffic(seen, CLUSTER)
    assert (traffic.records, traffic.stream_bytes) == (5, len(stream) + len(request))
    assert traffic.bytes_per_record == (len(stream) + len(request)) / 5


@pytest.mark.parametrize(("seen", "says"), [
    ([tcp(1, b"abc")], "missed the beginning"),
    ([tcp(0, flags=0x12), tcp(5, b"abc")], "missed 4 bytes"),
    ([tcp(0, flags=0x12), tcp(1, b"\xff\xff\xff\xff")], "cannot be read"),
])  # fmt: skip
def test_a_full_sync_that_was_not_seen_whole_is_an_error(seen, says):
    with pytest.raises(LabError, match=says):
        stream_traffic(seen, CLUSTER)


def test_the_frames_of_a_capture():
    head = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1)
    one, two = (struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame for frame in (b"first", b""))
    assert list(frames(head)) == []
    assert list(frames(head + one + two)) == [b"first", b""]
    for broken in (b"", b"x" * 24, head + one[:-1], head + one[:9]):
        with pytest.raises(LabError):
            list(frames(broken))


def test_the_rows_are_medians_over_the_rounds_and_say_what_is_better():
    deltas = [DeltaTraffic(2, 100, 4000, 0, 5000), DeltaTraffic(4, 100, 6000, 0, 7000)]
    made = rows("ipv6", [Measured(100, each, StreamTraffic(10, 300)) for each in deltas], "nobody")
    assert [(row.figure, row.ours, row.better) for row in made] == [
        ("bytes_per_record_ipv6", 50.0, "lower"),
        ("wire_bytes_per_record_ipv6", 60.0, "lower"),
        ("records_per_datagram_ipv6", 37.5, "higher"),
        ("full_bytes_per_record_ipv6", 30.0, "lower"),
    ]
    assert all(row.peer is None and row.peer_name == "nobody" for row in made)
