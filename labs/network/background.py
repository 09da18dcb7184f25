"""A lab in the background, as `fwlab up` sees it from outside: it starts the lab and leaves (inside: `labs.up`).

The lab watches a pipe until it is told to stay: a starter that ends before, even by SIGKILL, takes the lab with it.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO, Any

from labs.exit_codes import ExitCode
from labs.network import discovery, doctor
from labs.network.errors import LabError, MachineError
from labs.network.supervisor import INTERRUPTS, STOP_GRACE_S, launch

UP_MAIN = "labs.up:up_main"


# -- outside --------------------------------------------------------------------------------------------------------


@contextmanager
def start_detached(name: str, arguments: Mapping[str, Any]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start a lab in the background, for a block of code. What it is given returns the lab's info when every member is
    ready, and raises LabError where one is not. The lab stays when the block ends in order. If it does not, or if this
    process ends before, by whatever signal, the lab ends as well: it watches a pipe until it is told to stay.
    """
    process, status, stays = None, None, False
    with _ending_by_signals():  # before there is a name that somebody may see
        sock = discovery.claim(name)
        if sock is None:
            raise LabError(f"a lab named {name!r} is running already; see `fwlab ps`, end it with `fwlab down {name}`, "
                           "or choose another name with --name")
        stay_read, stay_write = os.pipe()
        try:
            told = json.dumps({**arguments, "stay_fd": stay_read})
            try:
                process, status = launch(name, sock, UP_MAIN, [told], detached=True, pass_fds=(stay_read,))
            finally:
                sock.close()
            yield partial(_info_when_up, name, process, status)
            _must_not_be_interrupted()
            os.write(stay_write, b"stay")
            stays = True
        finally:
            os.close(stay_read)
            os.close(stay_write)
            if process is not None and status is not None:
                _leave(process, status, stays)


def _leave(process: "subprocess.Popen[bytes]", status: IO[str], stays: bool) -> None:
    status.close()
    if process.stderr is not None:
        process.stderr.close()
    if stays:
        process.returncode = 0  # it lives on without us; Popen must not wait for it or complain
    else:
        _end_of(process)


def _info_when_up(name: str, process: "subprocess.Popen[bytes]", status: IO[str]) -> dict[str, Any]:
    message: dict[str, Any] = {}
    for line in status:
        message = json.loads(line)
        if "info" in message:
            return dict(message["info"])
    if "error" in message:
        error = LabError(message["error"])
        error.exit_code = ExitCode(message["exit"])
        raise error
    complaint = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
    code = process.wait()
    if "alive" in message or code == ExitCode.INTERRUPTED:
        ended = LabError(f"lab {name!r} was ended while it was starting")
        ended.exit_code = ExitCode.INTERRUPTED
        raise ended
    raise MachineError(doctor.namespace_complaint()
                       or f"the lab's first process did not come up: {complaint or f'it ended with {code}'}")


@contextmanager
def _ending_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP do what Ctrl-C does, where they are not ignored (as behind nohup)."""
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in former.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in former.items():
            if signal.getsignal(number) is signal.default_int_handler:
                signal.signal(number, handler)


def _must_not_be_interrupted() -> None:
    """From here on it is too late for a signal: one that has come is obeyed, others change nothing any more."""
    for number in (*INTERRUPTS, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _end_of(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a lab that ends because nobody told it to stay; kill it where that takes too long."""
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_GRACE_S)
    finally:
        process.kill()  # --kill-child: the kernel ends everything inside
        process.wait()
