"""`fwlab up` and `fwlab down` while a lab is starting: a lab that was not told to stay ends with its starter."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from network_ground import fwlab, unique_name, up, wait_until

from labs.exit_codes import ExitCode
from labs.network import discovery
from labs.python import python_command

SLOW = "#!/bin/sh\nexec sleep 1000\n"
"""A member that is never ready."""


class Starting:
    """`fwlab up` under way."""

    def __init__(self, folder: Path) -> None:
        member = folder / "member"
        member.write_text(SLOW)
        member.chmod(0o755)
        self.name = unique_name()
        line = python_command("labs.cli", "up", "--name", self.name, "--member-command", str(member))
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env={**os.environ, "FWLAB_TEST": self.name})

    def processes(self) -> list[int]:
        """All that the command has started, however deep."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"FWLAB_TEST={self.name}\0".encode() in (path / "environ").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def has_members(self) -> bool:
        lab = discovery.find(self.name)
        return lab is not None and lab.run_path("fw2.log").exists()


MOMENTS: dict[str, Callable[[Starting], bool]] = {
    "as soon as it has its name": lambda starting: starting.name in discovery.names(),
    "when its first process listens": lambda starting: discovery.find(starting.name) is not None,
    "when its members start": Starting.has_members,
}


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Starting]:
    made = Starting(tmp_path)
    yield made
    made.process.kill()
    made.process.communicate()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL])
def test_a_starting_lab_ends_with_its_starter(starting, number, moment):
    wait_until(lambda: MOMENTS[moment](starting), moment)
    starting.process.send_signal(number)
    _, said = starting.process.communicate(timeout=240)
    assert starting.process.returncode == (-number if number in (signal.SIGKILL, signal.SIGQUIT) else 130)
    assert "Traceback" not in said
    wait_until(lambda: starting.processes() == [], "every process of the lab has ended")
    wait_until(lambda: starting.name not in discovery.names(), "the name is free")


def test_a_signal_that_is_ignored_ends_nothing():
    """As behind nohup: the lab comes up, and stays."""
    name = unique_name()
    up(name, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert fwlab("down", name).stdout == f"{name}: down\n"


@pytest.mark.parametrize("moment", MOMENTS)
def test_down_of_a_lab_that_is_starting(starting, moment):
    wait_until(lambda: MOMENTS[moment](starting), moment)
    assert fwlab("down", starting.name).stdout == f"{starting.name}: down\n"
    _, said = starting.process.communicate(timeout=240)
    assert said.strip() == f"fwlab: lab '{starting.name}' was ended while it was starting"
    assert starting.process.returncode == ExitCode.INTERRUPTED
    wait_until(lambda: starting.processes() == [], "every process of the lab has ended")


def test_a_starting_lab_that_is_killed_is_told(starting):
    wait_until(starting.has_members, "it is starting")
    lab = discovery.find(starting.name)
    assert lab is not None
    os.kill(lab.pid, signal.SIGKILL)
    _, said = starting.process.communicate(timeout=240)
    assert said.strip() == f"fwlab: lab '{starting.name}' was ended while it was starting"
