"""A benchmark's part inside the private namespaces; called by the supervisor as `main(argv, lab_name)`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict

from labs.bench import forward, sync
from labs.bench.figures import Row
from labs.exit_codes import ExitCode
from labs.network.errors import LabError


def main(argv: list[str], lab_name: str) -> int:
    what, rounds, seconds, result = argv[0], int(argv[1]), float(argv[2]), int(argv[3])
    try:
        rows = asyncio.run(_measure(what, rounds, seconds))
    except LabError as error:
        print(f"fwlab bench: {error}", file=sys.stderr)
        return error.exit_code
    with os.fdopen(result, "w", encoding="utf-8") as file:
        json.dump([asdict(row) for row in rows], file)
    return ExitCode.HELD


async def _measure(what: str, rounds: int, seconds: float) -> list[Row]:
    if what == "sync":
        return await sync.measure(rounds, _say)
    return await forward.measure(rounds, seconds, _say)


def _say(text: str) -> None:
    print(f"  {text}", flush=True)
