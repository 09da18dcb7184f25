"""The first processes of a lab: private namespaces, the lab's name, and an end that leaves nothing behind.

Outside: a name is claimed (an abstract socket), `unshare` makes user, mount, pid and network namespaces, and either
the caller waits for a function to run inside them (`run_in_lab`) or goes away when the lab is up
(`labs.network.background`).
Inside: pid 1 does nothing but hold the name, reap, and pass signals on; its one child is the supervisor proper.
Whichever of them is killed, the kernel ends every process of the pid namespace and with them every namespace.

It must not know members or lab files beyond handing them to a `Lab`.
"""

import asyncio
import importlib
import importlib.util
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from fwnode import output
from labs.exit_codes import ExitCode
from labs.network import discovery, doctor
from labs.network.errors import LabError, MachineError
from labs.network.private import die_with_parent, needs_user_namespace, system_path, unshare_command
from labs.python import python_command

SI_USER = 0
"""si_code of a signal that a process sent; one from the terminal (SI_KERNEL) reaches the whole group by itself."""
NAME_TRIES = 100
STOP_GRACE_S = 10.0
"""Wall seconds between asking a lab to end and ending it by SIGKILL."""
LISTEN_BACKLOG = 128
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
_SIGNALS = {*INTERRUPTS, signal.SIGCHLD}

T = TypeVar("T")


@dataclass(frozen=True)
class _Boot:
    """What the process inside is told, as JSON in a file without a name: a command line ends at 128 KiB."""

    name: str
    name_fd: int
    status_fd: int
    main: str
    argv: list[str]
    detached: bool
    path: list[str]


# -- outside --------------------------------------------------------------------------------------------------------


def run_for_result(name_hint: str, module_main: str, argv: list[str]) -> tuple[int, str]:
    """`run_in_lab`, and the text that the function wrote: its last argument is a file descriptor to write it to.

    The text never touches a disk, so that nothing can remain of it however the lab ends.
    """
    with os.fdopen(os.memfd_create("fwlab-result"), encoding="utf-8") as result:
        code = run_in_lab(name_hint, module_main, [*argv, str(result.fileno())], pass_fds=(result.fileno(),))
        result.seek(0)
        return code, result.read()


def run_in_lab(name_hint: str, module_main: str, argv: list[str], pass_fds: Sequence[int] = ()) -> int:
    """Run `module:function(argv, lab_name)` as a lab's supervisor in the foreground; its return is the exit code.

    `module` may also be the path of a .py file. The lab is called `name_hint`, or with -2, -3, … where that is taken.
    Standard input and outputs are inherited. Raises LabError where no lab can be made.
    """
    name, sock = _claim_first_free(name_hint)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        process, status = launch(name, sock, module_main, argv, detached=False, pass_fds=pass_fds)
        sock.close()  # the lab holds its name now, and no longer than it lives
        try:
            alive = status.readline()
            code = _wait_outside(process, name)
        finally:
            status.close()
            if process.poll() is None:
                process.kill()
                process.wait()
    finally:
        sock.close()
        while signal.sigtimedwait(INTERRUPTS, 0) is not None:
            pass  # one more of those that have been obeyed
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    if not alive and code not in (ExitCode.INTERRUPTED, ExitCode.CANNOT_RUN):
        raise MachineError(doctor.namespace_complaint() or "the lab's first process did not come up")
    return code


def stop(lab: discovery.RunningLab) -> None:
    """End a lab and return when nothing of it is left."""
    fds: list[int] = []
    try:
        for pid in (lab.pid, _parent(lab.pid)):
            with suppress(ProcessLookupError):
                fds.append(os.pidfd_open(pid))
        with suppress(ProcessLookupError):
            os.kill(lab.pid, signal.SIGTERM)
        if not _all_ended(fds, STOP_GRACE_S):
            with suppress(ProcessLookupError):
                os.kill(lab.pid, signal.SIGKILL)
            if not _all_ended(fds, STOP_GRACE_S):
                raise LabError(f"lab {lab.name!r} does not end, not even by SIGKILL (pid {lab.pid})")
    finally:
        for fd in fds:
            os.close(fd)


def _all_ended(fds: Sequence[int], timeout_s: float) -> bool:
    for fd in fds:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            return False
    return True


def _parent(pid: int) -> int:
    """The unshare that waits for the lab: it holds the lab's name a moment longer than the lab itself."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return pid
    parent = int(text.rpartition(")")[2].split()[1])
    is_ours = False
    with suppress(OSError):
        is_ours = Path(f"/proc/{parent}/comm").read_text().strip() == "unshare"
    return parent if is_ours else pid


def _claim_first_free(hint: str) -> tuple[str, socket.socket]:
    for number in range(1, NAME_TRIES + 1):
        name = hint if number == 1 else f"{hint}-{number}"
        sock = discovery.claim(name)
        if sock is not None:
            return name, sock
    raise LabError(f"the names {hint}, {hint}-2 … {hint}-{NAME_TRIES} are all taken; see `fwlab ps`")


def launch(name: str, sock: socket.socket, main: str, argv: list[str], *,
           detached: bool, pass_fds: Sequence[int] = ()) -> tuple["subprocess.Popen[bytes]", Any]:
    status_read, status_write = os.pipe()
    boot = _Boot(name, sock.fileno(), status_write, main, argv, detached, sys.path)
    told = _unnamed_file(json.dumps(asdict(boot)))
    command = [*unshare_command(needs_user_namespace()), *python_command("labs.network.supervisor", str(told))]
    try:
        process = subprocess.Popen(
            command, pass_fds=(sock.fileno(), status_write, told, *pass_fds), start_new_session=detached,
            stdin=subprocess.DEVNULL if detached else None, stdout=subprocess.DEVNULL if detached else None,
            stderr=subprocess.PIPE if detached else None, preexec_fn=None if detached else die_with_parent())
    except OSError as error:
        os.close(status_read)
        remedy = "; install util-linux" if isinstance(error, FileNotFoundError) else ""
        raise MachineError(f"unshare cannot be started: {error.strerror}{remedy}") from None
    finally:
        os.close(status_write)
        os.close(told)
    return process, os.fdopen(status_read, "r", encoding="utf-8")


def _unnamed_file(text: str) -> int:
    """A descriptor to read `text` from; it is gone when the last process has closed it."""
    descriptor = os.memfd_create("fwlab-boot")
    with os.fdopen(descriptor, "w", encoding="utf-8", closefd=False) as file:
        file.write(text)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _wait_outside(process: "subprocess.Popen[bytes]", name: str) -> int:
    """Wait for unshare, which blocks SIGTERM and SIGINT: those that only we were sent go to the lab's pid 1. A lab that
    has not ended by itself some time after the first of them is ended by SIGKILL."""
    ends_at: float | None = None
    while process.poll() is None:
        if ends_at is None:
            info = signal.sigwaitinfo(_SIGNALS)
        elif (in_time := signal.sigtimedwait(_SIGNALS, max(0.0, ends_at - time.monotonic()))) is not None:
            info = in_time
        else:
            print(f"fwlab: the lab had not ended {STOP_GRACE_S:g} s after it was told to; it was killed",
                  file=sys.stderr)
            process.kill()  # --kill-child: the kernel ends everything inside
            process.wait()
            return ExitCode.INTERRUPTED
        if info.si_signo == signal.SIGCHLD:
            continue
        if ends_at is None:
            ends_at = time.monotonic() + STOP_GRACE_S
        if info.si_signo == signal.SIGINT and info.si_code != SI_USER:
            continue
        lab = discovery.find(name)
        if lab is None:  # it has not come so far as to listen: nothing there to end in order
            process.kill()
            process.wait()
            return ExitCode.INTERRUPTED
        with suppress(ProcessLookupError):
            os.kill(lab.pid, info.si_signo)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


# -- inside ---------------------------------------------------------------------------------------------------------


def main() -> NoReturn:
    """Entry of pid 1 in the fresh namespaces."""
    output.prepare()
    with os.fdopen(int(sys.argv[1]), encoding="utf-8") as told:
        boot = _Boot(**json.load(told))
    os.set_inheritable(boot.name_fd, False)
    os.set_inheritable(boot.status_fd, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        _prepare(boot)
    except LabError as error:
        _tell(boot.status_fd, {"error": str(error), "exit": int(error.exit_code)})
        if not boot.detached:
            print(f"fwlab: {error}", file=sys.stderr)
        os._exit(error.exit_code)
    sock = socket.socket(fileno=boot.name_fd)
    sock.listen(LISTEN_BACKLOG)  # here, not outside: whoever connects is told the pid of the process that listens
    _tell(boot.status_fd, {"alive": True})
    if signal.sigpending() & {signal.SIGINT, signal.SIGTERM}:  # Ctrl-C while the namespaces were being made
        os._exit(ExitCode.INTERRUPTED)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code: int = ExitCode.INTERNAL
        try:
            code = _supervise(boot, sock)
        except KeyboardInterrupt:
            _ignore_interrupts()
            code = ExitCode.INTERRUPTED
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    os.close(boot.status_fd)
    os._exit(_first_process(child))


def _prepare(boot: _Boot) -> None:
    from labs.network import probe
    from labs.network.members import RUN_DIRECTORY
    from labs.network.namespaces import NETNS_DIRECTORY, mount

    mount("tmpfs", "/run", "tmpfs", options="mode=0755")
    RUN_DIRECTORY.mkdir(parents=True)
    NETNS_DIRECTORY.mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ["PATH"] = system_path()
    missing = probe.required()
    if missing:
        raise MachineError(doctor.required_complaint(missing))
    if boot.detached:
        log = os.open(RUN_DIRECTORY / discovery.SUPERVISOR_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)


def _first_process(child: int) -> int:
    """pid 1's whole life: reap what is orphaned, pass signals on, end with the supervisor; the rest is the kernel's."""
    while True:
        info = signal.sigwaitinfo(_SIGNALS)
        if info.si_signo != signal.SIGCHLD:
            if info.si_signo == signal.SIGTERM or info.si_code == SI_USER:
                os.kill(child, info.si_signo)
            continue
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == child:
                    code = os.waitstatus_to_exitcode(ended[1])
                    return code if code >= 0 else 128 - code


def _supervise(boot: _Boot, sock: socket.socket) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    _answer_knocks(sock)
    sys.path.extend(entry for entry in boot.path if entry not in sys.path)
    function = load_function(boot.main)
    if boot.detached:
        return function(boot.argv, boot.name, lambda message: _tell(boot.status_fd, message))
    os.close(boot.status_fd)
    try:
        return int(function(boot.argv, boot.name))
    except LabError as error:
        print(f"fwlab: {error}", file=sys.stderr)
        return error.exit_code


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` for what runs inside a lab: a SIGINT or SIGTERM cancels it, and it raises KeyboardInterrupt when it
    has ended. A second one changes nothing: a Ctrl-C reaches a process on two ways, and asyncio would break off the
    clean-up at the second. Who waits outside sees to it that the end does come."""
    interrupted = False

    async def interruptible() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            _ignore_interrupts()
            if task is not None:
                task.cancel()

        for number in INTERRUPTS:
            loop.add_signal_handler(number, interrupt)
        return await main

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise


def _ignore_interrupts() -> None:
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)


def _answer_knocks(sock: socket.socket) -> None:
    """Take and close whatever connects to the name: it wanted the credentials alone, and the backlog is finite."""
    def serve() -> None:
        while True:
            try:
                sock.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=serve, name="name", daemon=True).start()


def load_function(main: str) -> Callable[..., int]:
    """What `module:function` or `file.py:function` names."""
    module_name, _, function = main.rpartition(":")
    if module_name.endswith(".py"):
        path = Path(module_name)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise LabError(f"{path}: cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(module_name)
    found: Callable[..., int] = getattr(module, function)
    return found


def _tell(fd: int, message: Mapping[str, Any]) -> None:
    with suppress(BrokenPipeError):
        os.write(fd, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
