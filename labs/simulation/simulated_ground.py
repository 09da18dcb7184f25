"""The ground of a run in a simulated world: the deeds of a lab, done to simulated machines and wires.

What `labs.network.lab` does to processes and to the kernel, by the same names and with the same errors. A deed takes
only the time that the world gives it; a new process takes `START_S` until its member is there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fwnode.configuration import MemberConfig
from fwnode.control import protocol
from fwnode.files import FileError
from labs.network.errors import ControlError, LabError
from labs.network.members import MemberSettings, member_configuration
from labs.network.readiness import READY_POLL_MAX_S, READY_POLL_S, STOP_TIMEOUT_S, Readiness
from labs.network.topology import Topology
from labs.quantities import Way
from labs.simulation.leaping import Leaps
from labs.simulation.loop import World
from labs.simulation.member_machine import MemberMachine
from labs.simulation.simulated_faults import SimulatedFaults
from labs.simulation.simulated_network import build
from labs.words import did_you_mean
from syncproto.errors import SyncError
from syncproto.release import Compatibility

START_S = 0.5
"""Seconds from the start of a process until its member looks at packets: Python takes 0.45 s of a processor to load a
member's modules, measured, and a lab file's members were active 0.8 to 1.3 s after they were started, against 0.9 s."""


class SimulatedGround:
    """One lab in a world. Implements `labs.procedure.ground.Ground`."""

    def __init__(self, world: World, topology: Topology, members: Mapping[str, MemberSettings], *, rate: float,
                 compatibility: Compatibility) -> None:  # fmt: skip
        self.topology = topology
        self.members = {member: members.get(member) or MemberSettings() for member in topology.members}
        self.rate = rate
        self.epoch = world.now
        self.network = build(topology, world, MemberMachine)
        self.faults = SimulatedFaults(self.network)
        self.compatibility = compatibility
        self._world = world
        self.leaps = Leaps(world, [self.machine(member) for member in self.members], self.network.links)
        world.leap = self.leaps.look
        self._starting: set[str] = set()
        self._dark: set[str] = set()

    @property
    def world(self) -> Mapping[str, Any]:
        return {"world": "simulated", "seed": self._world.seed}

    def machine(self, member: str) -> MemberMachine:
        machine = self.network.machines[self._known(member)]
        assert isinstance(machine, MemberMachine)
        return machine

    # -- members --------------------------------------------------------------------------------------------------

    async def start(self, member: str) -> None:
        machine, settings = self.machine(member), self.members[self._known(member)]
        if machine.life is not None or member in self._starting:
            raise LabError(f"{member} is running already")
        self._must_have_power(member)
        self._starting.add(member)
        try:
            await asyncio.sleep(START_S)
            if member in self._dark:  # meanwhile
                raise LabError(f"{member} ended before it was ready; it is without power")
            try:
                machine.start(self._configuration(machine, settings), self.compatibility)
            except FileError as error:
                raise LabError(f"{member} ended before it was ready: {error}") from None
        finally:
            self._starting.discard(member)
        await self._wait_ready(machine)

    def _configuration(self, machine: MemberMachine, settings: MemberSettings) -> MemberConfig:
        epoch = self.epoch * machine.drift + machine.offset_s
        data = member_configuration(self.topology, machine.name, settings, rate=self.rate, epoch=epoch,
                                    directory=Path())
        return MemberConfig.model_validate(data)

    async def _wait_ready(self, machine: MemberMachine) -> None:
        readiness, pause, life = Readiness(self._world.now), READY_POLL_S, machine.life
        while readiness.left_s(self._world.now):
            if life is None or machine.life is not life:
                raise LabError(f"{machine.name} ended before it was ready")
            if not life.paused and readiness.heard(life.request("status"), self._world.now):
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.1, READY_POLL_MAX_S)
        raise LabError(readiness.complaint(machine.name))

    async def stop(self, member: str) -> None:
        machine, ended = self._running(member), asyncio.Event()
        machine.on_end.append(ended.set)
        await self.control(member, "stop")
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await ended.wait()
        except TimeoutError:
            raise LabError(f"{member} agreed to stop but still runs after {STOP_TIMEOUT_S:g} s") from None

    async def kill(self, member: str) -> None:
        self._running(member).kill()

    async def pause(self, member: str) -> None:
        self._running(member).pause()

    async def resume(self, member: str) -> None:
        machine = self._running(member)
        if machine.life is None or not machine.life.paused:
            raise LabError(f"{member} is not paused")
        machine.resume()

    async def power_cut(self, member: str) -> None:
        """Its wires first: a machine without power tells nobody that it dies."""
        machine = self.machine(member)
        self._dark.add(member)
        self.faults.power(member, False)
        machine.power_off()

    async def power_on(self, member: str) -> None:
        self._dark.discard(self._known(member))
        self.faults.power(member, True)
        await self.start(member)

    async def upgrade(self, member: str, release: str) -> None:
        machine = self.machine(member)
        self._must_have_power(member)
        try:
            self.compatibility.release(release)
        except SyncError as error:
            raise LabError(str(error)) from None
        if machine.life is not None:
            await self.stop(member)
        self.members[member].release = release
        await self.start(member)

    async def control(self, member: str, command: str, **arguments: Any) -> Any:
        life = self.machine(member).life
        if life is None:
            raise ControlError(f"{member} is not running")
        if life.paused:
            raise ControlError(f"{member} is paused and answers nothing; resume it first")
        try:
            return life.request(command, arguments)
        except protocol.RequestError as error:
            raise ControlError(f"{member}: {error}") from None

    async def events(self, member: str) -> AsyncIterator[dict[str, Any]]:
        """The events of the member's present life, the remembered ones first."""
        machine = self.machine(member)
        life = machine.life
        if life is None:
            return
        waiting, come = deque(map(dict, life.member.events)), asyncio.Event()

        def hear(event: Mapping[str, Any]) -> None:
            if machine.life is life:
                waiting.append(dict(event))
                come.set()

        machine.listeners.append(hear)
        machine.on_end.append(come.set)
        try:
            while waiting or not life.over:
                while waiting:
                    yield waiting.popleft()
                if not life.over:
                    await come.wait()
                    come.clear()
        finally:
            machine.listeners.remove(hear)
            with suppress(ValueError):
                machine.on_end.remove(come.set)

    # -- wires ----------------------------------------------------------------------------------------------------

    async def cut(self, link: str, way: Way = "both") -> None:
        self.faults.cut(link, way)

    async def restore(self, link: str) -> None:
        self.faults.restore(link)

    async def limit(self, link: str, rate: int) -> None:
        self.faults.limit(link, rate)

    async def unlimit(self, link: str) -> None:
        self.faults.unlimit(link)

    async def lose(self, link: str, share: float, way: Way = "both") -> None:
        self.faults.lose(link, share, way)

    async def unlose(self, link: str) -> None:
        self.faults.unlose(link)

    async def delay(self, link: str, by: float, way: Way = "both") -> None:
        self.faults.delay(link, by, way)

    async def undelay(self, link: str) -> None:
        self.faults.undelay(link)

    async def block(self, between: Sequence[str], protocol: str, port: int) -> None:
        self.faults.block([self._known(member) for member in between], protocol, port)

    async def unblock(self, between: Sequence[str], protocol: str, port: int) -> None:
        self.faults.unblock([self._known(member) for member in between], protocol, port)

    # -- who is there ---------------------------------------------------------------------------------------------

    def _known(self, member: str) -> str:
        if member not in self.members:
            raise LabError(f"there is no member {member}{did_you_mean(member, self.members)}; "
                           f"there are {', '.join(self.members)}")
        return member

    def _running(self, member: str) -> MemberMachine:
        machine = self.machine(member)
        if machine.life is None:
            raise LabError(f"{member} is not running")
        return machine

    def _must_have_power(self, member: str) -> None:
        if member in self._dark:
            raise LabError(f"{member} is without power; power_on brings it back")
