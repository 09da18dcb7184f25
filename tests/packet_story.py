"""A lab whose packets are looked at one by one in both worlds, and packets as words.

A word says what a packet is and who sent it (`>` the client, `<` the server, a member by its name): TCP by the server's
port and as in `tests/tcp_stories.py`, with the member that carried it; ARP as `who-has` and `is-at`; messages between
members by their kinds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from syncproto import codec
from syncproto.errors import SyncError

LAB: dict[str, Any] = {
    "title": "what is on the wires",
    "shows": "each kind of workload, an upgrade without state, a session that is learned and one that is not",
    "members": {"fw1": {"release": "R77.30"}, "fw2": {"release": "R77.30"}},
    "policy": {
        "name": "standard",
        "networks": {"inside": "192.0.2.0/24", "outside": "198.51.100.0/24"},
        "services": {"other": {"protocol": "tcp", "port": 1526}, "web": {"protocol": "tcp", "port": 8080}},
        "rules": [
            {"name": "in", "source": "inside", "destination": "outside",
             "service": ["oracle", "other", "web", "ftp", "tftp", "udp", "echo-request"], "action": "accept"},
            {"name": "cleanup", "action": "drop"},
        ],
    },
    "workloads": {
        "learned": {"kind": "sessions", "port": 1521, "count": 1, "idle": True, "patience": "20s"},
        "silent": {"kind": "sessions", "port": 1526, "count": 1, "idle": True, "patience": "2400ms"},
        "web": {"kind": "short", "port": 8080, "rate": 10, "count": 1, "patience": "5s"},
        "echo": {"kind": "ping", "rate": 10, "count": 1, "patience": "5s"},
        "datagrams": {"kind": "flood", "port": 9000, "rate": 10, "count": 1},
        "files": {"kind": "ftp", "size": "1kB", "patience": "5s"},
        "boot": {"kind": "tftp", "size": "1kB", "patience": "5s"},
    },
    "steps": [
        {"start": ["fw1", "fw2"]},
        {"until": {"that": "members.fw2.state", "is": "Standby", "within": "30s"}},
        {"open": "learned"}, {"wait": "300ms"},
        {"open": "silent"}, {"wait": "300ms"},
        {"speak": "learned"}, {"wait": "300ms"},
        {"open": "web"}, {"finish": "web"},
        {"open": "echo"}, {"finish": "echo"},
        {"open": "datagrams"}, {"finish": "datagrams"},
        {"open": "files"}, {"wait": "300ms"}, {"transfer": {"workloads": "files", "wait": True}}, {"finish": "files"},
        {"open": "boot"}, {"transfer": {"workloads": "boot", "wait": True}}, {"finish": "boot"},
        {"upgrade": {"member": "fw2", "release": "R80.10"}},
        {"until": {"that": "members.fw2.state", "is": "Ready", "within": "30s"}},
        {"set": {"member": "fw2", "fw_allow_out_of_state_tcp": 1}},
        {"stop": "fw1"},
        {"until": {"that": "members.fw2.state", "is": "Active", "within": "30s"}}, {"wait": "300ms"},
        {"speak": "learned"}, {"wait": "300ms"},
        {"set": {"member": "fw2", "fw_allow_out_of_state_tcp": 0}},
        {"speak": "learned"}, {"wait": "300ms"},
        {"speak": "silent"},
        {"finish": ["learned", "silent"]}, {"wait": "300ms"},
    ],
    "expect": [
        {"that": "workloads.learned.survived", "is": 1},
        {"that": "workloads.silent.hung", "is": 1},
    ],
}  # fmt: skip
LINKS = ("client-lan", "server-wan", "fw1-sync")
"""Where is looked. What passes a link is seen in both directions."""
ARP, IPV4 = b"\x08\x06", b"\x08\x00"
FTP_PORT, SYNC_PORT, EPHEMERAL = 21, 8116, 32_768
"""Ports from the last one on are drawn."""
_HOSTS = {"192.0.2.100": ">", "198.51.100.100": "<"}
_MEMBER = re.compile(r"(?:192\.0\.2|198\.51\.100)\.1(\d)|203\.0\.113\.(\d)")
_FLAGS = ((2, "S"), (1, "F"), (4, "R"), (8, "P"), (16, "."))
_BARE_ACK = re.compile(r"(\d+(?:[<>]|fw\d))\.(?: fw\d)?")


def story(frames: Mapping[str, Sequence[bytes]]) -> dict[str, list[str]]:
    """What each link has carried, in order. FTP's connections are told one by one, for two connections of one program
    overtake each other, and who has announced which address is told once, for members say it again and again."""
    members = _members(frames)
    found: dict[str, list[str]] = {}
    for link, passed in frames.items():
        announced: set[str] = set()
        for word in _words(passed, members, announced):
            port = word.partition(">" if ">" in word else "<")[0]
            found.setdefault(f"{link}, port {port}" if port in (str(FTP_PORT), "0") else link, []).append(word)
        found[f"{link}, announced"] = sorted(announced)
    return {stream: _calmed(words) for stream, words in found.items()}


def _calmed(words: list[str]) -> list[str]:
    """What is said again is told once: how often is a matter of time (`tests/netns/test_real_tcp.py`). An ACK before
    data of the same side is not told: it says that a program took 40 ms for its answer."""
    kept: list[str] = []
    for word in words:
        before = _BARE_ACK.fullmatch(kept[-1]) if kept else None
        if before is not None and word.startswith(f"{before[1]}P") and "S." not in kept[-2]:
            kept.pop()
        kept.append(word)
        for length in (1, 2):
            while len(kept) >= 2 * length and kept[-length:] == kept[-2 * length : -length]:
                del kept[-length:]
    return kept


def _members(frames: Mapping[str, Sequence[bytes]]) -> dict[bytes, str]:
    """MAC -> member, from what members send from addresses of their own."""
    found = {}
    for passed in frames.values():
        for frame in passed:
            if frame[12:14] in (ARP, IPV4):
                source = _address(frame[28:32] if frame[12:14] == ARP else frame[26:30])
                if _MEMBER.fullmatch(source):
                    found[frame[6:12]] = _who(source)
    return found


def _words(frames: Sequence[bytes], members: Mapping[bytes, str], announced: set[str]) -> Iterator[str]:
    """Without heartbeats and what refuses them, announcements, and questions whether a neighbour is still there: these
    come when it is time, whatever else happens."""
    probed = ""
    for frame in frames:
        if frame[12:14] == IPV4:
            word = _ip(frame, members)
        elif frame[12:14] != ARP:
            continue
        else:
            sender, wanted = _address(frame[28:32]), _address(frame[38:42])
            word = f"{_who(sender)} is-at" if frame[21] == 2 else f"{_who(sender)} who-has {_who(wanted)}"
            if frame[21] == 1 and sender == wanted:
                announced.add(f"{members[frame[6:12]]} announces {sender}")
                continue
            if frame[21] == 1 and not frame[0] & 1:
                probed = f"{_who(wanted)} is-at"
                continue
            if word == probed:
                probed = ""
                continue
        if word:
            yield word


def _ip(frame: bytes, members: Mapping[bytes, str]) -> str:
    packet = frame[14 : 14 + int.from_bytes(frame[16:18])]
    source, destination = _address(packet[12:16]), _address(packet[16:20])
    body, who = packet[(packet[0] & 15) << 2 :], _who(source)
    if packet[9] == 1:
        word = "" if body[:2] == b"\x03\x03" and _MEMBER.fullmatch(source) else f"{who} icmp {body[0]}/{body[1]}"
    elif packet[9] == 6:
        word = _tcp(who, body)
    else:
        word = _udp(who, body)
    between_hosts = source in _HOSTS and destination in _HOSTS
    return f"{word} {members.get(frame[:6]) or members.get(frame[6:12])}" if word and between_hosts else word


def _address(packed: bytes) -> str:
    return str(ip_address(packed))


def _who(address: str) -> str:
    member = _MEMBER.fullmatch(address)
    return f"fw{member[1] or member[2]}" if member else _HOSTS.get(address, address)


def _tcp(who: str, segment: bytes) -> str:
    flags = "".join(name for bit, name in _FLAGS if segment[13] & bit)
    port = next((port for port in _ports(segment) if port < EPHEMERAL), 0)
    return f"{port}{who}{flags}{len(segment) - (segment[12] >> 4) * 4 or ''}"


def _udp(who: str, datagram: bytes) -> str:
    ports = _ports(datagram)
    if SYNC_PORT not in ports:
        return f"udp{who} to {ports[1] if ports[1] < EPHEMERAL else 'a port'}, {len(datagram) - 8} bytes"
    try:
        kind = type(codec.decode(datagram[8:], cluster=1).message).__name__
    except SyncError as error:
        kind = str(error)
    return "" if kind == "Heartbeat" else f"{who} {kind}"


def _ports(body: bytes) -> tuple[int, int]:
    return int.from_bytes(body[:2]), int.from_bytes(body[2:4])
