"""Faults of wires and processes: read back by the deed itself, and felt by real packets. Stand-in members."""

import asyncio
import json
import subprocess
from typing import Any

import pytest
from network_ground import inside, output, ping

from labs.network import faults
from labs.network.errors import ControlError, FaultError, LabError
from labs.network.faults import process_state
from labs.network.lab import Lab
from labs.procedure.asked import perform

FW2 = "203.0.113.2"  # on the sync switch
FW2_LAN6 = "2001:db8:1::12"


async def qdisc(lab: Lab, node: str | None, device: str) -> dict[str, Any]:
    argv = ["tc", "-j", "qdisc", "show", "dev", device]
    if node is None:
        done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout)[0])
    return dict(json.loads(await output(lab, node, *argv))[0])


async def rules(lab: Lab, node: str) -> str:
    saved = await output(lab, node, "iptables-save") + await output(lab, node, "ip6tables-save")
    return "\n".join(line for line in saved.splitlines() if line.startswith("-A"))


async def count(lab: Lab, node: str, address: str, number: int = 1, patience_s: int = 1) -> tuple[int, float]:
    """How many of so many echo requests are answered, and the shortest round trip in milliseconds."""
    text = await output(lab, node, "ping", "-n", "-c", str(number), "-i", "0.01", "-W", str(patience_s), address)
    answered = int(text.split(" received")[0].rsplit(" ", 1)[1])
    shortest = float(text.split(" = ")[1].split("/")[0]) if answered else 0.0
    return answered, shortest


async def limits(lab: Lab) -> None:
    await lab.limit("sync", 1_000_000)
    ends = [(None, "fw1-sync"), ("fw1", "sync"), (None, "fw2-sync"), ("fw2", "sync")]
    for node, device in ends:
        found = await qdisc(lab, node, device)
        assert (found["kind"], found["options"]["rate"] * 8) == ("tbf", 1_000_000)
    assert (await qdisc(lab, "fw1", "lan"))["kind"] != "tbf"
    assert (await lab.info())["faults"] == ["limit fw1-sync to 1mbit", "limit fw2-sync to 1mbit"]
    assert await ping(lab, "fw1", FW2)
    await lab.limit("fw1-sync", 256_000)  # another rate on a link that has one
    assert (await qdisc(lab, "fw1", "sync"))["options"]["rate"] * 8 == 256_000
    await lab.cut("fw1-sync")
    await lab.restore("fw1-sync")
    assert (await qdisc(lab, None, "fw1-sync"))["kind"] == "tbf", "it belongs to the wire"
    await lab.unlimit("sync")
    assert [(await qdisc(lab, node, device))["kind"] for node, device in ends] == ["noqueue"] * 4
    assert (await lab.info())["faults"] == []


async def losses(lab: Lab) -> None:
    before = await rules(lab, "fw2")
    await lab.lose("fw2-sync", 1.0, "both")
    assert not await ping(lab, "fw1", FW2)
    assert await ping(lab, "client", "192.0.2.12"), "the other wires are untouched"
    await lab.lose("fw2-sync", 0.2, "both")  # instead of the former loss
    assert (await rules(lab, "fw2")).count("--probability 0.2") == 4, "in and out, IPv4 and IPv6"
    await lab.unlose("fw2-sync")
    assert await ping(lab, "fw1", FW2)
    assert await rules(lab, "fw2") == before
    await lab.lose("lan", 1.0)
    assert not await ping(lab, "client", FW2_LAN6)
    assert not await ping(lab, "fw1", "192.0.2.12")
    await lab.unlose("lan")
    # A neighbour that was asked for during the loss is given up once before it is asked for again.
    assert await ping(lab, "client", FW2_LAN6, wait_s=4) or await ping(lab, "client", FW2_LAN6, wait_s=4)
    await lab.lose("sync", 0.2)
    for member in ("fw1", "fw2"):  # each packet meets one rule: where it comes in
        saved = await rules(lab, member)
        assert saved.count("-A PREROUTING -i sync -m statistic --mode random --probability 0.2") == 2
        assert saved.count("--probability 0.2") == 2
    answered, _ = await count(lab, "fw1", FW2, 200)
    assert 60 < answered < 190, "64 of 100 echo exchanges pass; 128 of 200 are expected"
    with pytest.raises(LabError, match="sync is a switch and has no way in; name a link, such as fw2-sync"):
        await lab.lose("sync", 0.5, "in")


async def one_way(lab: Lab) -> None:
    assert await ping(lab, "fw1", FW2)
    await lab.cut("fw2-sync", "in")
    assert not await ping(lab, "fw1", FW2)
    assert await heard(lab, "fw1", "fw2") == "", "and nothing gets there"
    assert (await lab.links())["fw2-sync"], "the link stays up"
    assert await heard(lab, "fw2", "fw1") == "datagram", "what fw2 says is heard"
    await lab.restore("fw2-sync")
    await lab.cut("fw2-sync", "out")
    assert await heard(lab, "fw1", "fw2") == "datagram"
    assert await heard(lab, "fw2", "fw1") == ""
    await lab.cut("fw2-sync", "in")  # the other way, too
    await lab.restore("fw2-sync")
    assert await ping(lab, "fw1", FW2)
    assert (await lab.info())["faults"] == []


async def heard(lab: Lab, source: str, target: str) -> str:
    """What arrives in `target` of a datagram of the cluster protocol that `source` sends it."""
    addresses = {"fw1": "203.0.113.1", "fw2": FW2}
    listen = ("import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 8116)); s.settimeout(1)\n"
              "print('ready', flush=True)\n"
              "try: print(s.recv(99).decode())\n"
              "except TimeoutError: pass")
    receiver = await lab.spawn(target, ["python", "-c", listen], stdout=subprocess.PIPE)
    assert receiver.stdout is not None
    assert await receiver.stdout.readline() == b"ready\n"
    send = f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'datagram', ('{addresses[target]}', 8116))"
    await (await lab.spawn(source, ["python", "-c", send])).wait()
    return (await receiver.communicate())[0].decode().strip()


async def delays(lab: Lab) -> None:
    before = await rules(lab, "fw2")
    await lab.delay("fw2-sync", 0.05, "in")
    answered, shortest = await count(lab, "fw1", FW2, 5, patience_s=10)
    assert (answered, shortest >= 50) == (5, True)
    await lab.delay("fw2-sync", 0.05, "both")
    answered, shortest = await count(lab, "fw1", FW2, 5, patience_s=10)
    assert (answered, shortest >= 100) == (5, True)
    lab._faults._delays["fw2-sync"].kill()
    assert await ping(lab, "fw1", FW2), "without the helper packets pass"
    await lab.undelay("fw2-sync")
    assert await rules(lab, "fw2") == before
    await lab.delay("lan", 0.05)
    answered, shortest = await count(lab, "client", FW2_LAN6, 3)
    assert (answered, shortest >= 100) == (3, True)
    await lab.undelay("lan")
    assert await ping(lab, "client", FW2_LAN6)


async def pausing(lab: Lab) -> None:
    await lab.start_all()
    pid = (await lab.control("fw2", "status"))["pid"]
    await lab.pause("fw2")
    assert process_state(pid) == "T"
    assert (await lab.info())["members"]["fw2"]["state"] == "paused"
    with pytest.raises(ControlError, match="fw2 is paused and answers nothing; resume it first"):
        await lab.stop("fw2")
    await lab.resume("fw2")
    assert process_state(pid) != "T"
    assert (await lab.control("fw2", "status"))["pid"] == pid
    with pytest.raises(LabError, match="fw2 is not paused"):
        await lab.resume("fw2")
    await lab.lose("fw2-sync", 1.0)
    await lab.pause("fw2")
    await lab.kill("fw2")
    await lab.start("fw2")
    await lab.power_cut("fw2")
    await lab.power_on("fw2")
    assert not await ping(lab, "fw1", FW2), "a fault belongs to the wire and outlives the process"
    assert (await lab.control("fw2", "status"))["state"] == "Active", "a new process is not paused"
    with pytest.raises(LabError, match="there is no member client"):
        await lab.pause("client")


async def blocks(lab: Lab) -> None:
    before = await rules(lab, "fw1")
    await lab.block(["fw1", "fw2"], "tcp", 256)
    saved = await rules(lab, "fw1")
    assert "-A INPUT -s 203.0.113.2/32 -p tcp -m tcp --dport 256 -j DROP" in saved
    assert f"-A INPUT -s {FW2_LAN6}/128 -p tcp -m tcp --sport 256 -j DROP" in saved
    await lab.unblock(["fw2", "fw1"], "tcp", 256)
    assert await rules(lab, "fw1") == before
    with pytest.raises(LabError, match="tcp/256 between fw1 and fw2 is not blocked"):
        await lab.unblock(["fw1", "fw2"], "tcp", 256)


async def by_their_names(lab: Lab) -> None:
    """As `fwlab do` asks for them: words."""
    await perform(lab, {"limit": {"link": "sync", "rate": "512kbit"}})
    await perform(lab, {"lose": {"link": "fw2-sync", "share": "20%", "way": "out"}})
    await perform(lab, {"delay": {"link": "fw1-sync", "by": "20ms"}})
    await perform(lab, {"cut": {"link": "fw1-lan", "way": "in"}})
    await perform(lab, {"block": {"between": "fw1,fw2", "service": "FW1"}})
    assert len((await lab.info())["faults"]) == 6
    for step, arguments in (("unlimit", "sync"), ("unlose", "sync"), ("undelay", "sync"), ("restore", "lan"),
                            ("unblock", {"between": "fw2,fw1", "service": "tcp/256"})):
        await perform(lab, {step: arguments})
    assert (await lab.info())["faults"] == []
    for wrong, told in (({"limit": {"link": "sync", "rate": "fast"}}, "'fast' is no rate"),
                        ({"cut": {"link": "fw1-lan", "way": "up"}}, "cut: way: is 'up'; write "),
                        ({"block": {"between": "fw1", "service": "FW1"}}, "name two members")):
        with pytest.raises(LabError, match=told):
            await perform(lab, wrong)


async def a_fault_that_does_not_take(lab: Lab) -> None:
    """An iptables that says yes and does nothing, and a limit that something else replaces."""
    run = lab._faults._run

    async def deaf(node, argv):
        return (0, "", "") if "-I" in argv or "tbf" in argv else await run(node, argv)

    lab._faults._run = deaf  # type: ignore[method-assign]
    with pytest.raises(FaultError, match=r"lose fw2-sync: the rule `iptables .*` did not take in fw2"):
        await lab.lose("fw2-sync", 0.2)
    with pytest.raises(FaultError, match="fw2-sync was limited to 1mbit, but at the switch it has no limit"):
        await lab.limit("fw2-sync", 1_000_000)
    assert (await lab.info())["faults"] == []
    with pytest.raises(FaultError, match="was sent SIGCONT, but its state is T"):
        sleeper = await lab.spawn("fw1", ["sleep", "1000"])
        await lab_signal_is_lost(sleeper.pid)


async def lab_signal_is_lost(pid: int) -> None:
    await faults.pause_process(pid)
    faults.PROCESS_TIMEOUT_S = 0.05
    kill = faults.os.kill
    faults.os.kill = lambda *_: None
    try:
        await faults.resume_process(pid)
    finally:
        faults.os.kill = kill


@pytest.mark.parametrize("scenario", [
    limits, losses, one_way, delays, pausing, blocks, by_their_names, a_fault_that_does_not_take])
def test_faults(scenario):
    inside(scenario)
