"""Finds labs: those of the package by name, others by the path of a file or of a folder with a `lab.yaml`."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import yaml

from fwnode.explain import listed
from labs.procedure.problems import LabFileError

CATALOG = Path(__file__).parent.parent / "catalog"
FILE = "lab.yaml"
GUIDE = "guide.md"


def names() -> list[str]:
    """Names of the package's labs, sorted."""
    return sorted(folder.name for folder in CATALOG.iterdir() if (folder / FILE).is_file())


def find(lab: str) -> Path:
    """The file of a lab that was named on the command line."""
    if lab in names():
        return CATALOG / lab / FILE
    path = Path(lab)
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a folder on the way may not be read
        path /= FILE
    if os.path.lexists(path):
        return path
    near = difflib.get_close_matches(lab, names(), 1)
    hint = f"did you mean {near[0]}?" if near else f"the catalog has {listed(names())}"
    raise LabFileError(lab, [f"is neither a lab of the catalog nor a file; {hint}"])


def claims() -> dict[str, str]:
    """The claims that labs name: number -> what is claimed, in order (`labs/claims.yaml`)."""
    text = (Path(__file__).parents[1] / "claims.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))
