"""Workers: the same outcomes wherever they run, and one that dies loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_simulation
import pytest
from harness import until
from sweep_labs import write_lab

from labs.network.errors import LabError
from labs.sweep.local_workers import Workers
from labs.sweep.outcome import Outcome
from labs.sweep.variants import Variant, read_varied, variants
from labs.sweep.work import play

pytestmark = pytest.mark.usefixtures("importable")
Outcomes = dict[tuple[int, int], Outcome]


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
    return {(variant, seed): play(lambda file=found[variant].file: file, seed, fake_simulation.document)
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
    with pytest.raises(LabError, match=r"did not start .*: ModuleNotFoundError: No module named 'no_such_module'"):
        by_workers(found, range(1, 3), "no_such_module:simulate", 1)


def slow_sweep(folder: Path, *arguments: str) -> tuple[subprocess.Popen[str], int]:
    """A sweep of nine seeds whose worker has done four and does no more, and the process of that worker."""
    program = ("from labs.sweep import local_workers; from labs.fwlab import run\n"
               f"local_workers.Workers.__init__.__defaults__ = (1, {fake_simulation.SLOW!r})\n"
               "run()")  # fmt: skip
    sweep = subprocess.Popen(
        [sys.executable, "-P", "-c", program, "sweep", str(write_lab(folder)), "--seeds", "9", *arguments],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "FORCE_COLOR": "", "TMPDIR": str(folder)},
    )  # fmt: skip
    sleeping = folder / "sleeping"
    while not sleeping.exists():
        assert sweep.poll() is None
        time.sleep(0.01)
    return sweep, int(sleeping.read_text())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_shows_and_writes_what_is_done(how: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    sweep, worker = slow_sweep(tmp_path, "--json", str(path))
    os.killpg(sweep.pid, how)  # as a terminal does
    text, _ = sweep.communicate(timeout=240)
    assert sweep.returncode == 130
    assert "INTERRUPTED" in text and "4 runs" in text
    document = json.loads(path.read_text())
    assert document["interrupted"] is True
    assert document["runs"] == {"wanted": 9, "done": 4}
    assert not Path(f"/proc/{worker}").exists()
    assert not list(tmp_path.glob("fwlab-*"))


def has_ended(process: int) -> bool:
    """Whether anybody has noticed yet, or not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


def test_a_sweep_that_is_killed_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    sweep, worker = slow_sweep(tmp_path)
    assert list(tmp_path.glob("fwlab-*"))
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.communicate(timeout=60)
    until(lambda: has_ended(worker), "its worker has ended")
    until(lambda: not list(tmp_path.glob("fwlab-*")), "its files are gone")
