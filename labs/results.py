"""Where the results of a command go: files, or standard output (`-`).

That they can be written is tried before the work, which takes a minute. A result that cannot be written after it,
because the disk is full by then, is reported, and the others are written all the same. It must not know what the
results are.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from fwnode import output
from labs.exit_codes import ExitCode
from labs.network.errors import LabError

STANDARD_OUTPUT = Path("-")


class Results:
    """The destinations of one command. `LabError` where one of them cannot be written."""

    def __init__(self, *wanted: Path | None) -> None:
        paths = [path for path in wanted if path is not None]
        for path in paths:
            _must_be_writable(path)
        if paths.count(STANDARD_OUTPUT) > 1:
            raise LabError("only one result can go to standard output (-); name a file for the others")
        self._standard_output = output.take_standard_output() if STANDARD_OUTPUT in paths else -1
        self._lost = False

    def write(self, path: Path | None, text: str) -> None:
        """Write one of them, where it is wanted. What cannot be written is said, and the rest goes on."""
        if path is None:
            return
        try:
            if path == STANDARD_OUTPUT:
                _write_all(self._standard_output, text.encode(errors="replace"))
            else:
                _write_file(path, text)
        except BrokenPipeError:
            pass  # who reads it has seen enough
        except OSError as error:
            self.lose(f"{_name(path)}: cannot be written: {error.strerror}")

    def lose(self, why: str) -> None:
        """Say that a result is lost."""
        self._lost = True
        print(f"fwlab: {why}", file=sys.stderr)

    def code(self, code: int) -> int:
        """The exit code of a command that would end with `code`: another one where a result is lost."""
        return ExitCode.NOT_WRITTEN if self._lost else code


def _name(path: Path) -> str:
    return "standard output" if path == STANDARD_OUTPUT else str(path)


def _must_be_writable(path: Path) -> None:
    """Before the work. Leaves no empty file behind."""
    if path == STANDARD_OUTPUT:
        if output.was_closed():
            raise LabError("standard output is closed, so nothing can be written to it; name a file")
        return
    try:
        if path.exists() and not path.is_file():
            if path.is_dir() or not os.access(path, os.W_OK):
                raise LabError(f"{path}: cannot be written: it is no file; name another one")
            return
        is_new = not (path.exists() or path.is_symlink())
        with path.open("a", encoding="utf-8"):
            pass
        if is_new:
            path.unlink()
    except OSError as error:
        raise LabError(f"{path}: cannot be written: {error.strerror}; name another file") from None


def _write_file(path: Path, text: str) -> None:
    """All of it or nothing: a file that was there before stays when there is no room for the new one."""
    in_place = path.is_symlink() or (path.exists() and not path.is_file()) or not os.access(path.parent, os.W_OK)
    if in_place:
        path.write_text(text, encoding="utf-8", errors="replace")
        return
    fresh = path.with_name(f".fwlab-{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8", errors="replace")
        if path.exists():
            shutil.copymode(path, fresh)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
