"""The ground of a simulated lab: what a topology describes, built in a world.

Nodes, switches and links have the names that a real lab gives them (`labs.network.topology`). How a member's machine is
made is told by who builds, so that a world of hosts alone needs no members.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from labs.network.topology import Topology, link_name
from labs.simulation.loop import World
from labs.simulation.machine import Machine
from labs.simulation.wires import Interface, Switch

MakeMachine = Callable[[World, str], Machine]


@dataclass
class SimulatedNetwork:
    """Everything by its name; a link `fw1-sync` is the interface at its node."""

    world: World
    topology: Topology
    switches: dict[str, Switch] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    links: dict[str, Interface] = field(default_factory=dict)


def build(topology: Topology, world: World, member: MakeMachine = Machine) -> SimulatedNetwork:
    """Switches, hosts with their default routes, and machines for the members, made by `member(world, name)`."""
    network = SimulatedNetwork(world, topology, {name: Switch(world, name) for name in topology.switches})
    for number, node in enumerate(topology.nodes, 1):
        machine = member(world, node) if node in topology.members else Machine(world, node)
        network.machines[node] = machine
        for position, (switch, addresses) in enumerate(topology.interfaces(node).items(), 1):
            link = link_name(node, switch)
            mac = bytes((2, 0, 0, 0, number, position))  # locally administered
            network.links[link] = machine.plug(network.switches[switch], switch, link, mac, addresses)
        if node in topology.hosts:
            for gateway in topology.gateways(node):
                machine.set_gateway(machine.interfaces[topology.hosts[node].switch], gateway.packed)
    return network
