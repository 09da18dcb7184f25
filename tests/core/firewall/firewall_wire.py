"""Packets as scapy builds them, and transcripts of what a firewall answers. Helpers of the tests in this folder.

A transcript is text, one line a step, written as it is expected and compared with what really happened:

    > S    ACCEPT SYN_SENT      client to server; flags as scapy writes them; verdict, state of the entry (- for none)
    < SA   ACCEPT SYN_RECEIVED  server to client
    + 25                        seconds pass
"""

from __future__ import annotations

from functools import cache
from ipaddress import ip_address
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
)
from scapy.packet import Packet, Raw

from fwnode.firewall.firewall import Firewall
from fwnode.firewall.parameters import Parameters
from fwnode.firewall.tcp_states import ConnectionState
from fwnode.firewall.verdict import Hook
from fwnode.policy_file import build_policy

CLIENT = {4: "192.0.2.100", 6: "2001:db8:1::100"}
SERVER = {4: "198.51.100.100", 6: "2001:db8:2::100"}
VIRTUAL = {4: "192.0.2.1", 6: "2001:db8:1::1"}
FW1, FW2 = "203.0.113.1", "203.0.113.2"

POLICY: dict[str, Any] = {
    "name": "standard",
    "networks": {
        "inside": ["192.0.2.0/24", "2001:db8:1::/64"],
        "outside": ["198.51.100.0/24", "2001:db8:2::/64"],
    },
    "services": {
        "database": {"protocol": "tcp", "port": 1521, "session_timeout": "90d"},
        "web": {"protocol": "tcp", "port": "80-81"},
        "dns-like": {"protocol": "udp", "port": 53},
        "gre": {"protocol": 47},
        "ping": {"protocol": "icmp", "icmp": "echo"},
    },
    "rules": [
        {"name": "telnet", "destination": "outside", "service": "telnet", "action": "reject"},
        {"name": "udp-reject", "service": "ntp", "action": "reject"},
        {"name": "out", "source": "inside", "destination": "outside", "action": "accept",
         "service": ["database", "web", "dns-like", "gre", "ping"]},
        {"name": "cleanup", "action": "drop", "track": "log"},
    ],
}  # fmt: skip


def address(host: str) -> bytes:
    return ip_address(host).packed


def firewall(member: str = "fw1", policy: dict[str, Any] | None = None, **parameters: int) -> Firewall:
    """A forwarding member with `POLICY`, changed by what is given."""
    store = Parameters()
    for name, value in parameters.items():
        store.set(name, value)
    built = build_policy(POLICY | (policy or {}), "policy")
    made = Firewall(
        member,
        built,
        store,
        control_addresses=frozenset((address(FW1), address(FW2))),
        virtual_addresses=frozenset(map(address, VIRTUAL.values())),
    )
    made.forwarding = True
    return made


def ip(source: dict[int, str] | str, destination: dict[int, str] | str, family: int = 4, **fields: Any) -> Packet:
    layer = IP if family == 4 else IPv6
    ends = (end if isinstance(end, str) else end[family] for end in (source, destination))
    return layer(src=next(ends), dst=next(ends), **fields)


@cache
def tcp(flags: str, way: str = ">", *, family: int = 4, client_port: int = 40001, server_port: int = 80) -> bytes:
    if way == ">":
        return bytes(ip(CLIENT, SERVER, family) / TCP(sport=client_port, dport=server_port, flags=flags))
    return bytes(ip(SERVER, CLIENT, family) / TCP(sport=server_port, dport=client_port, flags=flags))


@cache
def udp(way: str = ">", *, family: int = 4, client_port: int = 40001, server_port: int = 53) -> bytes:
    if way == ">":
        return bytes(ip(CLIENT, SERVER, family) / UDP(sport=client_port, dport=server_port) / b"question")
    return bytes(ip(SERVER, CLIENT, family) / UDP(sport=server_port, dport=client_port) / b"answer")


@cache
def echo(way: str = ">", *, family: int = 4, number: int = 7, reply: bool = False) -> bytes:
    base = ip(CLIENT, SERVER, family) if way == ">" else ip(SERVER, CLIENT, family)
    if family == 4:
        return bytes(base / ICMP(type=0 if reply else 8, id=number))
    return bytes(base / (ICMPv6EchoReply(id=number) if reply else ICMPv6EchoRequest(id=number)))


def unreachable(about: bytes, way: str = "<", *, family: int = 4) -> bytes:
    """An ICMP error that quotes the packet it is about."""
    base = ip(SERVER, CLIENT, family) if way == "<" else ip(CLIENT, SERVER, family)
    return bytes(base / (ICMP(type=3, code=1) if family == 4 else ICMPv6DestUnreach()) / Raw(about[:68]))


def fragments(port: int = 53, number: int = 1) -> list[bytes]:
    """A datagram from the client in three fragments."""
    whole = IP(src=CLIENT[4], dst=SERVER[4], id=number) / UDP(sport=5, dport=port) / Raw(bytes(2500))
    return [bytes(part) for part in fragment(whole, 1000)]


def answer(fw: Firewall, packet: bytes, now: float = 0.0, hook: int = Hook.FORWARD) -> str:
    """`ACCEPT`, or the reason of the drop."""
    verdict = fw.decide(packet, hook, now)
    return "ACCEPT" if verdict.accept else verdict.reason.name if verdict.reason else "?"


def play(fw: Firewall, transcript: str, *, now: float = 0.0, **ports: int) -> float:
    """Run a transcript and compare it with what happened. Returns the time at its end."""
    expected = [" ".join(line.split()) for line in transcript.strip().splitlines()]
    happened = []
    for line in expected:
        way, what, *_ = line.split()
        if way == "+":
            now += float(what)
            fw.expire(now)
            happened.append(f"+ {what}")
            continue
        packet = tcp(what, way, **ports)
        verdict = answer(fw, packet, now)
        entry = fw.connections.find(key_of(way, **ports))
        happened.append(f"{way} {what} {verdict} {ConnectionState(entry.state).name if entry else '-'}")
    assert happened == expected
    return now


def key_of(way: str = ">", protocol: int = 6, *, family: int = 4, client_port: int = 40001,
           server_port: int = 80) -> bytes:  # fmt: skip
    """The connection key of a packet that way."""
    client, server = address(CLIENT[family]), address(SERVER[family])
    ports = client_port.to_bytes(2, "big"), server_port.to_bytes(2, "big")
    if way == ">":
        return bytes((protocol,)) + client + server + ports[0] + ports[1]
    return bytes((protocol,)) + server + client + ports[1] + ports[0]
