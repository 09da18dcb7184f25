"""Finding the labs that run on this machine, from outside of them.

A lab is an abstract unix socket `fwpair-lab/<user id>/<name>` that its first process listens on: the kernel says whose
process that is, and forgets the name when it dies. The lab's own /run is reached through /proc.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

_CREDENTIALS = struct.Struct("iII")
_ANSWER_TIMEOUT_S = 2.0


def socket_name(name: str) -> str:
    """The abstract socket of a lab of this user."""
    return f"fwpair-lab/{os.getuid()}/{name}"


def names() -> list[str]:
    """Names of this user's labs, those that are still starting included."""
    prefix = "@" + socket_name("")
    found: set[str] = set()
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].startswith(prefix):
            found.add(fields[7].removeprefix(prefix))
    return sorted(found)


def first_process(name: str) -> int:
    """Process id, as we see it, of a lab's first process; 0 when there is no such lab, or it does not listen yet."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_ANSWER_TIMEOUT_S)
        try:
            probe.connect("\0" + socket_name(name))
        except OSError:
            return 0
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    # Abstract names have no owner: a stranger's socket of our name must not be entered.
    return int(pid) if uid == os.getuid() else 0


def listens(path: Path) -> bool:
    """Whether a process answers at this control socket; a file that a killed one left does not count."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True  # it is there, and many wait for it
        except OSError:
            return False
    return True
