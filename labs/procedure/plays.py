"""What steps do that is the run's own: to workloads, to time, to expectations, and to members by what they are now.

Each takes the run and the step's arguments. It must not know which world the run is in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from labs.network.errors import LabError
from labs.procedure import steps
from labs.procedure.document import Comparison, Entry, MemberAccount
from labs.procedure.expectations import Expectation, Judgement, judge
from labs.procedure.ground import Ground, Load
from labs.traffic.durations import format_duration
from labs.traffic.fates import Fate, Tally
from labs.traffic.workload import AnyWorkload
from labs.words import counted

POLL_S = 0.1
"""Wall seconds between two looks at what is waited for."""
POLL_SHARE = 0.01
"""Who has waited long looks less often: after so much more of the time. A wait of a day takes a thousand looks."""
ON_THE_WAY = {
    "short": "new connections from now on",
    "ping": "new echo exchanges from now on",
    "flood": "new connections are being offered",
    "tftp": "ready",
}
"""What opening a workload begins, where it is not a number of sessions."""


class RunError(LabError):
    """A step could not be taken: the run ends there."""


class Run(Protocol):
    """A run as its steps see it."""

    ground: Ground
    accounts: dict[str, MemberAccount]
    loads: dict[str, Load]
    finished: dict[str, Tally]
    comparisons: list[Comparison]
    judgements: list[Judgement]

    @property
    def workloads(self) -> Mapping[str, AnyWorkload]: ...
    def clock(self) -> float: ...
    def note(self, kind: str, text: str, member: str | None = None) -> Entry: ...
    def active(self) -> str | None: ...
    async def begun(self, workload: str) -> Load: ...
    async def look(self, expectations: Iterable[Expectation]) -> dict[str, Any]: ...


# -- members


async def install(ground: Ground, member: str, what: steps.InstallPolicy) -> Any:
    """A rule base on a member that runs, and at its next start; one that the member refuses does not come back then."""
    if what.rules is None:
        raise LabError("a patch is laid over the policy of a lab file; give a whole rule base")
    answer = await ground.control(member, "policy_install", policy=what.rules, file=what.origin)
    ground.members[member].policy = what.rules
    return answer


async def policy(run: Run, what: steps.InstallPolicy) -> None:
    """As `install`; a member that does not run has it from its next start on."""
    for member in what.targets(run.accounts):
        if run.accounts[member].running:
            await install(run.ground, member, what)
        elif what.rules is not None:
            run.ground.members[member].policy = what.rules


async def failover(run: Run, what: steps.Failover) -> None:
    member = what.member or run.active()
    if member is None:
        raise RunError("no member is active, so none can be failed over; start one, or name the member")
    await run.ground.control(member, "down")


# -- workloads


async def open_workloads(run: Run, what: steps.Workloads) -> None:
    loads = [await run.begun(name) for name in what.workloads]
    results = await asyncio.gather(*(load.open() for load in loads))
    for name, result in zip(what.workloads, results, strict=True):
        workload = run.workloads[name]
        opened = f"{counted(result['opened'], 'session')} opened{_failed(result)}"
        begun = ON_THE_WAY.get(workload.kind, opened)
        if workload.kind in ("short", "ping") and workload.count is not None:
            begun = f"{workload.count:,} {begun.removesuffix(' from now on')}"
        run.note("workload", f"{name}: {begun}")


async def speak(run: Run, what: steps.Workloads) -> None:
    for name in what.workloads:
        result = await load_of(run, name).speak()
        run.note("workload", f"{name}: {result['spoke']} spoke, {result['answered']} were answered")


async def announce(run: Run, what: steps.Workloads) -> None:
    for name in what.workloads:
        result = await load_of(run, name).announce()
        run.note("workload", f"{name}: {counted(result['announced'], 'data connection')} announced{_failed(result)}")


async def transfer(run: Run, what: steps.Transfer) -> None:
    results = await asyncio.gather(*(load_of(run, name).transfer(what.wait) for name in what.workloads))
    for name, result in zip(what.workloads, results, strict=True):
        number = result["transferred" if what.wait else "started"]
        run.note("workload", f"{name}: {counted(number, 'transfer')} {'complete' if what.wait else 'under way'}"
                             f"{_failed(result)}")


async def reconnect(run: Run, what: steps.Reconnect) -> None:
    result = await load_of(run, what.workload).reconnect(what.which, what.share)
    run.note("workload", f"{what.workload}: {counted(result['opened'], 'session')} opened anew{_failed(result)}")


async def finish(run: Run, what: steps.Workloads) -> None:
    await finish_all(run, what.workloads)


async def finish_all(run: Run, names: list[str]) -> None:
    tallies = await asyncio.gather(*(load_of(run, name).finish() for name in names))
    for name, tally in zip(names, tallies, strict=True):
        run.finished[name] = tally
        fates = ", ".join(f"{number} {fate}" for fate, number in tally.fates.items() if number)
        own = ", ".join(f"{figure} {number:,}" for figure, number in tally.figures.items())
        if own and (refused := tally.fates[Fate.REFUSED]):
            own += f", refused {refused:,}"
        fates = f"{counted(tally.sessions, 'session')}: {fates or 'none'}"
        run.note("workload", f"{name}: {own or fates}")


def load_of(run: Run, name: str) -> Load:
    if name not in run.loads:
        raise RunError(f"the workload {name} is not open; open it in an earlier step")
    return run.loads[name]


# -- time and expectations


async def wait(run: Run, what: steps.Wait) -> None:
    await asyncio.sleep(what.duration / run.ground.rate)


async def until(run: Run, what: steps.Await) -> None:
    begin = run.clock()
    deadline = begin + max(1.0, what.within / run.ground.rate)
    compared = len(run.comparisons)
    while True:
        found = judge(what, await run.look([what]), "")
        if found.held:
            return
        now = run.clock()
        if now > deadline:
            raise RunError(f"{what.that} is {found.seen} and did not become {found.wanted} within "
                           f"{format_duration(what.within)}")
        del run.comparisons[compared:]  # only what it came to is told
        await asyncio.sleep(max(POLL_S, (now - begin) * POLL_SHARE))


async def check(run: Run, what: steps.Check) -> None:
    document = await run.look(what.expectations)
    at = f"{format_duration(document['lab_seconds'])}"
    for expectation in what.expectations:
        judgement = judge(expectation, document, at)
        run.judgements.append(judgement)
        word = "held" if judgement.held else "NOT HELD"
        run.note("check", f"{word}: {judgement.text} (seen: {judgement.seen})")


def _failed(result: Mapping[str, Any]) -> str:
    return f", {result['failed']} could not" if result.get("failed") else ""
