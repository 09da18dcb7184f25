"""Keys of a lab file that are set from outside: which there are, what is refused, and what it comes to."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_labs import LAB, write_lab

from fwnode.files import FileError
from labs.procedure import catalog
from labs.procedure.model import LabFile, load
from labs.procedure.settings import KeyProblem, alter, load_set, parse, written
from labs.sweep.variants import variants
from labs.sweep.work import play_bundle


def lab_with(folder: Path, **settings: Any) -> LabFile:
    return load_set(write_lab(folder), settings)


@pytest.mark.parametrize(
    ("setting", "reach"),
    [
        ("members.fw2.release=R80.10", lambda file: file.members["fw2"].release == "R80.10"),
        ("members.fw1.parameters.fwha_dead_timeout_ms=500",
         lambda file: file.members["fw1"].parameters == {"fwha_dead_timeout_ms": 500}),
        ("steps.3.wait=250ms", lambda file: file.steps[3].what.duration == 0.25),
        ("steps[3].wait=250ms", lambda file: file.steps[3].what.duration == 0.25),
        ("steps.6.until.within=3s", lambda file: file.steps[6].what.within == 3),
        ("steps.2.failover=fw2", lambda file: file.steps[2].what.member == "fw2"),
        ("steps.2.failover.member=fw2", lambda file: file.steps[2].what.member == "fw2"),
        ("clock.rate=60", lambda file: file.header.clock.rate == 60),
        ("workloads.database.think=1s..2s", lambda file: file.workloads["database"].think == (1, 2)),
        ("topology.cluster.mode=load-sharing-unicast", lambda file: file.topology.cluster.mode[-7:] == "unicast"),
        ("policy.rules.0.action=drop", lambda file: file.policy["rules"][0]["action"] == "drop"),
        ("expect.0.is=9", lambda file: file.expect[0].equals == 9),
    ],
)  # fmt: skip
def test_a_key_is_set(setting: str, reach: Any, tmp_path: Path) -> None:
    key, values = parse(setting)
    assert reach(lab_with(tmp_path, **{key: values[0]}))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("members.fw2.relase", "did you mean members.fw2.release?"),
        ("member.fw2.release", "did you mean members?"),
        ("members.fw3.release", "did you mean members.fw"),
        ("members.fw2.parameters.fwha_dead_timeout", "did you mean members.fw2.parameters.fwha_dead_timeout_ms?"),
        ("steps.2.wait", "steps.2.wait: this step is failover; did you mean steps.3.wait or steps.5.wait?"),
        ("steps.99.wait", "there is no such step; they count from 0 to 6"),
        ("workloads.push.cont", "did you mean workloads.push.count?"),
        ("members.fw2.release.x", "members.fw2.release has no keys beneath it"),
        ("workloads.push.qqqq", "workloads.push has no key 'qqqq'; known: count, family, "),
    ],
)
def test_a_key_that_is_not_there_is_refused(key: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"lab\.yaml: ") as refused:
        lab_with(tmp_path, **{key: 1})
    assert said in str(refused.value)


def test_a_value_that_cannot_be_is_refused_as_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"members\.fw2\.release: release 'R99' is unknown"):
        lab_with(tmp_path, **{"members.fw2.release": "R99"})


@pytest.mark.parametrize("text", ["key", "=1", "key=", "key= ", "key=[", "key={a", "key=]", 'key="'])
def test_what_is_no_setting_is_refused(text: str) -> None:
    with pytest.raises(KeyProblem):
        parse(text)


def test_more_members_are_like_the_last_and_are_named_where_all_are(tmp_path: Path) -> None:
    file = lab_with(tmp_path, members=4)
    assert list(file.members) == file.topology.members == ["fw1", "fw2", "fw3", "fw4"]
    assert file.members["fw4"] == file.members["fw2"]
    assert file.steps[0].what.members == ["fw1", "fw2", "fw3", "fw4"]
    with pytest.raises(FileError, match="the limit of a cluster is 5"):
        lab_with(tmp_path, members=6)


def test_fewer_members_leave_nothing_of_the_others(tmp_path: Path) -> None:
    path = write_lab(tmp_path, members={f"fw{n}": {"release": "R77.30"} for n in (1, 2, 3)},
                     topology={"base": "pair", "members": 3}, steps=[{"start": ["fw1", "fw2", "fw3"]}])  # fmt: skip
    file = load_set(path, {"members": 2})
    assert list(file.members) == file.steps[0].what.members == ["fw1", "fw2"]


def test_what_stood_in_other_files_can_be_set_too(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("name: p\nrules:\n  - {name: all, action: accept}\n")
    path = write_lab(tmp_path, policy="rules.yaml")
    file = load_set(path, {"policy.rules.0.action": "drop"})
    assert file.policy["rules"] == [{"name": "all", "action": "drop"}]


@pytest.mark.parametrize("name", catalog.names())
def test_a_lab_in_one_file_is_the_same_lab(name: str) -> None:
    """One setting that changes nothing puts every lab of the catalogue into its long form."""
    path = catalog.find(name)
    file = load(path)
    changed = load_set(path, {"title": file.header.title})
    assert (changed.members, changed.workloads, changed.policy) == (file.members, file.workloads, file.policy)
    assert [(s.verb, s.what, s.note) for s in changed.steps] == [(s.verb, s.what, s.note) for s in file.steps]
    assert changed.topology == file.topology


def test_the_file_itself_is_never_changed(tmp_path: Path) -> None:
    before = repr(LAB)
    alter(LAB, tmp_path / "lab.yaml", {"members.fw2.release": "R80.10", "steps.3.wait": "1s", "members": 3})
    assert repr(LAB) == before


@given(st.one_of(st.text("abR7.0,[]{}:#&*!|>'\"%@` \\-\t", min_size=1, max_size=12), st.integers(-10**6, 10**6),
                 st.booleans(), st.none(), st.lists(st.text("ab, ", max_size=3), max_size=3)))  # fmt: skip
def test_a_setting_that_is_written_down_reads_as_it_was(value: Any) -> None:
    (text,) = written({"a.b": value})
    assert parse(text) == ("a.b", [value])


@pytest.mark.parametrize("name", catalog.names())
def test_a_bundle_is_the_whole_lab(name: str, tmp_path: Path) -> None:
    """It is laid out on another machine, where nothing else of the lab is."""
    path = catalog.find(name)
    (variant,) = variants(path, {})
    there, here = load(variant.bundle.lay_out(tmp_path)), load(path)
    for part in ("name", "topology", "members", "workloads", "policy"):
        assert getattr(there, part) == getattr(here, part)
    assert repr(there.expect) == repr(here.expect)
    assert [(s.verb, s.after, s.note) for s in there.steps] == [(s.verb, s.after, s.note) for s in here.steps]
    assert there.header.title == here.header.title


def test_a_bundle_has_the_files_that_a_lab_names(tmp_path: Path) -> None:
    """Rule bases, a topology, and a table of releases, which is read at each run."""
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    (home / "rules.yaml").write_text("name: p\nrules: [{name: all, action: accept}]\n")
    (home / "shape.yaml").write_text("base: pair\nname: shape\nmembers: 3\n")
    (home / "own.yaml").write_text("releases:\n  R99.10: {version: R99.10, schema: 3}\n")
    path = write_lab(
        home, policy="rules.yaml", topology="shape.yaml", releases="own.yaml",
        members={"fw1": {"release": "R77.30"}, "fw2": {"release": "R77.30"}, "fw3": {"release": "R99.10"}},
        steps=[{"start": ["fw1", "fw2", "fw3"]}, {"policy": {"members": ["fw1"], "file": "rules.yaml"}}], expect=[],
    )  # fmt: skip
    (variant,) = variants(path, {})
    shutil.rmtree(home)
    file = load(variant.bundle.lay_out(away))
    assert (file.topology.members, file.members["fw3"].release) == (["fw1", "fw2", "fw3"], "R99.10")
    assert file.steps[1].what.rules == file.policy == {"name": "p", "rules": [{"name": "all", "action": "accept"}]}
    result = play_bundle(variant.bundle, 1)
    assert result["outcome"]["verdict"] == "pass", result
