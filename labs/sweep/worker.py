"""A worker process of a sweep: `python -m labs.sweep.worker FUNCTION FILE…`.

It reads lines `VARIANT SEED`, plays the lab of that number with that seed, and writes a line of JSON for each. It ends
with its input. Whatever else is printed goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache, partial
from pathlib import Path

from labs.procedure.model import load
from labs.sweep.work import function, play

READY = b"ready\n"


def main() -> None:
    simulate = function(sys.argv[1])
    paths = [Path(argument) for argument in sys.argv[2:]]
    lab = cache(lambda variant: load(paths[variant]))
    with os.fdopen(os.dup(1), "wb", buffering=0) as out:
        os.dup2(2, 1)
        out.write(READY)
        for line in sys.stdin:
            variant, seed = map(int, line.split())
            out.write(json.dumps(play(partial(lab, variant), seed, simulate).as_json()).encode() + b"\n")


if __name__ == "__main__":
    main()
