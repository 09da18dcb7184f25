"""For tests that set a member's wall clock while it works: a pair whose members have clocks of their own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Talk, UpLab, until

HOUR_S = 3600
SHIM = Path(__file__).with_name("stepped_clock.c")
MEMBER = Path(__file__).with_name("stepped_member.py")


class Clock:
    """The wall clock of one lab's members, each to be set on its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        library = folder / "stepped_clock.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(SHIM)], check=True)
        self.member_command = folder / "member"
        line = shlex.join([sys.executable, "-P", str(MEMBER), str(folder)])
        self.member_command.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        self.member_command.chmod(0o755)

    def step(self, member: str, seconds: int) -> None:
        new = self._folder / f"{member}.new"
        new.write_text(f"{seconds}\n")
        new.replace(self._folder / member)

    def begin(self, member: str, epoch: float | None) -> None:
        """Where the member's lab time has its zero, from its next start on; None: where the lab has it."""
        file = self._folder / f"{member}.zero"
        file.unlink(missing_ok=True)
        if epoch is not None:
            file.write_text(f"{epoch}")


@contextmanager
def stepped_pair(clock: Clock, began_apart: str = "") -> Iterator[UpLab]:
    """A pair on real clocks; lab time of the member that is named began when its machine did."""
    lab = UpLab(f"test-{os.getpid()}-clock")
    for member in ("fw1", "fw2"):
        clock.step(member, 0)
        clock.begin(member, 0.0 if member == began_apart else None)
    try:
        lab.up("--member-command", str(clock.member_command))
        yield lab
    finally:
        lab.close()


def two_talks(lab: UpLab) -> list[Talk]:
    """Two connections with a timeout of an hour, that both members know."""
    lab.serve(1521)
    talks = [lab.talk(1521), lab.talk(1521)]
    assert [talk.ask() for talk in talks] == ["hello", "hello"]
    until(lambda: established(lab, "fw2") == 2, "fw2 knows both")
    return talks


def established(lab: UpLab, member: str) -> int:
    rows = lab.control(member, "tab", unlimited=True)["rows"]
    return sum(row["destination_port"] == 1521 and row["state"] == "ESTABLISHED" for row in rows)


def left(lab: UpLab) -> list[float]:
    """Seconds until they end, on both members."""
    rows = [row for member in ("fw1", "fw2") for row in lab.control(member, "tab", unlimited=True)["rows"]]
    return [row["ttl_s"] for row in rows if row["destination_port"] == 1521]
