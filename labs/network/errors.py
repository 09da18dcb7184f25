"""What can go wrong with a lab's ground, as exceptions whose text is meant for the person at the terminal.

Every one carries the exit code that `fwlab` ends with. Nothing here prints.
"""

from fwnode.files import FileError
from labs.exit_codes import ExitCode


class LabError(Exception):
    """Something that the person can understand and mend; the text is the whole message."""

    exit_code = ExitCode.USAGE


class TopologyError(FileError, LabError):
    """A topology file with problems: all of them, each as `file: key: what is wrong`."""


class ControlError(LabError):
    """A control socket refused a request, or nobody answered it."""


class BusyError(ControlError):
    """The process that was asked is there, and did not answer in time."""


class MachineError(LabError):
    """The kernel or the system lacks what a lab needs."""

    exit_code = ExitCode.CANNOT_RUN


class FaultError(LabError):
    """A fault was applied and the read-back does not show it."""

    exit_code = ExitCode.CANNOT_RUN
