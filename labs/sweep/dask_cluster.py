"""The same work on a Dask cluster that is there already. What it needs is the optional extra `dask`."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from labs.exit_codes import ExitCode
from labs.network.errors import LabError
from labs.sweep.local_workers import DEATHS_MAX, Task
from labs.sweep.outcome import Outcome, of_error
from labs.sweep.variants import Bundle
from labs.sweep.work import SIMULATE, play_bundle, sources

CONNECT_S = 10.0
"""How long a scheduler may take to answer. Lab's own."""
AHEAD = 3
"""Tasks that each of the cluster's threads has before it: enough for it never to wait for the next."""


class DaskClusterError(LabError):
    exit_code = ExitCode.CANNOT_RUN


class DaskCluster:
    """A context. `outcomes` gives each task's as it comes, in any order."""

    def __init__(self, address: str, bundles: Sequence[Bundle], simulate: str = SIMULATE) -> None:
        self._bundles = bundles
        self._simulate = simulate
        try:
            import distributed
        except ImportError as error:
            raise DaskClusterError(f"--dask needs the package distributed ({error}); install it: pip install "
                               "'fwpair-lab[dask]'") from None
        self._dask: Any = distributed
        try:
            self._client: Any = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise DaskClusterError(f"--dask {address}: no scheduler answers ({error or 'in time'}); start one with "
                               "`dask scheduler`") from None
        self.number = sum(self._client.nthreads().values())
        if not self.number:
            self._client.close()
            raise DaskClusterError(f"--dask {address}: the cluster has no workers; start one with "
                                   f"`dask worker {address}`")

    def __enter__(self) -> DaskCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[tuple[int, Outcome]]:
        """A variant's number and the outcome of one of its seeds. The scheduler gives what a dead worker had to others,
        and gives up after several. It also blames tasks that only waited on those workers: so each is tried anew."""
        todo = deque(tasks)
        given: dict[Any, Task] = {}
        deaths: Counter[Task] = Counter()
        coming = self._dask.as_completed(loop=self._client.loop, raise_errors=False)

        def give() -> None:
            if todo:
                task = todo.popleft()
                future = self._client.submit(play_bundle, self._bundles[task[0]], task[1], self._simulate, pure=False)
                given[future] = task
                coming.add(future)

        for _ in range(AHEAD * self.number):
            give()
        try:
            for future in coming:
                task = given.pop(future)
                outcome = self._outcome(future)
                if outcome is None:
                    deaths[task] += 1
                    if deaths[task] < DEATHS_MAX:
                        todo.append(task)
                    else:
                        outcome = of_error(task[1], "its workers died, one after the other")
                give()
                if outcome is not None:
                    yield task[0], outcome
        finally:
            self._client.cancel(list(given))

    def _outcome(self, future: Any) -> Outcome | None:
        """None where the scheduler gave up."""
        error = future.exception()
        if isinstance(error, self._dask.KilledWorker):
            return None
        if error is not None:
            raise DaskClusterError(f"a worker of the cluster cannot run it: {type(error).__name__}: {error}; it needs "
                                   "the same fwpair-lab as this machine") from error
        result = future.result()
        if result["sources"] != sources():
            raise DaskClusterError("a worker of the cluster runs another version of fwpair-lab, and its results could "
                               "differ; install the same on all")
        return Outcome(**result["outcome"])
