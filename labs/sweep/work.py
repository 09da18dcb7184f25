"""One seed of one variant, in whatever process, thread or machine: the same lab and seed give the same outcome."""

from __future__ import annotations

import hashlib
import importlib
import tempfile
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from labs.procedure.document import OWN_ERROR
from labs.procedure.model import LabFile, load
from labs.sweep.outcome import Outcome, of_document, of_error
from labs.sweep.variants import Bundle

Simulate = Callable[[LabFile, int], dict[str, Any]]
SIMULATE = "labs.simulation.run:simulate"
"""The function that plays a lab: its module and name, as a worker is told it."""
SOURCES = ("syncproto", "fwnode", "labs")
"""What an outcome depends on besides lab, seed and Python."""


def function(name: str) -> Simulate:
    """The function that `module:name` stands for."""
    module, _, attribute = name.partition(":")
    found: Simulate = getattr(importlib.import_module(module), attribute)
    return found


def play(read: Callable[[], LabFile], seed: int, simulate: Simulate) -> Outcome:
    """Whatever goes wrong in reading or running a lab is that seed's outcome; the others go on."""
    try:
        return of_document(seed, simulate(read(), seed))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return of_error(seed, f"{OWN_ERROR}: {type(error).__name__}: {error} "
                              f"({Path(where.filename).name}:{where.lineno})")  # fmt: skip


def play_bundle(bundle: Bundle, seed: int, simulate: str = SIMULATE) -> dict[str, Any]:
    """For a worker that has nothing but its arguments: the outcome, and which sources it came of."""
    with tempfile.TemporaryDirectory(prefix="fwlab-") as folder:  # a run reads its table of releases there
        outcome = play(lambda: load(bundle.lay_out(Path(folder))), seed, function(simulate))
    return {"outcome": outcome.as_json(), "sources": sources()}


@cache
def sources() -> str:
    """A digest of this program: workers whose digests differ may give different outcomes."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for package in SOURCES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in (".py", ".yaml"):
                digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
