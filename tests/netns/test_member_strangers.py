"""What strangers on the user networks may not do, and what a router must say to them."""

from __future__ import annotations

import sys

import pytest
from harness import until, wan_macs

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


def test_sync_messages_from_another_network_are_refused(shared_pair):
    shared_pair.exec("client", sys.executable, "-c", INJECT_HELLO, check=True)
    status = shared_pair.status("fw1")
    assert status["refused_messages"] == {"not on the sync network": 1}
    assert status["sync"]["status"] == "OK"


def test_a_host_does_not_get_the_table_by_full_sync(shared_pair):
    shared_pair.exec("client", "ping", "-n", "-c", "1", "198.51.100.100", check=True)
    done = shared_pair.exec("client", sys.executable, "-c", ASK_FOR_THE_TABLE)
    assert done.stdout.strip() == "0" or "ConnectionResetError" in done.stderr, done.stdout + done.stderr
    assert "full sync was refused to 192.0.2.100" in shared_pair.fwctl("fw1", "events").stdout


FORGE_ERRORS = """
import sys
from scapy.all import ICMP, IP, TCP, Ether, ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6, Raw, get_if_hwaddr, sendp
client, server, other, router, mac, port = sys.argv[1:]
if ":" in client:
    layer, kinds = IPv6, [ICMPv6DestUnreach(), ICMPv6PacketTooBig(mtu=1280)]
else:
    layer, kinds = IP, [ICMP(type=3, code=1), ICMP(type=5, code=1, gw=other), ICMP(type=3, code=4, nexthopmtu=600)]
live = bytes(layer(src=client, dst=server) / TCP(sport=int(port), dport=80, flags="A"))
def error(kind, to):
    packet = layer(src=router, dst=to) / kind
    return Ether(src=get_if_hwaddr("wan"), dst=mac) / packet / Raw((live + bytes(1_300))[: 1_236 - len(bytes(packet))])
redirect = [error(kind, client) for kind in kinds if kind.type == 5]
sendp([error(kind, other) for kind in kinds] + redirect + [error(kinds[0], client)], iface="wan", verbose=0)
"""
HEAR_ERRORS = """
import socket, sys
family, protocol = (socket.AF_INET6, 58) if ":" in sys.argv[1] else (socket.AF_INET, 1)
link = socket.socket(family, socket.SOCK_RAW, protocol)
link.settimeout(20)
print("ready", flush=True)
at = 20 if protocol == 1 else 0
while True:
    data, ancillary, _, source = link.recvmsg(2_000)
    if data[at] in ((3, 5) if protocol == 1 else (1, 2)):
        print(source[0], data[at], socket.inet_ntoa(data[16:20]) if at else "", flush=True)
"""


@pytest.mark.parametrize("family", [4, 6])
def test_an_icmp_error_reaches_nobody_whom_it_does_not_concern(pair, family):
    """Errors that quote a live connection, to another host of the inside: only the last one, to the client, passes."""
    hosts = ("192.0.2.100", "198.51.100.100", "192.0.2.150/24", "198.51.100.254")
    if family == 6:
        hosts = ("2001:db8:1::100", "2001:db8:2::100", "2001:db8:1::150/64", "2001:db8:2::fe")
    client, server, other, router = hosts
    pair.serve(80)
    talk = pair.talk(80, server)
    assert talk.ask() == "hello"
    port = next(r["source_port"] for r in pair.ask("fw1", "tab", "-u")["rows"] if r["destination_port"] == 80)
    pair.exec("client", "ip", "address", "add", other, "dev", "lan", *(["nodad"] if family == 6 else []), check=True)
    mac = next(mac for mac, member in wan_macs(pair).items() if member == "fw1")
    listener = pair.background("client", sys.executable, "-c", HEAR_ERRORS, client)
    assert listener.stdout.readline() == "ready\n"
    before = pair.status("fw1")["drops"]["OUT_OF_STATE"]
    forged = ("-c", FORGE_ERRORS, client, server, other.partition("/")[0], router, mac, str(port))
    pair.exec("server", sys.executable, *forged, check=True)
    heard = listener.stdout.readline().split()
    assert heard == ([router, "3", client] if family == 4 else [router, "1"])
    assert pair.status("fw1")["drops"]["OUT_OF_STATE"] - before == (4 if family == 4 else 2)
    assert talk.ask() == "hello"


@pytest.mark.parametrize("family", [4, 6])
def test_a_narrow_link_behind_a_router_behind_the_firewall_is_found(pair, family):
    """Path-MTU discovery and a traceroute through the pair; the server is the router, and a host is behind it."""
    behind, back, route = "203.0.113.130", "203.0.113.129", ["203.0.113.128/25", "via", "198.51.100.100"]
    forwarding, hop = "net.ipv4.ip_forward", "198.51.100.100"
    if family == 6:
        behind, back, route = "2001:db8:9::2", "2001:db8:9::1", ["2001:db8:9::/64", "via", "2001:db8:2::100"]
        forwarding, hop = "net.ipv6.conf.all.forwarding", "2001:db8:2::100"
    ip, width, fast = ["ip", f"-{family}"], "/25" if family == 4 else "/64", ["nodad"] if family == 6 else []
    host = pair.background("server", "unshare", "-n", sys.executable, "-c", BEHIND, str(family))
    number = host.stdout.readline().strip()
    for command in (
        ["sysctl", "-q", "-w", f"{forwarding}=1"],
        ["ip", "link", "add", "narrow", "type", "veth", "peer", "name", "host", "netns", number],
        ["ip", "link", "set", "narrow", "mtu", "1300", "up"],
        [*ip, "address", "add", back + width, "dev", "narrow", *fast],
        ["nsenter", "-t", number, "-n", "ip", "link", "set", "host", "up"],
        ["nsenter", "-t", number, "-n", *ip, "address", "add", behind + width, "dev", "host", *fast],
        ["nsenter", "-t", number, "-n", *ip, "route", "add", "default", "via", back],
    ):
        pair.exec("server", *command, check=True)
    pair.exec("fw1", *ip, "route", "add", *route, check=True)
    host.stdin.write("\n")
    host.stdin.flush()
    assert host.stdout.readline() == "ready\n"
    assert pair.exec("client", "ping", "-n", "-c", "1", "-W", "5", behind).returncode == 0
    hopped = pair.exec("client", "ping", "-n", "-c", "1", "-W", "5", "-t", "2", behind).stdout
    assert f"From {hop}" in hopped, hopped
    talk = pair.talk(80, behind)
    assert talk.ask("x" * 60_000, 20) == "60000", "segments of full length do not get through, and the sender learns it"
    found = pair.exec("client", *ip, "route", "get", behind).stdout
    assert "mtu 1300" in found, found


BEHIND = """
import os, socket, sys
print(os.getpid(), flush=True)
sys.stdin.readline()
with socket.create_server(("", 80), family=socket.AF_INET6 if sys.argv[1] == "6" else socket.AF_INET) as server:
    print("ready", flush=True)
    link = server.accept()[0]
    got = 0
    while got < 60_000:
        got += len(link.recv(65_536))
    link.sendall(str(got).encode())
    link.recv(1)
"""


def test_the_firewall_is_a_hop_of_a_traceroute(shared_pair):
    for address, hop in (("198.51.100.100", "192.0.2.11"), ("2001:db8:2::100", "2001:db8:1::11")):
        done = shared_pair.exec("client", "ping", "-n", "-c", "1", "-W", "2", "-t", "1", address)
        assert f"From {hop}" in done.stdout, done.stdout


def test_the_firewall_says_when_a_packet_is_too_big(pair):
    pair.exec("fw1", "ip", "link", "set", "wan", "mtu", "1400", check=True)
    done = pair.exec("client", "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1450", "198.51.100.100")
    assert "mtu = 1400" in done.stdout or "mtu=1400" in done.stdout, done.stdout + done.stderr


MALFORM = """
from scapy.all import IP, TCP, UDP, Ether, IPv6, IPv6ExtHdrFragment, Raw, getmacbyip, sendp
to = Ether(dst=getmacbyip("192.0.2.1"))
four, six = IP(src="192.0.2.100", dst="198.51.100.100"), IPv6(src="2001:db8:1::100", dst="2001:db8:2::100")
for ip in (four, six):
    sendp([to / ip / part for part in (
        TCP(sport=0, dport=80), TCP(sport=5, dport=0), UDP(sport=0, dport=53), UDP(sport=5, dport=0),
        UDP(sport=5, dport=53, len=7) / b"x", UDP(sport=5, dport=53, len=99) / b"x", TCP(sport=5, dport=80, dataofs=15),
    )], iface="lan", verbose=0)
tail = bytes(TCP(sport=5, dport=23))[8:] + bytes(20)
sendp([to / IP(src=four.src, dst=four.dst, id=9, flags="MF") / TCP(sport=5, dport=80),
       to / IP(src=four.src, dst=four.dst, id=9, frag=1, proto=6) / Raw(tail),
       to / six / IPv6ExtHdrFragment(offset=0, m=1, id=9, nh=6) / TCP(sport=5, dport=80) / Raw(bytes(4)),
       to / six / IPv6ExtHdrFragment(offset=1, m=0, id=9, nh=6) / Raw(tail)], iface="lan", verbose=0)
"""


def test_headers_that_no_sender_writes_do_not_pass(shared_pair):
    shared_pair.exec("client", "ping", "-n", "-c", "1", "198.51.100.100", check=True)
    before = shared_pair.status("fw1")["drops"]["MALFORMED"]
    known = [row["source_port"] for row in shared_pair.ask("fw1", "tab", "-u")["rows"]]
    shared_pair.exec("client", sys.executable, "-c", MALFORM, check=True)
    until(lambda: shared_pair.status("fw1")["drops"]["MALFORMED"] >= before + 16, "all of them were dropped")
    assert shared_pair.status("fw1")["drops"]["MALFORMED"] == before + 16
    rows = [row for row in shared_pair.ask("fw1", "tab", "-u")["rows"] if row["protocol"] in (6, 17)]
    rows = [row for row in rows if row["source_port"] not in known]
    assert {(row["source_port"], row["destination_port"]) for row in rows} == {(5, 80)}, "the first fragments'"


REFUSED_FRAGMENTS = """
import sys
from scapy.all import IP, UDP, Ether, Raw, fragment, getmacbyip, sendp
to = Ether(dst=getmacbyip("192.0.2.1"))
def parts(port, number):
    whole = IP(src="192.0.2.100", dst="198.51.100.100", id=number) / UDP(sport=5_000, dport=port) / Raw(b"x" * 2_000)
    return [to / part for part in fragment(whole, 1_000)]
accepted = parts(9_000, 1)
sendp([accepted[0], *(parts(23, number)[0] for number in range(2, 1_102)), *accepted[1:]], iface="lan", verbose=0)
"""
HEAR_ONE = """
import socket
with socket.socket(type=socket.SOCK_DGRAM) as link:
    link.bind(("", 9_000))
    print("ready", flush=True)
    print(len(link.recv(4_000)), flush=True)
"""


def test_fragments_that_are_refused_do_not_cost_others_their_rest(pair, tmp_path):
    rules = [{"service": "telnet", "action": "drop"}, {"service": "large", "action": "accept"}]
    udp = {"telnet": {"protocol": "udp", "port": 23}, "large": {"protocol": "udp", "port": 9000}}
    pair.install("fw1", tmp_path, {"name": "large", "services": udp, "rules": rules})
    listener = pair.background("server", sys.executable, "-c", HEAR_ONE)
    assert listener.stdout.readline() == "ready\n"
    pair.exec("client", sys.executable, "-c", REFUSED_FRAGMENTS, check=True)
    drops = until(lambda: (d := pair.status("fw1")["drops"])["POLICY"] >= 1_100 and d, "all have come")
    assert (drops["POLICY"], drops["FRAGMENT"]) == (1_100, 0)
    assert listener.stdout.readline() == "2000\n"
