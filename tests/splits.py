"""For tests of split brains: members that do not hear each other, and whom the hosts know the virtual addresses of."""

from __future__ import annotations

import json

from harness import UpLab

GATEWAYS = ("192.0.2.1", "2001:db8:1::1")
SERVERS = ("198.51.100.100", "2001:db8:2::100")
DEAF = ("-t", "raw", "PREROUTING", "-p", "udp", "--dport", "8116", "-j", "DROP")


def deafen(lab: UpLab, member: str) -> None:
    """From now on the member hears no other one."""
    lab.exec(member, "iptables", "-w", *DEAF[:2], "-I", *DEAF[2:], check=True)


def hear(lab: UpLab, member: str) -> None:
    lab.exec(member, "iptables", "-w", *DEAF[:2], "-D", *DEAF[2:], check=True)


def mac(lab: UpLab, node: str, interface: str) -> str:
    return str(json.loads(lab.exec(node, "ip", "-j", "link", "show", interface, check=True).stdout)[0]["address"])


def neighbours(lab: UpLab, node: str, interface: str) -> dict[str, str]:
    """What a host has learned, without asking anew."""
    rows = json.loads(lab.exec(node, "ip", "-j", "neigh", "show", "dev", interface, check=True).stdout or "[]")
    return {row["dst"]: row.get("lladdr", "") for row in rows}


def point_hosts_to(lab: UpLab, member: str) -> None:
    """As after a takeover that the hosts have seen: they know this member's MAC for the virtual addresses."""
    for host, interface, virtual in (("client", "lan", GATEWAYS), ("server", "wan", ("198.51.100.1", "2001:db8:2::1"))):
        for address in virtual:
            lab.exec(host, "ip", "neigh", "replace", address, "lladdr", mac(lab, member, interface), "dev", interface,
                     "nud", "reachable", check=True)  # fmt: skip


def hosts_point_to(lab: UpLab, member: str) -> bool:
    lan, wan = neighbours(lab, "client", "lan"), neighbours(lab, "server", "wan")
    return all(lan.get(a) == mac(lab, member, "lan") for a in GATEWAYS) and all(
        wan.get(a) == mac(lab, member, "wan") for a in ("198.51.100.1", "2001:db8:2::1")
    )


def heard(lab: UpLab, member: str) -> bool:
    """Whether a member sees all others."""
    return all(row["state"] != "Lost" for row in lab.ask(member, "stat")["members"])


def split(lab: UpLab, *members: str) -> None:
    for member in members:
        deafen(lab, member)


def texts(lab: UpLab, member: str, beginning: str) -> list[str]:
    return [e["text"] for e in lab.ask(member, "events") if e["text"].startswith(beginning)]
