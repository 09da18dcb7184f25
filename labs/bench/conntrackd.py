"""The peer of synchronisation: the kernel's conntrack in both members' nodes, and conntrackd between them.

It takes the members' places in a lab whose members do not run: the first node forwards; the second one holds what
conntrackd brings it in its external cache, and can decide on it once that is committed.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL

from labs.bench.node_programs import output, set_kernel
from labs.bench.ways import ACTIVE, STANDBY, ForwardingWay, take
from labs.network.errors import LabError
from labs.network.lab import Lab

NAME = "kernel conntrack + conntrackd (FTFW)"
PACKAGE = "conntrackd"
ENTRIES_MAX = 1 << 18
"""Connections that the caches hold at most; the kernel's own table has the same limit by default."""
UDP_TIMEOUT_S = 600
"""Longer than any measurement: nothing ends while it is measured."""
KERNEL_ENTRY_BYTES = 256
"""Of one connection on 64-bit machines, where the kernel does not tell."""
HELLO_S = 15.0
"""Seconds for both daemons to have found each other."""
POLL_S = 0.005
_FILES = ("conf", "log", "lock", "ctl")
_CONFIGURATION = """
Sync {{
    Mode FTFW {{
        ResendQueueSize 131072
        ACKWindowSize 300
        StartupResync on
        DisableExternalCache off
    }}
    UDP {{
        IPv4_address {own}
        IPv4_Destination_Address {peer}
        Port 3780
        Interface {interface}
        SndSocketBuffer 1249280
        RcvSocketBuffer 1249280
        Checksum on
    }}
    Options {{
        TCPWindowTracking on
        ExpectationSync on
    }}
}}
General {{
    HashSize {buckets}
    HashLimit {limit}
    LogFile {log}
    LockFile {lock}
    UNIX {{ Path {control} }}
    NetlinkBufferSize 2097152
    NetlinkBufferSizeMaxGrowth 33554432
    Filter From Userspace {{
        Protocol Accept {{ TCP UDP ICMP }}
        Address Ignore {{
            IPv4_address 127.0.0.1
            IPv4_address {own}
            IPv4_address {peer}
        }}
    }}
}}
"""


def missing() -> str:
    """What keeps it from being measured on this machine: packages, or the right to; empty where nothing does."""
    packages = [package for program, package in (("conntrackd", PACKAGE), ("conntrack", "conntrack"))
                if shutil.which(program) is None]  # fmt: skip
    if packages:
        return f"not installed (package {', '.join(packages)})"
    return "" if is_root() else "runs for root only"


def is_root() -> bool:
    """Root of the machine, not of a namespace alone: conntrackd forces the size of its sockets' buffers."""
    return Path("/proc/self/uid_map").read_text(encoding="ascii").split()[:2] == ["0", "0"]


def cached(statistics: str) -> tuple[int, int]:
    """Connections in the internal and in the external cache, from what `conntrackd -s` prints."""
    found = dict(re.findall(r"^cache (internal|external):\s*^current active connections:\s+(\d+)$", statistics, re.M))
    if found.keys() != {"internal", "external"}:
        raise LabError(f"conntrackd's statistics cannot be read: {statistics.strip()[:200]}")
    return int(found["internal"]), int(found["external"])


class ConntrackdPair:
    """A context in which both nodes run conntrackd and can forward; whose the virtual addresses are, others decide.
    Raises `LabError`."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._daemons: dict[str, Process] = {}

    async def __aenter__(self) -> ConntrackdPair:
        for node in (ACTIVE, STANDBY):
            await take(self._lab, ForwardingWay.CONNTRACK, node)
            await set_kernel(self._lab, node, {
                "ipv4/ip_forward": 1,
                "netfilter/nf_conntrack_tcp_loose": 0,
                "netfilter/nf_conntrack_udp_timeout": UDP_TIMEOUT_S,
            })  # fmt: skip
        await self._must_have_room()
        for node, peer in ((ACTIVE, STANDBY), (STANDBY, ACTIVE)):
            self._file(node, "conf").write_text(self._configuration(node, peer), encoding="utf-8")
            self._daemons[node] = await self._lab.spawn(node, self.order(node), stdout=DEVNULL, stderr=DEVNULL)
        deadline = time.monotonic() + HELLO_S
        while not await self._have_met():
            if time.monotonic() > deadline:
                raise LabError(f"conntrackd's daemons do not find each other within {HELLO_S:g} s")
            await asyncio.sleep(0.1)
        return self

    async def __aexit__(self, *_: object) -> None:
        for daemon in self._daemons.values():
            if daemon.returncode is None:
                daemon.kill()
            await daemon.wait()
        for node in self._daemons:
            for kind in _FILES:  # a lock that is left would keep the next one from starting
                self._file(node, kind).unlink(missing_ok=True)

    def _file(self, node: str, kind: str) -> Path:
        return self._lab.directory / f"conntrackd-{node}.{kind}"

    def _configuration(self, node: str, peer: str) -> str:
        sync = next(name for name, switch in self._lab.topology.switches.items() if switch.sync)
        own, other = (
            next(str(a.ip) for a in self._lab.topology.interfaces(name)[sync] if a.version == 4)
            for name in (node, peer)
        )
        return _CONFIGURATION.format(
            own=own, peer=other, interface=sync, buckets=ENTRIES_MAX // 8, limit=ENTRIES_MAX,
            log=self._file(node, "log"), lock=self._file(node, "lock"), control=self._file(node, "ctl"),
        )  # fmt: skip

    async def _must_have_room(self) -> None:
        room = int(await output(self._lab, ACTIVE, "cat", "/proc/sys/net/netfilter/nf_conntrack_max"))
        if room < ENTRIES_MAX:
            raise LabError(f"the kernel's conntrack table holds {room} connections, and {ENTRIES_MAX} are needed: "
                           f"sysctl net.netfilter.nf_conntrack_max={ENTRIES_MAX}")  # fmt: skip

    async def hold_addresses(self, node: str) -> None:
        """The virtual IPv4 addresses are this node's."""
        for name, switch in self._lab.topology.switches.items():
            for address in switch.virtual:
                if address.version == 4:
                    await output(self._lab, node, "ip", "address", "add", str(switch.interface(address)), "dev", name)

    def order(self, node: str, *orders: str) -> list[str]:
        """The command that gives the node's daemon an order (`-s`, `-n`, `-c`, `-f`)."""
        return ["conntrackd", "-C", str(self._file(node, "conf")), *orders]

    async def ask(self, node: str, *orders: str) -> str:
        """What the node's daemon answers to an order."""
        return await output(self._lab, node, *self.order(node, *orders))

    async def _have_met(self) -> bool:
        for node, daemon in self._daemons.items():
            if daemon.returncode is not None:
                log = self._file(node, "log")
                raise LabError(f"conntrackd ended in {node}" + (f": {log.read_text()[-300:]}" if log.exists() else ""))
        try:
            heard = [await self.ask(node, "-s", "network") for node in self._daemons]
        except LabError:  # it does not answer yet
            return False
        # Each has heard the other once it has received something.
        return all(re.search(r"^\s*[1-9]\d* Pckts sent\s+[1-9]\d* Pckts recv", text, re.M) for text in heard)

    async def synchronised(self) -> int:
        """Connections that the standby's daemon has heard of."""
        return cached(await self.ask(STANDBY, "-s"))[1]

    async def decidable(self, node: str) -> int:
        """Connections in the node's kernel."""
        return int(await output(self._lab, node, "conntrack", "-C"))

    async def forget(self, *nodes: str) -> None:
        """Empty the kernel's table and the daemon's caches."""
        for node in nodes:
            await output(self._lab, node, "conntrack", "-F")
            await self.ask(node, "-f")
        deadline = time.monotonic() + HELLO_S
        while any([sum(cached(await self.ask(node, "-s"))) for node in nodes]):
            if time.monotonic() > deadline:
                raise LabError("conntrackd's caches do not become empty")
            await asyncio.sleep(POLL_S)

    def memory_bytes(self, node: str) -> int:
        """Resident memory of the node's daemon."""
        return resident_bytes(self._daemons[node].pid)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process that no other one shares."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB$", text, re.M)
    return 1_024 * sum(map(int, found))


def kernel_entry_bytes() -> int:
    """Bytes of one connection in the kernel's table, without its extensions and its place in the hash."""
    with suppress(OSError):  # for root only
        for line in Path("/proc/slabinfo").read_text(encoding="ascii").splitlines():
            if line.startswith("nf_conntrack "):
                return int(line.split()[3])
    return KERNEL_ENTRY_BYTES
