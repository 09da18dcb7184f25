"""Lab files: what is read, and that every problem is told at once, where it is and what to do."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fwnode.files import FileError
from labs.procedure import catalog
from labs.procedure.model import LabFile, load
from labs.procedure.problems import LabFileError
from labs.procedure.references import lay_over
from labs.procedure.steps import Policy

GOOD: dict[str, Any] = {
    "title": "a lab",
    "shows": "something",
    "claims": ["A2"],
    "clock": {"rate": 10},
    "members": {"fw1": {"release": "R77.30"}, "fw2": {"release": "R77.30"}},
    "policy": {"name": "p", "rules": [{"name": "all", "action": "accept"}]},
    "workloads": {"database": {"kind": "sessions", "port": 1521, "count": 3}, "web": {"kind": "short", "port": 80}},
    "steps": [{"start": ["fw1", "fw2"]}, {"open": "database"}, {"wait": "10s"}],
    "expect": [{"that": "workloads.database.survived", "is": 3}],
}


def read(tmp_path: Path, **changes: Any) -> LabFile:
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return load(path)


def block(service: str, verb: str = "block") -> dict[str, Any]:
    return {verb: {"between": ["fw1", "fw2"], "service": service}}


def problems(tmp_path: Path, **changes: Any) -> list[str]:
    with pytest.raises(LabFileError) as raised:
        read(tmp_path, **changes)
    assert all(line.startswith((f"{tmp_path}/lab.yaml: ", "… and ")) for line in str(raised.value).splitlines())
    return raised.value.problems


def test_a_good_file(tmp_path: Path) -> None:
    file = read(tmp_path)
    assert file.name == tmp_path.name
    assert [step.verb for step in file.steps] == ["start", "open", "wait"]
    assert file.steps[2].what.duration == 10
    assert file.topology.name == "pair"


@pytest.mark.parametrize("name", catalog.names())
def test_every_lab_of_the_catalog_is_in_order_and_has_a_guide(name: str) -> None:
    file = load(catalog.find(name))
    assert file.name == name
    assert file.header.claims
    guide = (file.path.parent / catalog.GUIDE).read_text()
    for part in ("## What to expect", "## What to look at", "## What to try next"):
        assert part in guide, f"{name}: {part}"


def test_the_catalog_is_complete() -> None:
    assert catalog.names() == [
        "allowed-protocols",
        "asymmetric",
        "failover-synced",
        "full-sync-blocked",
        "more-members",
        "sync-link-cut",
        "sync-under-load",
        "sync-under-load-ha",
        "upgrade-careless",
        "upgrade-hotfix",
        "upgrade-new-connections-patch",
        "upgrade-out-of-state",
    ]


def test_all_problems_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        colour="red",
        claims=["Z9"],
        members={"fw1": {"release": "R99"}, "fw9": {"release": "R77.30"}, "fw2": {"relase": "R77.30"}},
        workloads={"database": {"kind": "sessions", "port": 99999, "count": 3, "think": 5}, "x": {"kind": "udp"}},
        steps=[
            {"start": ["fw1", "fw7"]}, {"wait": 10}, {"kil": "fw1"}, {"cut": "fw1-sink"}, {"open": "databse"},
            {"stop": "fw1", "wait": "3s"}, {"set": {"member": "fw1", "fw_allow_out_of_state": 1}}, "dance",
            {"until": {"that": "members.fw1.state", "is": "Active"}},
        ],
        expect=[{"that": "workload.database.survived", "is": 1}, {"that": "members.fw1.learnt", "is": 1},
                {"that": "workloads.database.survived"}],
    )  # fmt: skip
    text = "\n".join(found)
    for part in (
        "colour: unknown key",
        "claims[0]: ",
        "members.fw1.release: release 'R99' is unknown; known are: ",
        "members.fw9: the topology pair has no such member; it has fw1, fw2",
        "members.fw2.release: is missing",
        "members.fw2.relase: unknown key",
        "workloads.database.port: ",
        "workloads.database.think: 5 has no unit; write a number with its unit",
        "workloads.x: unknown kind 'udp'; write one of 'sessions', 'short'",
        "steps[0].start: unknown member 'fw7'; known: fw1, fw2, fw9",
        "steps[1].wait.duration: 10 has no unit",
        "steps[2].kil: unknown step; did you mean kill?",
        "steps[3].cut: unknown link or switch 'fw1-sink'; known: ",
        "steps[4].open: unknown workload 'databse'; known: database, x",
        "steps[5]: has 2 verbs (stop, wait); write one a step",
        "steps[6].set: unknown kernel parameter 'fw_allow_out_of_state': did you mean fw_allow_out_of_state_tcp?",
        "steps[7].dance: unknown step",
        "steps[8].until.within: is missing; add it",
        "expect[0]: nothing in a run is called 'workload.database.survived'",
        "expect[1]: members.fw1.learnt: members have no 'learnt'",
        "expect[2]: compares with nothing; add one of is, ",
    ):
        assert part in text, f"{part}\nis not in\n{text}"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"expect": [{"that": "differences.missing", "is": 0}]},
         "nothing in a run is called 'differences.missing'; write one of differences.different, differences.equal, "
         "differences.unsynchronised, differences.missing.MEMBER, differences.kinds.KIND.MEMBER.FIGURE"),
        ({"expect": [{"that": "differences.missing.fw3", "is": 0}]}, "unknown member 'fw3'; known: fw1, fw2"),
        ({"expect": [{"that": "differences.kinds.tcp.fw1.has", "is": 0}]}, "no kind is called 'tcp'"),
        ({"expect": [{"that": "differences.kinds.TCP.fw1.mising", "is": 0}]}, "did you mean missing?"),
        ({"expect": [{"that": "members.fw1.counters.lost_update", "is": 0}]}, "did you mean lost_updates?"),
        ({"expect": [{"that": "members.fw1.blocking.packet", "is": 0}]}, "blocking has no 'packet'; did you mean"),
        ({"workloads": {"x": {"kind": "flood", "port": 9, "rate": 9, "count": 50_000, "rounds": 3}}},
         "rounds: 3 of 50000 connections are more than 100000; lower one of the two"),
        ({"steps": []}, "steps: is missing; a lab without steps does nothing"),
        ({"steps": "start"}, "steps: is not a list"),
        ({"members": {}}, "members: is missing"),
        ({"workloads": ["x"]}, "workloads: is not a mapping"),
        ({"topology": "ring"}, "topology: there is no topology 'ring'"),
        ({"clock": {"rate": 0}}, "clock.rate: "),
        ({"policy": "nowhere.yaml"}, "nowhere.yaml: cannot be read"),
        ({"policy": {"name": "p", "rules": [{"action": "allow"}]}}, "policy: rules[0].action"),
        ({"releases": "nowhere.yaml"}, "releases: "),
        ({"steps": [{"speak": "web"}]}, "steps[0].speak: web is of kind short, which cannot speak"),
        ({"steps": [{"policy": {"member": "fw1"}}]}, "steps[0].policy: give one of rules"),
        ({"steps": [{"policy": {"patch": {"out_of_state": {"exceptions": ["fw3"]}}}}]}, "no member 'fw3'"),
        ({"steps": [{"upgrade": {"member": "fw1", "release": "R1"}}]}, "steps[0].upgrade.release: release 'R1'"),
        ({"steps": [block("ssh")]}, "steps[0].block.service: "),
        ({"steps": [block("tcp/99999")]}, "steps[0].block.service: 'tcp/99999' is no service; write FW1, or tcp"),
        ({"steps": [block("udp/0")]}, "steps[0].block.service: 'udp/0' is no service"),
        ({"steps": [block("FW1", "unblock")]}, "steps[0].unblock: FW1 between fw1 and fw2 is not blocked here"),
        ({"steps": [block("FW1"), block("udp/256", "unblock")]}, "steps[1].unblock: udp/256 between"),
        ({"steps": [block("FW1"), block("tcp/256")]}, "steps[1].block: tcp/256 between fw1 and fw2 is blocked already"),
        ({"expect": [{"that": "drops.fw1.OUT_OFF_STATE", "is": 0}]}, "have no 'OUT_OFF_STATE'; did you mean OUT_OF_"),
        ({"steps": [{"until": {"that": "drops.fw1.NONE", "is": 0, "within": "1s"}}]}, "drops have no 'NONE'; known: "),
        ({"steps": [{"limit": "sync"}]}, "steps[0].limit: is 'sync'; write its keys as a mapping"),
        ({"steps": [{"limit": {"links": "sync"}}]}, "steps[0].limit.rate: is missing"),
        ({"steps": [{"limit": {"links": "sync", "rate": 1000}}]}, "1000 is no rate; write a number with its unit (bit"),
        ({"steps": [{"lose": {"links": "sync", "share": "120%"}}]}, "steps[0].lose.share: '120%' is no share"),
        ({"steps": [{"lose": {"links": "sync", "share": "20%", "way": "in"}}]}, "sync is a switch and has no way in"),
        ({"steps": [{"cut": {"links": "fw2-sync", "way": "up"}}]}, "steps[0].cut.way: "),
        ({"steps": [{"delay": {"links": "fw3-sync", "by": "50ms"}}]}, "unknown link or switch 'fw3-sync'"),
        ({"steps": [{"delay": {"links": "fw2-sync", "by": "0s"}}]}, "steps[0].delay.by: "),
        ({"steps": [{"pause": "fw7"}]}, "steps[0].pause: unknown member 'fw7'"),
        ({"steps": [{"transfer": "web"}]}, "web is of kind short, which cannot transfer; name one of kind ftp or tftp"),
        ({"steps": [{"announce": "nothing"}]}, "steps[0].announce: unknown workload 'nothing'"),
        ({"workloads": {"a": {"kind": "ftp", "size": "1GB"}}}, "workloads.a.size: '1GB' is no size"),
        ({"workloads": {"a": {"kind": "ftp", "size": "999MB"}}}, "workloads.a.size: '999MB' is more than"),
        ({"workloads": {"a": {"kind": "tftp", "family": "ipv6"}}}, "workloads.a.family: "),
        ({"workloads": {"a": {"kind": "ping", "port": 7}}}, "workloads.a.port: unknown key"),
        ({"workloads": {"a": {"kind": "flood", "port": 80, "rate": 1, "count": 100000, "server_ports": 1}}},
         "workloads.a: count: 1 server ports have room for 55536 connections"),
        ({"workloads": {"a": {"kind": "flood", "port": 78, "protocol": "tcp", "rate": 1, "count": 1},
                        "b": {"kind": "short", "port": 80}}}, "workloads.b.port: 80 is taken by a"),
        ({"expect": [{"that": "workloads.web.refusals", "is": 0}]}, "have no 'refusals'"),
        ({"expect": [{"that": "workloads.web.transferred", "is": 0}]}, "have no 'transferred'"),
        ({"workloads": {"a": {"kind": "short", "port": 80}, "b": {"kind": "short", "port": 80}}}, "80 is taken by a"),
    ],
)
def test_a_problem(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    assert any(told in line for line in problems(tmp_path, **changes)), problems(tmp_path, **changes)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("title: [", "lab.yaml: line 2, column 1: "),
        ("title: " + "[" * 1200, "is nested too deeply"),
        ("- a", "is not a mapping"),
        ("title: a\ntitle: b\n", "line 2, column 1: the key 'title' is written twice"),
        ("expect: [{that: seconds, below: 9, says: first, then}]", "a text with a comma in it"),
    ],
)
def test_no_yaml_or_not_ours(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(text)
    with pytest.raises(FileError) as raised:
        load(path)
    assert told in str(raised.value)


def test_a_file_next_to_the_lab(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"name": "other", "rules": [{"action": "drop"}]}))
    file = read(tmp_path, policy="rules.yaml", steps=[{"policy": {"member": "fw1", "file": "rules.yaml"}}])
    assert file.policy["name"] == "other"
    assert isinstance(file.steps[0].what, Policy)
    assert file.steps[0].what.rules == file.policy


def test_a_block_may_come_back(tmp_path: Path) -> None:
    steps = [block("FW1"), block("tcp/256", "unblock"), block("FW1"), block("FW1", "unblock")]
    assert [step.verb for step in read(tmp_path, steps=steps).steps] == ["block", "unblock"] * 2


def test_the_figures_of_each_kind_can_be_expected(tmp_path: Path) -> None:
    workloads = {
        "files": {"kind": "ftp"}, "boot": {"kind": "tftp"}, "echo": {"kind": "ping"},
        "burst": {"kind": "flood", "port": 9000, "rate": 3000, "count": 30000},
    }  # fmt: skip
    figures = ["files.transferred", "boot.failed", "echo.answered", "burst.arrived", "burst.refused"]
    expect = [{"that": f"workloads.{figure}", "at_least": 1} for figure in figures]
    assert len(read(tmp_path, workloads=workloads, expect=expect, steps=[{"open": "files"}]).expect) == 5


def test_lay_over() -> None:
    base = {"a": {"b": 1, "c": [1]}, "d": 2}
    assert lay_over(base, {"a": {"c": [2]}, "e": 3}) == {"a": {"b": 1, "c": [2]}, "d": 2, "e": 3}
    assert base == {"a": {"b": 1, "c": [1]}, "d": 2}


@pytest.mark.parametrize(
    ("lab", "told"), [("upgrade-carless", "did you mean upgrade-careless?"), ("?", "the catalog has")]
)
def test_an_unknown_lab(lab: str, told: str) -> None:
    with pytest.raises(LabFileError) as raised:
        catalog.find(lab)
    assert told in str(raised.value)
