"""The iptables rules that divert a member's packets into its queue.

`-j NFQUEUE` through iptables, because some kernels have no nft `queue` expression. Chains of our own: forwarded packets
(and which queue they go to), and the member's own. Beneath the policy are the cluster protocol (UDP 8116), the answer
"nobody listens here" between members (it tells that a process died), neighbour discovery, and the member's own rejects.

Forwarded packets of inspected services go to a queue of their own, which copies their payload, too. Which they are
follows the policy: `divert` replaces the chains in one step each, so no packet passes between two sets of rules.

The rules stay when the member stops: a queue without a listener drops, so a firewall that is not running is closed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence

from fwnode.edges import DivertError
from fwnode.firewall.packet import TCP
from fwnode.firewall.policy import Service

QUEUE_NUMBER = 0
INSPECTION_QUEUE_NUMBER = 1
OWN_MARK = 0xF1
"""Firewall mark of packets that the member itself makes in answer to a rejected one."""
CLUSTER_PORT = 8116

_FORWARD, _LOCAL, _QUEUES = "FWPAIR-FORWARD", "FWPAIR-LOCAL", "FWPAIR-QUEUES"
_NEIGHBOUR_DISCOVERY = (130, 131, 132, 133, 134, 135, 136, 143)
"""ICMPv6 types that never leave a link: multicast listener, router and neighbour messages (RFC 4861, 2710, 3810)."""


def divert(interfaces: Sequence[str], peers: Sequence[str], inspected: Sequence[Service] = ()) -> None:
    """Send what passes `interfaces` into the queue; `peers` are the other members' IPv4 addresses, `inspected` the
    services whose payload is needed. Idempotent. Raises `DivertError`."""
    for command in ("iptables", "ip6tables"):
        _restore(command, _chains(command, interfaces, peers, inspected))
        for hook, chain in (("INPUT", _LOCAL), ("OUTPUT", _LOCAL), ("FORWARD", _FORWARD)):
            if _run([command, "-w", "-C", hook, "-j", chain]).returncode:
                _check(_run([command, "-w", "-I", hook, "-j", chain]))


def remove() -> None:
    """Take the divert rules out again, as far as they are there."""
    for command in ("iptables", "ip6tables"):
        for hook, chain in (("INPUT", _LOCAL), ("OUTPUT", _LOCAL), ("FORWARD", _FORWARD)):
            _run([command, "-w", "-D", hook, "-j", chain])
        for chain in (_LOCAL, _FORWARD, _QUEUES):
            _run([command, "-w", "-F", chain])
            _run([command, "-w", "-X", chain])


def _chains(command: str, interfaces: Sequence[str], peers: Sequence[str], inspected: Sequence[Service]) -> str:
    queue = f"-j NFQUEUE --queue-num {QUEUE_NUMBER}"
    lines = ["*filter", f":{_LOCAL} - [0:0]", f":{_FORWARD} - [0:0]", f":{_QUEUES} - [0:0]"]
    lines.append(f"-A {_LOCAL} -p udp -m udp --dport {CLUSTER_PORT} -j ACCEPT")
    lines.append(f"-A {_LOCAL} -m mark --mark {OWN_MARK:#x} -j ACCEPT")
    if command == "ip6tables":
        lines += [f"-A {_LOCAL} -p icmpv6 -m icmp6 --icmpv6-type {n} -j ACCEPT" for n in _NEIGHBOUR_DISCOVERY]
    else:
        unreachable = "-p icmp -m icmp --icmp-type port-unreachable -j ACCEPT"
        lines += [f"-A {_LOCAL} {side} {peer} {unreachable}" for peer in peers for side in ("-s", "-d")]
    payload = f"-j NFQUEUE --queue-num {INSPECTION_QUEUE_NUMBER}"
    lines += [f"-A {_QUEUES} {match} {payload}" for match in _inspected_ports(inspected)]
    lines.append(f"-A {_QUEUES} {queue}")
    for interface in interfaces:
        for side in ("-i", "-o"):
            lines.append(f"-A {_LOCAL} {side} {interface} {queue}")
            lines.append(f"-A {_FORWARD} {side} {interface} -j {_QUEUES}")
    return "\n".join([*lines, "COMMIT", ""])


def _inspected_ports(inspected: Sequence[Service]) -> Iterator[str]:
    """Both directions of the control connections."""
    for service in inspected:
        protocol = "tcp" if service.protocol == TCP else "udp"
        for low, high in service.ports:
            for side in ("--dport", "--sport"):
                yield f"-p {protocol} -m {protocol} {side} {low}:{high}"


def _restore(command: str, text: str) -> None:
    _check(_run([f"{command}-restore", "-w", "--noflush"], text))


def _run(command: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise DivertError(f"{command[0]} is not installed: install the package iptables") from error


def _check(result: subprocess.CompletedProcess[str]) -> None:
    if result.returncode:
        words = result.stderr.strip() or f"exit code {result.returncode}"
        raise DivertError(f"{' '.join(result.args)}: {words}. `fwlab doctor` says what this machine lacks")
