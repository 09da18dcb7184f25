"""A benchmark's part inside the private namespaces; called by the supervisor as `main(argv, lab_name)`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict

from labs.bench import forward
from labs.exit_codes import ExitCode
from labs.network.errors import LabError


def main(argv: list[str], lab_name: str) -> int:
    rounds, seconds, result = int(argv[0]), float(argv[1]), int(argv[2])
    try:
        rows = asyncio.run(forward.measure(rounds, seconds, lambda text: print(f"  {text}", flush=True)))
    except LabError as error:
        print(f"fwlab bench: {error}", file=sys.stderr)
        return error.exit_code
    with os.fdopen(result, "w", encoding="utf-8") as file:
        json.dump([asdict(row) for row in rows], file)
    return ExitCode.HELD
