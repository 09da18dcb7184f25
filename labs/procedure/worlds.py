"""The worlds that a lab can run in, and what of a lab does not work in one of them. Pure."""

from __future__ import annotations

from labs.procedure.model import LabFile
from labs.procedure.verbs import VERBS

WORLDS = ("real", "simulated")


def lacking(file: LabFile, world: str) -> list[str]:
    """A line for each step or workload of the file that does not work in this world, and why."""
    steps = [(f"{step.where}.{step.verb}", VERBS[step.verb].lacks) for step in file.steps]
    workloads = [(f"workloads.{name}", workload.lacks) for name, workload in file.workloads.items()]
    return [f"{key}: does not work in a {world} world: {lacks[world]}"
            for key, lacks in (*steps, *workloads) if world in lacks]  # fmt: skip
