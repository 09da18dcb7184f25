"""The peer of failover: keepalived (VRRPv3) in both members' nodes, with conntrackd beside it.

The first node is the master and has the virtual addresses of both sides; whoever becomes master commits what conntrackd
has brought it.
"""

from __future__ import annotations

import os
import shutil
import signal
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL

from labs.bench import conntrackd
from labs.bench.conntrackd import ConntrackdPair
from labs.bench.node_programs import output
from labs.bench.pairs import until
from labs.bench.ways import ACTIVE, STANDBY
from labs.network.lab import Lab

PACKAGE = "keepalived"
_CONFIGURATION = """
global_defs {{
    router_id {node}
    vrrp_version 3
    script_user root
}}
vrrp_sync_group pair {{
    group {{ {names} }}
    notify_master "{commit}"
}}
"""
_INSTANCE = """
vrrp_instance {name} {{
    interface {name}
    state BACKUP
    virtual_router_id {number}
    priority {priority}
    advert_int {advert_s:g}
    virtual_ipaddress {{ {address} dev {name} }}
}}
"""


def peer(advert_s: float) -> str:
    return f"keepalived, adverts every {advert_s:g} s, with conntrackd"


def missing() -> str:
    """What keeps it from being measured on this machine; empty where nothing does."""
    if shutil.which("keepalived") is None:
        return f"not installed (package {PACKAGE})"
    return f"conntrackd {lack}" if (lack := conntrackd.missing()) else ""


class KeepalivedPair:
    """A context in which both nodes run keepalived, in a lab in which conntrackd runs. Raises `LabError`."""

    def __init__(self, lab: Lab, pair: ConntrackdPair, advert_s: float) -> None:
        self._lab = lab
        self._pair = pair
        self._advert_s = advert_s
        self._daemons: dict[str, Process] = {}
        self._addresses = {
            name: str(switch.interface(address))
            for name, switch in lab.topology.switches.items() for address in switch.virtual if address.version == 4
        }  # fmt: skip

    async def __aenter__(self) -> KeepalivedPair:
        for node, priority in ((ACTIVE, 150), (STANDBY, 100)):
            commit, configuration = self._file(node, "sh"), self._file(node, "conf")
            commit.write_text(f"#!/bin/sh\nexec {' '.join(self._pair.order(node, '-c'))}\n", encoding="utf-8")
            commit.chmod(0o700)
            configuration.write_text(self._configuration(node, priority, commit), encoding="utf-8")
            own = [f"--{kind}={self._file(node, kind)}" for kind in ("pid", "vrrp_pid", "checkers_pid")]
            argv = ["keepalived", "--dont-fork", "--vrrp", f"--use-file={configuration}", *own]
            self._daemons[node] = await self._lab.spawn(node, argv, stdout=DEVNULL, stderr=DEVNULL)
        await until(lambda: self.is_master(ACTIVE), f"keepalived in {ACTIVE} is not master")
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in self._daemons:
            await self.kill(node)

    def _file(self, node: str, kind: str) -> Path:
        return self._lab.directory / f"keepalived-{node}.{kind}"

    def _configuration(self, node: str, priority: int, commit: Path) -> str:
        text = _CONFIGURATION.format(node=node, names=" ".join(self._addresses), commit=commit)
        for number, (interface, address) in enumerate(self._addresses.items(), 51):
            text += _INSTANCE.format(name=interface, number=number, priority=priority, advert_s=self._advert_s,
                                     address=address)  # fmt: skip
        return text

    async def is_master(self, node: str) -> bool:
        """Whether the node has the virtual addresses."""
        held = await output(self._lab, node, "ip", "-4", "-oneline", "address")
        return all(f" {address} " in held for address in self._addresses.values())

    async def kill(self, node: str) -> None:
        """SIGKILL of keepalived's processes; what it set up in the kernel stays."""
        daemon = self._daemons[node]
        if daemon.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGKILL)
        await daemon.wait()
