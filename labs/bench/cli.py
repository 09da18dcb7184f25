"""`fwlab bench`: measured against peers, in one run."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from labs.bench.figures import COLUMNS, FIGURES, SIMULATED, Row, cells, document, peers
from labs.bench.this_machine import machine
from labs.exit_codes import ExitCode
from labs.network.errors import LabError
from labs.network.supervisor import run_for_result
from labs.results import Results


class What(StrEnum):
    FORWARD = "forward"
    CONNECTIONS = "connections"
    SYNC = "sync"
    FAILOVER = "failover"
    MEMORY = "memory"
    SIMULATION = "simulation"
    ALL = "all"


def register(app: typer.Typer) -> None:
    app.command("bench")(bench)


def bench(
    what: Annotated[What, typer.Argument(help="What to measure.")] = What.ALL,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Rounds; the median counts.")] = 5,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures; - is standard output.")
    ] = None,
) -> None:
    """Measure the firewall against its peers, in turn, in one run."""
    try:
        results = Results(json_file)
        code, text = run_for_result("bench", "labs.bench.measuring:main", [what, str(rounds)])
    except LabError as error:
        print(f"fwlab bench: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from error
    if not text:
        raise typer.Exit(code or ExitCode.INTERNAL)
    rows = [Row(**row) for row in json.loads(text)]
    if json_file is not None:
        results.write(json_file, json.dumps(document(machine(), rows), indent=2) + "\n")
    _show(rows)
    raise typer.Exit(results.code(code))


def _show(rows: list[Row]) -> None:
    console = Console()
    for title, those in (
        ("", [row for row in rows if row.figure in FIGURES]),
        ("on the sync network", [row for row in rows if row.figure not in FIGURES + SIMULATED]),
        ("in the simulated world", [row for row in rows if row.figure in SIMULATED]),
    ):
        if not those:
            continue
        table = Table(*COLUMNS, title=title or None, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0),
                      pad_edge=False)  # within 80 columns  # fmt: skip
        for row in those:
            table.add_row(*cells(row))
        console.print(table)
        for line in peers(those):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
