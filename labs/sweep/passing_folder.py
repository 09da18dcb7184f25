"""A folder of a process that is removed when the process ends, however it ends: SIGKILL, too."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

_REMOVER = 'read -r _; rm -rf -- "$1"'
"""Its input ends with the process at the other end of the pipe, or when that closes it."""


class PassingFolder:
    """A new folder in the machine's place for such. Who waits to remove it is a process of its own, which no signal to
    this one or its terminal reaches."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="fwlab-"))
        command = ["sh", "-c", _REMOVER, "sh", str(self.path)]
        self._remover = subprocess.Popen(command, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip

    def remove(self) -> None:
        """Now; returns when it is gone."""
        self._remover.communicate()
