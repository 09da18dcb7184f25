"""The workloads through a pair whose rule base accepts everything, on real packets and simulated: all pass, and all are
counted."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labs.python import python_command

LAB: dict[str, Any] = {
    "title": "every workload once",
    "shows": "transfers, pings and floods through a pair",
    "clock": {"rate": 1},
    "members": {"fw1": {"release": "R77.30"}, "fw2": {"release": "R77.30"}},
    "policy": {"name": "open", "rules": [{"action": "accept"}]},
}
START = [{"start": ["fw1", "fw2"]}, {"until": {"that": "members.fw2.state", "is": "Standby", "within": "20s"}}]


@pytest.fixture(params=[[], ["--simulate"]], ids=["real", "simulated"])
def run(tmp_path, request):
    """`fwlab run` on a lab of these workloads, steps and expectations; its document and what it printed."""
    def go(**parts: Any) -> tuple[dict[str, Any], str]:
        lab, result = tmp_path / "lab.yaml", tmp_path / "result.json"
        lab.write_text(json.dumps({**LAB, **parts}))
        line = python_command("labs.cli", "run", str(lab), "--json", str(result), *request.param)
        done = subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(result.read_text()), " ".join(done.stdout.split())

    return go


def test_transfers_pass_and_are_counted(run):
    document, said = run(
        workloads={
            "passive": {"kind": "ftp", "count": 2, "size": "200kB", "split": True},
            "active": {"kind": "ftp", "port": 2121, "mode": "active", "extended": True, "size": "200kB"},
            "ipv6": {"kind": "ftp", "family": "ipv6", "size": "200kB"},
            "boot": {"kind": "tftp", "count": 3, "size": "20kB"},
            "echo": {"kind": "ping", "rate": 20},
            "echo6": {"kind": "ping", "rate": 20, "family": "ipv6"},
        },
        steps=[
            *START, {"open": ["passive", "active", "ipv6", "boot", "echo", "echo6"]}, {"announce": "passive"},
            {"transfer": {"workloads": ["passive", "active", "ipv6", "boot"], "wait": True}},
            {"until": {"that": "workloads.echo.answered", "at_least": 3, "within": "20s"}},
            {"until": {"that": "workloads.echo6.answered", "at_least": 3, "within": "20s"}},
        ],
        expect=[
            {"that": "workloads.passive.transferred", "is": 2}, {"that": "workloads.active.transferred", "is": 1},
            {"that": "workloads.ipv6.transferred", "is": 1}, {"that": "workloads.boot.transferred", "is": 3},
            {"that": "workloads.passive.finished", "is": 2}, {"that": "workloads.boot.failed", "is": 0},
            {"that": "workloads.echo.sent", "same_as": "workloads.echo.answered"},
            {"that": "members.fw1.connections", "at_least": 10},
        ],
    )  # fmt: skip
    assert "all 2 transfers of `passive` were complete" in said
    assert document["workloads"]["passive"]["failed"] == 0


def test_a_transfer_and_an_announcement_outlive_a_failover(run):
    run(
        workloads={
            "files": {"kind": "ftp", "count": 2, "size": "500kB", "pace": "100kB"},
            "announced": {"kind": "ftp", "port": 2121, "count": 2, "size": "100kB"},
        },
        steps=[
            *START, {"open": ["files", "announced"]}, {"announce": "announced"}, {"transfer": "files"},
            {"until": {"that": "members.fw2.connections", "same_as": "members.fw1.connections", "within": "9s"}},
            {"failover": "fw1"}, {"check": {"that": "workloads.files.transferred", "is": 0}},
            {"transfer": "announced"}, {"finish": ["files", "announced"]},
        ],
        expect=[
            {"that": "workloads.files.transferred", "is": 2}, {"that": "workloads.announced.transferred", "is": 2},
            {"that": "workloads.announced.sessions", "is": 2}, {"that": "takeovers.0.taker", "is": "fw2"},
        ],
    )  # fmt: skip


def test_faults_are_steps_of_a_lab(run):
    document, said = run(
        steps=[
            *START, {"limit": {"links": "sync", "rate": "1mbit"}}, {"lose": {"links": "sync", "share": "5%"}},
            {"delay": {"links": "fw2-lan", "by": "20ms", "way": "in"}}, {"unlimit": "sync"}, {"unlose": "sync"},
            {"undelay": "fw2-lan"}, {"pause": "fw1"}, {"check": {"that": "members.fw1.state", "is": "Paused"}},
            {"check": {"that": "members.fw2.state", "contains": "Active"}}, {"resume": "fw1"},
            {"until": {"that": "members.fw1.running", "is": True, "within": "5s"}},
            {"cut": {"links": "fw2-sync", "way": "in"}}, {"restore": "fw2-sync"},
            {"block": {"between": ["fw1", "fw2"], "service": "FW1"}},
            {"unblock": {"between": ["fw1", "fw2"], "service": "FW1"}},
        ],
    )  # fmt: skip
    assert [takeover["cause"] for takeover in document["takeovers"]] == ["pause fw1"]
    assert "delay fw2-lan by 0.02s of wall time, inwards alone" in said


def test_floods_pass_and_are_counted(run):
    document, said = run(
        workloads={
            "udp": {"kind": "flood", "port": 9000, "rate": 2000, "count": 2000},
            "tcp": {"kind": "flood", "protocol": "tcp", "port": 9000, "rate": 500, "count": 500, "server_ports": 2},
            "ipv6": {"kind": "flood", "port": 9000, "rate": 500, "count": 500, "family": "ipv6"},
            "twice": {"kind": "flood", "port": 9500, "rate": 500, "count": 100, "rounds": 2},
            "kept": {"kind": "flood", "port": 7000, "server_ports": 1, "rate": 500, "count": 100},
        },
        steps=[
            *START, {"open": ["udp", "tcp", "ipv6"]}, {"finish": ["udp", "tcp", "ipv6"]},
            {"check": {"that": "members.fw1.connections", "at_least": 3000}},
            {"policy": {"member": "fw1", "patch": {"rules": [{"action": "drop"}]}}},
            {"open": "kept"}, {"finish": "kept"}, {"policy": {"member": "fw1", "patch": {}}},
            {"open": "twice"}, {"finish": "twice"}, {"open": "twice"}, {"finish": "twice"},
        ],
        expect=[
            {"that": "workloads.udp.arrived", "is": 2000}, {"that": "workloads.udp.refused", "is": 0},
            {"that": "workloads.tcp.arrived", "is": 500}, {"that": "workloads.ipv6.arrived", "is": 500},
            {"that": "workloads.twice.arrived", "is": 200},
            {"that": "workloads.kept.offered", "is": 100}, {"that": "workloads.kept.refused", "is": 100},
            {"that": "drops.fw1.POLICY", "at_least": 100},
        ],
    )  # fmt: skip
    assert document["workloads"]["tcp"]["reset"] == 0
    assert "all 2,000 new connections of `udp` passed" in said
    assert "0 of 100 new connections of `kept` passed, 100 were refused" in said


def test_ten_thousand_sessions_that_fail_are_counted(run):
    """The client tells the server the numbers of all of them: the server asks in the others."""
    document, _ = run(
        policy={"name": "closed", "rules": [{"action": "reject"}]},
        workloads={"database": {"kind": "sessions", "port": 1521, "count": 14_000, "speaks_first": "server",
                                "open_rate": 2000}},
        steps=[*START, {"open": "database"}],
        expect=[{"that": "workloads.database.sessions", "is": 14_000}, {"that": "workloads.database.open", "is": 0}],
    )  # fmt: skip
    assert document["workloads"]["database"]["refused"] + document["workloads"]["database"]["hung"] == 14_000


def test_a_traffic_process_that_dies_costs_no_document(tmp_path):
    lab, result = tmp_path / "lab.yaml", tmp_path / "result.json"
    lab.write_text(json.dumps({
        **LAB, "workloads": {"database": {"kind": "sessions", "port": 1521, "count": 3}},
        "steps": [*START, {"open": "database"}, {"check": {"that": "workloads.database.sessions", "is": 3}},
                  {"until": {"that": "members.fw1.connections", "at_least": 1_000, "within": "60s"}}],
    }))  # fmt: skip
    line = python_command("labs.cli", "run", str(lab), "--json", str(result))
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        next(text for text in process.stdout if "held: " in text)
        children = [int(path.name) for path in Path("/proc").glob("[0-9]*") if client_of(path, tmp_path)]
        assert len(children) == 1
        os.kill(children[0], signal.SIGKILL)
        _, said = process.communicate(timeout=240)
    assert (process.returncode, said) == (1, "")
    document = json.loads(result.read_text())
    assert "labs.traffic.session_client of workload 'database' has ended" in document["problem"]
    assert document["workloads"]["database"]["sessions"] == 3


def client_of(process: Path, folder: Path) -> bool:
    """Whether this is the client's process of the workload whose lab file is in the folder."""
    try:
        words = (process / "cmdline").read_bytes()
        return b"labs.traffic.session_client" in words and (process / "cwd").resolve() == folder
    except OSError:
        return False
