"""Takes the outcomes of many runs as they come, and shows how far it is. Ctrl-C keeps what is done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from labs.sweep.dask_cluster import DaskCluster
from labs.sweep.local_workers import Task, Workers
from labs.sweep.outcome import Outcome


def collect(workers: Workers | DaskCluster, tasks: list[Task], outcomes: list[list[Outcome]], lab: str) -> bool:
    """Put the outcomes of `tasks` into `outcomes`, by variant. Returns whether Ctrl-C ended it early: then what is done
    is there."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    failed = 0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task(lab, total=len(tasks))
        try:
            for variant, outcome in workers.outcomes(tasks):
                outcomes[variant].append(outcome)
                failed += outcome.verdict in ("fail", "error")
                bar.update(line, advance=1, description=f"{lab}{f', {failed:,} failed' if failed else ''}")
        except KeyboardInterrupt:
            return True
    return False


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does. Where Ctrl-C is ignored, as behind nohup, it stays so."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
