"""A cluster between a client and a server in a simulated world, for tests. Run as a program it prints the event log of
a run that depends on chance everywhere: `python simulated_cluster.py SEED`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

from simulated_wires import udp

from fwnode.configuration import MemberConfig, load_releases
from labs.network.members import MemberSettings, member_configuration
from labs.network.topology import parse_topology
from labs.simulation.ip_packets import UDP, packed, payload_of
from labs.simulation.loop import World
from labs.simulation.machine import Machine
from labs.simulation.member_machine import MemberMachine
from labs.simulation.simulated_faults import SimulatedFaults
from labs.simulation.simulated_network import build
from syncproto.release import Compatibility

CLIENT, SERVER = packed("192.0.2.100"), packed("198.51.100.100")


@cache
def releases() -> Compatibility:
    return load_releases("")


class SimulatedCluster:
    """Members fw1, fw2, … between `client` and `server`; `arrived` are the times and payloads at the server."""

    def __init__(self, seed: int = 1, mode: str = "high-availability", members: int = 2, **settings: Any) -> None:
        self.topology = parse_topology(
            {"base": "pair", "members": members, "cluster": {"mode": mode, **settings.pop("cluster", {})}}, "test"
        )
        self.world = World(seed)
        self.network = build(self.topology, self.world, MemberMachine)
        self.faults = SimulatedFaults(self.network)
        self.settings = settings
        self.arrived: list[tuple[float, bytes]] = []
        self.server.register(UDP, lambda packet: self.arrived.append((self.world.now, payload_of(packet)[8:])))

    @property
    def client(self) -> Machine:
        return self.network.machines["client"]

    @property
    def server(self) -> Machine:
        return self.network.machines["server"]

    def member(self, name: str) -> MemberMachine:
        machine = self.network.machines[name]
        assert isinstance(machine, MemberMachine)
        return machine

    def start(self, *names: str, **changed: Any) -> None:
        for name in names or self.topology.members:
            machine = self.member(name)
            settings = MemberSettings(**{**self.settings, **changed})
            document = member_configuration(self.topology, name, settings, epoch=machine.wire())
            machine.start(MemberConfig.model_validate(document), releases())

    def up(self) -> None:
        """Started, settled, and the neighbours are known."""
        self.start()
        self.run(2.0)
        self.send(0)
        self.run(1.0)
        self.arrived.clear()

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def until(self, holds: Callable[[], bool], seconds: float) -> None:
        """Run until this holds; an error where it does not within so many seconds."""
        end = self.world.now + seconds
        while not holds():
            assert self.world.now < end, f"not within {seconds:g} s"
            self.run(0.5)

    def status(self, name: str) -> Mapping[str, Any]:
        life = self.member(name).life
        assert life is not None, f"{name} does not run"
        answer: Mapping[str, Any] = life.request("status")
        return answer

    def states(self) -> list[str]:
        return [str(self.status(name)["state"]) if self.member(name).life else "-" for name in self.topology.members]

    def send(self, number: int, port: int = 1024) -> None:
        """A datagram from the client to the server."""
        self.client.send_ip(udp(CLIENT, SERVER, number.to_bytes(4), (port, 7000)))

    def stream(self, seconds: float, every_s: float = 0.01) -> None:
        """A datagram every so often, for so long, from now on; the world is run meanwhile."""
        start, count = self.world.now, round(seconds / every_s)
        for number in range(count):
            self.world.at(start + number * every_s, self.send, number)
        self.run(seconds)

    def gap(self) -> tuple[float, float]:
        """The longest time in which nothing arrived: when it began, and how long it was."""
        times = [when for when, _ in self.arrived]
        return max(((one, other - one) for one, other in pairwise(times)), key=lambda gap: gap[1])


def chancy_run(seed: int) -> bytes:
    """The event log of a run with loss, jitter, duplicates, a pause, a kill, a power cut and new starts."""
    cluster = SimulatedCluster(seed, members=3)
    world, faults = cluster.world, cluster.faults
    world.packets = []
    cluster.member("fw2").drift, cluster.member("fw3").offset_s = 1.0002, 17.0
    faults.lose("sync", 0.05)
    faults.disturb("lan", jitter_s=0.001, duplication=0.05, reordering=0.05)
    cluster.start()
    fw1, start = cluster.member("fw1"), world.now
    for moment, deed in ((3.0, fw1.pause), (4.0, fw1.resume), (6.0, fw1.kill)):
        world.at(start + moment + world.random.random(), lambda deed: deed(), deed)
    cluster.stream(8.0, 0.05)
    cluster.start("fw1")
    faults.power("fw2", on=False)
    cluster.member("fw2").power_off()
    cluster.stream(4.0, 0.05)
    return world.log()


if __name__ == "__main__":
    sys.stdout.buffer.write(chancy_run(int(sys.argv[1])))
