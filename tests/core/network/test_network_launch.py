"""What a lab's first process is told reaches it, however much it is: nothing of it is on a command line."""

import gc
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labs.network import background, discovery, supervisor
from labs.network.errors import MachineError
from labs.network.members import MemberSettings
from labs.network.topology import load_topology


@pytest.fixture(autouse=True)
def _namespaces_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "needs_user_namespace", lambda: False)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def large_policy(rules: int) -> dict[str, Any]:
    return {"name": "large", "rules": [{"name": f"rule {n}", "source": "any", "action": "drop"} for n in range(rules)]}


@pytest.mark.parametrize("rules", [1, 1_000, 100_000])
def test_a_rule_base_is_not_on_the_command_line(rules: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, str] = {}

    def start(command: list[str], *, pass_fds: tuple[int, ...], **_: object) -> None:
        told["command"] = "\0".join(command)
        with os.fdopen(os.dup(pass_fds[2]), encoding="utf-8") as file:
            told["boot"] = file.read()
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(subprocess, "Popen", start)
    settings = {member: vars(MemberSettings(policy=large_policy(rules))) for member in ("fw1", "fw2")}
    arguments = {"topology": load_topology("pair").model_dump(mode="json"), "members": settings}
    gc.collect()  # files of earlier tests that would close by themselves meanwhile
    before = open_files()
    starting = background.start_detached(f"test-launch-{os.getpid()}", arguments)
    with pytest.raises(MachineError, match="unshare cannot be started: No such file or directory; install util-linux"):
        starting.__enter__()
    assert len(told["command"]) < 4_096
    assert told["boot"].count("rule ") == 2 * rules
    assert open_files() == before
    assert f"test-launch-{os.getpid()}" not in discovery.names()


def test_the_reason_why_nothing_starts_is_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> None:
        raise OSError(7, "Argument list too long")

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(MachineError) as error, background.start_detached(f"test-launch-{os.getpid()}", {}):
        pass
    assert str(error.value) == "unshare cannot be started: Argument list too long"
