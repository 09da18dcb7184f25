"""`fwlab` from a directory whose files have the names of modules: what runs is what is installed."""

import json
import subprocess
from pathlib import Path

import pytest

from labs.python import python_command

MODULES = ("random", "socket", "json", "yaml", "asyncio", "msgpack", "labs/__init__", "fwnode/__init__",
           "syncproto/__init__")  # fmt: skip
LAB = {
    "title": "every kind of process once",
    "shows": "members, workloads and helpers",
    "members": {"fw1": {"release": "R77.30"}, "fw2": {"release": "R77.30"}},
    "policy": {"name": "open", "rules": [{"action": "accept"}]},
    "workloads": {
        "sessions": {"kind": "sessions", "port": 1521, "count": 1},
        "short": {"kind": "short", "port": 80, "rate": 10, "count": 1},
        "files": {"kind": "ftp", "size": "1kB"},
        "boot": {"kind": "tftp", "size": "1kB"},
        "echo": {"kind": "ping", "count": 1},
        "flood": {"kind": "flood", "port": 9000, "rate": 100, "count": 1},
    },
    "steps": [
        {"start": ["fw1", "fw2"]},
        {"until": {"that": "members.fw2.state", "is": "Standby", "within": "20s"}},
        {"delay": {"links": "fw2-lan", "by": "20ms"}},
        {"open": ["sessions", "short", "files", "boot", "echo", "flood"]},
        {"transfer": {"workloads": ["files", "boot"], "wait": True}},
    ],
}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A directory full of modules that must not be loaded."""
    for module in MODULES:
        file = tmp_path / f"{module}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise SystemExit('code of the current directory runs')\n")
    return tmp_path


def test_the_current_directory_does_not_shadow_the_code(elsewhere):
    lab, result = elsewhere / "lab.yaml", elsewhere / "result"
    lab.write_text(json.dumps(LAB))
    line = python_command("labs.cli", "run", str(lab), "--json", str(result))
    done = subprocess.run(line, capture_output=True, text=True, timeout=240, check=False, cwd=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(result.read_text())
    assert {name: figures["sessions"] for name, figures in document["workloads"].items()} == dict.fromkeys(
        LAB["workloads"], 1)


def test_doctor_tries_the_kernel_from_there_as_well(elsewhere):
    done = subprocess.run(python_command("labs.cli", "doctor", "--json"), capture_output=True, text=True, timeout=240,
                          check=False, cwd=elsewhere)
    assert [found for found in json.loads(done.stdout) if found["state"] == "missing"] == []
