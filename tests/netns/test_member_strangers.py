"""What strangers on the user networks may not do, and what a router must say to them."""

from __future__ import annotations

import sys

INJECT_HELLO = """
import time
from scapy.all import Ether, IP, UDP, Raw, getmacbyip, sendp
from syncproto import codec
from syncproto.message import Hello
hello = Hello(release="R80.10", schema=2, heard=0, decided=-1, start=0, answer=True)
data = codec.encode(hello, cluster=1, sender=2, incarnation=time.monotonic_ns() + 10**12)
to = Ether(dst=getmacbyip("192.0.2.11")) / IP(src="192.0.2.12", dst="192.0.2.11") / UDP(sport=8116, dport=8116)
sendp(to / Raw(data), iface="lan", verbose=0)
"""

ASK_FOR_THE_TABLE = """
import socket
from syncproto import codec
from syncproto.message import FullRequest
link = socket.create_connection(("203.0.113.1", 256), timeout=3)
link.sendall(codec.encode_stream(FullRequest("R77.30", 2), cluster=1, sender=2, incarnation=1))
print(len(link.recv(65536)))
"""


def test_sync_messages_from_another_network_are_refused(pair):
    pair.exec("client", sys.executable, "-c", INJECT_HELLO, check=True)
    status = pair.status("fw1")
    assert status["refused_messages"] == {"not on the sync network": 1}
    assert status["sync"]["status"] == "OK"


def test_a_host_does_not_get_the_table_by_full_sync(pair):
    pair.exec("client", "ping", "-n", "-c", "1", "198.51.100.100", check=True)
    done = pair.exec("client", sys.executable, "-c", ASK_FOR_THE_TABLE)
    assert done.stdout.strip() == "0" or "ConnectionResetError" in done.stderr, done.stdout + done.stderr
    assert "full sync was refused to 192.0.2.100" in pair.fwctl("fw1", "events").stdout


def test_the_firewall_is_a_hop_of_a_traceroute(pair):
    for address, hop in (("198.51.100.100", "192.0.2.11"), ("2001:db8:2::100", "2001:db8:1::11")):
        done = pair.exec("client", "ping", "-n", "-c", "1", "-W", "2", "-t", "1", address)
        assert f"From {hop}" in done.stdout, done.stdout


def test_the_firewall_says_when_a_packet_is_too_big(pair):
    pair.exec("fw1", "ip", "link", "set", "wan", "mtu", "1400", check=True)
    done = pair.exec("client", "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1450", "198.51.100.100")
    assert "mtu = 1400" in done.stdout or "mtu=1400" in done.stdout, done.stdout + done.stderr
