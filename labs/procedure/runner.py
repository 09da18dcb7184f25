"""Plays a lab: takes the steps in order, listens to the members, and builds the document of the run.

It acts through the `Ground` (the network's Lab, or a fake of it) and through `Load`; it opens no socket of its own.
Whenever a step may end a member's life, its figures are taken first: they would end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from labs.network.errors import BusyError, LabError
from labs.network.members import MemberSettings
from labs.procedure import steps
from labs.procedure.comparing import compare_tables
from labs.procedure.document import Comparison, Entry, MemberAccount, Takeover, build
from labs.procedure.expectations import Expectation, Judgement, Until, judge
from labs.procedure.model import LabFile
from labs.procedure.references import lay_over
from labs.procedure.steps import Step, describe
from labs.quantities import Way
from labs.traffic.driver import TrafficError
from labs.traffic.durations import format_duration
from labs.traffic.fates import Fate, Tally
from syncproto.joining import NO_FULL_SYNC

TAKEOVER_WAIT_S = 6.0  # longer than the dead timer (2.5 s) and an election after it
POLL_S = 0.1
EVENTS_SETTLE_S = 0.05  # a member tells its first events at once; they belong beneath its start
ACTIVE = ("Active", "Active Attention")


class RunError(LabError):
    """A step could not be taken: the run ends there."""


class Ground(Protocol):
    """What the runner needs of a lab's network."""

    rate: float
    epoch: float
    members: dict[str, MemberSettings]

    async def start(self, member: str) -> None: ...
    async def stop(self, member: str) -> None: ...
    async def kill(self, member: str) -> None: ...
    async def power_cut(self, member: str) -> None: ...
    async def power_on(self, member: str) -> None: ...
    async def upgrade(self, member: str, release: str) -> None: ...
    async def pause(self, member: str) -> None: ...
    async def resume(self, member: str) -> None: ...
    async def cut(self, link: str, way: Way = "both") -> None: ...
    async def restore(self, link: str) -> None: ...
    async def limit(self, link: str, rate: int) -> None: ...
    async def unlimit(self, link: str) -> None: ...
    async def lose(self, link: str, share: float, way: Way = "both") -> None: ...
    async def unlose(self, link: str) -> None: ...
    async def delay(self, link: str, by: float, way: Way = "both") -> None: ...
    async def undelay(self, link: str) -> None: ...
    async def block(self, between: list[str], protocol: str, port: int) -> None: ...
    async def unblock(self, between: list[str], protocol: str, port: int) -> None: ...
    async def control(self, member: str, command: str, **arguments: Any) -> Any: ...
    def events(self, member: str) -> AsyncIterator[dict[str, Any]]: ...


class Load(Protocol):
    """What the runner needs of a workload."""

    async def start(self) -> None: ...
    async def open(self) -> dict[str, Any]: ...
    async def speak(self) -> dict[str, Any]: ...
    async def announce(self) -> dict[str, Any]: ...
    async def transfer(self, wait: bool) -> dict[str, Any]: ...
    async def reconnect(self, which: str, share: float) -> dict[str, Any]: ...
    async def finish(self) -> Tally: ...
    async def report(self) -> Tally: ...
    async def close(self) -> None: ...


class Runner:
    def __init__(self, file: LabFile, ground: Ground, load: Callable[[str], Load],
                 tell: Callable[[Entry], None]) -> None:  # fmt: skip
        self.file = file
        self.ground = ground
        self._make_load = load
        self._tell = tell
        self.accounts = {name: MemberAccount(member.release) for name, member in file.members.items()}
        self.loads: dict[str, Load] = {}
        self.finished: dict[str, Tally] = {}
        self._reported: dict[str, Tally] = {}
        self.takeovers: list[Takeover] = []
        self.comparisons: list[Comparison] = []
        self.judgements: list[Judgement] = []
        self.timeline: list[Entry] = []
        self.problem = ""
        self._begin = time.monotonic()
        self._listeners: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> dict[str, Any]:
        """The whole lab; the network is there already, and no member has started."""
        self._begin = time.monotonic()
        try:
            for step in self.file.steps:
                await self._take(step)
            await self._finish([name for name in self.loads if name not in self.finished])
            document = await self._look(self.file.expect, at_end=True)
            self.judgements += [judge(expectation, document, "the end") for expectation in self.file.expect]
        except (LabError, TrafficError) as error:
            self.problem = str(error)
            self._note("problem", self.problem)
            with contextlib.suppress(LabError, TrafficError):
                await self._refresh()
        return await self.document()

    async def close(self) -> None:
        """Ends the workloads and their connections."""
        for listener in self._listeners.values():
            listener.cancel()
        await asyncio.gather(*(load.close() for load in self.loads.values()))

    async def document(self) -> dict[str, Any]:
        """As of now."""
        now = time.monotonic()
        return build(
            lab=self.file.name, title=self.file.header.title, claims=self.file.header.claims, rate=self.ground.rate,
            seconds=now - self._begin, lab_seconds=(now - self._begin) * self.ground.rate, members=self.accounts,
            workloads=await self._tallies(), takeovers=self.takeovers, judgements=self.judgements,
            timeline=self.timeline, problem=self.problem, epoch=self.ground.epoch, comparisons=self.comparisons,
        )  # fmt: skip

    async def _look(self, expectations: Iterable[Expectation], at_end: bool = False) -> dict[str, Any]:
        """The document as of now; the members' tables are compared only where an expectation asks for it."""
        await self._refresh()
        if any(expectation.compares_tables for expectation in expectations):
            there = [name for name, account in self.accounts.items() if account.running and not account.paused]
            found = await compare_tables(self.ground.control, there)
            self.comparisons.append(Comparison((time.monotonic() - self._begin) * self.ground.rate, at_end, found))
        return await self.document()

    # -- steps

    async def _take(self, step: Step) -> None:
        if step.note:
            self._note("note", step.note)
        self._note("step", describe(step))
        watch = step.verb in MAY_TAKE_OVER
        before = await self._refresh() if watch else None
        try:
            if isinstance(step.what, steps.Links):
                await self._to_links(step.verb, step.what)
            else:
                await getattr(self, f"_do_{step.verb}")(step.what)
        except (LabError, TrafficError) as error:
            raise RunError(f"{step.where}.{step.verb}: {error}") from error
        if before is not None:
            await self._see_takeover(before, step)

    async def _do_start(self, what: steps.Members) -> None:
        for member in what.members:
            await self._begin_life(member, self.ground.start(member))

    async def _do_power_on(self, what: steps.Members) -> None:
        for member in what.members:
            await self._begin_life(member, self.ground.power_on(member))

    async def _do_upgrade(self, what: steps.Upgrade) -> None:
        account = self.accounts[what.member]
        if account.running:
            await self._end_life(what.member, self.ground.stop(what.member), "Stopped")
        account.release = what.release
        await self._begin_life(what.member, self.ground.upgrade(what.member, what.release))

    async def _do_stop(self, what: steps.Members) -> None:
        for member in what.members:
            await self._end_life(member, self.ground.stop(member), "Stopped")

    async def _do_kill(self, what: steps.Members) -> None:
        for member in what.members:
            await self._end_life(member, self.ground.kill(member), "Killed")

    async def _do_power_cut(self, what: steps.Members) -> None:
        for member in what.members:
            await self._end_life(member, self.ground.power_cut(member), "Power cut")

    async def _do_down(self, what: steps.Members) -> None:
        for member in what.members:
            await self.ground.control(member, "down")

    async def _do_up(self, what: steps.Members) -> None:
        for member in what.members:
            await self.ground.control(member, "up")

    async def _do_failover(self, what: steps.Failover) -> None:
        member = what.member or self._active()
        if member is None:
            raise RunError("no member is active, so none can be failed over; start one, or name the member")
        await self.ground.control(member, "down")

    async def _do_policy(self, what: steps.Policy) -> None:
        for member in what.members or list(self.accounts):
            policy = what.rules if what.rules is not None else lay_over(self.file.policy, what.patch or {})
            if self.accounts[member].running:
                await self.ground.control(member, "policy_install", policy=policy, file=str(self.file.path))
            self.ground.members[member].policy = policy  # also at its next start

    async def _do_set(self, what: steps.Set) -> None:
        for name, value in what.parameters.items():
            await self.ground.control(what.member, "ctl_set", name=name, value=value)

    async def _do_open(self, what: steps.Workloads) -> None:
        for name in what.workloads:
            if name not in self.loads:
                load = self._make_load(name)
                await load.start()
                self.loads[name] = load
            self.finished.pop(name, None)  # what can be opened again goes on counting
        results = await asyncio.gather(*(self.loads[name].open() for name in what.workloads))
        for name, result in zip(what.workloads, results, strict=True):
            workload = self.file.workloads[name]
            opened = f"{_counted(result['opened'], 'session')} opened{_failed(result)}"
            begun = ON_THE_WAY.get(workload.kind, opened)
            if workload.kind in ("short", "ping") and workload.count is not None:
                begun = f"{workload.count:,} {begun.removesuffix(' from now on')}"
            self._note("workload", f"{name}: {begun}")

    async def _do_speak(self, what: steps.Workloads) -> None:
        for name in what.workloads:
            result = await self._load(name).speak()
            self._note("workload", f"{name}: {result['spoke']} spoke, {result['answered']} were answered")

    async def _do_announce(self, what: steps.Workloads) -> None:
        for name in what.workloads:
            result = await self._load(name).announce()
            self._note("workload", f"{name}: {_counted(result['announced'], 'data connection')} announced"
                                   f"{_failed(result)}")

    async def _do_transfer(self, what: steps.Transfer) -> None:
        results = await asyncio.gather(*(self._load(name).transfer(what.wait) for name in what.workloads))
        for name, result in zip(what.workloads, results, strict=True):
            number = result["transferred" if what.wait else "started"]
            self._note("workload", f"{name}: {_counted(number, 'transfer')} {'complete' if what.wait else 'under way'}"
                                   f"{_failed(result)}")

    async def _do_reconnect(self, what: steps.Reconnect) -> None:
        result = await self._load(what.workload).reconnect(what.which, what.share)
        opened = _counted(result["opened"], "session")
        self._note("workload", f"{what.workload}: {opened} opened anew{_failed(result)}")

    async def _do_finish(self, what: steps.Workloads) -> None:
        await self._finish(what.workloads)

    async def _do_wait(self, what: steps.Wait) -> None:
        await asyncio.sleep(what.duration / self.ground.rate)

    async def _do_until(self, what: Until) -> None:
        deadline = time.monotonic() + max(1.0, what.within / self.ground.rate)
        compared = len(self.comparisons)
        while True:
            found = judge(what, await self._look([what]), "")
            if found.held:
                return
            if time.monotonic() > deadline:
                raise RunError(f"{what.that} is {found.seen} and did not become {found.wanted} within "
                               f"{format_duration(what.within)}")
            del self.comparisons[compared:]  # only what it came to is told
            await asyncio.sleep(POLL_S)

    async def _to_links(self, deed: str, what: steps.Links) -> None:
        """Deeds done to wires have the same names and arguments in a lab file and in the ground."""
        for link in what.links:
            await getattr(self.ground, deed)(link, **what.how())

    async def _do_pause(self, what: steps.Members) -> None:
        for member in what.members:
            await self.ground.pause(member)
            self.accounts[member].paused = True

    async def _do_resume(self, what: steps.Members) -> None:
        for member in what.members:
            await self.ground.resume(member)
            self.accounts[member].paused = False

    async def _do_block(self, what: steps.Block) -> None:
        await self.ground.block(what.between, *what.protocol_and_port)

    async def _do_unblock(self, what: steps.Block) -> None:
        await self.ground.unblock(what.between, *what.protocol_and_port)

    async def _do_check(self, what: steps.Check) -> None:
        document = await self._look(what.expectations)
        at = f"{format_duration(document['lab_seconds'])}"
        for expectation in what.expectations:
            judgement = judge(expectation, document, at)
            self.judgements.append(judgement)
            word = "held" if judgement.held else "NOT HELD"
            self._note("check", f"{word}: {judgement.text} (seen: {judgement.seen})")

    # -- workloads

    def _load(self, name: str) -> Load:
        if name not in self.loads:
            raise RunError(f"the workload {name} is not open; open it in an earlier step")
        return self.loads[name]

    async def _finish(self, names: list[str]) -> None:
        tallies = await asyncio.gather(*(self._load(name).finish() for name in names))
        for name, tally in zip(names, tallies, strict=True):
            self.finished[name] = tally
            fates = ", ".join(f"{number} {fate}" for fate, number in tally.fates.items() if number)
            own = ", ".join(f"{figure} {number:,}" for figure, number in tally.figures.items())
            if own and (refused := tally.fates[Fate.REFUSED]):
                own += f", refused {refused:,}"
            fates = f"{_counted(tally.sessions, 'session')}: {fates or 'none'}"
            self._note("workload", f"{name}: {own or fates}")

    async def _tallies(self) -> dict[str, tuple[str, Tally]]:
        tallies = {}
        for name, workload in self.file.workloads.items():
            if name in self.finished:
                tally = self.finished[name]
            else:
                tally = await self._report(name) if name in self.loads else Tally()
            tallies[name] = (str(workload.kind), tally)
        return tallies

    async def _report(self, name: str) -> Tally:
        """The workload's account; once the run has broken off, its last one where it cannot give any more."""
        try:
            self._reported[name] = await self.loads[name].report()
        except TrafficError as error:
            if not self.problem:
                raise
            self._note("problem", f"{name}: its last account is shown: {error}")
        return self._reported.get(name, Tally())

    # -- members

    async def _begin_life(self, member: str, start: Awaitable[None]) -> None:
        await start
        self.accounts[member].begin(self.accounts[member].release)
        await self._refresh()
        self._listeners[member] = asyncio.create_task(self._listen(member))
        await asyncio.sleep(EVENTS_SETTLE_S)

    async def _end_life(self, member: str, end: Awaitable[None], how: str) -> None:
        await self._refresh()
        await end
        self.accounts[member].end(how)

    async def _refresh(self) -> dict[str, dict[str, Any]]:
        """Every running member's figures, as of now."""
        for member, account in self.accounts.items():
            if account.running and not account.paused:
                try:
                    account.said(await self.ground.control(member, "status"))
                except BusyError as error:
                    self._note("problem", f"{member} is there and does not answer: {error}", member)
                except LabError as error:
                    account.end("Died")
                    self._note("problem", f"{member} does not answer any more: {error}", member)
        return {member: account.as_json() for member, account in self.accounts.items()}

    def _active(self) -> str | None:
        for member, account in self.accounts.items():
            if account.state in ACTIVE:
                return member
        return None

    async def _see_takeover(self, before: Mapping[str, Mapping[str, Any]], step: Step) -> None:
        """Waits until the cluster has settled on an active member again, and tells when it is another one. In load
        sharing several are active at once, and nobody takes over: a share moves."""
        if self.file.topology.cluster.mode != "high-availability":
            return
        former = next((m for m, was in before.items() if was["running"] and was["state"] in ACTIVE), None)
        deadline = time.monotonic() + TAKEOVER_WAIT_S
        while True:
            await self._refresh()
            taker = self._active()
            if former is None or (taker == former and step.verb not in ("failover", "down")):
                return
            if taker is not None and taker != former:
                break
            alive = any(a.able for m, a in self.accounts.items() if m != former)
            if not alive or time.monotonic() > deadline:
                if self._active() is None:
                    self._note("problem", f"no member took over from {former}")
                return
            await asyncio.sleep(POLL_S)
        was, had = before[taker], before[former]
        peer = was["sync"].get("peers", {}).get(former, {})
        full = {**NO_FULL_SYNC, **self.accounts[taker].status["full_sync"]}  # now: it may have been broken off by this
        entry = self._note(
            "takeover",
            f"{taker} ({self.accounts[taker].release}) is active instead of {former}; it knew "
            f"{was['connections']} of {_counted(had['connections'], 'connection')}",
            taker,
        )
        self.takeovers.append(
            Takeover(
                wall_s=entry.wall_s, lab_s=entry.lab_s, former=former, taker=taker,
                release=self.accounts[taker].release, former_release=had["release"], cause=describe(step),
                former_connections=had["connections"], taker_connections=was["connections"],
                sync=str(peer.get("status", "")), exchange=str(peer.get("exchange", "")), state=was["state"],
                full_sync=str(full["text"]) if full["state"] == "failed" else "",
            )
        )  # fmt: skip

    async def _listen(self, member: str) -> None:
        with contextlib.suppress(OSError, LabError):
            async for event in self.ground.events(member):
                at = self.ground.epoch + float(event["lab_time"]) / self.ground.rate
                text = str(event.get("text", ""))
                is_log = event.get("kind") == "log"
                if is_log:
                    self.accounts[member].log.append(text)
                entry = self._entry("log" if is_log else "member", f"{member}: {text}", member, at)
                self.timeline.append(entry)
                self._tell(entry)

    # -- the timeline

    def _entry(self, kind: str, text: str, member: str | None, at: float) -> Entry:
        return Entry(at - self._begin, (at - self._begin) * self.ground.rate, kind, text, member)

    def _note(self, kind: str, text: str, member: str | None = None) -> Entry:
        entry = self._entry(kind, text, member, time.monotonic())
        self.timeline.append(entry)
        self._tell(entry)
        return entry


MAY_TAKE_OVER = frozenset({"stop", "kill", "pause", "power_cut", "upgrade", "failover", "down"})
ON_THE_WAY = {
    "short": "new connections from now on",
    "ping": "new echo exchanges from now on",
    "flood": "new connections are being offered",
    "tftp": "ready",
}
"""What opening a workload begins, where it is not a number of sessions."""


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _failed(result: Mapping[str, Any]) -> str:
    return f", {result['failed']} could not" if result.get("failed") else ""
