"""A lab in the background: `fwlab up` outside, which starts it and leaves, and the lab's supervisor inside.

The lab watches a pipe until it is told to stay: a starter that ends before, even by SIGKILL, takes the lab with it.
"""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from labs.exit_codes import ExitCode
from labs.network import discovery, doctor
from labs.network.errors import LabError, MachineError
from labs.network.supervisor import INTERRUPTS, STOP_GRACE_S, launch

UP_MAIN = "labs.network.background:up_main"


# -- outside --------------------------------------------------------------------------------------------------------


@contextmanager
def start_detached(name: str, arguments: Mapping[str, Any]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start a lab in the background, for a block of code. What it is given returns the lab's info when every member is
    ready, and raises LabError where one is not. The lab stays when the block ends in order. If it does not, or if this
    process ends before, by whatever signal, the lab ends as well: it watches a pipe until it is told to stay.
    """
    sock = discovery.claim(name)
    if sock is None:
        raise LabError(f"a lab named {name!r} is running already; see `fwlab ps`, end it with `fwlab down {name}`, "
                       "or choose another name with --name")
    stay_read, stay_write = os.pipe()
    process, status, stays = None, None, False
    with _ending_by_signals():
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


# -- inside ---------------------------------------------------------------------------------------------------------


def up_main(argv: Sequence[str], name: str, tell: Callable[[Mapping[str, Any]], None]) -> int:
    """The supervisor of `fwlab up`: build, start every member, say so, then wait to be told to end."""
    arguments = json.loads(argv[0])
    return asyncio.run(_up(arguments, name, tell))


async def _up(arguments: Mapping[str, Any], name: str, tell: Callable[[Mapping[str, Any]], None]) -> int:
    from labs.network.lab import DEFAULT_MEMBER_COMMAND, Lab
    from labs.network.members import MemberSettings
    from labs.network.topology import parse_topology

    end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    _end_without_the_starter(arguments["stay_fd"], end)
    try:
        topology = parse_topology(arguments["topology"], "topology")
        lab = Lab(topology, {member: MemberSettings(**settings) for member, settings in arguments["members"].items()},
                  name=name, rate=arguments.get("rate", 1.0),
                  releases=Path(arguments["releases"]) if arguments.get("releases") else None,
                  member_command=arguments.get("member_command") or DEFAULT_MEMBER_COMMAND)
        async with lab:
            starting = asyncio.create_task(lab.start_all())
            ending = asyncio.create_task(end.wait())
            await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
            if end.is_set():
                starting.cancel()
                await asyncio.wait({starting})
                return ExitCode.INTERRUPTED
            await starting
            tell({"info": await lab.info()})
            await ending
            return ExitCode.HELD
    except LabError as error:
        tell({"error": str(error), "exit": int(error.exit_code)})
        return error.exit_code


def _end_without_the_starter(stay_fd: int, end: asyncio.Event) -> None:
    """`fwlab up` holds the other end of this pipe, and writes to it when the lab shall stay. If it is gone before that,
    however it ended, so is the lab."""
    loop = asyncio.get_running_loop()

    def heard() -> None:
        loop.remove_reader(stay_fd)
        if not os.read(stay_fd, 8):
            end.set()
        os.close(stay_fd)

    os.set_inheritable(stay_fd, False)
    loop.add_reader(stay_fd, heard)
