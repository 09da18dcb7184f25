"""The runner on a fake ground: steps become deeds, figures outlive their member, a failed step ends the run."""

import ast
import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from lab_world import FakeGround, World

from labs.procedure import plays, runner
from labs.procedure.asked import STEPS, perform
from labs.procedure.verbs import VERBS
from labs.report.sentence import sentence
from labs.simulation import loop as simulation
from labs.simulation.loop import VirtualLoop
from labs.traffic.driver import TrafficError
from labs.traffic.fates import Tally

START: dict[str, Any] = {"start": ["fw1", "fw2"]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "POLL_S", 0.001)
    monkeypatch.setattr(plays, "POLL_S", 0.001)
    monkeypatch.setattr(runner, "EVENTS_SETTLE_S", 0.001)
    monkeypatch.setattr(runner, "TAKEOVER_WAIT_S", 0.02)


def test_the_document_has_what_was_promised(tmp_path: Path) -> None:
    world = World(tmp_path, [START, {"open": "database"}], [{"that": "workloads.database.survived", "is": 3}])
    document = world.run()
    assert document["verdict"] == "pass"
    assert document["lab"] == tmp_path.name
    assert document["world"] == "fake", "the ground's word"
    assert document["seconds"] > 0
    figures = {"sessions", "survived", "hung", "reset", "refused", "finished", "longest_silence_s"}
    assert figures <= set(document["workloads"]["database"])
    counts = {"state", "release", "connections", "learned", "synced_full", "synced_delta"}
    assert counts <= set(document["members"]["fw1"])
    assert document["drops"] == {"fw1": {}, "fw2": {}}
    assert {"text", "held", "seen"} <= set(document["expectations"][0])
    assert {"wall_s", "lab_s", "kind", "text"} <= set(document["timeline"][0])
    assert json.loads(json.dumps(document)) == document
    assert world.load.calls == ["start", "open", "close"]


def test_every_step_reaches_the_ground(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        [
            START, {"open": "database"}, {"cut": ["fw1-sync", "lan"]}, {"restore": "lan"},
            {"set": {"member": "fw2", "fw_allow_out_of_state_tcp": 1}},
            {"policy": {"member": "fw2", "patch": {"out_of_state": {"exceptions": ["fw2"]}}}},
            {"down": "fw2"}, {"up": "fw2"}, {"upgrade": {"member": "fw2", "release": "R80.10"}},
            {"kill": "fw2"}, {"start": "fw2"}, {"power_cut": "fw2"}, {"power_on": "fw2"},
            {"speak": "database"}, {"reconnect": {"workload": "database", "share": 0.5}}, {"wait": "1s"},
            {"finish": "database"},
        ],
    )  # fmt: skip
    document = world.run()
    assert document["problem"] == ""
    calls = world.ground.calls
    policy = world.ground.members["fw2"].policy
    assert policy["out_of_state"] == {"exceptions": ["fw2"]}
    assert [call for call in calls if not call.startswith("policy_install")] == [
        "start fw1", "start fw2", "cut fw1-sync", "cut lan", "restore lan",
        "ctl_set fw2 {'name': 'fw_allow_out_of_state_tcp', 'value': 1}",
        "down fw2", "up fw2", "stop fw2", "upgrade fw2 R80.10", "kill fw2", "start fw2", "power_cut fw2", "start fw2",
    ]  # fmt: skip
    assert sum(call.startswith("policy_install fw2") for call in calls) == 1
    assert world.load.calls == ["start", "open", "speak", "reconnect all 0.5", "close"]
    assert document["members"]["fw2"]["release"] == "R80.10"
    assert "database: 3 sessions opened anew, 1 could not" in world.texts("workload")


def test_figures_outlive_their_member(tmp_path: Path) -> None:
    world = World(tmp_path, [START, {"kill": "fw1"}, {"start": "fw1"}])
    world.ground.figures["fw1"] = {"connections": 7, "synced_full": 2, "drops": {"OUT_OF_STATE": 4, "POLICY": 1}}
    start = world.ground.start

    async def start_again(member: str) -> None:
        await start(member)
        if world.ground.calls.count("start fw1") == 2:
            world.ground.figures["fw1"] = {"connections": 1, "drops": {"OUT_OF_STATE": 10}}

    world.ground.start = start_again  # type: ignore[method-assign]
    document = world.run()
    assert document["drops"]["fw1"] == {"OUT_OF_STATE": 14, "POLICY": 1}
    assert document["members"]["fw1"]["connections"] == 1
    assert document["members"]["fw1"]["starts"] == 2


@pytest.mark.parametrize(("step", "state"), [("stop", "Stopped"), ("kill", "Killed"), ("power_cut", "Power cut")])
def test_the_last_words_of_a_member_that_is_gone(tmp_path: Path, step: str, state: str) -> None:
    world = World(tmp_path, [START, {step: "fw1"}])
    world.ground.figures["fw1"] = {"connections": 7, "drops": {"POLICY": 1}}
    world.ground.figures["fw2"] = {"connections": 5}
    document = world.run()
    fw1 = document["members"]["fw1"]
    assert (fw1["state"], fw1["running"], fw1["connections"]) == (state, False, 7)
    assert document["drops"]["fw1"] == {"POLICY": 1}
    (takeover,) = document["takeovers"]
    assert (takeover["former"], takeover["taker"]) == ("fw1", "fw2")
    assert (takeover["former_connections"], takeover["taker_connections"], takeover["sync"]) == (7, 5, "OK")


def test_a_takeover_with_part_of_a_table_is_told(tmp_path: Path) -> None:
    """What the taker's full sync had brought, as of the takeover: the step itself may have broken it off."""
    took = "took 4 of 7 (57 %); 3 connections of fw1 are missing"
    world = World(tmp_path, [START, {"kill": "fw1"}])
    world.ground.figures["fw1"] = {"connections": 7}
    world.ground.figures["fw2"] = {"connections": 4, "full_sync": {"state": "failed", "text": took}}
    document = world.run()
    assert document["takeovers"][0]["full_sync"] == took
    assert took in sentence(document)
    world = World(tmp_path, [START, {"kill": "fw1"}])
    world.ground.figures["fw2"] = {"full_sync": {"state": "done", "text": "took 7 of 7 (100 %)"}}
    assert world.run()["takeovers"][0]["full_sync"] == ""


def test_a_failover_without_a_name_takes_the_active_member(tmp_path: Path) -> None:
    world = World(tmp_path, [START, "failover", {"up": "fw1"}])
    document = world.run()
    assert "down fw1" in world.ground.calls
    assert document["takeovers"][0]["taker"] == "fw2"


def test_nobody_takes_over(tmp_path: Path) -> None:
    world = World(tmp_path, [START, {"down": "fw2"}, {"stop": "fw1"}])
    world.run()
    assert world.texts("problem") == ["no member took over from fw1"]


def test_a_member_that_died_is_noticed(tmp_path: Path) -> None:
    world = World(tmp_path, [START, {"wait": "1s"}, {"stop": "fw2"}])
    start = world.ground.start

    async def dies(member: str) -> None:
        await start(member)
        if member == "fw2":
            world.ground.running.remove("fw1")

    world.ground.start = dies  # type: ignore[method-assign]
    document = world.run()
    assert document["members"]["fw1"]["state"] == "Died"
    assert world.texts("problem")[0].startswith("fw1 does not answer any more")


def test_a_step_that_fails_ends_the_run(tmp_path: Path) -> None:
    world = World(tmp_path, [START, {"kill": "fw2"}, {"cut": "lan"}])
    world.ground.stillborn = {"fw2"}
    document = world.run()
    assert document["verdict"] == "fail"
    assert document["problem"] == "steps[1].kill: fw2 is not running"
    assert "cut lan" not in world.ground.calls


def test_until_waits_or_says_what_was_seen(tmp_path: Path) -> None:
    until = {"that": "members.fw1.connections", "is": 5, "within": "1s"}
    world = World(tmp_path, [START, {"until": until}])
    world.ground.figures["fw1"] = {"connections": 5}
    assert world.run()["verdict"] == "pass"
    world = World(tmp_path, [START, {"until": until}])
    assert world.run()["problem"] == (
        "steps[1].until: members.fw1.connections is 0 and did not become is 5 within 1s"
    )


def test_checks_on_the_way_count(tmp_path: Path) -> None:
    world = World(tmp_path, [START, {"check": {"that": "members.fw1.state", "is": "Ready", "says": "it is Ready"}}])
    document = world.run()
    assert document["verdict"] == "fail"
    assert document["expectations"][0]["seen"] == "Active"
    assert world.texts("check") == ["NOT HELD: it is Ready (seen: Active)"]


def test_a_warning_is_no_failure(tmp_path: Path) -> None:
    world = World(tmp_path, [START], [{"that": "members.fw1.state", "is": "Ready", "warn": True}])
    assert world.run()["verdict"] == "warn"


def test_what_members_say_is_in_the_timeline(tmp_path: Path) -> None:
    world = World(tmp_path, [START])
    world.ground.told["fw2"] = [
        {"lab_time": 0.0, "kind": "state", "text": "Initializing -> Standby"},
        {"lab_time": 0.0, "kind": "log", "text": "State synchronization is in risk"},
    ]
    document = world.run()
    assert world.texts("member") == ["fw2: Initializing -> Standby"]
    assert world.texts("log") == ["fw2: State synchronization is in risk"]
    assert document["members"]["fw2"]["log"] == ["State synchronization is in risk"]


def test_faults_of_wires_reach_the_ground_as_they_are_written(tmp_path: Path) -> None:
    block = {"between": ["fw1", "fw2"], "service": "FW1"}
    world = World(
        tmp_path,
        [
            {"limit": {"links": "sync", "rate": "1mbit"}}, {"lose": {"links": ["fw1-lan", "sync"], "share": "20%"}},
            {"delay": {"links": "fw2-sync", "by": "50ms", "way": "in"}}, {"cut": {"links": "fw2-sync", "way": "out"}},
            {"unlimit": "sync"}, {"unlose": "sync"}, {"undelay": "fw2-sync"}, {"restore": "fw2-sync"},
            {"block": block}, {"unblock": block},
        ],
    )  # fmt: skip
    assert world.run()["problem"] == ""
    assert world.ground.faults == [
        ("limit", "sync", 1_000_000), ("lose", "fw1-lan", 0.2, "both"), ("lose", "sync", 0.2, "both"),
        ("delay", "fw2-sync", 0.05, "in"), ("cut", "fw2-sync", "out"), ("unlimit", "sync"), ("unlose", "sync"),
        ("undelay", "fw2-sync"), ("restore", "fw2-sync"), ("block", ["fw1", "fw2"], "tcp", 256),
        ("unblock", ["fw1", "fw2"], "tcp", 256),
    ]  # fmt: skip
    assert world.texts("step")[:4] == [
        "limit sync to 1mbit", "lose fw1-lan, sync: 20% of the packets",
        "delay fw2-sync by 0.05s of wall time, inwards alone", "cut fw2-sync, outwards alone",
    ]  # fmt: skip


def test_every_verb_is_done_by_a_ground_or_played_by_the_run() -> None:
    """And `fwlab do` has those that a ground alone can do, with the arguments of a lab file."""
    assert all((verb.deed or verb.play) for verb in VERBS.values())
    assert list(STEPS) == [name for name, verb in VERBS.items() if verb.deed is not None]
    assert {name: verb.model.keys() for name, verb in STEPS.items()} == {
        **dict.fromkeys(("start", "stop", "kill", "power_cut", "power_on", "pause", "resume"), ("member",)),
        **dict.fromkeys(("down", "up"), ("member",)),
        **dict.fromkeys(("restore", "unlimit", "unlose", "undelay"), ("link",)),
        **dict.fromkeys(("block", "unblock"), ("between", "service")),
        "upgrade": ("member", "release"), "cut": ("link", "way"), "limit": ("link", "rate"),
        "lose": ("link", "way", "share"), "delay": ("link", "way", "by"), "set": ("member", "name", "value"),
        "policy": ("member", "policy"),
    }  # fmt: skip


def test_what_fwlab_do_asks_for_reaches_the_ground_as_a_lab_file_does() -> None:
    """Words, as they come from a command line; one name, or several with commas."""
    ground = FakeGround(["fw1", "fw2"])

    async def ask() -> list[Any]:
        return [await perform(ground, {verb: told}) for verb, told in (
            ("start", {"member": "fw1,fw2"}), ("cut", "lan"),
            ("lose", {"link": "fw2-sync", "share": "20%", "way": "in"}),
            ("delay", {"link": "fw1-sync,fw2-sync", "by": "20ms"}),
            ("block", {"between": "fw1,fw2", "service": "FW1"}),
            ("set", {"member": "fw2", "name": "udp_timeout", "value": "7"}),
            ("policy", {"member": "fw1", "rules": {"name": "p"}, "origin": "p.yaml"}), ("down", "fw1"),
            ("upgrade", {"member": "fw1", "release": "R80.10"}),
        )]  # fmt: skip

    assert asyncio.run(ask()) == [None] * 9
    assert ground.faults == [
        ("cut", "lan", "both"), ("lose", "fw2-sync", 0.2, "in"), ("delay", "fw1-sync", 0.02, "both"),
        ("delay", "fw2-sync", 0.02, "both"), ("block", ["fw1", "fw2"], "tcp", 256),
    ]  # fmt: skip
    assert [call for call in ground.calls if " fw" in call and call.split()[0] not in ("lose", "delay", "block")] == [
        "start fw1", "start fw2", "ctl_set fw2 {'name': 'udp_timeout', 'value': 7}",
        "policy_install fw1 {'policy': {'name': 'p'}, 'file': 'p.yaml'}", "down fw1", "upgrade fw1 R80.10",
    ]  # fmt: skip
    assert ground.members["fw1"].policy == {"name": "p"}


def test_a_paused_member_keeps_its_last_words_and_is_not_asked(tmp_path: Path) -> None:
    world = World(tmp_path, [START, {"pause": "fw1"}, {"check": {"that": "members.fw1.state", "is": "Paused"}},
                             {"resume": "fw1"}])  # fmt: skip
    world.ground.figures["fw1"] = {"connections": 7}
    asked = world.ground.control

    async def control(member: str, command: str, **arguments: Any) -> Any:
        assert "pause fw1" not in world.ground.calls or "resume fw1" in world.ground.calls or member != "fw1"
        return await asked(member, command, **arguments)

    async def pause(member: str) -> None:
        world.ground.calls.append(f"pause {member}")
        world.ground.down.add(member)  # to the others it is gone

    world.ground.control, world.ground.pause = control, pause  # type: ignore[method-assign]
    document = world.run()
    assert document["problem"] == ""
    assert document["verdict"] == "pass"
    assert (document["takeovers"][0]["former"], document["takeovers"][0]["taker"]) == ("fw1", "fw2")
    assert (document["members"]["fw1"]["state"], document["members"]["fw1"]["connections"]) == ("Down", 7)


def test_nobody_takes_over_in_load_sharing(tmp_path: Path) -> None:
    topology = {"base": "pair", "cluster": {"mode": "load-sharing-multicast"}}
    document = World(tmp_path, [START, {"kill": "fw1"}], topology=topology).run()
    assert (document["problem"], document["takeovers"]) == ("", [])


def test_transfers(tmp_path: Path) -> None:
    files = {"files": {"kind": "ftp", "count": 3}}
    steps = [START, {"open": "files"}, {"announce": "files"}, {"transfer": "files"},
             {"transfer": {"workloads": "files", "wait": True}}]  # fmt: skip
    world = World(tmp_path, steps, workloads=files)
    assert world.run()["problem"] == ""
    assert world.load.calls == ["start", "open", "announce", "transfer False", "transfer True", "close"]
    assert world.texts("workload")[1:4] == [
        "files: 3 data connections announced", "files: 3 transfers under way", "files: 3 transfers complete"
    ]


def test_what_is_opened_again_goes_on_counting(tmp_path: Path) -> None:
    web = {"web": {"kind": "short", "port": 80, "count": 3}}
    still_open = {"check": {"that": "workloads.web.open", "is": 3}}
    steps = [START, {"open": "web"}, {"finish": "web"}, {"open": "web"}, still_open, {"finish": "web"}]
    world = World(tmp_path, steps, [{"that": "workloads.web.survived", "is": 3}], workloads=web)
    assert world.run()["verdict"] == "pass"
    assert world.texts("workload")[0] == "web: 3 new connections"


def test_a_traffic_process_that_is_gone_costs_no_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can say nothing any more; what it said last is in the document, and so is what happened."""
    world = World(tmp_path, [{"start": ["fw1", "fw2"]}, {"open": "database"},
                             {"check": {"that": "workloads.database.open", "is": 3}},
                             {"finish": "database"}])  # fmt: skip

    async def gone() -> Tally:
        raise TrafficError("labs.traffic.session_client of workload 'database' has ended")

    async def finish() -> Tally:
        monkeypatch.setattr(world.load, "report", gone)
        return await gone()

    monkeypatch.setattr(world.load, "finish", finish)
    document = world.run()
    assert document["verdict"] == "fail"
    assert document["problem"] == "steps[3].finish: labs.traffic.session_client of workload 'database' has ended"
    assert document["workloads"]["database"]["open"] == 3, "its last account"
    assert document["members"]["fw1"]["state"] == "Active"


def test_a_procedure_knows_no_clock_of_its_own_and_no_chance() -> None:
    """It runs in whatever time its loop and its ground have."""
    for path in sorted(Path(plays.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {"time", "random"} & set(names), f"{path.name} imports {names}"


def test_a_run_takes_the_time_of_its_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day of waiting costs nothing where time is virtual, and the looks at what is waited for are few."""
    monkeypatch.undo()  # the pauses as they are
    day = {"that": "members.fw1.connections", "is": 5, "within": "24h"}
    steps = [START, {"wait": "24h"}, {"open": "database"}, {"until": day}]
    world = World(tmp_path, steps, [{"that": "seconds", "at_least": 172_000}], clock={"rate": 1})
    asked = 0

    def status(member: str) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {**FakeGround.status(world.ground, member), "connections": 5 if loop.time() - begin > 172_000 else 0}

    loop = VirtualLoop(simulation.World(1))
    begin = loop.time()
    world.ground.rate, world.ground.epoch, world.runner.clock = 1.0, begin, loop.time
    world.ground.status = status  # type: ignore[method-assign]
    document = loop.run_until_complete(world.runner.run())
    loop.run_until_complete(world.runner.close())
    loop.close()
    assert document["verdict"] == "pass"
    assert document["expectations"][0]["seen"] == pytest.approx(172_000, rel=0.02)
    assert asked < 3_000
