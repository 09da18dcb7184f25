"""Commands without the time that loading them takes: a process has them loaded, and each command is a fork of it.

A test that types `fwlab` or `fwctl` gets what a new process would give: its own descriptors, directory, environment and
exit code. What takes half a second of a processor to load, `fwlab` most of all, is loaded once for all tests.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from typing import Any, NoReturn

MODULES = {"labs.cli": "labs.fwlab", "fwnode.control": "fwnode.control.cli"}
"""The modules that may be run, and what is loaded before for each of them."""
MESSAGE_MAX = 1 << 18


def run(module: str, arguments: tuple[str, ...], timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run(python_command(module, *arguments), capture_output=True, text=True)`."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        open(os.devnull) as nothing,  # noqa: PTH123
    ):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_MAX)
        link.connect(_server())
        order = {"module": module, "arguments": arguments, "directory": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
        socket.send_fds(link, [json.dumps(order).encode()], [nothing.fileno(), out.fileno(), err.fileno()])
        pid = int(link.recv(100))
        if not select.select([link], [], [], timeout_s)[0]:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired([module, *arguments], timeout_s)
        code = int(link.recv(100))
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([module, *arguments], code, out.read(), err.read())


@cache
def _server() -> str:
    """The address of this process's server, which ends when this one does."""
    address = f"\0fwpair-test-commands-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen(64)
        line = [sys.executable, "-P", __file__, str(listener.fileno())]
        process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[listener.fileno()])
    _kept.append(process)
    return address


_kept: list[subprocess.Popen[bytes]] = []
"""Its standard input is a pipe from here: when nobody holds that any more, it ends."""


def _serve(listener: socket.socket) -> None:
    for module in MODULES.values():
        importlib.import_module(module)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([0, listener], [], [])
        if 0 in ready:
            return
        link, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _accompany(link)
        link.close()


def _accompany(link: socket.socket) -> NoReturn:
    """The command's parent: tells its process, and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, descriptors, _, _ = socket.recv_fds(link, MESSAGE_MAX, 3)
    pid = os.fork()
    if pid == 0:
        _become(json.loads(data), descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    link.send(str(pid).encode())
    link.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    os._exit(0)


def _become(order: dict[str, Any], descriptors: list[int]) -> NoReturn:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = [order["module"], *order["arguments"]]
    code = 0
    try:
        if order["module"] == "labs.cli":
            from labs.cli import main
        else:
            from fwnode.control.cli import main
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
