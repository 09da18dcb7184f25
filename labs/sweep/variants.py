"""The variants of a lab that a sweep runs: the product of what is varied, each checked before anything runs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from fwnode.files import FileError, load_yaml
from labs.procedure import worlds
from labs.procedure.catalog import FILE
from labs.procedure.model import LabFile, Reading
from labs.procedure.problems import LabFileError
from labs.procedure.settings import KeyProblem, Settings, alter, enclose, parse, written

VARIANTS_MAX = 500
"""Variants of one sweep. Lab's own: more lines than anybody reads."""
RELEASES = "releases.yaml"
AS_WRITTEN = "as written"


@dataclass(frozen=True)
class Bundle:
    """A lab as files that need no others, so that it runs on any machine."""

    name: str
    files: dict[str, str]

    def lay_out(self, folder: Path) -> Path:
        """Write it beneath the folder; the path of the lab file. The folder that it lies in gives a lab its name."""
        home = folder / self.name
        home.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (home / name).write_text(text, encoding="utf-8")
        return home / FILE


@dataclass(frozen=True)
class Variant:
    """One combination of the varied values, and the lab file that it gives."""

    settings: dict[str, Any]
    file: LabFile
    bundle: Bundle

    @property
    def label(self) -> str:
        return ", ".join(written(self.settings)) or AS_WRITTEN


def read_varied(given: Iterable[str]) -> dict[str, list[Any]]:
    """`key=v1,v2` as often as wanted: key -> values. FileError tells everything that is wrong."""
    varied: dict[str, list[Any]] = {}
    problems = []
    for text in given:
        try:
            key, values = parse(text)
        except KeyProblem as problem:
            problems.append(str(problem))
            continue
        if key in varied:
            problems.append(f"{key}: is varied twice; give all its values at once, with commas")
        varied[key] = values
    number = prod(map(len, varied.values()))
    if number > VARIANTS_MAX:
        problems.append(f"these are {number:,} variants; vary less, {VARIANTS_MAX} at most")
    if problems:
        raise FileError([f"--vary {problem}" for problem in problems])
    return varied


def product(varied: dict[str, list[Any]]) -> Iterator[Settings]:
    for values in itertools.product(*varied.values()):
        yield dict(zip(varied, values, strict=True))


def variants(path: Path, varied: dict[str, list[Any]]) -> list[Variant]:
    """All of them. FileError tells what is wrong with any of them; a problem that many have is told once."""
    data = load_yaml(path)
    found: list[Variant] = []
    problems: dict[str, None] = {}
    for settings in product(varied):
        try:
            changed = alter(data, path, settings)
            file = Reading(path).lab(changed)
            if lacking := worlds.lacking(file, "simulated"):
                raise LabFileError(str(path), lacking)
            found.append(Variant(dict(settings), file, bundle(changed, file)))
        except LabFileError as error:
            problems.update(dict.fromkeys(error.problems))
    if problems:
        raise FileError(list(problems))
    return found


def bundle(data: dict[str, Any], file: LabFile) -> Bundle:
    """What a checked lab needs to run elsewhere."""
    folder = file.path.parent
    data = enclose(data, folder)
    files: dict[str, str] = {}
    if file.header.releases:
        files[RELEASES] = (folder / file.header.releases).read_text(encoding="utf-8")
        data["releases"] = RELEASES
    return Bundle(file.name, {**files, FILE: json.dumps(data)})
