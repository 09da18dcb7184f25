"""Helpers for tests on the ground: run a scenario inside a lab of its own, or `fwlab` from the outside.

A machine that cannot run labs fails these tests with doctor's word on what is missing; nothing is skipped silently.
"""

import ast
import itertools
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import command

from labs.network import discovery, supervisor
from labs.network.lab import Lab
from labs.network.supervisor import load_function, run, run_in_lab
from labs.network.topology import load_topology

STAND_IN = [sys.executable, str(Path(__file__).with_name("network_member.py"))]
"""A member command that needs nothing of fwnode."""
_numbers = itertools.count(1)

Scenario = Callable[[Lab], Awaitable[None]]


def unique_name() -> str:
    """A lab name that no other test run on this machine uses."""
    return f"test-{os.getpid()}-{next(_numbers)}"


def inside(scenario: Scenario, topology: dict[str, Any] | None = None) -> None:
    """Build a lab with stand-in members and run `scenario` inside it; its assertions are the test's."""
    file = Path(scenario.__code__.co_filename)  # type: ignore[attr-defined]
    arguments = [scenario.__name__, repr(topology)]  # type: ignore[attr-defined]
    assert run_in_lab(unique_name(), f"{__file__}:inside_main", [str(file), *arguments]) == 0


def inside_main(argv: list[str], name: str) -> int:
    """The other end of `inside`: pid 2 of the lab."""
    sys.path.insert(0, str(Path(__file__).parent))
    scenario = load_function(f"{argv[0]}:{argv[1]}")
    topology = ast.literal_eval(argv[2])

    async def play() -> None:
        async with Lab(load_topology(topology or "pair"), name=name, member_command=STAND_IN) as lab:
            await scenario(lab)  # type: ignore[misc]

    run(play())
    return 0


async def ping(lab: Lab, node: str, address: str, wait_s: int = 1) -> bool:
    """Whether one echo request from `node` is answered."""
    process = await lab.spawn(node, ["ping", "-n", "-c", "1", "-W", str(wait_s), address],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return await process.wait() == 0


async def output(lab: Lab, node: str, *argv: str) -> str:
    """What a command in a node prints."""
    process = await lab.spawn(node, list(argv), stdout=subprocess.PIPE)
    return (await process.communicate())[0].decode()


def fwlab(*arguments: str, check: bool = True, **kw: Any) -> "subprocess.CompletedProcess[str]":
    """Run `fwlab` as a person would."""
    done = command("labs.cli", *arguments, **kw)
    if check:
        assert done.returncode == 0, f"fwlab {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}"
    return done


def up(name: str, *arguments: str, check: bool = True, **kw: Any) -> "subprocess.CompletedProcess[str]":
    """`fwlab up` with stand-in members."""
    return fwlab("up", "--name", name, "--member-command", shlex.join(STAND_IN), *arguments, check=check, **kw)


@contextmanager
def lab_is_up() -> Iterator[str]:
    """A lab with stand-in members, for a block of code; its name."""
    name = unique_name()
    up(name)
    yield name
    found = discovery.find(name)
    if found:
        supervisor.stop(found)


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Return as soon as the condition holds; fail with `what` where it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.01)


def users_of(pid: int) -> Callable[[], list[int]]:
    """A function that lists the processes that are in any namespace of process `pid`, or in one of its nodes'.

    A namespace lives while a process is in it or a mount of a living mount namespace holds it; so when nobody is left
    in these, the namespaces and the interfaces in them are gone.
    """
    mine = {link.readlink() for link in Path("/proc/self/ns").iterdir()}
    theirs = {link.readlink() for link in Path(f"/proc/{pid}/ns").iterdir()} - mine
    theirs |= {Path(f"net:[{path.stat().st_ino}]") for path in Path(f"/proc/{pid}/root/run/netns").iterdir()}

    def users() -> list[int]:
        found: list[int] = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                links = {link.readlink() for link in (process / "ns").iterdir()
                         if not link.name.endswith("_for_children")}
            except OSError:
                continue
            if links & theirs:
                found.append(int(process.name))
        return found

    return users
