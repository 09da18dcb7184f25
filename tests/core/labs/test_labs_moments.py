"""Steps that wait for a moment of a span, drawn from the run's seed."""

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_world import RATE, World, lab_file
from typer.testing import CliRunner

from fwnode.files import FileError
from labs.exit_codes import ExitCode
from labs.fwlab import app
from labs.procedure import cli, runner
from labs.procedure.moments import moment, moment_words

SPAN = {"kill": "fw1", "after": "10s..20s"}
START: dict[str, Any] = {"start": ["fw1", "fw2"]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "EVENTS_SETTLE_S", 0.001)
    monkeypatch.setattr(runner, "TAKEOVER_WAIT_S", 0.02)


@given(st.integers(0, 10**12), st.integers(0, 1000), st.floats(0, 10**6), st.floats(0, 10**6))
def test_a_moment_lies_in_its_span_and_is_the_same_for_the_same_seed(
    seed: int, index: int, low: float, width: float
) -> None:
    drawn = moment((low, low + width), seed, index)
    assert low <= drawn <= low + width
    assert moment((low, low + width), seed, index) == drawn


def test_moments_are_spread_over_the_span_and_differ_from_step_to_step() -> None:
    drawn = [moment((0, 10), seed, 3) for seed in range(1000)]
    for tenth in range(10):
        assert 60 < sum(tenth <= at < tenth + 1 for at in drawn) < 140
    assert drawn != [moment((0, 10), seed, 4) for seed in range(1000)]


def test_a_moment_does_not_depend_on_the_python_that_draws_it() -> None:
    assert moment((10, 20), 1, 2) == pytest.approx(12.2145, abs=1e-3)


def test_the_words_say_what_was_drawn() -> None:
    assert moment_words((10, 20), 13.2) == "after 13s (10s..20s): "
    assert moment_words((10, 10), 10) == "after 10s: "
    assert moment_words((0, 0), 0) == ""


def run_with(folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch, *steps: Any) -> tuple[World, dict[str, Any]]:
    """A run in which waiting costs nothing and is written down, in lab time."""
    world = World(folder, [START, *steps])
    world.runner.seed = seed
    slept, sleep = [], asyncio.sleep

    async def note(duration_s: float) -> None:
        slept.append(duration_s * RATE)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    document = world.run()
    document["slept"] = slept
    return world, document


def test_a_step_waits_for_its_moment_and_the_timeline_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, document = run_with(tmp_path, 7, monkeypatch, {**SPAN, "note": "Now without a word."})
    drawn = moment((10, 20), 7, 1)
    assert any(slept == pytest.approx(drawn) for slept in document["slept"])
    assert document["seed"] == 7
    (text,) = [text for text in world.texts("step") if "kill" in text]
    assert text == f"{moment_words((10, 20), drawn)}kill fw1"


def test_the_same_seed_gives_the_same_moments_and_another_one_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again, other = (run_with(tmp_path, seed, monkeypatch, SPAN)[0].texts("step") for seed in (7, 7, 8))
    assert first == again != other


def test_a_fixed_time_before_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, document = run_with(tmp_path, 1, monkeypatch, {"kill": "fw1", "after": "90s"})
    assert any(slept == pytest.approx(90) for slept in document["slept"])
    assert "after 1m 30s: kill fw1" in world.texts("step")


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("20s..10s", r"steps\[1\].after: '20s..10s' ends before it begins"),
        (20, r"steps\[1\].after: 20 has no unit"),
        ("10..20s", r"steps\[1\].after: '10' is no duration"),
        (None, r"steps\[1\].after: nothing is no duration"),
    ],
)
def test_what_is_no_span_is_refused(after: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(FileError) as refused:
        lab_file(tmp_path, [START, {"kill": "fw1", "after": after}])
    assert re.search(said, str(refused.value))


@pytest.mark.parametrize("given_seed", [None, 5])
def test_a_run_on_real_packets_is_told_its_seed_and_its_settings(
    given_seed: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def run_for_result(name: str, entry: str, argv: list[str]) -> tuple[int, str]:
        told.append(argv)
        return int(ExitCode.INTERRUPTED), ""

    monkeypatch.setattr(cli, "run_for_result", run_for_result)
    path = lab_file(tmp_path, [START, SPAN]).path
    arguments = ["run", str(path), "--set", "members.fw2.release=R80.10"]
    arguments += [] if given_seed is None else ["--seed", str(given_seed)]
    assert CliRunner().invoke(app, arguments).exit_code == ExitCode.INTERRUPTED
    asked = json.loads(told[0][3])
    assert asked["settings"] == {"members.fw2.release": "R80.10"}
    assert asked["seed"] == given_seed if given_seed is not None else 0 <= asked["seed"] < cli.SEED_DRAWN_MAX


@pytest.mark.parametrize("setting", ["members.fw2.relase=R80.10", "members.fw2.release=R80.10,R80.20", "nothing"])
def test_a_bad_setting_is_refused_before_a_run(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "run_for_result", None)
    result = CliRunner().invoke(app, ["run", "failover-synced", "--set", setting])
    assert result.exit_code == ExitCode.USAGE


def test_waiting_is_real(tmp_path: Path) -> None:
    """Nothing is replaced here: ten lab seconds are a hundredth of a second of the fake ground."""
    world = World(tmp_path, [START, {"kill": "fw1", "after": "10s"}])
    begin = time.monotonic()
    world.run()
    assert time.monotonic() - begin >= 10 / RATE
