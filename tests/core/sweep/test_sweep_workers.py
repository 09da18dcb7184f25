"""Workers: the same outcomes wherever they run, and one that dies loses nothing."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import fake_simulation
import pytest
from sweep_labs import write_lab

from labs.network.errors import LabError
from labs.sweep import cluster as cluster_room
from labs.sweep.cluster import Cluster, ClusterError
from labs.sweep.outcome import Outcome
from labs.sweep.variants import Variant, read_varied, variants
from labs.sweep.work import play
from labs.sweep.workers import Workers

Outcomes = dict[tuple[int, int], Outcome]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the processes that are started, too."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv(fake_simulation.MARK, str(tmp_path))


@pytest.fixture
def found(tmp_path: Path) -> list[Variant]:
    return variants(write_lab(tmp_path), read_varied(["members.fw2.release=R77.30,R80.10"]))


def tasks(found: list[Variant], seeds: range) -> list[tuple[int, int]]:
    return [(variant, seed) for seed in seeds for variant in range(len(found))]


def by_workers(
    found: list[Variant], seeds: range, simulate: str = fake_simulation.FUNCTION, number: int = 2
) -> Outcomes:
    with Workers([variant.bundle for variant in found], number, simulate) as workers:
        return {(variant, outcome.seed): outcome for variant, outcome in workers.outcomes(tasks(found, seeds))}


def here(found: list[Variant], seeds: range) -> Outcomes:
    return {(variant, seed): play(found[variant].file, seed, fake_simulation.document)
            for variant, seed in tasks(found, seeds)}  # fmt: skip


def test_the_same_seeds_give_the_same_outcomes_on_every_processor(found: list[Variant]) -> None:
    assert by_workers(found, range(1, 12)) == here(found, range(1, 12))


def test_a_worker_that_dies_loses_nothing(found: list[Variant]) -> None:
    del found[1:]
    seeds = range(12, 20)
    there = by_workers(found, seeds)
    killed, raised = (there.pop((0, seed)) for seed in (fake_simulation.KILLS_ALWAYS, fake_simulation.RAISES))
    assert killed.verdict == raised.verdict == "error"
    assert list(killed.failed) == ["its worker died 2 times: by SIGKILL"]
    expected = here(found, seeds)
    assert there == {(0, seed): expected[0, seed] for seed in (12, 14, 15, 16, fake_simulation.KILLS_ONCE, 18)}


def test_workers_that_do_not_start_end_the_sweep(found: list[Variant]) -> None:
    with pytest.raises(LabError, match="did not start"):
        by_workers(found, range(1, 3), "no_such_module:simulate", 1)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_shows_and_writes_what_is_done(how: signal.Signals, tmp_path: Path) -> None:
    program = ("from labs.sweep import cli, workers; from labs.fwlab import app, run; cli.register(app)\n"
               f"workers.Workers.__init__.__defaults__ = (1, {fake_simulation.SLOW!r})\n"
               "run()")  # fmt: skip
    path = tmp_path / "sweep.json"
    sweep = subprocess.Popen(
        [sys.executable, "-P", "-c", program, "sweep", str(write_lab(tmp_path)), "--seeds", "9", "--json", str(path)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "FORCE_COLOR": ""},
    )  # fmt: skip
    assert sweep.stdout is not None
    sleeping = tmp_path / "sleeping"
    while not sleeping.exists():
        assert sweep.poll() is None
        time.sleep(0.01)
    worker = int(sleeping.read_text())
    sweep.send_signal(how)
    text, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert "INTERRUPTED" in text and "4 runs" in text
    document = json.loads(path.read_text())
    assert document["interrupted"] is True
    assert document["runs"] == {"wanted": 9, "done": 4}
    assert not Path(f"/proc/{worker}").exists()


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a cluster with two worker processes."""
    distributed = pytest.importorskip("distributed")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setenv(fake_simulation.MARK, folder)
        with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            yield cluster.scheduler_address


def test_a_cluster_gives_the_same_outcomes(found: list[Variant], scheduler: str) -> None:
    seeds = range(14, 21)
    with Cluster(scheduler, [variant.bundle for variant in found], fake_simulation.FUNCTION) as cluster:
        there = {(variant, outcome.seed): outcome for variant, outcome in cluster.outcomes(tasks(found, seeds))}
    raised = [there.pop((variant, fake_simulation.RAISES)) for variant in (0, 1)]
    assert {outcome.verdict for outcome in raised} == {"error"}
    expected = here(found, seeds)
    assert there == {task: outcome for task, outcome in expected.items() if task[1] != fake_simulation.RAISES}


def test_a_cluster_whose_workers_run_another_version_is_refused(
    found: list[Variant], scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_room, "sources", lambda: "others")
    with (
        Cluster(scheduler, [variant.bundle for variant in found], fake_simulation.FUNCTION) as cluster,
        pytest.raises(ClusterError, match="another version of fwpair-lab"),
    ):
        list(cluster.outcomes(tasks(found, range(1, 3))))


def test_a_scheduler_that_is_not_there(found: list[Variant], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster_room, "CONNECT_S", 0.2)
    with pytest.raises(ClusterError, match="no scheduler answers"):
        Cluster("tcp://127.0.0.1:1", [])


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"fwpair-lab\[dask\]"):
        Cluster("tcp://127.0.0.1:1", [])
