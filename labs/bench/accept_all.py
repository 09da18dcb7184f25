"""The peer of a round trip: a C program on libnetfilter_queue that accepts everything, compiled when it is measured."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE

from labs.bench.node_programs import output, succeeds
from labs.bench.ways import ACTIVE, QUEUE_OF_OTHERS, ForwardingWay
from labs.network.errors import LabError
from labs.network.lab import Lab

SOURCE = Path(__file__).with_suffix(".c")
PACKAGES = "gcc, libnetfilter-queue-dev"


async def compiled(lab: Lab) -> Path | None:
    """The program, in the lab's own folder; None where the compiler or the library is missing."""
    compiler, program = shutil.which("cc"), lab.directory / "accept_all"
    build = ["-O2", "-o", str(program), str(SOURCE), "-lnetfilter_queue", "-lnfnetlink"]
    return program if compiler and await succeeds(lab, ACTIVE, compiler, *build) else None


@asynccontextmanager
async def accepting(lab: Lab, program: Path) -> AsyncIterator[None]:
    """It listens at its queue in the member's node."""
    process = await lab.spawn(ACTIVE, [str(program), str(QUEUE_OF_OTHERS)], stdout=PIPE)
    assert process.stdout is not None
    try:
        if not await process.stdout.readline():
            raise LabError(f"{ForwardingWay.OTHER_QUEUE.value} does not get its queue")
        listening = await output(lab, ACTIVE, "cat", "/proc/net/netfilter/nfnetlink_queue")
        if not any(line.split()[:1] == [str(QUEUE_OF_OTHERS)] for line in listening.splitlines()):
            raise LabError(f"{ForwardingWay.OTHER_QUEUE.value} is not bound to queue {QUEUE_OF_OTHERS}")
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
