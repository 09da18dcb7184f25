"""Clients that fetch a file: their sessions, their transfers, what was complete. FTP and TFTP speak through it.

Both ends make the file from its size, and a transfer is complete when every byte is the right one. A client whose
session failed opens a new one at its next transfer. Clients that block live in threads (`labs.traffic.threads`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from labs.traffic.fates import Fate, Session, Tally, WrongAnswer, fate_of
from labs.traffic.session_conversation import PATIENCE_FLOOR_S
from labs.traffic.stdio_commands import Command

Heard = Callable[[], None]
"""To be called whenever bytes of the file have arrived, from whatever thread."""


def content(size: int) -> bytes:
    """The file of this size: no two blocks of it are alike, so that a block in the wrong place is noticed."""
    return hashlib.shake_128(b"fwpair-lab").digest(size)


def patience_of(orders: dict[str, Any]) -> float:
    """Wall seconds until a client gives up."""
    return max(PATIENCE_FLOOR_S, float(orders["patience"]) / float(orders["clock"]["rate"]))


class NoDataConnection(Exception):
    """The data connection of a transfer could not be opened; its control connection is as it was."""


class FileClient(Protocol):
    """One application. Every call but `drop` raises when it fails."""

    lasting: bool
    """Whether a session outlives its transfer."""

    async def log_in(self) -> None: ...
    async def announce(self) -> None: ...
    async def fetch(self, heard: Heard) -> bytes: ...
    async def log_out(self) -> None: ...
    def drop(self) -> None:
        """End its connections at once, without a farewell. Raises nothing."""


class _Account:
    """A client, its present session if it has one, and its transfer under way."""

    def __init__(self, client: FileClient) -> None:
        self.client = client
        self.session: Session | None = None
        self.began = asyncio.Event()
        self.transfer: asyncio.Task[bool] | None = None


class Transfers:
    """All clients of a workload, as the commands of its client process."""

    def __init__(self, orders: dict[str, Any], make: Callable[[], FileClient], clock: Callable[[], float]) -> None:
        self.accounts = [_Account(make()) for _ in range(orders["count"])]
        self.sessions: list[Session] = []
        self.figures = {"transfers": 0, "transferred": 0, "failed": 0}
        self._clock = clock
        self._content = content(orders["size"])
        self._loop = asyncio.get_running_loop()

    def commands(self) -> dict[str, Command]:
        return {"open": self.open, "announce": self.announce, "transfer": self.transfer, "finish": self.finish,
                "report": self.report}  # fmt: skip

    def close(self) -> None:
        """Whoever still waits for the network is freed by it."""
        for account in self.accounts:
            account.client.drop()

    # -- commands

    async def open(self) -> dict[str, Any]:
        lasting = [account for account in self.accounts if account.client.lasting]
        opened = await asyncio.gather(*(self._ready(account) for account in lasting))
        return {"opened": sum(opened), "failed": len(opened) - sum(opened)}

    async def announce(self) -> dict[str, Any]:
        done = await asyncio.gather(*(self._announce(account) for account in self.accounts))
        return {"announced": sum(done), "failed": len(done) - sum(done)}

    async def transfer(self, wait: bool) -> dict[str, Any]:
        """One each. Returns when the first bytes of each have arrived, or when all have ended."""
        await self._idle()
        for account in self.accounts:
            account.began.clear()
            account.transfer = asyncio.create_task(self._transfer(account))
        if wait:
            complete = sum(await self._idle())
            return {"transferred": complete, "failed": len(self.accounts) - complete}
        await asyncio.gather(*(account.began.wait() for account in self.accounts))
        failed = sum(1 for account in self.accounts
                     if account.transfer and account.transfer.done() and not account.transfer.result())
        return {"started": len(self.accounts) - failed, "failed": failed}

    async def finish(self) -> dict[str, Any]:
        await self._idle()
        await asyncio.gather(*(self._log_out(account) for account in self.accounts))
        return await self.report()

    async def report(self) -> dict[str, Any]:
        tally = Tally.of(self.sessions)
        tally.figures = dict(self.figures)
        return {"tally": tally.as_json(), "unopened": []}

    # -- one client

    async def _idle(self) -> list[bool]:
        return await asyncio.gather(*(account.transfer for account in self.accounts if account.transfer))

    async def _ready(self, account: _Account) -> bool:
        """A session that is open: the one it has, or a new one."""
        if account.session is not None and account.session.fate is None:
            return True
        account.session = Session(len(self.sessions), began_at=self._clock())
        self.sessions.append(account.session)
        if not await self._do(account, account.client.log_in):
            return False
        account.session.opened(self._clock())
        return True

    async def _announce(self, account: _Account) -> bool:
        return await self._ready(account) and await self._do(account, account.client.announce)

    async def _transfer(self, account: _Account) -> bool:
        self.figures["transfers"] += 1
        try:
            complete = await self._ready(account) and await self._do(account, lambda: self._fetch(account))
        finally:
            account.began.set()
        self.figures["transferred" if complete else "failed"] += 1
        if complete and not account.client.lasting and account.session is not None:
            account.session.end(Fate.FINISHED)
        return complete

    async def _fetch(self, account: _Account) -> None:
        session = account.session
        assert session is not None
        last = self._clock()

        def heard() -> None:
            nonlocal last
            now = self._clock()
            session.longest_silence_s = max(session.longest_silence_s, now - last)
            session.last_answer_at = last = now
            if not account.began.is_set():
                self._loop.call_soon_threadsafe(account.began.set)

        data = await account.client.fetch(heard)
        if data != self._content:
            raise WrongAnswer(f"{len(data)} bytes, and not those of the file of {len(self._content)}")
        session.answers += 1

    async def _log_out(self, account: _Account) -> None:
        session = account.session
        if session is not None and session.fate is None and await self._do(account, account.client.log_out):
            session.end(Fate.FINISHED)

    async def _do(self, account: _Account, deed: Callable[[], Awaitable[None]]) -> bool:
        """An error is the session's end, unless it is about a data connection alone."""
        session = account.session
        assert session is not None
        try:
            await deed()
        except NoDataConnection:
            return False
        except Exception as error:
            if isinstance(error, TimeoutError) and session.last_answer_at is not None:
                session.longest_silence_s = max(session.longest_silence_s, self._clock() - session.last_answer_at)
            session.end(fate_of(error))
            account.client.drop()
            return False
        return True
