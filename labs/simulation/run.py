"""A lab file played in a simulated world: the same file, runner and document as on real packets, and the invariants.

The document depends on the file and the seed alone.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fwnode.configuration import load_releases
from labs.exit_codes import ExitCode
from labs.procedure.document import Entry
from labs.procedure.expectations import Judgement
from labs.procedure.ground import Load
from labs.procedure.model import CLIENT, SERVER, LabFile
from labs.procedure.playing import play
from labs.procedure.runner import Runner
from labs.simulation.invariants import Broken
from labs.simulation.loads import Loads
from labs.simulation.loop import Deadlock, VirtualLoop, World
from labs.simulation.observer import Observer
from labs.simulation.simulated_ground import SimulatedGround

Tell = Callable[[Entry], None]
GARBAGE_EVERY = 50_000
"""Objects that a run makes between two looks for garbage. With Python's own 700 a growing world is looked through again
and again: a sixth of the time of a large lab."""


def simulate(file: LabFile, seed: int) -> dict[str, Any]:
    """The run's document."""
    return Simulation(file, seed).run()[0]


class Simulation:
    """One lab in one world. What is in it (`ground`, `world`) can be looked at before, and after the run."""

    def __init__(self, file: LabFile, seed: int, tell: Tell = lambda entry: None) -> None:
        self.world = World(seed)
        self.loop = VirtualLoop(self.world)
        self.ground = SimulatedGround(self.world, file.topology, file.settings(), rate=file.header.clock.rate,
                                      compatibility=load_releases(file.header.releases, file.path.parent))
        self._loads = Loads(self.ground.network.machines, rate=self.ground.rate, epoch=self.ground.epoch)
        self.file = file
        self.runner = Runner(file, self.ground, self._load, tell, self.loop.time, seed)
        members = {name: self.ground.machine(name) for name in file.topology.members}
        self.observer = Observer(self.world, members, self.ground.compatibility, self._not_held,
                                 load_sharing=file.topology.cluster.mode != "high-availability")

    def run(self) -> tuple[dict[str, Any], ExitCode]:
        """The document, and whether `fwlab` itself has failed."""
        with _few_looks_for_garbage(), asyncio.Runner(loop_factory=lambda: self.loop) as loop:
            try:
                return loop.run(self._play())
            except Deadlock as error:
                self.runner.problem = str(error)
                return loop.run(self.runner.document()), ExitCode.FAILED

    async def _play(self) -> tuple[dict[str, Any], ExitCode]:
        self.observer.begin()
        document, code = await play(self.runner)
        if self.observer.end(document):
            document = await self.runner.document()
        await self.runner.close()
        return document, code

    def _not_held(self, broken: Broken) -> None:
        """An invariant does not hold: the run fails, as by an expectation."""
        self.runner.judgements.append(Judgement(text=broken.sentence, held=False, seen=broken.text,
                                                that=broken.invariant, wanted="to hold always", warn=False,
                                                at=f"{broken.at:g} s of wall time"))  # fmt: skip
        self.runner.note("problem", f"{broken.invariant} does not hold: {broken.text}")

    def _load(self, name: str) -> Load:
        workload = self.file.workloads[name]
        return self._loads.load(name, workload, client=CLIENT, server=SERVER,
                                address=self.file.server_address(workload))


@contextmanager
def _few_looks_for_garbage() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(GARBAGE_EVERY, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
