"""A table that is full does not take what peers tell: that is said, since sync itself is well."""

from __future__ import annotations

import pytest
from member_world import ACK, SYN, Machine, World, tcp

from fwnode.control.render import stat


def opened(machine: Machine, count: int, first: int = 2_000) -> None:
    for port in range(first, first + count):
        for packet in (tcp(SYN, port), tcp(SYN | ACK, port, back=True), tcp(ACK, port)):
            assert machine.packet(packet).accept


def risks(machine: Machine) -> list[str]:
    return [event["text"] for event in machine.told if event["kind"] == "log" and "found no room" in event["text"]]


def without_room(machine: Machine) -> int:
    """Records that found no room, as it was told."""
    return sum(int(text.split(" records")[0].split()[-1]) for text in risks(machine))


@pytest.mark.parametrize("joins", [False, True], ids=["by delta sync", "by full sync"])
def test_a_member_without_room_for_its_peers_connections_says_so(joins: bool) -> None:
    world = World(["fw1"] if joins else ["fw1", "fw2"])
    fw1 = world.machines[1]
    world.run_until(lambda: fw1.state == "Active")
    if joins:
        opened(fw1, 50)
        fw2 = world.start("fw2")
    else:
        fw2 = world.machines[2]
        world.run_until(lambda: fw2.member.engine.status(1) == fw1.member.engine.status(2) == "OK")
    fw2.ask("ctl_set", name="connections_limit", value=20)
    if not joins:
        opened(fw1, 50)
    world.run_until(lambda: fw2.state == "Standby" and without_room(fw2) >= 30)
    world.run(3.0)
    assert len(fw2.member.firewall.connections) == 20
    assert risks(fw2)[0].startswith("State synchronization is in risk: ")
    assert risks(fw2)[0].endswith(" records of peers found no room here: connections_limit is 20")
    said = f"No room:                       for {without_room(fw2)} records of peers (connections_limit)"
    assert said in list(stat(fw2.ask("stat")))
    told = len(risks(fw2))
    world.run(3.0)
    assert len(risks(fw2)) == told, "not again until there are more of them"
    opened(fw1, 1, 3_000)
    world.run_until(lambda: len(risks(fw2)) == told + 1)
    assert risks(fw1) == [] and "No room" not in "".join(stat(fw1.ask("stat")))
