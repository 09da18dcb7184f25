"""Small lab files for the tests of sweeps."""

import json
from pathlib import Path
from typing import Any

LAB: dict[str, Any] = {
    "title": "a lab",
    "shows": "something",
    "members": {"fw1": {"release": "R77.30"}, "fw2": {"release": "R77.30"}},
    "policy": {"name": "p", "rules": [{"name": "all", "action": "accept"}]},
    "workloads": {"database": {"kind": "sessions", "port": 1521, "count": 10},
                  "push": {"kind": "sessions", "port": 5222, "count": 5}},
    "steps": [
        {"start": ["fw1", "fw2"]}, {"open": ["database", "push"]}, {"failover": "fw1"}, {"wait": "4s"}, {"up": "fw1"},
        {"wait": "1s"}, {"until": {"that": "members.fw2.connections", "is": 300, "within": "10s"}},
    ],
    "expect": [{"that": "workloads.database.survived", "is": 10, "says": "every session goes on"}],
}  # fmt: skip


def write_lab(folder: Path, **more: Any) -> Path:
    path = folder / "lab.yaml"
    path.write_text(json.dumps({**LAB, **more}))  # JSON is YAML, and has no aliases
    return path
