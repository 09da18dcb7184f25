"""`fwlab chaos`: labs made from seeds, which only the invariants judge."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from labs.chaos.hunting import NAME, PLAY, as_file, broken, example, shrink
from labs.chaos.making import make_lab
from labs.exit_codes import ExitCode
from labs.procedure.moments import SEEDS_MAX
from labs.report import terminal
from labs.results import Results
from labs.sweep.collecting import collect, interruptible
from labs.sweep.local_workers import Workers
from labs.sweep.outcome import Outcome
from labs.sweep.picture import named_seeds
from labs.words import counted

EPILOG = ("Exit codes: 0 no invariant was broken, 1 one was, 2 usage error (nothing was run), 70 an error of fwlab "
          "itself in a seed, 74 a result could not be written, 130 interrupted (what was done is shown and written).")


def register(app: typer.Typer) -> None:
    app.command("chaos", epilog=EPILOG)(chaos)


@dataclass(frozen=True)
class Found:
    """One invariant that was broken: the seeds, and the shrunk lab of the first of them."""

    invariant: str
    seeds: list[int]
    breaks: Mapping[str, Any]
    file: Path
    steps: int
    tries: int

    @property
    def replay(self) -> str:
        return f"fwlab run {self.file} --simulate --seed {self.seeds[0]}"

    def as_json(self) -> dict[str, Any]:
        return {"invariant": self.invariant, "seeds": self.seeds, "breaks": dict(self.breaks), "file": str(self.file),
                "steps": self.steps, "tries": self.tries, "replay": self.replay}  # fmt: skip


def chaos(
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, max=SEEDS_MAX, help="So many seeds.")] = 300,
    first: Annotated[int, typer.Option("--from", metavar="SEED", min=0, help="The first of them.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="What was found; - is standard output.")
    ] = None,
) -> None:
    """Simulate procedures and faults that are made from seeds, and say which invariants they break.

    For each invariant that is broken the first lab that breaks it is shrunk, and written to
    chaos-SEED-INVARIANT.yaml in the current directory.
    """
    results = Results(json_file)
    began = time.monotonic()
    outcomes: list[list[Outcome]] = [[]]
    with interruptible(), Workers([example()], simulate=PLAY) as workers:
        number = workers.number
        interrupted = collect(workers, [(0, seed) for seed in range(first, first + seeds)], outcomes, NAME)
        done = sorted(outcomes[0], key=lambda outcome: outcome.seed)
        hunted_s = time.monotonic() - began
        found: list[Found] = []
        try:
            for each in [] if interrupted else _shrunk(done, results):
                found.append(each)
                _show(each)
        except KeyboardInterrupt:
            interrupted = True
    errors = [outcome for outcome in done if outcome.verdict == "error"]
    for outcome in errors:
        terminal.console().print(Text(f"seed {outcome.seed}: {'; '.join(outcome.failed.values())}", style="red"))
    document = {
        "format": 1, "world": "simulated", "seeds": {"first": first, "last": first + seeds - 1}, "done": len(done),
        "interrupted": interrupted, "broken": [_broken(outcome) for outcome in done if outcome.verdict != "pass"],
        "found": [each.as_json() for each in found],
        "took": {"seconds": round(hunted_s, 3), "workers": number},
    }  # fmt: skip
    results.write(json_file, json.dumps(document) + "\n")
    _last_line(done, hunted_s, number, interrupted)
    failed = any(outcome.verdict == "fail" for outcome in done)
    code = (ExitCode.INTERRUPTED if interrupted else ExitCode.INTERNAL if errors
            else ExitCode.FAILED if failed else ExitCode.HELD)  # fmt: skip
    raise typer.Exit(results.code(code))


def _shrunk(done: Sequence[Outcome], results: Results) -> Iterator[Found]:
    """Each invariant that was broken, with the first seed's lab made small."""
    seeds: dict[str, list[int]] = {}
    for outcome in done:
        for invariant in outcome.failed if outcome.verdict == "fail" else ():
            seeds.setdefault(invariant, []).append(outcome.seed)
    for invariant, those in seeds.items():
        lab, tries = shrink(those[0], invariant)
        breaks = next(each for each in broken(lab, those[0]) if each["invariant"] == invariant)
        path = Path(f"{NAME}-{those[0]}-{invariant}.yaml")
        results.write(path, as_file(lab, those[0], breaks, path.name))
        yield Found(invariant, those, breaks, path, len(lab["steps"]), tries)


def _show(found: Found) -> None:
    out = terminal.console()
    first = found.seeds[0]
    out.print(Text.assemble((f"{found.invariant} BROKEN  ", "bold red"), found.breaks["sentence"]))
    out.print(Text(f"  {named_seeds(found.seeds)}"))
    out.print(Text(f"  {found.breaks['text']} (seed {first}, after {found.breaks['at']:g} s)", style="dim"))
    before = len(make_lab(first)["steps"])
    out.print(Text(f"  shrunk from {before} to {found.steps} steps in {found.tries} runs; to see it whole:"))
    out.print(Text(f"  {found.replay}", style="bold"), soft_wrap=True)


def _broken(outcome: Outcome) -> dict[str, Any]:
    return {"seed": outcome.seed, "verdict": outcome.verdict, "broken": outcome.failed}


def _last_line(done: Sequence[Outcome], seconds: float, number: int, interrupted: bool) -> None:
    failed = sum(outcome.verdict != "pass" for outcome in done)
    word = "INTERRUPTED" if interrupted else "FAIL" if failed else "PASS"
    style = {"INTERRUPTED": "bold yellow", "FAIL": "bold red", "PASS": "bold green"}[word]
    broke = f"{failed:,} broke an invariant" if failed else "no invariant broken"
    line = f"{word}: {NAME}, {len(done):,} seeds, {broke}, {seconds:.1f} s on {counted(number, 'worker')}"
    terminal.console().print(Text(line, style=style))
