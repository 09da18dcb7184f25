"""One seed of chaos: the lab that it makes is run, and what it broke is told; a failing one is shrunk and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labs.chaos.making import make_lab
from labs.chaos.shrinking import LabMapping, Shrinking
from labs.procedure.catalog import FILE
from labs.procedure.model import LabFile, Reading
from labs.procedure.problems import LabFileError
from labs.sweep.variants import Bundle
from labs.yaml_writer import yaml_text

NAME = "chaos"
PLAY = "labs.chaos.hunting:play_seed"
"""How the workers of a sweep are told what to play."""


def read(lab: LabMapping, seed: int) -> LabFile:
    """The mapping, as a file of it would be read. Raises `LabFileError`."""
    return Reading(Path(f"{NAME}-{seed}.yaml"), NAME).lab(lab)


def broken(lab: LabMapping, seed: int) -> list[dict[str, Any]]:
    """The invariants that this lab breaks with this seed, the first first."""
    from labs.simulation.run import Simulation  # every command of `fwlab` loads this module, few the simulator

    simulation = Simulation(read(lab, seed), seed)
    simulation.run()
    return [each.as_json() for each in simulation.observer.broken]


def play_seed(_file: LabFile, seed: int) -> dict[str, Any]:
    """For the workers of a sweep, which play labs with seeds: here the seed makes the lab, and only
    the invariants judge."""
    found = broken(make_lab(seed), seed)
    judged = [
        {"text": each["invariant"], "held": False, "warn": False, "that": each["invariant"], "seen": each["text"],
         "wanted": each["sentence"], "at": f"{each['at']:g} s"}
        for each in found
    ]  # fmt: skip
    return {"verdict": "fail" if found else "pass", "problem": "", "expectations": judged, "workloads": {}}


def example() -> Bundle:
    """What the workers are given to play; its labs come from seeds."""
    return Bundle(NAME, {FILE: yaml_text(make_lab(0))})


def shrink(seed: int, invariant: str) -> tuple[LabMapping, int]:
    """The smallest lab that breaks this invariant with this seed, and how many runs it took to find it."""

    def fails(lab: LabMapping) -> bool:
        try:
            return any(each["invariant"] == invariant for each in broken(lab, seed))
        except LabFileError:
            return False

    shrinking = Shrinking(fails)
    return shrinking.shrink(make_lab(seed)), shrinking.tries


def as_file(lab: LabMapping, seed: int, breaks: Mapping[str, Any], name: str) -> str:
    """The lab file's text; its first lines say what it is."""
    said = "\n".join(f"# {line}" for line in (
        f"Breaks {breaks['invariant']}: {breaks['sentence']}",
        f"After {breaks['at']:g} s: {breaks['text']}",
        f"fwlab run {name} --simulate --seed {seed}",
    ))  # fmt: skip
    return f"{said}\n{yaml_text(lab, compact=True)}"
