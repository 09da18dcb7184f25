"""What the programs of a node see of the machine's files: a /sys with the node's interfaces, and a /run of its own.

A node has a mount namespace for that, which `fwlab exec` and `fwlab shell` enter. A thread of the supervisor is in it
and keeps it (a bind mount of one is refused by some kernels, now and then). Its /run lives as long as the lab, so that
one command finds what another one left (a service's pid file); the lab's own part of /run, with the control sockets, is
there too. It must not know members or labs.
"""

import ctypes
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from labs.network.errors import MachineError

MOUNTS_DIRECTORY = Path("/run/mntns")
"""For each node a file with the path, below the lab's root, by which its mount namespace may be entered."""
RUN_DIRECTORIES = Path("/run/nodes")
"""What the nodes have as their /run."""
SHARED = (Path("/run/fwpair"), Path("/run/xtables.lock"))
"""Of the lab's /run, what its nodes have in common: its sockets and files, and the lock of all who change rules."""
USUAL = {"lock": 0o1777, "lock/subsys": 0o755, "sshd": 0o755, "user": 0o755, "log": 0o755}
"""Directories of /run that services expect and nobody declares where there is no systemd."""
DECLARATIONS = ("/usr/lib/tmpfiles.d", "/etc/tmpfiles.d")
_DECLARED = re.compile(r"^[dD]\S*\s+(?:/var)?/run/([^\s%]+)\s+(\d{3,4}|-)", re.MULTILINE)
CLONE_NEWNS = 0x20000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC = 0x1000, 0x4000

_libc = ctypes.CDLL(None, use_errno=True)


def path_of(node: str, root: Path) -> Path:
    """The node's mount namespace, in a lab whose root is seen at `root`; `nsenter --mount=` takes it."""
    return root / (root / str(MOUNTS_DIRECTORY).lstrip("/") / node).read_text()


def furnish(node: str) -> None:
    """In a thread that is in the node's network namespace: give it a mount namespace of its own, for as long as the
    thread lives."""
    run = RUN_DIRECTORIES / node
    _fill(run)
    if _libc.unshare(CLONE_NEWNS) != 0:
        raise MachineError(f"a mount namespace for {node} was refused: {os.strerror(ctypes.get_errno())}")
    for shared in SHARED:
        _mount(str(shared), str(run / shared.name), "none", MS_BIND)
    _mount(str(run), "/run", "none", MS_BIND | MS_REC)
    _show_interfaces()


def publish(threads: Mapping[str, int]) -> None:
    """Say which thread is in whose mount namespace."""
    MOUNTS_DIRECTORY.mkdir(exist_ok=True)
    for node, thread in threads.items():
        (MOUNTS_DIRECTORY / node).write_text(f"proc/{os.getpid()}/task/{thread}/ns/mnt")


def declared() -> Iterator[tuple[str, int]]:
    """Directories below /run, and their modes, that the packages of this machine say their services need."""
    for folder in DECLARATIONS:
        for file in sorted(Path(folder).glob("*.conf")):
            with suppress(OSError):
                for path, mode in _DECLARED.findall(file.read_text(errors="replace")):
                    if not path.startswith("systemd"):  # it would look like a machine that systemd runs
                        yield path, 0o755 if mode == "-" else int(mode, 8)


def _fill(run: Path) -> None:
    run.mkdir(parents=True, exist_ok=True)
    for path, mode in [*declared(), *USUAL.items()]:
        (run / path).mkdir(parents=True, exist_ok=True)
        (run / path).chmod(mode)
    for shared in SHARED:
        if shared.is_dir():
            (run / shared.name).mkdir(exist_ok=True)
        else:
            shared.touch()
            (run / shared.name).touch()
    resolver = Path("/etc/resolv.conf").resolve()
    if resolver.is_relative_to("/run"):  # a link; empty, as in the whole lab
        mine = run / resolver.relative_to("/run")
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.touch()


def _show_interfaces() -> None:
    """A fresh /sys belongs to the network namespace of who mounts it. Where the machine's is read-only (a container),
    so must this one be; where none may be mounted, an empty list of interfaces covers that of another node."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    ways = (("sysfs", "/sys", 0), ("sysfs", "/sys", MS_RDONLY), ("tmpfs", "/sys/class/net", MS_RDONLY))
    for kind, target, more in ways:
        if _libc.mount(kind.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags | more), None) == 0:
            return
    raise MachineError(f"a node's /sys cannot be mounted: {os.strerror(ctypes.get_errno())}")


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None) != 0:
        raise MachineError(f"mounting {source} on {target} failed: {os.strerror(ctypes.get_errno())}")
