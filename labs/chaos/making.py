"""A lab file from a seed: topology, members, policy and workloads. `procedures` writes its steps. Pure.

The mapping is what a YAML file of the same lab holds, and goes the same way through the reader and its checks. Sizes
are small: a lab lasts some 30 s of wall time, so that thousands of them can be run.
"""

from __future__ import annotations

import random
from typing import Any

from labs.chaos.choices import lab_time, pick
from labs.chaos.procedures import Procedure

MODES = (
    ("high-availability", "symmetric", 12),
    ("load-sharing-multicast", "symmetric", 3),
    ("load-sharing-unicast", "symmetric", 3),
    ("load-sharing-multicast", "asymmetric", 2),
)
"""Mode, the way of answers, and how often."""
MEMBER_COUNTS = ((2, 12), (3, 5), (4, 2), (5, 1))
"""Few labs have many members: each hears all others over every network, which is what a simulated second costs."""
RATES = ((1, 14), (20, 3), (600, 3))
"""Seconds of lab time in one of wall time, and how often: at the higher ones connections end while a lab lasts."""
PAIRS = (
    ("R77.30", "R77.30-JHF216"), ("R77.30-JHF205", "R77.30-JHF216"), ("R77.30", "R77.30-JHF351"),
    ("R77.20", "R80.10"), ("R77.30", "R80.10"), ("R75.47", "R77.30"), ("R77.20", "R77.30"), ("R80.10", "R80.20"),
    ("R77.30-NCP", "R80.10-NCP"),
    ("R77.30", "R80.10-CU"), ("R77.20", "R80.10-CU"), ("R77.30", "R81.10-MVC"), ("R80.40", "R81.10-MVC"),
)  # fmt: skip
"""An older and a newer release, so that every rule of the built-in table has its turn."""
CHANGED_PARAMETERS: dict[str, tuple[int, ...]] = {
    "fw_sync_block_new_conns": (0,),
    "fw_sync_buffer_threshold": (1, 2, 5, 100),
    "fw_sync_allowed_protocols": (0, 1, 7, 31),
    "fw_allow_out_of_state_tcp": (1,),
    "fw_allow_out_of_state_icmp_error": (1,),
    "fwlab_sync_heal": (1,),
    "fwlab_sync_flush_and_ack": (1,),
    "fwha_dead_timeout_ms": (600, 1000, 5000),
    "fwha_heartbeat_ms": (50, 200),
    "tcp_session_timeout": (5, 60),
    "tcp_start_timeout": (2,),
    "tcp_end_timeout": (1, 5),
    "udp_timeout": (2, 3600),
    "icmp_timeout": (1,),
    "connections_limit": (10, 60),
}
"""Values other than the default that a lab may set."""
FIRST_PORT = 7000
"""Ports of workloads that have none of their own begin here."""


def make_lab(seed: int) -> dict[str, Any]:
    """The lab of this seed, as a file holds it."""
    return _Maker(seed).lab()


class _Maker:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)

    def lab(self) -> dict[str, Any]:
        modes = {(mode, sharing): often for mode, sharing, often in MODES}
        mode, sharing = pick(self.random, modes)
        rate = pick(self.random, dict(RATES))
        names = [f"fw{number}" for number in range(1, pick(self.random, dict(MEMBER_COUNTS)) + 1)]
        pair = self.pair()
        workloads = self.workloads(rate)
        policy = self.policy(workloads)
        lab: dict[str, Any] = {
            "title": f"chaos, seed {self.seed}",
            "shows": f"a procedure and faults made from the seed {self.seed}",
            "clock": {"rate": rate},
            "topology": self.topology(mode, sharing, len(names)),
            "members": self.members(names, pair, sharing),
            "policy": policy,
            "workloads": workloads,
        }
        lab["steps"] = Procedure(self.random, lab, pair).steps()
        return lab

    def pair(self) -> tuple[str, str]:
        """The releases of this lab, the older first; often they are one."""
        older, newer = self.random.choice(PAIRS)
        return (older, newer) if self.random.random() < 0.5 else (older, older)

    def topology(self, mode: str, sharing: str, members: int) -> dict[str, Any]:
        cluster = {"mode": mode} if sharing == "symmetric" else {"mode": mode, "sharing": sharing}
        return {"base": "pair", "name": "chaos", "members": members, "cluster": cluster}

    def members(self, names: list[str], pair: tuple[str, str], sharing: str) -> dict[str, Any]:
        """Parameters are mostly the same everywhere, as the product wants it; releases differ from the start now and
        then, and by an upgrade otherwise."""
        parameters = self.parameters()
        if sharing == "asymmetric" and self.random.random() < 0.7:
            parameters["fwlab_sync_flush_and_ack"] = 1
        mixed = self.random.random() < 0.3
        members: dict[str, Any] = {}
        for name in names:
            own = self.parameters() if self.random.random() < 0.1 else parameters
            release = self.random.choice(pair) if mixed else pair[0]
            members[name] = {"release": release, "parameters": dict(own)} if own else {"release": release}
        return members

    def parameters(self) -> dict[str, int]:
        changed = [name for name in CHANGED_PARAMETERS if self.random.random() < 0.15]
        found = {name: self.random.choice(CHANGED_PARAMETERS[name]) for name in changed}
        # A threshold is of interest where load blocks; a member must live longer than a few heartbeats.
        if "fw_sync_buffer_threshold" in found and self.random.random() < 0.8:
            found["fw_sync_block_new_conns"] = 0
        return found

    # -- policy

    def policy(self, workloads: dict[str, Any]) -> dict[str, Any]:
        services = {name: self.service(workload) for name, workload in workloads.items() if "port" in workload}
        accepted = [*services, *(["echo-request"] if any(w["kind"] == "ping" for w in workloads.values()) else [])]
        policy: dict[str, Any] = {
            "name": "standard",
            "networks": {"inside": ["192.0.2.0/24", "2001:db8:1::/64"],
                         "outside": ["198.51.100.0/24", "2001:db8:2::/64"]},
            "services": services,
            "rules": [
                {"name": "applications", "source": "inside", "destination": "outside", "service": accepted or ["any"],
                 "action": "accept"},
                {"name": "cleanup", "action": "drop"},
            ],
        }  # fmt: skip
        if self.random.random() < 0.1:
            policy["implied_rules"] = {"control_connections": False}
        if self.random.random() < 0.15:
            policy["out_of_state"] = {"drop_tcp": False}
        return policy

    def service(self, workload: dict[str, Any]) -> dict[str, Any]:
        kind, port = workload["kind"], workload["port"]
        udp = kind == "tftp" or workload.get("protocol") == "udp"
        ports = f"{port}-{port + workload['server_ports'] - 1}" if "server_ports" in workload else port
        service: dict[str, Any] = {"protocol": "udp" if udp else "tcp", "port": ports}
        if kind in ("ftp", "tftp"):
            service["inspect"] = kind
        chance = self.random.random()
        if chance < 0.06:
            service["synchronise"] = False
        elif chance < 0.12 and not udp:
            service["synchronise_after"] = "2s"
        if self.random.random() < 0.1:
            service["session_timeout"] = self.random.choice(["4s", "30s", "2h"])
        return service

    # -- workloads

    def workloads(self, rate: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for number in range(self.random.choice((1, 1, 2, 2, 3))):
            kind = pick(self.random, {"sessions": 8, "short": 6, "flood": 4, "ftp": 2, "tftp": 2, "ping": 2})
            found[f"{kind}{number + 1}"] = self.workload(kind, FIRST_PORT + 100 * number, rate)
        return found

    def workload(self, kind: str, port: int, rate: int) -> dict[str, Any]:
        workload: dict[str, Any] = {"kind": kind, **getattr(self, f"_{kind}")(rate)}
        if kind != "ping":
            workload["port"] = port
        if kind != "tftp" and self.random.random() < 0.2:
            workload["family"] = "ipv6"
        return workload

    def _sessions(self, rate: int) -> dict[str, Any]:
        workload: dict[str, Any] = {
            "count": self.random.choice((1, 3, 10, 25)), "think": f"{lab_time(0.3, rate)}..{lab_time(3.0, rate)}",
            "patience": lab_time(self.random.choice((3.0, 10.0)), rate),
        }  # fmt: skip
        if self.random.random() < 0.3:
            workload["idle"] = True
        elif self.random.random() < 0.3:
            workload["speaks_first"] = "server"
        return workload

    def _short(self, rate: int) -> dict[str, Any]:
        workload: dict[str, Any] = {"rate": self.random.choice((3, 10, 30)), "patience": lab_time(3.0, rate)}
        if self.random.random() < 0.5:
            workload["hold"] = f"{lab_time(0.1, rate)}..{lab_time(2.0, rate)}"
        if self.random.random() < 0.7:
            workload["count"] = self.random.choice((5, 20, 60))
        return workload

    def _flood(self, rate: int) -> dict[str, Any]:
        return {"protocol": self.random.choice(("udp", "tcp")), "rate": self.random.choice((20, 100, 1000)),
                "count": self.random.choice((10, 60, 300)), "rounds": 2, "server_ports": 2}  # fmt: skip

    def _ftp(self, rate: int) -> dict[str, Any]:
        return {"count": self.random.choice((1, 2)), "mode": self.random.choice(("passive", "active")), "size": "20kB",
                "patience": lab_time(4.0, rate)}  # fmt: skip

    def _tftp(self, rate: int) -> dict[str, Any]:
        return {"count": self.random.choice((1, 2)), "size": "5kB", "patience": lab_time(4.0, rate)}

    def _ping(self, rate: int) -> dict[str, Any]:
        return {"rate": self.random.choice((2, 10)), "count": self.random.choice((5, 20)),
                "patience": lab_time(1.0, rate)}  # fmt: skip
