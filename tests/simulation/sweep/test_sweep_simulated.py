"""Sweeps of labs that are really simulated: the same seeds, the same outcomes, wherever."""

import json
import sys
from pathlib import Path

import fake_simulation
import pytest
from sweep_labs import write_lab
from typer.testing import CliRunner

from labs.exit_codes import ExitCode
from labs.fwlab import app
from labs.sweep import dask_cluster
from labs.sweep.dask_cluster import DaskCluster, DaskClusterError
from labs.sweep.local_workers import Workers
from labs.sweep.outcome import Outcome, of_document
from labs.sweep.variants import Variant, read_varied, variants
from labs.sweep.work import SIMULATE, function, play

Outcomes = dict[tuple[int, int], Outcome]
SEEDS = range(1, 5)
STEPS = [
    {"start": ["fw1", "fw2"]}, {"until": {"that": "members.fw2.state", "is_not": "Initializing", "within": "20s"}},
    {"open": ["database", "push"]}, {"kill": "fw1", "after": "0s..2s"}, {"wait": "4s"},
]  # fmt: skip
WORKLOADS = {name: {"kind": "sessions", "port": port, "count": count, "think": "100ms..900ms", "patience": "3s"}
             for name, port, count in (("database", 1521, 10), ("push", 5222, 5))}  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """An active member dies, at a moment of a span."""
    return write_lab(tmp_path, steps=STEPS, workloads=WORKLOADS)


@pytest.fixture
def found(lab: Path) -> list[Variant]:
    """fw2 knows the sessions, or none of them."""
    return variants(lab, read_varied(["members.fw2.release=R77.30,R80.10"]))


@pytest.fixture
def here(found: list[Variant]) -> Outcomes:
    simulate = function(SIMULATE)
    return {(index, seed): play(lambda file=variant.file: file, seed, simulate)
            for index, variant in enumerate(found) for seed in SEEDS}  # fmt: skip


def test_workers_give_the_same_outcomes_as_this_process(found: list[Variant], here: Outcomes) -> None:
    """They hash text differently from each other, which a run must not notice."""
    with Workers([variant.bundle for variant in found], 2) as workers:
        assert {(variant, outcome.seed): outcome for variant, outcome in workers.outcomes(here)} == here


def test_a_cluster_gives_the_same_outcomes_as_this_process(
    found: list[Variant], here: Outcomes, scheduler: str, cluster_folder: Path
) -> None:
    with DaskCluster(scheduler, [variant.bundle for variant in found]) as cluster:
        assert {(variant, outcome.seed): outcome for variant, outcome in cluster.outcomes(here)} == here
    assert not list(cluster_folder.glob("fwlab-*")), "nothing is left behind"


def test_a_cluster_that_loses_a_worker_loses_nothing(found: list[Variant], scheduler: str) -> None:
    seeds = range(fake_simulation.KILLS_ONCE - 2, fake_simulation.KILLS_ONCE + 2)
    with DaskCluster(scheduler, [found[0].bundle], fake_simulation.FUNCTION) as cluster:
        there = {outcome.seed: outcome for _, outcome in cluster.outcomes([(0, seed) for seed in seeds])}
    assert there == {seed: play(lambda: found[0].file, seed, fake_simulation.document) for seed in seeds}


def test_a_cluster_whose_workers_run_another_version_is_refused(
    found: list[Variant], scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "sources", lambda: "others")
    with (
        DaskCluster(scheduler, [variant.bundle for variant in found], fake_simulation.FUNCTION) as cluster,
        pytest.raises(DaskClusterError, match="another version of fwpair-lab"),
    ):
        list(cluster.outcomes([(0, 1)]))


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 0.2)
    with pytest.raises(DaskClusterError, match="no scheduler answers"):
        DaskCluster("tcp://127.0.0.1:1", [])


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DaskClusterError, match=r"fwpair-lab\[dask\]"):
        DaskCluster("tcp://127.0.0.1:1", [])


def test_seeds_differ(here: Outcomes) -> None:
    answers = {outcome.workloads["database"]["answers"] for (variant, _), outcome in here.items() if variant == 0}
    assert len(answers) > 1


def test_the_variant_that_loses_least_is_the_one_that_is_synchronised(lab: Path, tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    arguments = ["sweep", str(lab), "--seeds", "2", "--vary", "members.fw2.release=R77.30,R80.10", "--json", str(path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == ExitCode.FAILED
    assert "members.fw2.release=R77.30 loses least: 0.0 sessions a run" in " ".join(result.output.split())
    document = json.loads(path.read_text())
    assert document["loses_least"] == {"members.fw2.release": "R77.30"}
    assert [variant["lost"]["least"] for variant in document["variants"]] == [0, 15]


def test_a_replay_is_the_run_that_failed(
    lab: Path, here: Outcomes, tmp_path: Path
) -> None:
    """With the command that a sweep gives, and with its whole timeline."""
    path = tmp_path / "run.json"
    arguments = ["run", str(lab), "--simulate", "--seed", "3", "--set", "members.fw2.release=R80.10"]
    result = CliRunner().invoke(app, [*arguments, "--json", str(path)])
    assert result.exit_code == ExitCode.FAILED
    document = json.loads(path.read_text())
    assert of_document(3, document) == here[1, 3]
    assert any("kill fw1" in entry["text"] for entry in document["timeline"])
