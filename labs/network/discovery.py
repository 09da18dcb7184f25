"""Finding the labs that run on this machine, and entering them, from the outside.

A lab's name is an abstract unix socket that its first process listens on (`fwnode.control.running`). Everything else
lies on the lab's private /run, reached through /proc/PID/root. It must not know what happens inside a lab.
"""

import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fwnode.control import running as running_labs
from labs.network import file_systems
from labs.network.errors import LabError
from labs.network.members import RUN_DIRECTORY
from labs.network.namespaces import NETNS_DIRECTORY
from labs.words import did_you_mean

LISTEN_TIMEOUT_S = 10.0
"""Wall seconds in which a lab that has its name begins to listen: its first process loads, and tries the kernel."""
LISTEN_POLL_S = 0.02
SUPERVISOR_LOG = "supervisor.log"
"""Written by the supervisor of `fwlab up`, which has no terminal; a lab in the foreground has none."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


@dataclass(frozen=True)
class RunningLab:
    """A lab seen from the outside; `pid` is its first process, as this side numbers it."""

    name: str
    pid: int

    @property
    def root(self) -> Path:
        """The lab's file system."""
        return Path(f"/proc/{self.pid}/root")

    def run_path(self, file: str) -> Path:
        """A file of the lab's /run/fwpair."""
        return self.root / str(RUN_DIRECTORY).lstrip("/") / file

    @property
    def supervisor_socket(self) -> Path:
        """Where steps and questions go."""
        return self.run_path("supervisor.sock")

    def in_background(self) -> bool:
        """Whether `fwlab up` started it: nobody waits for it at a terminal."""
        return self.run_path(SUPERVISOR_LOG).exists()

    def own_user_namespace(self) -> bool:
        """Whether the lab has a user namespace of its own, which must be entered as well."""
        return Path(f"/proc/{self.pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()

    def enter(self, node: str | None, argv: list[str]) -> list[str]:
        """The command line that runs `argv` in a node, or where the switches are (node None), from the outside.

        The command joins the lab's pid namespace, so that it ends with the lab, and dies with the nsenter that waits
        for it, so that it ends with the terminal.
        """
        network = f"--net={self.root}{NETNS_DIRECTORY / node}" if node else "--net"
        files = f"--mount={file_systems.path_of(node, self.root)}" if node else "--mount"
        user = ["--user", "--preserve-credentials"] if self.own_user_namespace() else []
        return ["nsenter", f"--target={self.pid}", *user, files, "--pid", network, f"--wdns={self._directory()}", "--",
                "setpriv", "--pdeathsig", "TERM", "--", *argv]

    def _directory(self) -> str:
        """The caller's directory where the lab has it too (not below /run, which is the lab's own)."""
        with suppress(OSError):
            here = Path.cwd()
            if not here.is_relative_to("/run") and (self.root / str(here).lstrip("/")).is_dir():
                return str(here)
        return "/"


def check_name(name: str) -> str:
    """`name` where it may name a lab."""
    if not _NAME.fullmatch(name):
        raise LabError(f"{name!r} cannot name a lab: letters, digits, '.', '_' and '-', at most 40")
    return name


def claim(name: str) -> socket.socket | None:
    """Take the name for a new lab: the bound socket, or None where it is taken. The lab itself listens on it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind("\0" + running_labs.socket_name(check_name(name)))
    except OSError:
        sock.close()
        return None
    return sock


def names() -> list[str]:
    """Names of this user's labs, those that are still starting included."""
    return [name for name in running_labs.names() if _NAME.fullmatch(name)]


def find(name: str) -> RunningLab | None:
    """The lab of that name, or None where there is none (or it does not listen yet)."""
    pid = running_labs.first_process(name)
    return RunningLab(name, pid) if pid else None


def running() -> list[RunningLab]:
    """This user's labs that answer."""
    return [lab for name in names() if (lab := find(name)) is not None]


def choose(name: str | None) -> RunningLab:
    """The lab that is meant: the named one, or the only one."""
    if name is not None:
        lab = _await(check_name(name))
        if lab is None:
            raise LabError(f"no lab {name!r} is running{did_you_mean(name, names())}; {_running_text()}")
        return lab
    labs = running()
    if not labs:
        raise LabError("no lab is running; `fwlab up` starts one")
    if len(labs) > 1:
        raise LabError(f"several labs are running ({', '.join(lab.name for lab in labs)}): say which with --lab NAME")
    return labs[0]


def choose_to_end() -> RunningLab:
    """The lab that is meant by `down` without a name: the only one there is, and only if `fwlab up` started it."""
    found = {name: _await(name) for name in names()}
    if not found:
        raise LabError("no lab is running; `fwlab up` starts one")
    only = next(iter(found.values()))
    if len(found) == 1 and only is not None and only.in_background():
        return only
    told = ", ".join(f"{name} ({_origin(lab)})" for name, lab in found.items())
    raise LabError(f"say which lab shall end, with `fwlab down NAME`; running: {told}")


def _origin(lab: RunningLab | None) -> str:
    if lab is None:
        return "starting"
    return "started by fwlab up" if lab.in_background() else "in the foreground of another command"


def _await(name: str) -> RunningLab | None:
    """The lab of that name, once it listens; None where there is none."""
    deadline = time.monotonic() + LISTEN_TIMEOUT_S
    while (lab := find(name)) is None and name in names() and time.monotonic() < deadline:
        time.sleep(LISTEN_POLL_S)
    return lab


def _running_text() -> str:
    found = names()
    return f"running: {', '.join(found)}" if found else "none is; `fwlab up` starts one"
