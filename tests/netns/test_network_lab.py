"""The ground from the inside: wires, addresses, members' processes, faults. Real namespaces, stand-in members."""

import asyncio
import os
import socket
from collections.abc import Mapping

import pytest
import yaml
from network_ground import inside, output, ping

from labs.network import control_client, namespaces, readiness
from labs.network import lab as lab_module
from labs.network.errors import BusyError, ControlError, LabError
from labs.network.faults import pause_process, process_state, resume_process
from labs.network.lab import Lab
from labs.network.namespaces import NETNS_DIRECTORY


async def neighbours(lab: Lab) -> None:
    for source in lab.topology.nodes:
        for switch in lab.topology.interfaces(source):
            for target in lab.topology.nodes:
                for address in lab.topology.interfaces(target).get(switch, []) if target != source else []:
                    assert await ping(lab, source, str(address.ip)), f"{source} does not reach {target} on {switch}"


async def sysctls_and_addresses(lab: Lab) -> None:
    read = "sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.lan.arp_ignore"
    assert (await output(lab, "fw1", *read.split())).split() == ["1", "1", "1"]
    assert (await output(lab, "client", *read.split())).split() == ["0", "0", "0"]
    for node in lab.topology.nodes:
        assert "tentative" not in await output(lab, node, "ip", "address")
    routes = await output(lab, "client", "ip", "route") + await output(lab, "client", "ip", "-6", "route")
    assert "default via 192.0.2.1 dev lan" in routes
    assert "default via 2001:db8:1::1 dev lan" in routes
    # The virtual address is the members' business, not the topology's.
    assert "192.0.2.1/" not in await output(lab, "fw1", "ip", "address")


async def cut_and_restore(lab: Lab) -> None:
    await lab.cut("fw1-sync")
    assert [link for link, state in (await lab.links()).items() if not state] == ["fw1-sync"]
    assert not await ping(lab, "fw1", "203.0.113.2")
    assert await ping(lab, "fw1", "192.0.2.12"), "the other wires are untouched"
    await lab.restore("fw1-sync")
    # A neighbour that did not answer is asked again once a second.
    assert await ping(lab, "fw1", "203.0.113.2", wait_s=3)
    await lab.cut("lan")
    links = await lab.links()
    assert not any(links[link] for link in lab.topology.links("lan"))
    assert not await ping(lab, "client", "192.0.2.11")
    await lab.restore("lan")
    assert all((await lab.links()).values())
    with pytest.raises(LabError, match="no link or switch nowhere; switches: lan"):
        await lab.cut("nowhere")


async def kill_and_power(lab: Lab) -> None:
    await lab.start_all()
    pid = (await lab.control("fw1", "status"))["pid"]
    await lab.kill("fw1")
    assert not lab.running("fw1")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert await ping(lab, "client", "192.0.2.11"), "a crashed process leaves its kernel alive"
    with pytest.raises(LabError, match="fw1 is not running"):
        await lab.kill("fw1")

    await lab.start("fw1")
    await lab.cut("fw1-sync")
    await lab.power_cut("fw1")
    links = await lab.links()
    assert not any(links[link] for link in lab.topology.links("fw1"))
    assert all(links[link] for link in lab.topology.links("fw2"))
    assert not await ping(lab, "client", "192.0.2.11")
    with pytest.raises(LabError, match="without power"):
        await lab.start("fw1")
    await lab.power_on("fw1")
    assert lab.running("fw1")
    assert [link for link, state in (await lab.links()).items() if not state] == ["fw1-sync"], "cut besides: still cut"


async def two_starts_at_once(lab: Lab) -> None:
    outcomes = await asyncio.gather(*(lab.start("fw1") for _ in range(5)), return_exceptions=True)
    assert sorted(map(str, outcomes)) == ["None"] + ["fw1 is running already"] * 4
    processes = await output(lab, "client", "pgrep", "-fc", "config .*/fw1.yaml")
    assert processes.strip() == "1"
    # Its power goes while its process is on its way.
    await lab.kill("fw1")
    started, _ = await asyncio.gather(lab.start("fw1"), lab.power_cut("fw1"), return_exceptions=True)
    assert "fw1 ended with status -9 before it was ready" in str(started), started
    assert not lab.running("fw1")


async def power_goes_before_the_process(lab: Lab) -> None:
    """What is alive when the wires go dark: a kernel whose process has gone would answer its peers with an error."""
    await lab.start("fw1")
    pid, seen, set_links = lab.pid("fw1"), [], namespaces.set_links

    def watched(states: Mapping[str, bool]) -> None:
        set_links(states)
        seen.append((sorted(states), process_state(pid)))

    namespaces.set_links = watched
    await lab.power_cut("fw1")
    assert seen == [(["fw1-lan", "fw1-sync", "fw1-wan"], "T")]
    assert lab.returncode("fw1") == -9


async def busy_member(lab: Lab) -> None:
    """Its process is there and answers nothing, and the queue of its socket is full."""
    await lab.start_all()
    await pause_process(lab.pid("fw1"))  # behind the lab's back
    callers = []
    for _ in range(1000):
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        callers.append(caller)
        try:
            caller.connect(str(lab.control_path("fw1")))
        except BlockingIOError:
            break
    else:
        raise AssertionError("the queue has no end")
    lab_module.STATE_TIMEOUT_S = 0.1
    assert (await lab.info())["members"]["fw1"]["state"] == "busy"
    with pytest.raises(BusyError, match=r"no answer within 0\.2 s"):
        await control_client.request(lab.control_path("fw1"), {"command": "status", "arguments": {}}, 0.2)
    for caller in callers:
        caller.close()
    await resume_process(lab.pid("fw1"))
    await lab.control("fw1", "status")


async def upgrade_and_configuration(lab: Lab) -> None:
    await lab.start_all()
    with pytest.raises(LabError, match="fw2 is running already"):
        await lab.start("fw2")
    await lab.upgrade("fw2", "R80.10")
    assert (await lab.control("fw2", "status"))["release"] == "R80.10"
    written = yaml.safe_load((lab.directory / "fw2.yaml").read_text())
    assert (written["member"], written["release"], written["clock"]["epoch"]) == ("fw2", "R80.10", lab.epoch)
    assert written["cluster"]["interfaces"][0]["virtual"] == ["192.0.2.1/24", "2001:db8:1::1/64"]
    with pytest.raises(ControlError, match="fw2: no command nonsense"):
        await lab.control("fw2", "nonsense")
    await lab.stop("fw2")
    assert lab.returncode("fw2") == 0
    with pytest.raises(ControlError, match="fw2 is not running"):
        await lab.control("fw2", "status")


async def members_that_do_not_start(lab: Lab) -> None:
    lab.members["fw1"].parameters["exit_at_start"] = 1
    lab.members["fw2"].parameters["never_ready"] = 1
    readiness.NO_PROGRESS_S = 0.5
    with pytest.raises(LabError) as failure:
        await lab.start_all()
    assert "fw1 ended with status 2 before it was ready" in str(failure.value)
    assert "policy: something is wrong with it" in str(failure.value), "the end of the log is part of the error"
    assert "fw2 is not ready, and nothing has moved for 0.5 s: its state is Active" in str(failure.value)
    assert lab.running("fw2"), "whoever runs is left running"


async def everything_ends_with_it(lab: Lab) -> None:
    await lab.start_all()
    sleeper = await lab.spawn("client", ["sleep", "1000"])
    await lab.close()
    assert sleeper.returncode == -9
    assert list(NETNS_DIRECTORY.iterdir()) == []
    assert not lab.running("fw1")
    await lab.build()  # the same names are free again at once
    assert await ping(lab, "client", "192.0.2.11")


async def five_members(lab: Lab) -> None:
    await lab.start_all()
    assert all(lab.running(f"fw{number}") for number in range(1, 6))
    assert await ping(lab, "fw5", "203.0.113.1")
    assert await ping(lab, "client", "2001:db8:1::15")


async def orphans_are_reaped(lab: Lab) -> None:
    process = await lab.spawn("client", ["sh", "-c", "(sleep 0.01 &)"])
    await process.wait()
    for _ in range(500):
        if "Z" not in await output(lab, "client", "ps", "-eo", "stat="):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("zombies stay")


@pytest.mark.parametrize("scenario", [
    neighbours, sysctls_and_addresses, cut_and_restore, kill_and_power, two_starts_at_once,
    power_goes_before_the_process, busy_member, upgrade_and_configuration,
    members_that_do_not_start, everything_ends_with_it, orphans_are_reaped])
def test_pair(scenario):
    inside(scenario)


def test_five_members():
    inside(five_members, {"base": "pair", "members": 5})
