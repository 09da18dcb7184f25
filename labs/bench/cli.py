"""`fwlab bench`: measured against peers, in one run."""

from __future__ import annotations

import json
import os
import platform
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from labs.bench.figures import COLUMNS, Row, cells, document, peers
from labs.exit_codes import ExitCode
from labs.network.errors import LabError
from labs.network.supervisor import run_for_result


class What(StrEnum):
    FORWARD = "forward"
    CONNECTIONS = "connections"
    SYNC = "sync"
    FAILOVER = "failover"
    MEMORY = "memory"
    ALL = "all"


def register(app: typer.Typer) -> None:
    app.command("bench")(bench)


def bench(
    what: Annotated[What, typer.Argument(help="What to measure.")] = What.ALL,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Rounds; the median counts.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures.")] = None,
) -> None:
    """Measure the firewall against its peers, in turn, in one run."""
    if json_file is not None and not json_file.parent.is_dir():
        print(f"fwlab bench: {json_file}: there is no folder {json_file.parent}", file=sys.stderr)
        raise typer.Exit(ExitCode.USAGE)
    try:
        code, text = run_for_result("bench", "labs.bench.inside:main", [what, str(rounds)])
    except LabError as error:
        print(f"fwlab bench: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from error
    if code or not text:
        raise typer.Exit(code or ExitCode.FAILED)
    rows = [Row(**row) for row in json.loads(text)]
    _show(rows)
    if json_file is not None:
        json_file.write_text(json.dumps(document(_machine(), rows), indent=2) + "\n")


def _show(rows: list[Row]) -> None:
    table = Table(*COLUMNS, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)  # within 80 columns
    for row in rows:
        table.add_row(*cells(row))
    console = Console()
    console.print(table)
    for line in peers(rows):
        console.print(line, markup=False, highlight=False)


def _machine() -> dict[str, Any]:
    return {"kernel": platform.release(), "machine": platform.machine(), "cores": os.cpu_count() or 0,
            "python": platform.python_version()}  # fmt: skip
