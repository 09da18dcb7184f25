"""A flood's packets: each a whole packet that a firewall and a kernel take, each a connection of its own."""

import struct

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from labs.traffic.flood_packets import flow, packet_filter, packets

ENDS = {4: ("192.0.2.100", "198.51.100.100"), 6: ("2001:db8:1::100", "2001:db8:2::100")}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("protocol", "layer"), [("udp", UDP), ("tcp", TCP)])
def test_each_is_a_whole_packet(version, protocol, layer):
    for data in packets(*ENDS[version], protocol, range(9000, 9003), 7):
        read = (IP if version == 4 else IPv6)(data)
        assert (read.src, read.dst) == ENDS[version]
        written = read.copy()
        del written[layer].chksum  # scapy sums up anew
        if version == 4:
            del written.chksum
        assert bytes(written) == data
        if protocol == "tcp":
            assert read[TCP].flags == "S"


def test_each_is_a_connection_of_its_own():
    flows = {flow(data) for data in packets(*ENDS[4], "udp", range(9000, 9004), 10_000)}
    assert len(flows) == 10_000
    ports = {struct.unpack("!HH", found)[1] for found in flows}
    assert ports == {9000, 9001, 9002, 9003}


def run(program, data):
    """A classic BPF machine of the few instructions that the filter uses."""
    accumulator = index = at = 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == 0x06:
            return k
        if code == 0x30:
            accumulator = data[k]
        elif code in (0x28, 0x48):
            begin = k + (index if code == 0x48 else 0)
            accumulator = int.from_bytes(data[begin : begin + 2], "big")
        elif code == 0xB1:
            index = (data[k] & 15) * 4
        else:
            taken = {0x15: accumulator == k, 0x45: accumulator & k, 0x35: accumulator >= k, 0x25: accumulator > k}[code]
            at += yes if taken else no


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_the_receiver_takes_its_own_packets_alone(version, protocol):
    program = packet_filter(version == 6, protocol, range(9000, 9004))
    other = "tcp" if protocol == "udp" else "udp"
    own = next(packets(*ENDS[version], protocol, range(9003, 9004), 1))
    assert run(program, own)
    assert not run(program, next(packets(*ENDS[version], protocol, range(9004, 9005), 1)))
    assert not run(program, next(packets(*ENDS[version], protocol, range(8999, 9000), 1)))
    assert not run(program, next(packets(*ENDS[version], other, range(9000, 9001), 1)))
    if version == 4:
        assert not run(program, own[:6] + b"\x00\x01" + own[8:]), "a later fragment has no ports"
