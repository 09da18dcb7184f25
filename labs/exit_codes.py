"""The exit codes of `fwlab`, in one place. Documented to users as a table; other programs may rely on the numbers."""

import os
from enum import IntEnum


class ExitCode(IntEnum):
    """What a `fwlab` command says to the shell."""

    HELD = 0
    """Everything that was expected held, or the command did its work."""
    FAILED = 1
    """An expectation of a lab failed."""
    USAGE = 2
    """A usage or file error: nothing was changed."""
    WARNINGS = 3
    """Passed, with warnings."""
    CANNOT_RUN = 4
    """This machine cannot run it; `fwlab doctor` says what is missing."""
    INTERNAL = os.EX_SOFTWARE
    """An error of fwlab itself: 70, as in sysexits.h."""
    NOT_WRITTEN = os.EX_IOERR
    """A result or the output could not be written: 74, as in sysexits.h."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM; nothing remains of the lab."""
