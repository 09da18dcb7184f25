"""Every kind of workload between two simulated hosts: the runner's commands, the figures and the fates of the real ones
(`tests/processes/test_labs_traffic.py` and `test_labs_transfers.py` ask the same of real processes)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_interface
from typing import Any

import pytest

from labs.simulation.loads import Loads
from labs.simulation.loop import VirtualLoop, World
from labs.simulation.machine import Machine
from labs.simulation.segments import PSH, read_segment
from labs.simulation.wires import Switch
from labs.traffic.driver import Traffic, TrafficError
from labs.traffic.fates import Fate, Tally
from labs.traffic.workload import AnyWorkload, Flood, Ftp, Ping, Sessions, Short, Tftp

RATE = 20.0
CLIENT, SERVER = {"ipv4": "192.0.2.1", "ipv6": "2001:db8::1"}, {"ipv4": "192.0.2.2", "ipv6": "2001:db8::2"}


class Lan:
    """A client and a server on one switch, and their workloads."""

    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        switch = Switch(self.world, "lan")
        self.machines: dict[str, Machine] = {}
        for number, name in enumerate(("client", "server"), 1):
            machine = self.machines[name] = Machine(self.world, name)
            addresses = [ip_interface(f"192.0.2.{number}/24"), ip_interface(f"2001:db8::{number}/64")]
            machine.plug(switch, "lan", f"{name}-lan", bytes((2, 0, 0, 0, 0, number)), addresses)
        self.loads = Loads(self.machines, rate=RATE, epoch=self.world.now)

    def fault(self, *names: str, cut: bool = False, loss: float = 0.0) -> None:
        """What comes to these machines meets it."""
        for name in names or self.machines:
            link = self.machines[name].interfaces["lan"]
            link.inward.cut, link.inward.loss = cut, loss
            link.changed()


Story = Callable[[Traffic, Lan], Awaitable[Tally]]


def play(workload: AnyWorkload, story: Story, seed: int = 1) -> Tally:
    lan = Lan(seed)

    async def run() -> Tally:
        load = lan.loads.load("load", workload, client="client", server="server", address=SERVER[workload.family])
        await load.start()
        return await story(load, lan)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(lan.world)) as runner:
        return runner.run(run())


def sessions(**keys: Any) -> Sessions:
    return Sessions.model_validate({"kind": "sessions", "count": 20, "port": 1521, "think": "1s..2s", **keys})


async def all_of_it(load: Traffic, _: Lan) -> Tally:
    await load.open()
    await asyncio.sleep(0.5)
    return await load.finish()


# -- sessions


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("asks", ["client", "server"])
def test_sessions_survive_where_nothing_happens(asks: str, family: str) -> None:
    async def story(load: Traffic, _: Lan) -> Tally:
        assert await load.open() == {"opened": 20, "failed": 0}
        await asyncio.sleep(0.3)
        assert (await load.report()).open == 20
        return await load.finish()

    tally = play(sessions(speaks_first=asks, family=family), story)
    assert tally.fates[Fate.SURVIVED] == tally.sessions == 20
    assert tally.answers >= 60 and tally.longest_silence_s < 0.01


def test_idle_sessions_speak_when_told() -> None:
    async def story(load: Traffic, _: Lan) -> Tally:
        await load.open()
        await asyncio.sleep(0.3)
        assert (await load.report()).answers == 20
        assert await load.speak() == {"spoke": 20, "answered": 20, "failed": 0}
        return await load.finish()

    assert play(sessions(idle=True), story).answers == 60


def test_reconnecting_ends_in_order_and_opens_anew() -> None:
    async def story(load: Traffic, _: Lan) -> Tally:
        await load.open()
        assert await load.reconnect("all", 0.5) == {"opened": 10, "failed": 0}
        assert await load.reconnect("ended", 1.0) == {"opened": 0, "failed": 0}
        return await load.finish()

    tally = play(sessions(idle=True), story)
    assert (tally.sessions, tally.fates[Fate.FINISHED], tally.fates[Fate.SURVIVED]) == (30, 10, 20)


def test_a_dark_network_hangs_them_after_their_patience() -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        await load.open()
        lan.fault("server", cut=True)
        return await load.finish()

    tally = play(sessions(patience="40s"), story)
    assert tally.fates[Fate.HUNG] == 20
    assert 1.9 < tally.longest_silence_s < 2.1


def test_a_short_cut_costs_time_and_no_session() -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        await load.open()
        lan.fault("server", cut=True)
        await asyncio.sleep(0.7)
        lan.fault()
        await asyncio.sleep(3)
        return await load.finish()

    tally = play(sessions(), story)
    assert tally.fates[Fate.SURVIVED] == 20
    assert 0.6 < tally.longest_silence_s < 2.0


def test_losses_cost_retransmissions_only() -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        lan.fault(loss=0.2)
        await load.open()
        await asyncio.sleep(3)
        return await load.finish()

    tally = play(sessions(patience="20m"), story)
    assert tally.fates[Fate.SURVIVED] == 20 and tally.longest_silence_s > 0.2


def test_opening_towards_nobody_hangs() -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        lan.fault("server", cut=True)
        await load.open()
        return await load.finish()

    assert play(sessions(patience="40s"), story).fates[Fate.HUNG] == 20


def test_opening_towards_a_closed_port_is_refused() -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        lan.loads.stack("server").stop_listening(bytes(4), 1521)
        assert await load.open() == {"opened": 0, "failed": 20}
        return await load.finish()

    assert play(sessions(), story).fates[Fate.REFUSED] == 20


def test_a_server_whose_process_ends_resets_its_sessions_and_then_refuses() -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        await load.open()
        lan.loads.stack("server").end()
        await asyncio.sleep(0.1)
        await load.reconnect("ended", 0.5)
        return await load.finish()

    tally = play(sessions(idle=True), story)
    assert (tally.sessions, tally.fates[Fate.RESET], tally.fates[Fate.REFUSED]) == (30, 20, 10)


@pytest.mark.parametrize("hold", ["0s", "4s..10s"])
def test_short_connections_finish_and_leave_nothing(hold: str) -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        await load.open()
        await asyncio.sleep(0.5)
        tally = await load.finish()
        await asyncio.sleep(61)
        assert not lan.loads.stack("client").connections and not lan.loads.stack("server").connections
        return tally

    tally = play(Short.model_validate({"kind": "short", "port": 80, "rate": 40, "hold": hold}), story)
    assert tally.fates[Fate.FINISHED] == tally.sessions >= 10 and tally.open == 0


def test_short_connections_by_number_can_be_opened_again() -> None:
    async def story(load: Traffic, _: Lan) -> Tally:
        await load.open()
        assert (await load.finish()).fates[Fate.FINISHED] == 3
        await load.open()
        return await load.finish()

    tally = play(Short.model_validate({"kind": "short", "port": 80, "rate": 100, "count": 3}), story)
    assert (tally.sessions, tally.fates[Fate.FINISHED]) == (6, 6)


# -- transfers


def ftp(**keys: Any) -> Ftp:
    return Ftp.model_validate({"kind": "ftp", "count": 2, "size": "100kB", **keys})


async def once(load: Traffic, _: Lan) -> Tally:
    assert await load.open() == {"opened": 2, "failed": 0}
    assert await load.transfer(True) == {"transferred": 2, "failed": 0}
    return await load.finish()


@pytest.mark.parametrize(
    "keys",
    [{}, {"mode": "active"}, {"extended": True, "split": True}, {"mode": "active", "extended": True},
     {"family": "ipv6"}, {"family": "ipv6", "mode": "active", "split": True}],
)  # fmt: skip
def test_every_way_of_ftp(keys: dict[str, Any]) -> None:
    tally = play(ftp(**keys), once)
    assert tally.figures == {"transfers": 2, "transferred": 2, "failed": 0}
    assert (tally.sessions, tally.fates[Fate.FINISHED], tally.answers) == (2, 2, 2)


@pytest.mark.parametrize("mode", ["passive", "active"])
def test_what_was_announced_is_used(mode: str) -> None:
    async def story(load: Traffic, _: Lan) -> Tally:
        await load.open()
        assert await load.announce() == {"announced": 2, "failed": 0}
        assert await load.transfer(True) == {"transferred": 2, "failed": 0}
        assert await load.transfer(True) == {"transferred": 2, "failed": 0}
        return await load.finish()

    assert play(ftp(mode=mode), story).figures["transferred"] == 4


def test_a_transfer_goes_on_at_its_pace_while_other_things_happen() -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        await load.open()
        begin = lan.world.now
        assert await load.transfer(False) == {"started": 2, "failed": 0}
        assert (await load.report()).figures["transferred"] == 0
        tally = await load.finish()
        assert 0.4 < lan.world.now - begin < 0.6
        return tally

    tally = play(ftp(size="200kB", pace="400kB"), story)
    assert (tally.figures["transferred"], tally.fates[Fate.FINISHED]) == (2, 2)


def test_a_transfer_in_the_dark_hangs_and_the_next_one_logs_in_anew() -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        await load.open()
        await load.transfer(False)
        lan.fault(cut=True)
        assert (await load.finish()).fates[Fate.HUNG] == 2
        lan.fault()
        assert await load.transfer(True) == {"transferred": 2, "failed": 0}
        return await load.finish()

    tally = play(ftp(size="1MB", pace="200kB", patience="40s"), story)
    assert tally.fates[Fate.FINISHED] == 2 and tally.longest_silence_s > 1.9


def test_a_transfer_whose_server_ends_is_reset_and_the_next_refused() -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        await load.open()
        await load.transfer(False)
        lan.loads.stack("server").end()
        await load.finish()
        assert await load.transfer(True) == {"transferred": 0, "failed": 2}
        return await load.report()

    tally = play(ftp(size="1MB", pace="100kB"), story)
    assert tally.figures == {"transfers": 4, "transferred": 0, "failed": 4}
    assert (tally.fates[Fate.RESET], tally.fates[Fate.REFUSED]) == (2, 2)


def test_a_data_connection_that_cannot_be_opened_leaves_the_session() -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        await load.open()
        await load.announce()
        await asyncio.sleep(10)
        for port in range(32_768, 61_000):
            lan.loads.stack("server").stop_listening(bytes((192, 0, 2, 2)), port)
        assert await load.transfer(True) == {"transferred": 0, "failed": 2}
        assert await load.transfer(True) == {"transferred": 2, "failed": 0}
        return await load.finish()

    tally = play(ftp(), story)
    assert (tally.sessions, tally.fates[Fate.FINISHED]) == (2, 2)


def test_tftp_transfers_are_a_session_each() -> None:
    async def story(load: Traffic, _: Lan) -> Tally:
        await load.open()
        assert await load.transfer(False) == {"started": 2, "failed": 0}
        assert await load.transfer(True) == {"transferred": 2, "failed": 0}
        return await load.finish()

    tally = play(Tftp.model_validate({"kind": "tftp", "count": 2, "size": "1KiB"}), story)
    assert tally.figures == {"transfers": 4, "transferred": 4, "failed": 0}
    assert (tally.sessions, tally.fates[Fate.FINISHED]) == (4, 4)


def test_tftp_repeats_what_is_lost_and_gives_up_in_the_dark() -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        await load.open()
        lan.fault("client", loss=0.1)
        assert (await load.transfer(True))["transferred"] == 1
        lan.fault("server", cut=True)
        assert (await load.transfer(True))["failed"] == 1
        return await load.finish()

    tally = play(Tftp.model_validate({"kind": "tftp", "count": 1, "patience": "4m"}), story)
    assert (tally.fates[Fate.FINISHED], tally.fates[Fate.HUNG]) == (1, 1)


# -- pings and floods


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_pings_are_counted(family: str) -> None:
    tally = play(Ping.model_validate({"kind": "ping", "rate": 50, "family": family}), all_of_it)
    assert tally.figures["sent"] == tally.figures["answered"] == tally.fates[Fate.FINISHED] == 25


def test_pings_that_nobody_answers_hang() -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        lan.fault("server", cut=True)
        await load.open()
        return await load.finish()

    tally = play(Ping.model_validate({"kind": "ping", "rate": 50, "count": 3}), story)
    assert tally.figures == {"sent": 3, "answered": 0} and tally.fates[Fate.HUNG] == 3


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_flood_arrives_and_is_counted_by_connection(protocol: str, family: str) -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        await load.open()
        await load.finish()
        await load.open()
        tally = await load.finish()
        await asyncio.sleep(5)
        return tally

    keys = {"kind": "flood", "protocol": protocol, "port": 9000, "rate": 20_000, "count": 1_000, "rounds": 2}
    tally = play(Flood.model_validate({**keys, "family": family}), story)
    assert tally.figures["offered"] == tally.figures["arrived"] == tally.fates[Fate.FINISHED] == 2_000
    assert tally.fates[Fate.REFUSED] == 0 and tally.figures["seconds"] == pytest.approx(0.11, abs=0.02)


def test_what_does_not_arrive_of_a_flood_is_refused() -> None:
    async def story(load: Traffic, lan: Lan) -> Tally:
        lan.fault("server", loss=0.5)
        await load.open()
        return await load.finish()

    tally = play(Flood.model_validate({"kind": "flood", "port": 9000, "rate": 20_000, "count": 1_000}), story)
    assert 400 < tally.fates[Fate.REFUSED] == 1_000 - tally.fates[Fate.FINISHED] < 600


def test_an_order_too_many_is_said() -> None:
    async def story(load: Traffic, _: Lan) -> Tally:
        await load.open()
        await load.open()
        return Tally()

    with pytest.raises(TrafficError, match="ValueError: this flood was offered already"):
        play(Flood.model_validate({"kind": "flood", "port": 9000, "rate": 20_000, "count": 10}), story)


# -- chance


def packets(seed: int) -> list[tuple[float, str, bytes]]:
    lan = Lan(seed)
    lan.world.packets = []

    async def run() -> None:
        load = lan.loads.load("load", sessions(), client="client", server="server", address=SERVER["ipv4"])
        await load.start()
        await load.open()
        await asyncio.sleep(0.5)
        await load.finish()

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(lan.world)) as runner:
        runner.run(run())
    return lan.world.packets


def questions(packets: list[tuple[float, str, bytes]]) -> list[float]:
    """When data came to the server."""
    return [when for when, where, data in packets
            if where == "server-lan" and data[9:10] == b"\x06" and read_segment(data, 24)[2] & PSH]  # fmt: skip


def test_a_seed_is_a_run_and_another_seed_thinks_for_other_times() -> None:
    first = packets(5)
    assert first == packets(5)
    assert len(questions(first)) > 100 and questions(first) != questions(packets(6))
