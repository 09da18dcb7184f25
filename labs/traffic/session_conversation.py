"""One connection's talk, and all the sessions of the process that asks.

A question is `Q SESSION NUMBER`, its answer `A SESSION NUMBER`, a line each. Both ends speak the same protocol; which
of them asks is a matter of the workload. The opening exchange is number 0 and always the client's.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

from labs.traffic.fates import Fate, Session, Tally, WrongAnswer
from labs.traffic.host import Host, Timer

# No timer that waits for the network fires sooner than this, however fast lab time runs: retransmission is wall time.
PATIENCE_FLOOR_S = 1.0
LINE_MAX = 256
_QUIET_POLL_S = 0.02


class Conversation(asyncio.Protocol):
    """The lines of one connection. What they mean for a session is its asker's business."""

    __slots__ = ("_buffer", "_on_question", "asker", "patience", "patient_until", "session", "timer", "transport")

    def __init__(self, asker: Asker, on_question: Callable[[Conversation, int, int], None] | None = None) -> None:
        self.asker = asker
        self.session: Session | None = None  # set where this end asks
        self.timer: Timer | None = None
        """When the next question is asked."""
        self.patience: Timer | None = None
        """When the answer is given up. It is set once, and looks again when the patience of a later question ends."""
        self.patient_until = 0.0
        self.transport: asyncio.Transport | None = None
        self._on_question = on_question
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        try:
            if len(self._buffer) > LINE_MAX:
                raise WrongAnswer("a line without end")
            for line in lines:
                kind, session, number = line.split()
                self._line(kind, int(session), int(number))
        except (ValueError, WrongAnswer) as error:
            self._lost(error)
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost(error)
        self.transport = None

    def send(self, kind: str, session: int, number: int) -> None:
        if self.transport is not None:
            self.transport.write(f"{kind} {session} {number}\n".encode())

    def close(self) -> None:
        """In order: our FIN first, so that a question under way still gets its answer; the other end closes then."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()

    def abort(self) -> None:
        """As an application that is ended: one RST, and the kernel retransmits nothing any more."""
        if self.transport is not None:
            connection = self.transport.get_extra_info("socket")
            if connection is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def _line(self, kind: bytes, session: int, number: int) -> None:
        if kind == b"Q":
            self.send("A", session, number)
            if self._on_question is not None:
                self._on_question(self, session, number)
        elif kind == b"A" and self.session is not None:
            self.asker.answered(self, number)
        else:
            raise WrongAnswer(f"a line of kind {kind!r}")

    def _lost(self, error: BaseException | None) -> None:
        if self.session is not None:
            self.asker.lost(self, error)


class Asker:
    """The sessions in which this process asks: their think times, their patience, and their ends."""

    def __init__(self, orders: dict[str, Any], host: Host) -> None:
        self.host = host
        self.rate: float = orders["clock"]["rate"]
        self.epoch: float = orders["clock"]["epoch"]
        self.name: str = orders["name"]
        self.patience_s = max(PATIENCE_FLOOR_S, orders["patience"] / self.rate)
        self.idle: bool = orders.get("idle", False)
        self.think: tuple[float, float] | None = orders.get("think")
        self.hold: tuple[float, float] | None = orders.get("hold")
        self.conversations: dict[int, Conversation] = {}
        self.finishing = False

    @property
    def short(self) -> bool:
        return self.hold is not None

    # -- one session

    def adopt(self, conversation: Conversation, session: Session) -> None:
        conversation.session = session
        self.conversations[session.number] = conversation

    def ask(self, conversation: Conversation) -> None:
        session = conversation.session
        assert session is not None
        if session.fate is not None or session.asked_at is not None:
            return
        self._cancel(conversation)
        now = self.host.clock()
        conversation.send("Q", session.number, session.ask(now))
        conversation.patient_until = now + self.patience_s
        if conversation.patience is None:
            conversation.patience = self.host.later(self.patience_s, self._look_at_patience, conversation)

    def answered(self, conversation: Conversation, number: int) -> None:
        session = conversation.session
        assert session is not None
        if session.fate is not None:
            return
        session.answer(number, self.host.clock())
        self._cancel(conversation)
        if self.finishing:
            self._settle(conversation, session)
        elif self.hold is None:
            self.ponder(conversation)
        elif number == 0 and self.hold[1] > 0:
            self._later(conversation, self.hold)
        else:
            self._settle(conversation, session)

    def ponder(self, conversation: Conversation) -> None:
        """The silence before the next question."""
        if not self.idle and self.think is not None:
            self._later(conversation, self.think)

    def lost(self, conversation: Conversation, error: BaseException | None) -> None:
        session = conversation.session
        assert session is not None
        if session.fate is not None:
            return
        self._cancel(conversation)
        session.fail(error, self.host.clock())

    def retire(self, conversation: Conversation) -> None:
        """Closed in order, by the application's own wish."""
        session = conversation.session
        if session is not None and session.fate is None:
            self._cancel(conversation)
            session.end(Fate.FINISHED)
        conversation.close()

    def _settle(self, conversation: Conversation, session: Session) -> None:
        if self.short:
            session.end(Fate.FINISHED)
            conversation.close()
        else:
            session.end(Fate.SURVIVED)  # stays open, so that the members' tables can still be compared

    def _look_at_patience(self, conversation: Conversation) -> None:
        session = conversation.session
        assert session is not None
        conversation.patience = None
        if session.asked_at is None:
            return  # nothing is waited for; the next question looks again
        now = self.host.clock()
        if now < conversation.patient_until:
            left_s = conversation.patient_until - now
            conversation.patience = self.host.later(left_s, self._look_at_patience, conversation)
            return
        session.give_up(now)
        conversation.abort()

    def _later(self, conversation: Conversation, spread: tuple[float, float]) -> None:
        delay_s = self.host.chance.uniform(*spread) / self.rate
        conversation.timer = self.host.later(delay_s, self.ask, conversation)

    @staticmethod
    def _cancel(conversation: Conversation) -> None:
        if conversation.timer is not None:
            conversation.timer.cancel()
            conversation.timer = None

    # -- all of them

    def live(self) -> list[Conversation]:
        return [
            conversation
            for conversation in self.conversations.values()
            if conversation.session is not None
            and conversation.session.fate is None
            and conversation.session.opened_at is not None
        ]

    async def speak(self, rate: float = 0.0) -> dict[str, Any]:
        """Every live session asks now (at most `rate` a second), and the answers are awaited."""
        live = self.live()
        answers_before = sum(c.session.answers for c in live if c.session is not None)
        await self._ask_all(live, rate)
        await self.quiet(live)
        failed = [c for c in live if c.session is not None and c.session.fate not in (None, Fate.SURVIVED)]
        answers = sum(c.session.answers for c in live if c.session is not None) - answers_before
        return {"spoke": len(live), "answered": min(answers, len(live) - len(failed)), "failed": len(failed)}

    async def finish(self, rate: float = 0.0) -> dict[str, Any]:
        """The last exchange of every live session; afterwards each session has its fate."""
        self.finishing = True
        live = self.live()
        await self._ask_all(live, rate)
        await self.quiet(live)
        return self.report()

    async def quiet(self, conversations: list[Conversation]) -> None:
        """Until the question that each of them is waiting with, if any, is answered or given up."""
        questions = [(c.session, c.session.sequence) for c in conversations if c.session is not None]
        while questions:
            session, number = questions[-1]
            if session.asked_at is not None and session.sequence == number:
                await asyncio.sleep(_QUIET_POLL_S)
            else:
                questions.pop()

    def report(self, without: frozenset[int] = frozenset()) -> dict[str, Any]:
        return Tally.of(
            conversation.session
            for number, conversation in self.conversations.items()
            if conversation.session is not None and number not in without
        ).as_json()

    async def _ask_all(self, conversations: list[Conversation], rate: float) -> None:
        begin = self.host.clock()
        for index, conversation in enumerate(conversations):
            if rate and (ahead := index / rate - (self.host.clock() - begin)) > 0:
                await asyncio.sleep(ahead)
            self.ask(conversation)
