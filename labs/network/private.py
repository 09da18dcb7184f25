"""The command line that makes private namespaces, and whether a user namespace is part of them.

Shared by the supervisor and by doctor's throw-away probe, so that both stand on the same ground.
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def unshare_command(user_namespace: bool) -> list[str]:
    """What follows this command line runs as pid 1 of fresh namespaces, and dies with the unshare that waits for it."""
    user = ["--user", "--map-root-user"] if user_namespace else []
    return ["unshare", *user, "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", "--"]


def system_path() -> str:
    """PATH with the sbin directories: an ordinary user's lacks them, and in a lab he is root."""
    parts = [*os.environ.get("PATH", "/usr/bin:/bin").split(":"), "/usr/local/sbin", "/usr/sbin", "/sbin"]
    return ":".join(dict.fromkeys(part for part in parts if part))


def die_with_parent() -> Callable[[], None]:
    """For `preexec_fn`: the child gets SIGKILL when this process ends, however it ends."""
    parent = os.getpid()

    def in_child() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)

    return in_child


def needs_user_namespace() -> bool:
    """Always for an ordinary user; for root only where the plain namespaces are refused, as in some containers."""
    return os.geteuid() != 0 or bool(try_namespaces(user_namespace=False))


def try_namespaces(user_namespace: bool) -> str:
    """Make namespaces and mount in them. Empty where it works, else what the system said."""
    command = [*unshare_command(user_namespace), "mount", "-t", "tmpfs", "tmpfs", "/run"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"unshare: {error.strerror}"
    return "" if done.returncode == 0 else done.stderr.strip() or f"unshare ended with {done.returncode}"
