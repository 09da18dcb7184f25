"""Lab files: what is read, and that every problem is told at once, where it is and what to do."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from file_readers import GOOD

from fwnode.files import FileError
from labs.procedure import catalog
from labs.procedure.model import LabFile, lay_over, load
from labs.procedure.problems import LabFileError
from labs.procedure.steps import InstallPolicy


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
        # What cannot be found in a run, or can never be so
        ({"expect": [{"that": "workloads.database.hung.deeper", "is": 0}]},
         "expect[0]: workloads.database.hung.deeper: workloads.database.hung is a number; there is nothing beneath it"),
        ({"expect": [{"that": "workloads.database.hung", "is": "zero"}]},
         "expect[0]: workloads.database.hung is a number, and never 'zero'; write a number"),
        ({"expect": [{"that": "workloads.database.hung", "is": True}]}, "is a number, and never True; write a number"),
        ({"expect": [{"that": "seconds.deeper", "is": 0}]}, "seconds is a number; there is nothing beneath it"),
        ({"expect": [{"that": "drops.fw1.OUT_OF_STATE.more", "is": 0}]}, "there is nothing beneath it"),
        ({"expect": [{"that": "members.fw1.connections", "contains": "1"}]}, "is a number, which contains nothing"),
        ({"expect": [{"that": "members.fw1.state", "at_least": 1}]}, "members.fw1.state is text; at_least is for num"),
        ({"expect": [{"that": "members.fw1.state", "is": "Actve"}]}, "members.fw1.state is never 'Actve'; it is one"),
        ({"expect": [{"that": "members.fw1.running", "is": "yes"}]}, "is true or false, and never 'yes'"),
        ({"expect": [{"that": "members.fw1.connections", "below": "members.fw2.state"}]}, "below: members.fw2.state"),
        ({"expect": [{"that": "members.fw1.connections", "same_as": "members.fw2.state"}]}, "compare what is of"),
        ({"expect": [{"that": "members.fw1", "is": 0}]}, "members.fw1 has several figures; name one of them"),
        ({"expect": [{"that": "members.fw1.log", "is": "x"}]}, "members.fw1.log is a list; write contains"),
        ({"expect": [{"that": "takeovers.first.taker", "is": "fw2"}]}, "takeovers is a list; go on with a number"),
        ({"expect": [{"that": "takeovers.0.takr", "is": "fw2"}]}, "takeovers.0 has no 'takr'; known: "),
        ({"expect": [{"that": "workloads.web.last_answer.hungry.0", "is": 1}]}, "last_answer has no 'hungry'"),
        ({"expect": [{"that": "", "is": 1}]}, "nothing in a run is called ''; begin with one of"),
        # What cannot come next
        ({"steps": [{"start": "fw1"}, {"start": "fw1"}]}, "steps[1].start: fw1 is running here; remove it from this"),
        ({"steps": [{"start": ["fw1", "fw1"]}]}, "steps[0].start: fw1 is running here"),
        ({"steps": [{"start": "fw1"}, {"kill": "fw1"}, {"kill": "fw1"}]}, "steps[2].kill: fw1 is stopped here;"),
        ({"steps": [{"stop": "fw1"}]}, "steps[0].stop: fw1 is stopped here; start it in an earlier step"),
        ({"steps": [{"power_cut": "fw1"}, {"start": "fw1"}]}, "fw1 is without power here; power_on brings it back"),
        ({"steps": [{"start": "fw1"}, {"pause": "fw1"}, {"down": "fw1"}]}, "fw1 is paused here; resume it in"),
        ({"steps": [{"start": "fw1"}, {"resume": "fw1"}]}, "steps[1].resume: fw1 is running here"),
        ({"steps": ["failover"]}, "steps[0].failover: no member is running here"),
        ({"steps": [{"speak": "database"}]}, "steps[0].speak: database is not open here; open it in an earlier step"),
        ({"workloads": {"a": {"kind": "flood", "port": 80, "rate": 1, "count": 1}},
          "steps": [{"start": "fw1"}, {"open": "a"}, {"open": "a"}]}, "steps[2].open: a is opened more often than its"),
        ({"steps": [{"start": "fw1"}, {"set": {"member": "fw1", "fw_sync_sending_queue_size": 1024}}]},
         "steps[1].set: fw_sync_sending_queue_size is read at a start; write it under members.fw1.parameters"),
        # Values that no arithmetic bears, or that the system refuses
        ({"steps": [{"wait": "9" * 400 + "s"}]}, "steps[0].wait.duration: '999"),
        ({"steps": [{"wait": "3651d"}]}, "steps[0].wait.duration: '3651d' is out of bounds; write 0s, or 1ms to 3650d"),
        ({"steps": [{"until": {"that": "seconds", "at_least": 1, "within": "9" * 20 + "d"}}]}, "until.within: '999"),
        ({"steps": [{"limit": {"links": "sync", "rate": "100bit"}}]}, "'100bit' is no rate that a link can have"),
        ({"steps": [{"limit": {"links": "sync", "rate": "101gbit"}}]}, "write 1kbit to 100gbit"),
        ({"steps": [{"limit": {"links": "sync", "rate": "9" * 400 + "bit"}}]}, "is no rate; write a number"),
        ({"steps": [{"delay": {"links": "sync", "by": "61s"}}]}, "steps[0].delay.by: '61s' is no delay of a link"),
        ({"steps": [{"lose": {"links": "sync", "share": "0.00000001%"}}]}, "steps[0].lose.share: "),
        ({"steps": [{"lose": {"links": "sync", "share": 10**17}}]}, "steps[0].lose.share: "),
        ({"workloads": {"a": {"kind": "ftp", "pace": "9" * 400 + "MB"}}}, "workloads.a.pace: "),
        ({"workloads": {"a": {"kind": "ftp", "pace": "2000MB"}}}, "'2000MB' is more than 1,073,741,824 bytes"),
        ({"clock": {"rate": 100_001}}, "clock.rate: is 100001; write at most 100000.0"),
        # `yes` and `on` are true to YAML, and true is 1 to Python
        ({"clock": {"rate": True}}, "clock.rate: true is no number; write one in digits"),
        ({"workloads": {"a": {"kind": "short", "port": True}}}, "workloads.a.port: true is no number"),
        ({"workloads": {"a": {"kind": "flood", "port": 80, "rate": True, "count": 1}}}, "workloads.a.rate: true is no"),
        ({"workloads": {"a": {"kind": "ping", "count": True}}}, "workloads.a.count: true is no number"),
        ({"members": {"fw1": {"release": "R77.30", "parameters": {"udp_timeout": True}}}}, "udp_timeout: true is no n"),
        ({"expect": [{"that": "workloads.web.refused", "at_least": True}]}, "at_least: true is no number"),
        ({"topology": {"base": "pair", "cluster": {"id": True}}}, "cluster.id: true is no number"),
        ({"policy": {"name": "p", "services": {"a": {"protocol": True}}, "rules": [{"action": "accept"}]}},
         "services.a.protocol: "),
        # Names, families, topologies
        ({"workloads": {"a.b": {"kind": "short", "port": 80}}}, "workloads.a.b: is no name; write 1 to 40 characters"),
        ({"workloads": {"a": {"kind": "ping", "family": "ipv6"}}, "topology": {"base": "pair", "hosts": {
            "client": {"switch": "lan", "addresses": ["192.0.2.100"]},
            "server": {"switch": "wan", "addresses": ["198.51.100.100", "2001:db8:2::100"]}}}},
         "workloads.a.family: client has no IPv6 address; give it one in the topology"),
        ({"workloads": {"a": {"kind": "ping", "family": "ipv6"}}, "topology": {"base": "pair", "switches": {
            "lan": {"networks": ["192.0.2.0/24", "2001:db8:1::/64"], "virtual": ["192.0.2.1"]},
            "wan": {"networks": ["198.51.100.0/24", "2001:db8:2::/64"], "virtual": ["198.51.100.1"]},
            "sync": {"networks": ["203.0.113.0/24"], "sync": True}}}},
         "workloads.a.family: lan has no virtual IPv6 address, which client routes through"),
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


def test_the_file_says_what_its_lab_may_be_called(tmp_path: Path) -> None:
    folder = tmp_path / "my lab"
    folder.mkdir()
    with pytest.raises(LabFileError, match=r"'my lab' cannot name a lab: .*; rename the folder, or run it with --name"):
        read(folder)
    assert load(folder / "lab.yaml", "other").name == "my lab"
    with pytest.raises(LabFileError, match="--name: 'no good' cannot name a lab"):
        load(folder / "lab.yaml", "no good")
    file = tmp_path / ("x" * 41 + ".yaml")
    file.write_text((folder / "lab.yaml").read_text())
    with pytest.raises(LabFileError, match=r"cannot name a lab: .*; rename the file"):
        load(file)


def test_a_file_next_to_the_lab(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"name": "other", "rules": [{"action": "drop"}]}))
    file = read(tmp_path, policy="rules.yaml", steps=[{"policy": {"member": "fw1", "file": "rules.yaml"}}])
    assert file.policy["name"] == "other"
    assert isinstance(file.steps[0].what, InstallPolicy)
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
