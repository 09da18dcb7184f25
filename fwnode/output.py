"""Standard output and standard error of a command: what happens when they cannot be written.

A reader that has seen enough (`| head -1`), a full disk and a terminal that lacks a character must not break off a
command half way, nor give it another one's exit code. So a failed write is remembered and the command goes on; at its
end it says what was lost. It must not know what the commands print.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

LENIENT = frozenset({"replace", "ignore", "backslashreplace", "xmlcharrefreplace", "namereplace"})
"""Error handlers of Python's codecs that write something for a character that the encoding lacks, and do not raise."""

COLUMNS_MIN = 20
"""A terminal that says it is narrower is not believed: some pseudo-terminals say 0, where nothing would be shown."""

_was_closed = False


class _Descriptor(io.FileIO):
    """A file descriptor that takes everything: after its first failure it leads to /dev/null."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            while (written := super().write(data)) is None:  # somebody made the pipe non-blocking
                select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            self.failure = error
            _lead_to_null(self.fileno())
            return len(data)


def prepare() -> None:
    """Before anything is opened or printed: a descriptor that came closed would be given to the next file."""
    global _was_closed
    _was_closed = _is_closed(1)
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) < COLUMNS_MIN:
        del os.environ["COLUMNS"]
    for number in (0, 1, 2):
        if _is_closed(number):
            _lead_to_null(number)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:  # else somebody collects what is printed
        sys.stdout = _stream(1, sys.stdout, "replace")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(2, sys.stderr, "backslashreplace")


def was_closed() -> bool:
    """Whether standard output was closed when the command began: nobody can have what it prints."""
    return _was_closed


def take_standard_output() -> int:
    """For a command whose standard output is its result: a descriptor for that; all else goes to standard error."""
    sys.stdout.flush()
    taken = os.dup(1)
    os.dup2(2, 1)
    return taken


def gone() -> bool:
    """Whether nobody reads what is printed any more: a command that follows something ends then."""
    return _failure() is not None


def lost() -> str:
    """Why something that was printed is lost; empty where nothing is. A reader that closed the pipe is no loss."""
    failure = _failure()
    return "" if failure is None or failure.errno == errno.EPIPE else failure.strerror or str(failure)


def finish(program: str, code: int) -> int:
    """The exit code of a command that ends with `code`: another one where its output is lost."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if why := lost():
        print(f"{program}: standard output cannot be written: {why}", file=sys.stderr, flush=True)
        return os.EX_IOERR
    return code


def _failure() -> OSError | None:
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Descriptor) else None


def _stream(number: int, old: TextIO | None, errors: str) -> io.TextIOWrapper:
    if old is not None:
        old.flush()
    encoding, kept = getattr(old, "encoding", "utf-8"), getattr(old, "errors", "")
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(number, "wb", closefd=False)),
        encoding=encoding, errors=kept if kept in LENIENT else errors,
        line_buffering=getattr(old, "line_buffering", False), write_through=getattr(old, "write_through", False),
    )  # fmt: skip


def _is_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


def _lead_to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number, inheritable=True)
        os.close(null)
    else:
        os.set_inheritable(number, True)
