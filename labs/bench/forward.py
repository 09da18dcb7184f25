"""What one member forwards: a TCP stream through its queue, against the same topology without the queue rule.

Runs inside a lab's namespaces. Both are measured in turn, round by round, with a real iperf3 between client and server.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from subprocess import PIPE

from labs.bench.figures import Row, compare
from labs.bench.progress import Progress
from labs.network.errors import LabError, MachineError
from labs.network.lab import Lab
from labs.network.members import MemberSettings
from labs.network.topology import load_topology

MEMBER = "fw1"
PORT = 5201
CHAIN = "FWPAIR-FORWARD"
"""The chain with which the member diverts what it forwards (`fwnode.datapath.rules`)."""
_ANSWER_MARGIN_S = 20.0
SECONDS = 3.0
"""Length of one measurement."""


def steps(rounds: int) -> int:
    return 2 * rounds


async def measure(rounds: int, progress: Progress) -> list[Row]:
    """The row `tcp_stream`. Raises `LabError` when a measurement fails, `MachineError` without iperf3."""
    if shutil.which("iperf3") is None:
        raise MachineError("iperf3 is not installed: install the package iperf3")
    members = {name: MemberSettings(started=name == MEMBER) for name in ("fw1", "fw2")}
    async with Lab(load_topology("pair"), members, name="bench") as lab:
        await lab.start(MEMBER)
        ours: list[float] = []
        kernel: list[float] = []
        for number in range(rounds):
            for diverted, figures in ((True, ours), (False, kernel)):
                await _divert(lab, diverted)
                what = "through the member's queue" if diverted else "kernel alone, queue rule removed"
                figures.append(await _stream(lab, SECONDS))
                progress.done(f"round {number + 1} of {rounds}, {what}: {figures[-1]:.2f} Gbit/s")
        await _divert(lab, True)
    peer = "the kernel's forwarding without the queue rule"
    return [compare("tcp_stream", ours, kernel, peer_name=peer, unit="Gbit/s")]


async def _divert(lab: Lab, on: bool) -> None:
    """Put the jump into the member's chain in place or take it away, and read back that it is so."""
    jump = ["FORWARD", "-j", CHAIN]
    present = await _iptables(lab, "-C", jump) == 0
    if present != on:
        await _iptables(lab, "-I" if on else "-D", jump)
    if (await _iptables(lab, "-C", jump) == 0) != on:
        raise LabError(f"the queue rule of {MEMBER} could not be {'put in place' if on else 'removed'}")


async def _iptables(lab: Lab, operation: str, rule: list[str]) -> int:
    process = await lab.spawn(MEMBER, ["iptables", "-w", operation, *rule], stderr=PIPE)
    await process.communicate()
    return process.returncode or 0


async def _stream(lab: Lab, seconds: float) -> float:
    """Gbit/s that arrive in one iperf3 run."""
    address = next(str(a) for a in lab.topology.hosts["server"].addresses if a.version == 4)
    serve = ["iperf3", "--server", "--port", str(PORT), "--one-off", "--forceflush"]
    server = await lab.spawn("server", serve, stdout=PIPE)
    assert server.stdout is not None
    try:
        async with asyncio.timeout(seconds + _ANSWER_MARGIN_S):
            while b"listening" not in (line := await server.stdout.readline()):
                if not line:
                    raise LabError("iperf3 does not start as a server")
            ask = ["iperf3", "--client", address, "--port", str(PORT), "--time", str(seconds), "--json"]
            client = await lab.spawn("client", ask, stdout=PIPE)
            text, _ = await client.communicate()
            await server.wait()  # it serves one client, and ends by itself
    except TimeoutError:  # the lab ends what is left of it
        raise LabError("iperf3 does not come to an end; does the member forward?") from None
    result = json.loads(text)
    if "error" in result:
        raise LabError(f"iperf3: {result['error']}")
    return float(result["end"]["sum_received"]["bits_per_second"]) / 1e9
