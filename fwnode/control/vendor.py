"""The product's command names, for a member's own shell: `cphaprob state`, `fw tab -t connections -s`, `cpstop`.

Each is another spelling of a `fwctl` command for the member whose shell it is; the table is the whole translation.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fwnode.control.cli import run
from fwnode.control.client import RUN, MemberError

COMMANDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("cphaprob", "state"): ("stat",),
    ("cphaprob", "stat"): ("stat",),
    ("cphaprob", "list"): ("devices",),
    ("cphaprob", "-l", "list"): ("devices",),
    ("cphaprob", "-a", "if"): ("interfaces",),
    ("cphaprob", "syncstat"): ("syncstat",),
    ("cphaprob", "-reset", "syncstat"): ("reset", "syncstat"),
    ("fw", "tab"): ("tab",),
    ("fw", "log"): ("log",),
    ("fw", "ctl", "pstat"): ("pstat",),
    ("fw", "ctl", "set"): ("ctl", "set"),
    ("fw", "ctl", "get"): ("ctl", "get"),
    ("fw", "ctl", "zdebug", "drop"): ("drops", "--follow"),
    ("clusterXL_admin", "down"): ("down",),
    ("clusterXL_admin", "up"): ("up",),
    ("cpstop",): ("stop",),
    ("cpstart",): ("start",),
}


def translate(words: list[str]) -> list[str]:
    """The `fwctl` words (without the member) for a line as the product has it. Raises `MemberError`."""
    for length in range(min(len(words), 4), 0, -1):
        found = COMMANDS.get(tuple(words[:length]))
        if found is not None:
            return [*found, *words[length:]]
    known = ", ".join(" ".join(command) for command in COMMANDS if command[0] == words[0])
    raise MemberError(f"`{' '.join(words)}` is not modelled; there are: {known}")


def own_member() -> str:
    """The member of this shell: named by the lab, or the only one on this machine. Raises `MemberError`."""
    node = os.environ.get("FWPAIR_NODE", "")
    if node:
        return node
    sockets = [path.stem for path in RUN.glob("*.sock") if path.stem != "supervisor"]
    if len(sockets) == 1:
        return sockets[0]
    raise MemberError("this is no member's shell: `fwlab shell fw1` opens one, or use `fwctl fw1 …`")


def main() -> None:
    """Entry point of all of them; the name that it was called by says which."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    if words[-1] in ("-h", "--help"):
        print("\n".join(" ".join(command) for command in COMMANDS if command[0] == words[0]))
        return
    run(lambda: [own_member(), *translate(words)], words[0])
