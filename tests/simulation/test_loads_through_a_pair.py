"""The workloads through simulated members: what firewalls let through, inspect, drop and take over is what the
applications meet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from simulated_cluster import SimulatedCluster

from labs.simulation.loads import Loads
from labs.simulation.loop import VirtualLoop
from labs.traffic.driver import Traffic
from labs.traffic.fates import Fate, Tally
from labs.traffic.workload import Flood, Ftp, Ping, Sessions, Short, Tftp

SERVER = {"ipv4": "198.51.100.100", "ipv6": "2001:db8:2::100"}
KINDS = {kind.model_fields["kind"].annotation.__args__[0]: kind for kind in (Flood, Ftp, Ping, Sessions, Short, Tftp)}
OPEN = {"name": "open", "rules": [{"action": "accept"}]}

Story = Callable[[Traffic, SimulatedCluster], Awaitable[Tally]]


def play(workload: dict[str, Any], story: Story, policy: dict[str, Any] = OPEN) -> tuple[Tally, SimulatedCluster]:
    cluster = SimulatedCluster(policy=policy)
    cluster.start()
    cluster.run(2.0)
    loads = Loads(cluster.network.machines, rate=1.0, epoch=cluster.world.now)
    kind = KINDS[workload["kind"]].model_validate(workload)

    async def run() -> Tally:
        load = loads.load("load", kind, client="client", server="server", address=SERVER[kind.family])
        await load.start()
        return await story(load, cluster)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(cluster.world)) as runner:
        return runner.run(run()), cluster


async def transfer(load: Traffic, _: SimulatedCluster) -> Tally:
    await load.open()
    await load.transfer(True)
    return await load.finish()


def only(service: str) -> dict[str, Any]:
    return {"name": "strict", "rules": [{"service": service, "action": "accept"}]}


@pytest.mark.parametrize(
    "keys",
    [{}, {"mode": "active"}, {"extended": True, "split": True}, {"mode": "active", "extended": True},
     {"family": "ipv6"}, {"family": "ipv6", "mode": "active", "split": True}],
)  # fmt: skip
def test_data_connections_of_ftp_pass_because_their_control_connection_is_inspected(keys: dict[str, Any]) -> None:
    tally, cluster = play({"kind": "ftp", "count": 2, "size": "50kB", **keys}, transfer, only("ftp"))
    assert tally.figures == {"transfers": 2, "transferred": 2, "failed": 0}
    assert tally.fates[Fate.FINISHED] == 2 and not any(cluster.status("fw1")["drops"].values())


def test_tftp_passes_because_its_request_is_inspected() -> None:
    tally, _ = play({"kind": "tftp", "count": 2, "size": "5kB"}, transfer, only("tftp"))
    assert tally.figures["transferred"] == 2


def test_a_data_connection_that_nobody_expects_is_dropped() -> None:
    policy = {"name": "blind", "services": {"control": {"protocol": "tcp", "port": 21}},
              "rules": [{"service": "control", "action": "accept"}]}  # fmt: skip
    tally, cluster = play({"kind": "ftp", "size": "5kB", "patience": "5s"}, transfer, policy)
    assert tally.figures["failed"] == 1 and cluster.status("fw1")["drops"]["POLICY"] >= 2
    assert tally.fates[Fate.FINISHED] == 1, "the session is as it was"


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_sessions_go_on_through_a_failover(family: str) -> None:
    async def story(load: Traffic, cluster: SimulatedCluster) -> Tally:
        assert await load.open() == {"opened": 20, "failed": 0}
        await asyncio.sleep(2)
        cluster.member("fw1").kill()
        await asyncio.sleep(6)
        return await load.finish()

    keys = {"kind": "sessions", "port": 1521, "count": 20, "think": "0.2s..1s", "family": family}
    tally, cluster = play(keys, story)
    assert tally.fates[Fate.SURVIVED] == 20 and cluster.states() == ["-", "Active"]
    assert 0.1 < tally.longest_silence_s < 2.0


def test_sessions_that_the_other_member_does_not_know_hang() -> None:
    async def story(load: Traffic, cluster: SimulatedCluster) -> Tally:
        await load.open()
        cluster.faults.cut("sync")
        cluster.member("fw2").kill()
        cluster.start("fw2")
        await asyncio.sleep(40)
        cluster.member("fw1").kill()
        await asyncio.sleep(6)
        return await load.finish()

    keys = {"kind": "sessions", "port": 1521, "count": 5, "think": "1s..2s", "patience": "10s"}
    tally, cluster = play(keys, story)
    assert tally.fates[Fate.HUNG] == 5 and cluster.status("fw2")["drops"]["OUT_OF_STATE"] > 5


def test_what_the_rule_base_rejects_is_refused_and_what_it_drops_hangs() -> None:
    async def story(load: Traffic, _: SimulatedCluster) -> Tally:
        await load.open()
        return await load.finish()

    keys = {"kind": "short", "port": 80, "rate": 100, "count": 5, "patience": "5s"}
    for action, fate in (("reject", Fate.REFUSED), ("drop", Fate.HUNG)):
        tally, _ = play(keys, story, {"name": action, "rules": [{"action": action}]})
        assert tally.fates[fate] == 5


@pytest.mark.parametrize("keys", [{"kind": "ping", "count": 5}, {"kind": "short", "port": 80, "count": 5},
                                  {"kind": "flood", "port": 9000, "rate": 1000, "count": 100, "protocol": "tcp"},
                                  {"kind": "flood", "port": 9000, "rate": 1000, "count": 100}])  # fmt: skip
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_the_other_kinds_pass(keys: dict[str, Any], family: str) -> None:
    async def story(load: Traffic, _: SimulatedCluster) -> Tally:
        await load.open()
        return await load.finish()

    tally, cluster = play({**keys, "family": family}, story)
    assert tally.fates[Fate.FINISHED] == tally.sessions == keys["count"]
    assert cluster.status("fw1")["connections"] >= keys["count"] and not any(cluster.status("fw1")["drops"].values())
