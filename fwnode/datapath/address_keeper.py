"""The virtual addresses: held by every member, answered for by the one that may.

The kernel must not answer for them: it would go on doing so after the member's process has died. So they sit on `lo`
(packets to them are delivered), `arp_ignore` keeps the kernel silent about them, and while the member is active its own
process answers ARP requests and neighbour solicitations, and announces them with gratuitous ARP and unsolicited
neighbour advertisements. A member that has answered for them and does not any more asks who has them: the one that does
tells everybody. It may know nothing of a rival whose MAC the neighbours have learned. In load sharing by multicast, the
MAC that is answered is the cluster's, not the member's.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from pathlib import Path
from struct import pack

from pyroute2 import IPRoute, NetlinkError

from fwnode.firewall.reject import checksum

TURN_MAX = 64
"""Requests answered in a row before the loop may look at its packets: about a millisecond."""

_ETH_P_ARP, _ETH_P_IPV6 = 0x0806, 0x86DD
_SO_ATTACH_FILTER = 26
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_MULTICAST = 263, 1, 0
_BROADCAST = b"\xff" * 6
_NOBODY, _NOBODY_6 = bytes(4), bytes(16)
_ALL_NODES_MAC, _ALL_NODES = b"\x33\x33\x00\x00\x00\x01", ip_address("ff02::1").packed
_SOLICITATION, _ADVERTISEMENT = 135, 136
_FRAME_MAX = 2048

# Classic BPF: an IPv6 frame whose next header is ICMPv6 and whose ICMPv6 type is neighbour solicitation.
_ONLY_SOLICITATIONS = (
    (0x30, 0, 0, 20),  # next header
    (0x15, 0, 3, 58),
    (0x30, 0, 0, 54),  # ICMPv6 type
    (0x15, 0, 1, _SOLICITATION),
    (0x06, 0, 0, _FRAME_MAX),
    (0x06, 0, 0, 0),
)

_KERNEL_SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/arp_ignore": "1",
    "net/ipv4/conf/all/arp_announce": "2",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    # Full sync over a path that loses large segments without a word: TCP finds out, and sends smaller ones.
    "net/ipv4/tcp_mtu_probing": "1",
}
_INTERFACE_SETTINGS = {"send_redirects": "0", "rp_filter": "0"}


def prepare_kernel(interfaces: Sequence[str]) -> None:
    """Forwarding on; no redirects, no reverse-path filter, no ARP answers for addresses on `lo`; an interface that goes
    down keeps its IPv6 addresses, as it does its IPv4 ones."""
    for name, value in _KERNEL_SETTINGS.items():
        _write(name, value)
    for interface in interfaces:
        for name, value in _INTERFACE_SETTINGS.items():
            _write(f"net/ipv4/conf/{interface}/{name}", value)
        _write(f"net/ipv6/conf/{interface}/keep_addr_on_down", "1")


def _write(name: str, value: str) -> None:
    path = Path("/proc/sys") / name
    if path.exists() and path.read_text().strip() != value:
        path.write_text(value)


@dataclass(frozen=True)
class VirtualAddress:
    """A virtual address and the kernel name of its interface."""

    interface: str
    address: IPv4Interface | IPv6Interface


class AddressKeeper:
    """Answers for the virtual addresses of one interface while that is switched on: with `mac`, or the interface's."""

    def __init__(
        self, interface: str, addresses: Sequence[IPv4Interface | IPv6Interface], mac: bytes | None = None
    ) -> None:
        self.interface = interface
        self._answering = False
        self._has_answered = False
        self._v4 = {a.ip.packed for a in addresses if a.version == 4}
        self._v6 = {a.ip.packed for a in addresses if a.version == 6}
        self._arp = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ARP))
        self._arp.bind((interface, _ETH_P_ARP))
        # Opened for nothing, filtered, then bound: no frame of another kind gets in between.
        self._ipv6 = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        _attach_filter(self._ipv6)
        self._ipv6.bind((interface, _ETH_P_IPV6))
        self._mac: bytes = self._arp.getsockname()[4]
        self._answer = mac or self._mac
        if mac is not None:
            _receive(self._arp, interface, mac)

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """To be watched by the loop; call `answer` with the one that is readable."""
        return self._arp, self._ipv6

    def set_answering(self, answering: bool) -> None:
        """From now on it answers, or does not."""
        self._answering = answering
        self._has_answered |= answering

    def answer(self, readable: socket.socket) -> None:
        """What waits, at most `TURN_MAX` frames of it."""
        for _ in range(TURN_MAX):
            try:
                frame = readable.recv(_FRAME_MAX)
            except (BlockingIOError, OSError):  # nothing more, or the link went down
                return
            if self._answering:
                reply = self._arp_reply(frame) if readable is self._arp else self._advertisement_for(frame)
                if reply:
                    self._send(readable, reply)

    def announce(self) -> None:
        """Neighbours learn who answers for the addresses: from this member, or, if it has been this one and is not any
        more, from the one that is asked."""
        if self._answering:
            for address in self._v4:
                self._send(self._arp, self._gratuitous(address))
            for address in self._v6:
                self._send(self._ipv6, self._advertisement(address, _ALL_NODES_MAC, _ALL_NODES, solicited=False))
        elif self._has_answered:
            for address in self._v4:
                probe = _arp(1, self._mac, _NOBODY, b"\0" * 6, address)
                self._send(self._arp, _BROADCAST + self._mac + pack("!H", _ETH_P_ARP) + probe)
            for address in self._v6:
                self._send(self._ipv6, self._probe(address))

    def _send(self, through: socket.socket, frame: bytes) -> None:
        with contextlib.suppress(OSError):  # the link is down; who comes back up announces again
            through.send(frame)

    def _arp_reply(self, frame: bytes) -> bytes:
        if len(frame) < 42 or frame[14:22] != b"\x00\x01\x08\x00\x06\x04\x00\x01" or frame[38:42] not in self._v4:
            return b""
        asker_mac, asker, wanted = frame[22:28], frame[28:32], frame[38:42]
        if asker == _NOBODY:  # a probe (RFC 5227): the answer goes to everyone
            return self._gratuitous(wanted)
        return asker_mac + self._mac + pack("!H", _ETH_P_ARP) + _arp(2, self._answer, wanted, asker_mac, asker)

    def _gratuitous(self, address: bytes) -> bytes:
        payload = _arp(1, self._answer, address, b"\0" * 6, address)
        return _BROADCAST + self._mac + pack("!H", _ETH_P_ARP) + payload

    def _advertisement_for(self, frame: bytes) -> bytes:
        if len(frame) < 78 or frame[54] != _SOLICITATION or frame[62:78] not in self._v6:
            return b""
        asker = frame[22:38]
        if not any(asker):  # duplicate address detection: the answer goes to everyone
            return self._advertisement(frame[62:78], _ALL_NODES_MAC, _ALL_NODES, solicited=False)
        return self._advertisement(frame[62:78], frame[6:12], asker, solicited=True)

    def _advertisement(self, address: bytes, mac: bytes, to: bytes, *, solicited: bool) -> bytes:
        flags = 0xA0000000 | (0x40000000 if solicited else 0)  # router, override
        body = pack("!BBHI", _ADVERTISEMENT, 0, 0, flags) + address + b"\x02\x01" + self._answer
        return mac + self._mac + _icmpv6(address, to, body)

    def _probe(self, address: bytes) -> bytes:
        """A neighbour solicitation as of duplicate address detection (RFC 4862): from nobody."""
        to = ip_address("ff02::1:ff00:0").packed[:13] + address[13:]
        body = pack("!BBHI", _SOLICITATION, 0, 0, 0) + address
        return b"\x33\x33" + to[12:] + self._mac + _icmpv6(_NOBODY_6, to, body)

    def close(self) -> None:
        self._arp.close()
        self._ipv6.close()


def place_on_loopback(addresses: Sequence[VirtualAddress]) -> None:
    """Put the virtual addresses on `lo`; those that are there stay. Raises `NetlinkError`."""
    with IPRoute() as route:
        loopback = route.link_lookup(ifname="lo")[0]
        route.link("set", index=loopback, state="up")
        for virtual in addresses:
            length = virtual.address.max_prefixlen
            try:
                route.addr("add", index=loopback, address=str(virtual.address.ip), prefixlen=length)
            except NetlinkError as error:
                if error.code != 17:  # EEXIST
                    raise


def _arp(operation: int, sender_mac: bytes, sender: bytes, target_mac: bytes, target: bytes) -> bytes:
    return pack("!HHBBH", 1, 0x0800, 6, 4, operation) + sender_mac + sender + target_mac + target


def _icmpv6(sender: bytes, to: bytes, body: bytes) -> bytes:
    """From the Ethernet type on; the checksum in `body` is filled in."""
    total = checksum(sender + to + pack("!II", len(body), 58) + body)
    body = body[:2] + pack("!H", total) + body[4:]
    return pack("!HIHBB", _ETH_P_IPV6, 6 << 28, len(body), 58, 255) + sender + to + body


def _receive(through: socket.socket, interface: str, mac: bytes) -> None:
    """Have the network card pass on what comes to this MAC, for as long as the packet socket is open."""
    request = pack("@iHH8s", socket.if_nametoindex(interface), _PACKET_MR_MULTICAST, len(mac), mac)
    through.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)


def _attach_filter(to: socket.socket) -> None:
    program = b"".join(pack("=HBBI", *step) for step in _ONLY_SOLICITATIONS)
    buffer = ctypes.create_string_buffer(program)
    description = pack("@HP", len(_ONLY_SOLICITATIONS), ctypes.addressof(buffer))
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, description)
