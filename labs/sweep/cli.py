"""`fwlab sweep`: one simulated lab, many seeds."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from labs.exit_codes import ExitCode
from labs.network.errors import LabError
from labs.procedure import catalog
from labs.procedure.moments import SEED_MAX, SEEDS_MAX
from labs.report import terminal
from labs.results import Results
from labs.sweep import picture
from labs.sweep.collecting import collect, interruptible
from labs.sweep.dask_cluster import DaskCluster
from labs.sweep.local_workers import Workers
from labs.sweep.outcome import Outcome
from labs.sweep.summary import Summary, document
from labs.sweep.variants import Variant, read_varied, variants
from labs.words import counted

EPILOG = ("Exit codes: 0 every seed held, 1 a seed failed, 2 usage or file error (nothing was run), 3 warnings, 4 the "
          "cluster of --dask cannot run it, 70 an error of fwlab itself in a seed, 74 a result could not be written, "
          "130 interrupted (what was done is shown and written).")  # fmt: skip


def register(app: typer.Typer) -> None:
    app.command("sweep", epilog=EPILOG)(sweep)


def sweep(
    lab: Annotated[str, typer.Argument(metavar="LAB", help="A lab of the catalog, a lab file, or its folder.")],
    seeds: Annotated[str, typer.Option("--seeds", metavar="N", help="So many seeds, from 1 on; or A..B.")] = "100",
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="KEY=V1,V2", help="Values of a key of the lab file, such as "
                     "members.fw2.release=R80.10,R80.20, steps.6.wait=1s,10s or members=2,3; several give each "
                     "combination."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="The sweep's document; - is standard output.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option("--dask", metavar="ADDRESS", help="Run on this Dask cluster, such as tcp://host:8786.")
    ] = None,
) -> None:  # fmt: skip
    """Simulate a lab with many seeds; tell what becomes of the sessions, and which seeds fail."""
    wanted = read_seeds(seeds)
    varied = read_varied(vary or [])
    found = variants(catalog.find(lab), varied)
    results = Results(json_file)
    began = time.monotonic()
    outcomes: list[list[Outcome]] = [[] for _ in found]
    tasks = [(index, seed) for seed in wanted for index in range(len(found))]
    bundles = [variant.bundle for variant in found]
    with interruptible(), DaskCluster(dask, bundles) if dask else Workers(bundles) as workers:
        interrupted = collect(workers, tasks, outcomes, found[0].file.name)
        number = workers.number
    seconds = time.monotonic() - began
    summaries = [Summary(lab, variant, those) for variant, those in zip(found, outcomes, strict=True)]
    picture.show(summaries)
    took = {"seconds": round(seconds, 3), "workers": number, "on": dask or "this machine"}
    whole = document(found[0].file.name, found[0].file.header.title, wanted, varied, summaries,
                     interrupted=interrupted, took=took)  # fmt: skip
    results.write(json_file, json.dumps(whole) + "\n")
    code = exit_code(summaries, interrupted)
    _last_line(found, whole["runs"]["done"], summaries, seconds, number, interrupted)
    raise typer.Exit(results.code(code))


def read_seeds(text: str) -> range:
    """`1000` is 1 to 1000; `500..600` is these."""
    found = re.fullmatch(r"(?:([0-9]{1,13})\.\.)?([0-9]{1,13})", text.strip())
    seeds = range(int(found[1] or 1), int(found[2]) + 1) if found else range(0)
    if not 1 <= len(seeds) <= SEEDS_MAX or seeds[-1] > SEED_MAX:
        raise LabError(f"--seeds {text}: write how many, 1 to {SEEDS_MAX:,}, or the first and the last, such as 1..100")
    return seeds


def exit_code(summaries: Sequence[Summary], interrupted: bool) -> ExitCode:
    """That of all seeds together."""
    if interrupted:
        return ExitCode.INTERRUPTED
    for verdict, code in (("error", ExitCode.INTERNAL), ("fail", ExitCode.FAILED), ("warn", ExitCode.WARNINGS)):
        if any(summary.verdicts[verdict] for summary in summaries):
            return code
    return ExitCode.HELD


def _last_line(found: Sequence[Variant], done: int, summaries: Sequence[Summary], seconds: float, number: int,
               interrupted: bool) -> None:  # fmt: skip
    failed = sum(summary.failures for summary in summaries)
    runs = counted(done, "run")
    broken = any(summary.broken for summary in summaries)
    word = "INTERRUPTED" if interrupted else "FAIL" if failed else "WARN" if broken else "PASS"
    style = {"FAIL": "bold red", "PASS": "bold green"}.get(word, "bold yellow")
    of = f" of {len(found)} variants" if len(found) > 1 else ""
    terminal.console().print(Text(f"{word}: {found[0].file.name}, {runs}{of}, {failed:,} failed, {seconds:.1f} s on "
                                  f"{counted(number, 'worker')}", style=style))  # fmt: skip
