"""The readers of every file that an operator brings, for tests that ask the same of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fwnode.configuration import load as load_configuration
from fwnode.configuration import load_releases
from fwnode.files import FileError, load_yaml
from fwnode.policy_file import build_policy
from labs.network.topology import load_topology
from labs.procedure.model import load as load_lab

Reader = Callable[[Path], object]
MEMBERS = frozenset({"fw1", "fw2"})

READERS: dict[str, Reader] = {
    "lab": load_lab,
    "policy": lambda path: build_policy(load_yaml(path), str(path), MEMBERS),
    "topology": load_topology,
    "releases": lambda path: load_releases(str(path)),
    "configuration": load_configuration,
}
ALL = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)

GOOD: dict[str, Any] = {
    "title": "a lab",
    "shows": "something",
    "claims": ["A2"],
    "clock": {"rate": 10},
    "members": {"fw1": {"release": "R77.30"}, "fw2": {"release": "R77.30"}},
    "policy": {"name": "p", "rules": [{"name": "all", "action": "accept"}]},
    "workloads": {"database": {"kind": "sessions", "port": 1521, "count": 3}, "web": {"kind": "short", "port": 80}},
    "steps": [{"start": ["fw1", "fw2"]}, {"open": "database"}, {"wait": "10s"}],
    "expect": [{"that": "workloads.database.survived", "is": 3}],
}
"""A lab file in which nothing is wrong."""


def told(path: Path, text: str | bytes, reader: Reader) -> list[str]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileError) as error:
        reader(path)
    return str(error.value).splitlines()
