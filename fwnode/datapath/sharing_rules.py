"""What the kernel must do for load sharing, beyond diverting packets: set up when the member starts, and read back.

Multicast mode: frames to the cluster's virtual address carry a multicast MAC, and reach every member. Linux does not
forward a packet that came in such a frame; nft's `meta pkttype set host` mends that.

Unicast mode: one member, the pivot, receives everything and hands on what is another's. Its queue sees headers only,
so the kernel carries the packet: the verdict of a queue before routing sets a mark, and a routing rule for that mark
sends the packet to the other member's own address, out of the interface that it came in. No rule base is asked on this
way: it is the other member that decides.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from fwnode.cluster.decision_function import HANDED_ON, multicast_mac
from fwnode.configuration import InterfaceModel, MemberConfig
from fwnode.edges import DivertError

SHARING_QUEUE_NUMBER = 2
_MASK = 0xFF00
_TABLE = "fwpair"
_CHAIN = "FWPAIR-SHARING"
_REDIRECT = "redirect"
"""ICMPv6 type. What is handed on goes back out of the interface that it came in, and IPv6 has no sysctl that keeps the
kernel from advising the sender of a better way."""
_ROUTES_FROM = 9000
"""Number of the first routing table: one for each interface and member."""


@dataclass(frozen=True)
class SharedInterface:
    """An interface with virtual addresses: the kernel's name, and each other member's own addresses on it."""

    name: str
    members: Mapping[int, Sequence[IPv4Interface | IPv6Interface]]


def prepare(config: MemberConfig) -> dict[str, bytes]:
    """Set the kernel up for this member's mode; the cluster's MAC by interface, where all members receive. Raises
    `DivertError` where the kernel cannot do it."""
    if not config.cluster.load_sharing:
        return {}
    if config.cluster.hands_on:
        hand_on(_shared(config))
        return {}
    macs = {interface.kernel_name: multicast_mac(interface.virtual) for interface in _with_addresses(config)}
    accept_multicast(macs)
    return macs


def restore_routes(config: MemberConfig) -> None:
    """The kernel takes routes away when an interface goes down. Raises `DivertError` where it refuses one, as it does
    while an address is missing."""
    for family in (4, 6):
        route(family, _shared(config))


def _with_addresses(config: MemberConfig) -> list[InterfaceModel]:
    return [interface for interface in config.cluster.interfaces if interface.virtual]


def _shared(config: MemberConfig) -> list[SharedInterface]:
    return [
        SharedInterface(i.kernel_name, {number: i.members[name] for number, name in config.peers.items()})
        for i in _with_addresses(config)
    ]


def accept_multicast(macs: Mapping[str, bytes]) -> None:
    """Forward what comes to these MACs, by interface. Raises `DivertError`."""
    rules = [f'iifname "{name}" ether daddr {mac.hex(":")} meta pkttype set host' for name, mac in macs.items()]
    lines = [f"add table inet {_TABLE}", f"delete table inet {_TABLE}", f"table inet {_TABLE} {{", "chain prerouting {",
             "type filter hook prerouting priority raw; policy accept;", *rules, "}", "}", ""]  # fmt: skip
    _run(["nft", "-f", "-"], "\n".join(lines))
    seen = _run(["nft", "list", "table", "inet", _TABLE])
    if seen.count("meta pkttype set host") != len(rules):
        raise DivertError("nft took the rules that let multicast frames be forwarded, but does not show them")


def hand_on(interfaces: Sequence[SharedInterface]) -> None:
    """Queue what is to be routed through these interfaces, and route what gets a mark to its member. Idempotent; raises
    `DivertError`."""
    for family, command in ((4, "iptables"), (6, "ip6tables")):
        lines = ["*mangle", f":{_CHAIN} - [0:0]", f"-A {_CHAIN} -m addrtype --dst-type LOCAL,MULTICAST -j RETURN"]
        lines += [f"-A {_CHAIN} -i {i.name} -j NFQUEUE --queue-num {SHARING_QUEUE_NUMBER}" for i in interfaces]
        _run([f"{command}-restore", "-w", "--noflush"], "\n".join([*lines, "COMMIT", ""]))
        _insert(command, ["-t", "mangle"], "PREROUTING", ["-j", _CHAIN])
        _insert(command, [], "FORWARD", ["-m", "mark", "--mark", f"{HANDED_ON:#x}/{_MASK:#x}", "-j", "ACCEPT"])
        route(family, interfaces)
    _insert("ip6tables", [], "OUTPUT", ["-p", "icmpv6", "--icmpv6-type", _REDIRECT, "-j", "DROP"])


def _insert(command: str, table: list[str], chain: str, rule: list[str]) -> None:
    if subprocess.run([command, "-w", *table, "-C", chain, *rule], capture_output=True, check=False).returncode:
        _run([command, "-w", *table, "-I", chain, *rule])


def route(family: int, interfaces: Sequence[SharedInterface]) -> None:
    """The routing rules and tables; again after an interface was down, with which its routes went. One that the kernel
    refuses keeps no other from being made. Raises `DivertError`."""
    number, refused = _ROUTES_FROM, list[DivertError]()
    for interface in interfaces:
        for member, addresses in interface.members.items():
            number += 1
            address = next((str(a.ip) for a in addresses if a.version == family), None)
            if address is None:
                continue
            rule = ["fwmark", f"{HANDED_ON | member:#x}", "iif", interface.name, "table", str(number)]
            where = ["default", "via", address, "dev", interface.name, "table", str(number)]
            try:
                subprocess.run(["ip", f"-{family}", "rule", "del", *rule], capture_output=True, check=False)
                _run(["ip", f"-{family}", "rule", "add", *rule])
                _run(["ip", f"-{family}", "route", "replace", *where])
            except DivertError as error:
                refused.append(error)
    if refused:
        raise refused[0]


def undo() -> None:
    """Take it all out again, as far as it is there."""
    subprocess.run(["nft", "delete", "table", "inet", _TABLE], capture_output=True, check=False)
    for command in ("iptables", "ip6tables"):
        for words in (
            ["-t", "mangle", "-D", "PREROUTING", "-j", _CHAIN], ["-t", "mangle", "-F", _CHAIN],
            ["-t", "mangle", "-X", _CHAIN],
            ["-D", "OUTPUT", "-p", "icmpv6", "--icmpv6-type", _REDIRECT, "-j", "DROP"],
            ["-D", "FORWARD", "-m", "mark", "--mark", f"{HANDED_ON:#x}/{_MASK:#x}", "-j", "ACCEPT"],
        ):  # fmt: skip
            subprocess.run([command, "-w", *words], capture_output=True, check=False)


def _run(command: list[str], text: str | None = None) -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        package = {"nft": "nftables", "ip": "iproute2"}.get(command[0], "iptables")
        raise DivertError(f"{command[0]} is not installed, and load sharing needs it: install {package}") from None
    if done.returncode:
        raise DivertError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
