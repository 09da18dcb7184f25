"""Sync under load, on real packets: blocking keeps the members equal, and flush and ack waits no longer than it may."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import UpLab, sharing_lab, until

from labs.python import python_command

LAB = """
title: 30,000 new connections over a slow sync link
shows: blocking
topology: pair
members:
  fw1: {{release: R77.30, parameters: {{fw_sync_block_new_conns: {value}}}}}
  fw2: {{release: R77.30}}
policy: {{name: open, rules: [{{name: all, action: accept}}]}}
workloads:
  burst: {{kind: flood, port: 9000, rate: 8000, count: 30000}}
steps:
  - start: [fw1, fw2]
  - until: {{that: members.fw2.state, is: Standby, within: 20s}}
  - limit: {{links: sync, rate: 1mbit}}
  - open: burst
  - finish: burst
  - until: {{that: members.fw1.counters.unacknowledged, is: 0, within: 60s}}
expect:
  - {{that: workloads.burst.offered, is: 30000}}
  - {{that: differences.{expected}}}
"""


def run(folder: Path, **fields: str) -> dict[str, Any]:
    """The document of the lab, whose verdict must be a pass."""
    file, out = folder / "lab.yaml", folder / "out.json"
    file.write_text(LAB.format(**fields))
    line = python_command("labs.cli", "run", str(file), "--json", str(out))
    done = subprocess.run(line, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    document: dict[str, Any] = json.loads(out.read_text())
    return document


@pytest.mark.timeout(200)
def test_with_blocking_on_both_tables_are_equal_and_the_refused_are_counted(tmp_path):
    document = run(tmp_path, value="0", expected="different, is: 0")
    burst, fw1 = document["workloads"]["burst"], document["members"]["fw1"]
    assert burst["arrived"] == fw1["connections"] == document["members"]["fw2"]["connections"]
    assert burst["refused"] == 30_000 - burst["arrived"] == document["drops"]["fw1"]["SYNC_LOAD"] > 0
    assert fw1["blocking"]["scenarios"] > 0
    assert document["members"]["fw2"]["counters"]["lost_updates"] == 0


@pytest.mark.timeout(200)
def test_with_blocking_off_the_divergence_is_told(tmp_path):
    document = run(tmp_path, value="-1", expected="different, at_least: 1")
    lacks = document["members"]["fw1"]["connections"] - document["members"]["fw2"]["connections"]
    assert document["members"]["fw1"]["connections"] == document["workloads"]["burst"]["arrived"]
    assert document["differences"]["missing"]["fw2"] == lacks > 0
    assert document["members"]["fw2"]["counters"]["lost_updates"] > 0
    assert document["drops"]["fw1"]["SYNC_LOAD"] == 0


# -- flush and ack ----------------------------------------------------------------------------------------------------


def hold(lab: UpLab) -> dict[str, Any]:
    return dict(lab.control("fw1")["holding"])


def test_a_held_packet_goes_on_after_five_seconds_without_an_ack(tmp_path):
    with sharing_lab("load-sharing-multicast", 2, tmp_path) as lab:
        for member in ("fw1", "fw2"):
            lab.fwctl(member, "ctl", "set", "int", "fwha_dead_timeout_ms", "60000")
            lab.fwctl(member, "ctl", "set", "int", "fwlab_sync_flush_and_ack", "1")
        opener = lab.udp()
        lab.do("pause", "fw2")
        opener.open(16)  # some are fw2's, and nobody forwards them now
        until(lambda: hold(lab)["pending"], "packets wait in the kernel's queue")
        mine = hold(lab)["held"]
        assert not any(opener.arrived(port) for port in range(10_000, 10_016))
        assert f"Number of Pending packets currently held: {mine}" in lab.fwctl("fw1", "pstat").stdout
        until(lambda: hold(lab)["timed_out"] == mine, "all of them were released")
        figures = hold(lab)
        assert 5 <= figures["longest_s"] < 15
        assert (figures["pending"], figures["released"]) == (0, mine)
        until(lambda: sum(opener.arrived(port) for port in range(10_000, 10_016)) == mine, "they reach the server")
        lab.do("resume", "fw2")
        until(lambda: lab.control("fw1")["counters"]["unacknowledged"] == 0, "fw2 has caught up")
        opener.open(16)
        until(lambda: all(opener.arrived(opener.newest - n) for n in range(16)), "new ones pass as soon as both know")
        assert hold(lab)["timed_out"] == mine


def test_packets_of_others_pass_while_one_is_held(tmp_path):
    """An accepted batch would let the held packet go with it; single verdicts do not."""
    with sharing_lab("load-sharing-multicast", 2, tmp_path) as lab:
        lab.serve(1521)
        talks = [lab.talk(1521) for _ in range(10)]
        assert [talk.ask() for talk in talks] == ["hello"] * 10
        for member in ("fw1", "fw2"):
            lab.fwctl(member, "ctl", "set", "int", "fwha_dead_timeout_ms", "60000")
            lab.fwctl(member, "ctl", "set", "int", "fwlab_sync_flush_and_ack", "1")
        opener = lab.udp()
        lab.do("pause", "fw2")
        opener.open(8)
        until(lambda: hold(lab)["pending"], "packets wait")
        # Those of fw2 are silent; the first of fw1's is enough, before the five seconds are over.
        assert any(talk.ask("meanwhile", patience_s=0.3) == "meanwhile" for talk in talks), "fw1's sessions go on"
        assert hold(lab)["pending"], "and what waits still waits"
        lab.do("resume", "fw2")


def test_in_high_availability_nothing_is_held(pair):
    """No other member is active: there is nobody to wait for."""
    pair.fwctl("fw1", "ctl", "set", "int", "fwlab_sync_flush_and_ack", "1")
    opener = pair.udp()
    opener.open(5)
    until(lambda: opener.arrived(opener.newest), "it has passed")
    figures = hold(pair)
    assert (figures["held"], figures["no_members"]) == (0, 5)
