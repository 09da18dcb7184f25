"""Lab files played in a simulated world: every step, the same run for the same seed, and the command line."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from labs.exit_codes import ExitCode
from labs.network.errors import ControlError, LabError
from labs.procedure import catalog
from labs.procedure.model import LabFile, load
from labs.procedure.verbs import VERBS
from labs.python import python_command
from labs.simulation.run import Simulation, simulate

BOTH = {"start": ["fw1", "fw2"]}
STANDS_BY = {"until": {"that": "members.fw2.state", "is": "Standby", "within": "20s"}}
FILES = {"files": {"kind": "ftp", "count": 2, "size": "20kB"}}
SESSIONS = {"database": {"kind": "sessions", "port": 1521, "count": 20, "think": "100ms..500ms"}}


def lab(folder: Path, steps: list[Any], expect: list[Any] | None = None, **more: Any) -> LabFile:
    path = folder / "lab.yaml"
    path.write_text(json.dumps({
        "title": "a lab", "shows": "something",
        "members": {"fw1": {"release": "R77.30"}, "fw2": {"release": "R77.30"}},
        "policy": {"name": "p", "rules": [{"name": "all", "action": "accept"}]},
        "steps": steps, "expect": expect or [], **more,
    }))  # fmt: skip
    return load(path)


def test_every_step_works(tmp_path: Path) -> None:
    """All that a lab file can say, in one procedure."""
    block = {"between": ["fw1", "fw2"], "service": "FW1"}
    steps = [
        BOTH, STANDS_BY, {"open": ["database", "files"]}, {"announce": "files"},
        {"transfer": {"workloads": "files", "wait": True}}, {"speak": "database"},
        {"set": {"member": "fw1", "udp_timeout": 50}},
        {"policy": {"patch": {"out_of_state": {"drop_tcp": False}}}},
        {"lose": {"links": "sync", "share": "30%"}}, {"delay": {"links": "fw2-sync", "by": "5ms", "way": "in"}},
        {"limit": {"links": "sync", "rate": "1mbit"}}, {"cut": {"links": "fw1-lan", "way": "in"}}, {"wait": "1s"},
        {"unlose": "sync"}, {"undelay": "fw2-sync"}, {"unlimit": "sync"}, {"restore": "fw1-lan"},
        {"cut": "sync"}, {"wait": "1s"}, {"restore": "sync"}, {"block": block}, {"unblock": block}, {"wait": "5s"},
        "failover", {"up": "fw1"}, {"pause": "fw1"}, {"wait": "1s"}, {"resume": "fw1"}, {"wait": "5s"},
        {"kill": "fw1"}, {"start": "fw1"}, {"power_cut": "fw1"}, {"power_on": "fw1"}, {"wait": "2s"},
        {"down": "fw2"}, {"up": "fw2"}, {"upgrade": {"member": "fw2", "release": "R77.20"}}, {"stop": "fw2"},
        {"reconnect": {"workload": "database", "share": 0.5}}, {"finish": ["database", "files"]},
        {"check": {"that": "members.fw1.state", "is": "Active"}},
    ]  # fmt: skip
    assert {next(iter(step)) if isinstance(step, dict) else step for step in steps} == set(VERBS)
    document = simulate(lab(tmp_path, steps, workloads={**SESSIONS, **FILES}), 1)
    assert (document["problem"], document["verdict"]) == ("", "pass")
    assert (document["world"], document["seed"]) == ("simulated", 1)
    assert document["workloads"]["files"]["transferred"] == 2
    assert document["workloads"]["database"]["survived"] == 20
    assert document["members"]["fw1"]["starts"] == 3
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize("name", ["failover-synced", "upgrade-careless", "upgrade-hotfix", "asymmetric"])
def test_labs_of_the_catalogue(name: str) -> None:
    document = simulate(load(catalog.find(name)), 3)
    assert (document["problem"], document["verdict"]) == ("", "pass")


def fwlab(*arguments: str, hashes: str = "0", **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(python_command("labs.cli", *arguments), capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONHASHSEED": hashes}, **options)


def test_the_same_seed_is_the_same_run_in_every_process(tmp_path: Path) -> None:
    """The document and the world's log, byte for byte, however the processes hash their keys."""
    def run(hashes: str) -> tuple[str, bytes]:
        folder = tmp_path / hashes
        done = fwlab("run", "upgrade-careless", "--simulate", "--seed", "7", "--json", "-", "--evidence", str(folder),
                     hashes=hashes)  # fmt: skip
        assert done.returncode == ExitCode.HELD, done.stderr
        return done.stdout, (folder / "world.log").read_bytes()

    first, second = run("1"), run("2")
    assert first == second
    assert json.loads(first[0])["seed"] == 7


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    steps = [BOTH, STANDS_BY, {"open": "database"}, {"lose": {"links": "lan", "share": "10%"}}, {"wait": "5s"}]
    file = lab(tmp_path, steps, workloads=SESSIONS)
    logs = [simulate(file, seed)["workloads"] for seed in (1, 1, 2)]
    assert logs[0] == logs[1] != logs[2]


def test_a_procedure_that_is_refused_ends_as_it_does_on_real_packets(tmp_path: Path) -> None:
    """The verdict is fail, the problem says which step, and nobody is asked after it."""
    until = {"until": {"that": "members.fw2.state", "is": "Active", "within": "3s"}}
    document = simulate(lab(tmp_path, [BOTH, until]), 1)
    assert document["verdict"] == "fail"
    assert document["problem"] == (
        "steps[1].until: members.fw2.state is Standby and did not become is Active within 3s"
    )


def test_deeds_refuse_what_a_real_lab_refuses(tmp_path: Path) -> None:
    simulation = Simulation(lab(tmp_path, [{"start": "fw1"}]), 1)
    ground = simulation.ground
    for deed, told in (
        (ground.stop("fw2"), "fw2 is not running"), (ground.resume("fw1"), "fw1 is not running"),
        (ground.kill("fw9"), r"there is no member fw9; did you mean fw1\?; there are fw1, fw2|there is no member fw9"),
        (ground.cut("sink"), "there is no link or switch sink"), (ground.cut("sync", way="in"), "has no way in"),
        (ground.upgrade("fw1", "R99"), "release 'R99' is unknown; known are: "),
        (ground.unblock(["fw1", "fw2"], "tcp", 256), "tcp/256 between fw1 and fw2 is not blocked"),
        (ground.control("fw1", "status"), "fw1 is not running"),
    ):  # fmt: skip
        with pytest.raises(LabError, match=told):
            simulation.loop.run_until_complete(deed)
    simulation.loop.run_until_complete(ground.start("fw1"))
    for deed, told in (
        (ground.start("fw1"), "fw1 is running already"), (ground.resume("fw1"), "fw1 is not paused"),
        (ground.control("fw1", "ctl_set", name="nothing", value=1), "fw1: "),
    ):  # fmt: skip
        with pytest.raises(LabError, match=told):
            simulation.loop.run_until_complete(deed)
    simulation.loop.run_until_complete(ground.pause("fw1"))
    with pytest.raises(ControlError, match="fw1 is paused and answers nothing; resume it first"):
        simulation.loop.run_until_complete(ground.control("fw1", "status"))
    simulation.loop.run_until_complete(ground.power_cut("fw1"))
    with pytest.raises(LabError, match="fw1 is without power; power_on brings it back"):
        simulation.loop.run_until_complete(ground.start("fw1"))
    simulation.loop.close()


def test_a_policy_that_a_member_cannot_load_is_told_at_its_start(tmp_path: Path) -> None:
    simulation = Simulation(lab(tmp_path, [{"start": "fw1"}]), 1)
    simulation.ground.members["fw1"].policy = {"name": "p", "rules": [{"action": "perhaps"}]}
    with pytest.raises(LabError, match=r"fw1 ended before it was ready: .*perhaps"):
        simulation.loop.run_until_complete(simulation.ground.start("fw1"))
    simulation.loop.close()


def test_the_command_line(tmp_path: Path) -> None:
    """The same options, reports and exit codes as a run on real packets."""
    junit, found = tmp_path / "j.xml", tmp_path / "d.json"
    done = fwlab("run", "failover-synced", "--simulate", "--json", str(found), "--junit", str(junit))
    assert done.returncode == ExitCode.HELD, done.stderr
    assert "a simulated world, seed 1" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("of a simulated world, seed 1")
    assert json.loads(found.read_text())["world"] == "simulated"
    assert '<property name="world" value="simulated" />' in junit.read_text()
    path = lab(tmp_path, [BOTH], [{"that": "members.fw2.state", "is": "Active"}]).path
    assert fwlab("run", str(path), "--simulate").returncode == ExitCode.FAILED
    refused = fwlab("run", str(path), "--simulate", "--keep")
    assert (refused.returncode, refused.stderr.split(":")[0]) == (ExitCode.USAGE, "--keep is for real packets")


def test_what_does_not_work_in_a_world_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from labs.procedure.worlds import lacking
    from labs.traffic.workload import Sessions

    file = lab(tmp_path, [BOTH, {"open": "database"}], workloads=SESSIONS)
    assert lacking(file, "simulated") == lacking(file, "real") == []
    monkeypatch.setattr(Sessions, "lacks", {"simulated": "there is no such thing"})
    assert lacking(file, "real") == []
    assert lacking(file, "simulated") == [
        "workloads.database: does not work in a simulated world: there is no such thing"
    ]


def test_idle_time_costs_little(tmp_path: Path) -> None:
    """An hour in which members only tell each other that they are there."""
    begin = time.process_time()
    document = simulate(lab(tmp_path, [BOTH, {"wait": "24h"}], clock={"rate": 1800}), 1)
    assert document["lab_seconds"] >= 86_400
    assert time.process_time() - begin < 20


@pytest.mark.parametrize("after_s", [0, 5])
def test_a_slow_sync_link_carries_the_whole_table_alone_while_a_member_joins(tmp_path: Path, after_s: int) -> None:
    """What was told while nobody listened comes with the table, and not by delta sync besides; also where the member
    starts again so soon after the other that it might have begun with it."""
    quiet = {"release": "R77.30", "parameters": {"udp_timeout": 3600}}
    steps = [BOTH, STANDS_BY, {"stop": "fw2"}, {"open": "flood"}, {"wait": f"{after_s + 1}s"},
             {"limit": {"links": "sync", "rate": "20kbit"}}, {"start": "fw2"}]  # fmt: skip
    flood = {"flood": {"kind": "flood", "port": 7000, "rate": 5000, "count": 1500}}
    document = simulate(lab(tmp_path, steps, members={"fw1": quiet, "fw2": quiet}, workloads=flood), 1)
    assert document["problem"] == ""
    fw1, fw2 = document["members"]["fw1"], document["members"]["fw2"]
    assert (fw2["state"], fw2["synced_full"], fw2["connections"]) == ("Standby", 1500, 1500)
    assert fw1["records"]["sent"].get("REFRESH", 0) <= (0 if after_s else 300), "some before it asked for the table"
