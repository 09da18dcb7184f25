"""What a sweep says of its seeds: distributions, what failed, the worst, the variant that loses least, the picture."""

import io
import json
import random
from dataclasses import replace
from pathlib import Path

import fake_simulation
import pytest
from rich.console import Console
from sweep_labs import write_lab

from fwnode.files import FileError
from labs.exit_codes import ExitCode
from labs.procedure.document import OWN_ERROR
from labs.procedure.verbs import VERBS
from labs.sweep import picture
from labs.sweep.cli import exit_code, read_seeds
from labs.sweep.outcome import Outcome, of_document
from labs.sweep.summary import Distribution, Summary, document, ranked
from labs.sweep.variants import Variant, read_varied, variants
from labs.sweep.work import play

SEEDS = range(1, 31)


def played(variant: Variant, seeds: range = SEEDS) -> Summary:
    return Summary("lab", variant, [play(lambda: variant.file, seed, safe) for seed in seeds])


def safe(file: object, seed: int) -> dict[str, object]:
    """Without the seeds that would end this process."""
    if seed == fake_simulation.RAISES:
        raise RuntimeError("a slip of the program")
    return fake_simulation.document(file, seed)  # type: ignore[arg-type]


@pytest.fixture
def varied(tmp_path: Path) -> list[Variant]:
    given = read_varied(["members.fw2.release=R77.30,R80.10", "steps.3.wait=1s,2s"])
    return variants(write_lab(tmp_path), given)


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    (variant,) = variants(write_lab(tmp_path), {})
    return played(variant)


def shown(summaries: list[Summary]) -> str:
    out = io.StringIO()
    picture.show(summaries, Console(file=out, width=120, highlight=False, markup=False))
    return out.getvalue()


def test_a_distribution() -> None:
    assert Distribution.of([3, 1, 2, 10]) == Distribution(1, 2.5, 10, 4)
    assert Distribution.of([]) == Distribution(0, 0, 0, 0)


def test_what_failed_is_told_with_its_seeds(summary: Summary) -> None:
    failed = summary.what_failed()
    lost = {outcome.seed for outcome in summary.outcomes if outcome.lost}
    assert {seed for seed, _ in failed["every session goes on"]} == lost
    assert failed["every session goes on"][0][1].startswith("workloads.database.survived is ")
    assert [seed for seed, _ in failed["steps[6].until"]] == [fake_simulation.BREAKS_OFF]
    (error,) = [what for what in failed if what.startswith("an error of fwlab itself")]
    assert failed[error][0][0] == fake_simulation.RAISES
    assert "RuntimeError: a slip of the program" in error


def test_a_mistake_of_the_program_within_a_run_is_no_failed_expectation(tmp_path: Path) -> None:
    (variant,) = variants(write_lab(tmp_path), {})
    run = fake_simulation.document(variant.file, 1)
    outcome = of_document(1, {**run, "problem": f"{OWN_ERROR}: KeyError: 'fw3'", "verdict": "fail"})
    assert outcome.verdict == "error"
    assert f"{OWN_ERROR}: KeyError: 'fw3'" in outcome.failed


def test_a_warning_is_told_as_one(tmp_path: Path) -> None:
    expect = [{"that": "workloads.database.hung", "is": 0, "says": "nobody waits", "warn": True}]
    (variant,) = variants(write_lab(tmp_path, expect=expect), {})
    summary = played(variant, range(1, 10))
    assert summary.verdicts["warn"] == len(summary.what_failed()["nobody waits"]) > 0
    assert "warning  nobody waits" in shown([summary])
    assert "FAILED" not in shown([summary])


def test_the_worst_seed_and_the_command_that_replays_it(summary: Summary) -> None:
    worst = summary.worst
    assert worst is not None and worst.seed == 3 and worst.lost == 6
    assert summary.replay(3) == "fwlab run lab --simulate --seed 3"
    assert "fwlab run lab --simulate --seed 3\n" in shown([summary])


def test_a_variant_is_replayed_with_its_settings(varied: list[Variant]) -> None:
    assert played(varied[3], range(1, 2)).replay(1) == (
        "fwlab run lab --simulate --seed 1 --set members.fw2.release=R80.10 --set steps.3.wait=2s"
    )


def test_the_variants_are_the_product_and_the_one_that_loses_least_is_named(varied: list[Variant]) -> None:
    assert [tuple(variant.settings.values()) for variant in varied] == [
        ("R77.30", "1s"), ("R77.30", "2s"), ("R80.10", "1s"), ("R80.10", "2s")]  # fmt: skip
    summaries = [played(variant) for variant in varied]
    assert ranked(summaries)[0].settings["members.fw2.release"] == "R77.30"
    text = shown(summaries)
    assert "members.fw2.release=R77.30, steps.3.wait=1s" in text and "lose least" in text
    whole = document("lab", "a lab", SEEDS, {"a": [1]}, summaries, interrupted=False, took={})
    assert whole["loses_least"]["members.fw2.release"] == "R77.30"


def test_the_document_does_not_depend_on_the_order_in_which_outcomes_came(summary: Summary, tmp_path: Path) -> None:
    (variant,) = variants(write_lab(tmp_path), {})
    mixed = random.Random(1).sample(summary.outcomes, len(summary.outcomes))
    first, second = (document("lab", "a lab", SEEDS, {}, [s], interrupted=False, took={})
                     for s in (summary, Summary("lab", variant, mixed)))  # fmt: skip
    assert json.dumps(first) == json.dumps(second)


def test_the_document_has_every_seed(summary: Summary) -> None:
    whole = document("lab", "a lab", SEEDS, {}, [summary], interrupted=False, took={"seconds": 1.0})
    (variant,) = whole["variants"]
    runs = variant["runs"]
    assert runs["seeds"] == list(SEEDS)
    assert len(runs["verdicts"]) == len(runs["lost"]) == len(runs["workloads"]["push"]["hung"]) == len(SEEDS)
    assert runs["workloads"]["push"]["hung"][fake_simulation.RAISES - 1] is None  # it has no figures
    assert variant["workloads"]["database"]["figures"]["survived"]["most"] == 10
    assert sum(variant["verdicts"].values()) == len(SEEDS)
    assert variant["worst"]["replay"] == "fwlab run lab --simulate --seed 3"
    assert json.loads(json.dumps(whole)) == whole


def test_the_picture(summary: Summary) -> None:
    text = shown([summary])
    assert "What became of the sessions, over 29 seeds" in text
    assert "least   median   most   mean" in text
    assert "Sessions of database lost, and in how many seeds" in text
    assert "█" in text
    assert "The slowest answer" in text


def test_a_picture_counts_every_value_once() -> None:
    chance = random.Random(2)
    for number in (1, 2, 50):
        fractions = [chance.uniform(0, 5) for _ in range(number)]
        for values in (fractions, [float(chance.randrange(9)) for _ in range(number)], [2.5] * number):
            assert sum(each.number for each in picture.bins(values)) == number


def test_seeds() -> None:
    assert read_seeds("3") == range(1, 4)
    assert read_seeds("5..6") == range(5, 7)
    for wrong in ("0", "-1", "x", "6..5", "", "1..", "99999999"):
        with pytest.raises(Exception, match="--seeds"):
            read_seeds(wrong)


def test_bad_keys_are_all_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(FileError) as refused:
        variants(write_lab(tmp_path), read_varied(["members.fw2.relase=R1,R2,R3", "steps.3.wit=1s,2s"]))
    assert len(refused.value.problems) == 2
    with pytest.raises(FileError, match="is varied twice"):
        read_varied(["a=1", "a=2"])
    with pytest.raises(FileError, match="1,000 variants"):
        read_varied([f"{key}=1,2,3,4,5,6,7,8,9,10" for key in "abc"])


def test_a_lab_that_cannot_be_simulated_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VERBS, "up", replace(VERBS["up"], lacks={"simulated": "nobody there is up"}))
    with pytest.raises(FileError, match=r"steps\[4\]\.up: does not work in a simulated world: nobody there is up"):
        variants(write_lab(tmp_path), {})


@pytest.mark.parametrize(
    ("verdicts", "interrupted", "code"),
    [
        (["pass"], False, ExitCode.HELD), (["pass", "warn"], False, ExitCode.WARNINGS),
        (["warn", "fail"], False, ExitCode.FAILED), (["fail", "error"], False, ExitCode.INTERNAL),
        (["fail"], True, ExitCode.INTERRUPTED),
    ],
)  # fmt: skip
def test_exit_codes(verdicts: list[str], interrupted: bool, code: ExitCode, tmp_path: Path) -> None:
    (variant,) = variants(write_lab(tmp_path), {})
    outcomes = [Outcome(seed, verdict, {}, {}) for seed, verdict in enumerate(verdicts)]
    assert exit_code([Summary("lab", variant, outcomes)], interrupted) == code
