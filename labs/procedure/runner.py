"""Plays a lab: takes the steps in order, listens to the members, and builds the document of the run.

It acts through the `Ground` and through each workload's `Load`, reads no clock but the one that it is given, and waits
by asyncio alone: so it runs on real packets and in virtual time, and knows no difference.
Whenever a step may end a member's life, its figures are taken first: they would end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from labs.network.errors import BusyError, LabError
from labs.procedure import plays
from labs.procedure.comparing import compare_tables
from labs.procedure.document import Comparison, Entry, MemberAccount, Takeover, build
from labs.procedure.expectations import Expectation, Judgement, judge
from labs.procedure.ground import Ground, Load
from labs.procedure.model import LabFile
from labs.procedure.moments import moment, moment_words
from labs.procedure.plays import RunError
from labs.procedure.verbs import VERBS, Life, Step, Verb
from labs.traffic.driver import TrafficError
from labs.traffic.fates import Tally
from labs.traffic.workload import AnyWorkload
from labs.words import counted
from syncproto.joining import NO_FULL_SYNC

TAKEOVER_WAIT_S = 6.0  # longer than the dead timer (2.5 s) and an election after it
POLL_S = 0.1
EVENTS_SETTLE_S = 0.05  # a member tells its first events at once; they belong beneath its start
ACTIVE = ("Active", "Active Attention")


class Runner:
    """One run of a lab, from its first step to its document."""

    def __init__(self, file: LabFile, ground: Ground, load: Callable[[str], Load], tell: Callable[[Entry], None],
                 clock: Callable[[], float], seed: int = 0) -> None:  # fmt: skip
        """`clock`: wall seconds of the world that the run is in; its zero is that of the ground's epoch. From `seed`
        comes the moment of each step that has a span."""
        self.file = file
        self.ground = ground
        self.clock = clock
        self.seed = seed
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
        self._begin = self.clock()
        self._listeners: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> dict[str, Any]:
        """The whole lab; the network is there already, and no member has started."""
        self._begin = self.clock()
        try:
            for index, step in enumerate(self.file.steps):
                await self._take(step, moment(step.after, self.seed, index))
            await plays.finish_all(self, [name for name in self.loads if name not in self.finished])
            document = await self.look(self.file.expect, at_end=True)
            self.judgements += [judge(expectation, document, "the end") for expectation in self.file.expect]
        except (LabError, TrafficError) as error:
            self.problem = str(error)
            self.note("problem", self.problem)
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
        now = self.clock()
        return build(
            lab=self.file.name, title=self.file.header.title, claims=self.file.header.claims, rate=self.ground.rate,
            seconds=now - self._begin, lab_seconds=(now - self._begin) * self.ground.rate, members=self.accounts,
            workloads=await self._tallies(), takeovers=self.takeovers, judgements=self.judgements,
            timeline=self.timeline, problem=self.problem, epoch=self.ground.epoch, comparisons=self.comparisons,
            world=self._world(),
        )  # fmt: skip

    def _world(self) -> Mapping[str, Any]:
        """With the seed, where something came from it."""
        drawn = any(step.after[0] != step.after[1] for step in self.file.steps)
        return {**self.ground.world, "seed": self.seed} if drawn else self.ground.world

    async def look(self, expectations: Iterable[Expectation], at_end: bool = False) -> dict[str, Any]:
        """The document as of now; the members' tables are compared only where an expectation asks for it."""
        await self._refresh()
        if any(expectation.compares_tables for expectation in expectations):
            there = [name for name, account in self.accounts.items() if account.running and not account.paused]
            found = await compare_tables(self.ground.control, there)
            self.comparisons.append(Comparison((self.clock() - self._begin) * self.ground.rate, at_end, found))
        return await self.document()

    # -- steps

    async def _take(self, step: Step, after_s: float) -> None:
        if after_s:
            await asyncio.sleep(after_s / self.ground.rate)
        if step.note:
            self.note("note", step.note)
        self.note("step", f"{moment_words(step.after, after_s)}{step.words()}")
        verb = VERBS[step.verb]
        before = await self._refresh() if verb.may_take_over else None
        try:
            if verb.play is not None:
                await verb.play(self, step.what)
            else:
                for target in step.what.targets(self.accounts):
                    await self._do(verb, target, step.what)
        except (LabError, TrafficError) as error:
            raise RunError(f"{step.where}.{step.verb}: {error}") from error
        if before is not None:
            await self._see_takeover(before, step)

    async def _do(self, verb: Verb, target: str, what: Any) -> None:
        """The deed, done to one member or link; what it makes of a member's life is written down."""
        assert verb.deed is not None
        account = self.accounts.get(target)
        if account is None or verb.leaves is None:
            await verb.deed(self.ground, target, what)
        elif verb.ends_as:
            await self._end_life(target, verb.deed(self.ground, target, what), verb.ends_as)
        elif verb.leaves is Life.PAUSED or account.paused:
            await verb.deed(self.ground, target, what)
            account.paused = verb.leaves is Life.PAUSED
        else:
            if account.running and Life.RUNNING in verb.wants:  # it is begun anew, and its figures would be gone
                await self._end_life(target, self.ground.stop(target), "Stopped")
            await self._begin_life(target, verb.deed(self.ground, target, what))

    # -- workloads

    @property
    def workloads(self) -> Mapping[str, AnyWorkload]:
        return self.file.workloads

    async def begun(self, workload: str) -> Load:
        """The workload, ready to be opened; what was finished goes on counting."""
        if workload not in self.loads:
            load = self._make_load(workload)
            await load.start()
            self.loads[workload] = load
        self.finished.pop(workload, None)
        return self.loads[workload]

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
            self.note("problem", f"{name}: its last account is shown: {error}")
        return self._reported.get(name, Tally())

    # -- members

    async def _begin_life(self, member: str, start: Awaitable[None]) -> None:
        try:
            await start
        finally:
            self.accounts[member].release = self.ground.members[member].release  # an upgrade changes it
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
                    self.note("problem", f"{member} is there and does not answer: {error}", member)
                except LabError as error:
                    account.end("Died")
                    self.note("problem", f"{member} does not answer any more: {error}", member)
        return {member: account.as_json() for member, account in self.accounts.items()}

    def active(self) -> str | None:
        """The member that is active; None where none is."""
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
        deadline = self.clock() + TAKEOVER_WAIT_S
        while True:
            await self._refresh()
            taker = self.active()
            if former is None or (taker == former and step.verb not in ("failover", "down")):
                return
            if taker is not None and taker != former:
                break
            alive = any(a.able for m, a in self.accounts.items() if m != former)
            if not alive or self.clock() > deadline:
                if self.active() is None:
                    self.note("problem", f"no member took over from {former}")
                return
            await asyncio.sleep(POLL_S)
        was, had = before[taker], before[former]
        peer = was["sync"].get("peers", {}).get(former, {})
        full = {**NO_FULL_SYNC, **self.accounts[taker].status["full_sync"]}  # now: it may have been broken off by this
        entry = self.note(
            "takeover",
            f"{taker} ({self.accounts[taker].release}) is active instead of {former}; it knew "
            f"{was['connections']} of {counted(had['connections'], 'connection')}",
            taker,
        )
        self.takeovers.append(
            Takeover(
                wall_s=entry.wall_s, lab_s=entry.lab_s, former=former, taker=taker,
                release=self.accounts[taker].release, former_release=had["release"], cause=step.words(),
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

    def note(self, kind: str, text: str, member: str | None = None) -> Entry:
        entry = self._entry(kind, text, member, self.clock())
        self.timeline.append(entry)
        self._tell(entry)
        return entry

