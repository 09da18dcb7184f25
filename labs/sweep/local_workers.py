"""Worker processes on this machine's processors.

Each plays one seed at a time. One that dies is replaced and its seed is played again; a seed whose worker died twice is
told as failed. The processes end with this one, however it ends, and hear nothing of Ctrl-C; what they read their labs
from is gone then, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from labs.network.errors import LabError
from labs.network.private import die_with_parent
from labs.python import python_command
from labs.sweep.outcome import Outcome, of_error
from labs.sweep.passing_folder import PassingFolder
from labs.sweep.variants import Bundle
from labs.sweep.work import SIMULATE
from labs.sweep.worker import READY

DEATHS_MAX = 2
"""So often may workers die at one seed. Once may be the machine's doing, such as a lack of memory."""
READ_MAX = 65_536

Task = tuple[int, int]
"""The number of a variant, and a seed."""


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


class _Worker:
    def __init__(self, command: list[str], said: IO[bytes]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, bufsize=0,
                                        process_group=0, preexec_fn=die_with_parent())  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self.orders, self.answers = self.process.stdin, self.process.stdout
        self.task: Task | None = None
        self.is_ready = False
        self._read = bytearray()

    def give(self, task: Task) -> None:
        self.task = task
        with contextlib.suppress(BrokenPipeError):  # its death is seen where its answers are read
            self.orders.write(b"%d %d\n" % task)

    def lines(self) -> list[bytes] | None:
        """What it has said meanwhile, by lines; None when it is dead."""
        data = os.read(self.answers.fileno(), READ_MAX)
        if not data:
            return None
        self._read += data
        *lines, rest = self._read.split(b"\n")
        self._read = bytearray(rest)
        return [bytes(line) for line in lines]

    def end(self) -> int:
        """Its exit status; it is killed if it lives."""
        self.process.kill()
        for pipe in (self.orders, self.answers):
            pipe.close()
        return self.process.wait()


class Workers:
    """A context. `outcomes` gives each task's as it comes, in any order."""

    def __init__(self, bundles: Sequence[Bundle], number: int = 0, simulate: str = SIMULATE) -> None:
        self.number = number or processors()
        self._bundles = bundles
        self._simulate = simulate
        self._selector = selectors.DefaultSelector()
        self._workers: set[_Worker] = set()
        self._command: list[str] = []
        self._folder: PassingFolder
        self._said: IO[bytes]

    def __enter__(self) -> Workers:
        self._folder = PassingFolder()
        folder = self._folder.path
        self._said = (folder / "said").open("w+b")
        files = [str(bundle.lay_out(folder / str(index))) for index, bundle in enumerate(self._bundles)]
        self._command = python_command("labs.sweep.worker", self._simulate, *files)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in list(self._workers):
            self._end(worker)
        self._selector.close()
        self._said.close()
        self._folder.remove()

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[tuple[int, Outcome]]:
        """A variant's number and the outcome of one of its seeds."""
        todo = deque(tasks)
        deaths: dict[Task, int] = {}
        for _ in range(min(self.number, len(todo))):
            self._begin()
        while todo or any(worker.task for worker in self._workers):
            for worker in self._workers:
                if todo and worker.is_ready and worker.task is None:
                    worker.give(todo.popleft())
            for key, _ in self._selector.select():
                worker = key.data
                lines = worker.lines()
                if lines is not None:
                    yield from self._take(worker, lines)
                elif (task := self._bury(worker)) is not None:
                    deaths[task] = deaths.get(task, 0) + 1
                    if deaths[task] < DEATHS_MAX:
                        todo.appendleft(task)
                    else:
                        yield task[0], of_error(task[1], f"its worker died {DEATHS_MAX} times: {_how(worker)}")

    def _take(self, worker: _Worker, lines: list[bytes]) -> Iterator[tuple[int, Outcome]]:
        for line in lines:
            if worker.task is None:
                worker.is_ready = line + b"\n" == READY
            else:
                (variant, _), worker.task = worker.task, None
                yield variant, Outcome(**json.loads(line))

    def _begin(self) -> None:
        worker = _Worker(self._command, self._said)
        self._workers.add(worker)
        self._selector.register(worker.answers, selectors.EVENT_READ, worker)

    def _bury(self, worker: _Worker) -> Task | None:
        """Another one takes its place; the task that it did not finish."""
        self._end(worker)
        if not worker.is_ready:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise LabError(f"a worker of the sweep did not start ({_how(worker)}): {said or 'it said nothing'}")
        self._begin()
        return worker.task

    def _end(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        self._selector.unregister(worker.answers)
        worker.end()


def _how(worker: _Worker) -> str:
    status = worker.process.returncode
    if status >= 0:
        return f"it ended with {status}"
    with contextlib.suppress(ValueError):
        return f"by {signal.Signals(-status).name}"
    return f"by signal {-status}"
