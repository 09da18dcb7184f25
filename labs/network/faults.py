"""Faults of wires: a slow link, a lossy one, a late one, one that is cut one way, a service blocked between members.

A link is a veth pair; its far end is the node's interface, named like the switch. Loss, delay and one-way cuts are
iptables rules in the node at the link's end, because not every kernel has netem: what comes in meets them in raw
PREROUTING, what goes out in mangle POSTROUTING, so that forwarded packets and the cluster protocol are hit alike. ARP
is no IP packet and passes. A switch by its name is faulty as a whole: each packet over it meets the fault once, where
it enters the node that it goes to.

Every fault is read back, and one that is not there is a FaultError. Faults belong to the wire: they outlive the
processes of its nodes, and end with `undo` or with the lab. All of it is wall time. This module must not know members.
"""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from labs.network.errors import FaultError, LabError
from labs.network.topology import Topology
from labs.python import Spawn, python_command
from labs.quantities import LIMIT_BURST_MIN_BYTES, LIMIT_BURST_S, Way, format_rate

LIMIT_QUEUE = "150ms"
"""What a slow link holds before it drops: as much as it sends in this time."""
LIMIT_TOLERANCE = 0.01
"""The kernel rounds a rate to what its clock can do."""
DELAY_QUEUE_FIRST = 100
"""Netfilter queues of delayed links are numbered from here; members use the lowest ones."""
PROCESS_TIMEOUT_S = 5.0
"""Wall seconds for a process to stop, or for a delay's helper to listen."""
POLL_S = 0.005
BOTH_FAMILIES = ("iptables", "ip6tables")


@dataclass(frozen=True)
class IptablesRule:
    """One rule in a node, for one address family or both."""

    node: str
    table: str
    chain: str
    match: tuple[str, ...]
    tools: tuple[str, ...] = BOTH_FAMILIES

    def command(self, tool: str, action: str) -> list[str]:
        return [tool, "-w", "-t", self.table, action, self.chain, *self.match]


class WireFaults:
    """The faults of one lab's wires. `spawn(node, argv, …)` starts a program in a node."""

    def __init__(self, topology: Topology, spawn: Spawn) -> None:
        self._topology = topology
        self._spawn = spawn
        self._rules: dict[tuple[str, str], list[IptablesRule]] = {}
        """(deed, link or service) -> its rules."""
        self._delays: dict[str, asyncio.subprocess.Process] = {}
        self._limits: dict[str, int] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def active(self) -> list[str]:
        """What is done to the wires now, as words: `lose fw2-sync`."""
        return [*(f"{deed} {what}" for deed, what in self._rules),
                *(f"limit {link} to {format_rate(rate)}" for link, rate in self._limits.items())]

    # -- rate ---------------------------------------------------------------------------------------------------------

    async def limit(self, links: Iterable[str], rate: int) -> None:
        """Token buckets at both ends of each link, so in both directions."""
        burst = max(LIMIT_BURST_MIN_BYTES, int(rate / 8 * LIMIT_BURST_S))
        for link in links:
            for node, device in self._ends(link):
                await self._must(node, ["tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", f"{rate}bit",
                                        "burst", str(burst), "latency", LIMIT_QUEUE])
                seen = await self._rate(node, device)
                if seen is None or abs(seen - rate) > rate * LIMIT_TOLERANCE:
                    told = "it has no limit" if seen is None else f"its limit is {format_rate(seen)}"
                    raise FaultError(f"{link} was limited to {format_rate(rate)}, but at {node or 'the switch'} {told}")
            self._limits[link] = rate

    async def unlimit(self, links: Iterable[str]) -> None:
        for link in links:
            for node, device in self._ends(link):
                if await self._rate(node, device) is not None:
                    await self._must(node, ["tc", "qdisc", "del", "dev", device, "root"])
                if await self._rate(node, device) is not None:
                    raise FaultError(f"the limit of {link} was taken away, but it is still there")
            self._limits.pop(link, None)

    async def _rate(self, node: str | None, device: str) -> int | None:
        """Bits a second of the device's token bucket; None where it has none."""
        text = await self._must(node, ["tc", "-j", "qdisc", "show", "dev", device])
        rates = [int(queue["options"]["rate"]) * 8 for queue in json.loads(text or "[]") if queue["kind"] == "tbf"]
        return rates[0] if rates else None

    @staticmethod
    def _ends(link: str) -> list[tuple[str | None, str]]:
        node, switch = link.split("-")
        return [(None, link), (node, switch)]

    # -- loss, one-way cuts, delay ------------------------------------------------------------------------------------

    async def lose(self, links: Iterable[str], share: float, way: Way, whole_switch: bool) -> None:
        """Random loss: each packet is lost with this probability, once each way."""
        match = ("-m", "statistic", "--mode", "random", "--probability", f"{share:g}") if share < 1 else ()
        for link in links:
            await self._put("lose", link, _rules_of(link, way, whole_switch, (*match, "-j", "DROP")))

    async def cut(self, links: Iterable[str], way: Way) -> None:
        """Nothing passes this way any more, while the link itself stays up."""
        for link in links:
            await self._put(f"cut {way}", link, _rules_of(link, way, False, ("-j", "DROP")))

    async def delay(self, links: Iterable[str], by_s: float, way: Way, whole_switch: bool) -> None:
        """Each packet waits this long in a helper process of the node. Without the helper packets pass undelayed."""
        for link in links:
            await self.undelay([link])
            node, _ = link.split("-")
            number = DELAY_QUEUE_FIRST + self._topology.links().index(link)
            process = await self._spawn(node, python_command("labs.network.delay", str(number), str(by_s)),
                                        stdout=subprocess.PIPE)
            self._delays[link] = process
            said = await _first_line(process)
            if said != "ready":
                raise FaultError(f"the delay of {link} did not start: {said or 'its helper said nothing'}")
            match = ("-j", "NFQUEUE", "--queue-num", str(number), "--queue-bypass")
            # Last in its chain: a packet that is queued there does not come back to the rules behind it.
            await self._put("delay", link, _rules_of(link, way, whole_switch, match), "-A")
            queues = await self._must(node, ["cat", "/proc/net/netfilter/nfnetlink_queue"])
            if str(number) not in [line.split()[0] for line in queues.splitlines()]:
                raise FaultError(f"the delay of {link} was set, but nothing listens on its queue {number}")

    async def undelay(self, links: Iterable[str]) -> None:
        for link in links:
            await self.undo("delay", [link])
            process = self._delays.pop(link, None)
            if process is not None and process.returncode is None:
                process.terminate()  # it lets go what it holds
                await process.wait()

    async def undo(self, deed: str, whats: Iterable[str]) -> None:
        """Take the rules of this deed away. Rules that are not there are no error."""
        for what in whats:
            async with self._locks[what]:
                await self._remove(self._rules.pop((deed, what), []))

    # -- services -----------------------------------------------------------------------------------------------------

    async def block(self, members: Sequence[str], protocol: str, port: int) -> None:
        """In both members, what the other one sends to or from this service is dropped."""
        rules = []
        for member, other in (tuple(members), tuple(reversed(members))):
            for addresses in self._topology.interfaces(other).values():
                for address in addresses:
                    tools = ("iptables",) if address.version == 4 else ("ip6tables",)
                    rules += [IptablesRule(member, "filter", "INPUT", ("-s", str(address.ip), "-p", protocol, direction,
                                                               str(port), "-j", "DROP"), tools)
                              for direction in ("--dport", "--sport")]
        await self._put("block", _service(members, protocol, port), rules)

    async def unblock(self, members: Sequence[str], protocol: str, port: int) -> None:
        name = _service(members, protocol, port)
        if ("block", name) not in self._rules:
            raise LabError(f"{name} is not blocked")
        await self.undo("block", [name])

    # -- rules --------------------------------------------------------------------------------------------------------

    async def _put(self, deed: str, what: str, rules: list[IptablesRule], action: str = "-I") -> None:
        """Instead of the rules that this deed had there before; all of them, or none."""
        async with self._locks[what]:
            await self._remove(self._rules.pop((deed, what), []))
            try:
                for rule in rules:
                    for tool in rule.tools:
                        await self._must(rule.node, rule.command(tool, action))
                        if not await self._there(rule, tool):
                            raise FaultError(f"{deed} {what}: the rule `{' '.join(rule.command(tool, action))}` "
                                             f"did not take in {rule.node}")
            except FaultError:
                with suppress(FaultError):
                    await self._remove(rules)
                raise
            self._rules[deed, what] = rules

    async def _remove(self, rules: Iterable[IptablesRule]) -> None:
        for rule in rules:
            for tool in rule.tools:
                if await self._there(rule, tool):
                    await self._must(rule.node, rule.command(tool, "-D"))
                if await self._there(rule, tool):
                    raise FaultError(f"the rule `{' '.join(rule.command(tool, '-D'))}` is still there in {rule.node}")

    async def _there(self, rule: IptablesRule, tool: str) -> bool:
        return (await self._run(rule.node, rule.command(tool, "-C")))[0] == 0

    async def _must(self, node: str | None, argv: Sequence[str]) -> str:
        code, out, complaint = await self._run(node, argv)
        if code != 0:
            raise FaultError(f"{' '.join(argv)} failed at {node or 'the switch'}: "
                             f"{complaint or f'it ended with {code}'}; `fwlab doctor` says what this machine lacks")
        return out

    async def _run(self, node: str | None, argv: Sequence[str]) -> tuple[int, str, str]:
        """In a node; None is the switches' own namespace, which is the lab's."""
        pipe = subprocess.PIPE
        try:
            process = await (asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe) if node is None
                             else self._spawn(node, argv, stdout=pipe, stderr=pipe))
        except FileNotFoundError:
            return 127, "", f"{argv[0]} is not installed"
        out, complaint = await process.communicate()
        return await process.wait(), out.decode(errors="replace"), complaint.decode(errors="replace").strip()


def _rules_of(link: str, way: Way, whole_switch: bool, match: tuple[str, ...]) -> list[IptablesRule]:
    """At the link's node. Of a whole switch only the inward side: what enters a node there has left another one."""
    node, switch = link.split("-")
    inward = IptablesRule(node, "raw", "PREROUTING", ("-i", switch, *match))
    outward = IptablesRule(node, "mangle", "POSTROUTING", ("-o", switch, *match))
    if whole_switch or way == "in":
        return [inward]
    return [outward] if way == "out" else [inward, outward]


def _service(members: Sequence[str], protocol: str, port: int) -> str:
    return f"{protocol}/{port} between {' and '.join(sorted(members))}"


async def _first_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    with suppress(TimeoutError):
        return (await asyncio.wait_for(process.stdout.readline(), PROCESS_TIMEOUT_S)).decode().strip()
    return ""


# -- processes --------------------------------------------------------------------------------------------------------


async def pause_process(pid: int) -> None:
    """SIGSTOP, and return when the kernel says that it has stopped."""
    await _signal(pid, signal.SIGSTOP, stopped=True)


async def resume_process(pid: int) -> None:
    """SIGCONT, and return when it is not stopped any more."""
    await _signal(pid, signal.SIGCONT, stopped=False)


async def _signal(pid: int, number: signal.Signals, stopped: bool) -> None:
    os.kill(pid, number)
    deadline = time.monotonic() + PROCESS_TIMEOUT_S
    while (process_state(pid) == "T") is not stopped:
        if time.monotonic() > deadline:
            raise FaultError(f"process {pid} was sent {number.name}, but its state is {process_state(pid)}")
        await asyncio.sleep(POLL_S)


def process_state(pid: int) -> str:
    """One letter, as the kernel says it: T is stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
