"""Commands of the system in a lab's nodes, for the peers that are measured."""

from __future__ import annotations

from collections.abc import Mapping
from subprocess import PIPE

from labs.network.errors import LabError
from labs.network.lab import Lab


async def output(lab: Lab, node: str, *argv: str) -> str:
    """What the command prints. `LabError` with its complaint when it fails."""
    process = await lab.spawn(node, argv, stdout=PIPE, stderr=PIPE)
    said, complaint = await process.communicate()
    if process.returncode:
        text = complaint.decode(errors="replace").strip() or f"status {process.returncode}"
        raise LabError(f"{node}: {' '.join(argv)}: {text}")
    return said.decode(errors="replace")


async def succeeds(lab: Lab, node: str, *argv: str) -> bool:
    """Whether the command ends with 0."""
    process = await lab.spawn(node, argv, stdout=PIPE, stderr=PIPE)
    await process.communicate()
    return process.returncode == 0


async def set_kernel(lab: Lab, node: str, values: Mapping[str, int]) -> None:
    """Parameters of the node's network namespace, by their path below /proc/sys/net; each is read back."""
    for name, value in values.items():
        path = f"/proc/sys/net/{name}"
        await output(lab, node, "sh", "-c", f"echo {value} > {path}")
        if (now := (await output(lab, node, "cat", path)).strip()) != str(value):
            raise LabError(f"{node}: {path} is {now} and not {value}")
