"""The life of one session, as the side that asks sees it, and its fate. Pure: time comes in as an argument.

A session is one connection. It ends with exactly one fate, and a fate never changes once it is given.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# A neighbour that answers no address question makes the kernel give up after three probes of a second each; a
# firewall's or host's "unreachable" arrives within milliseconds. Anything quicker than this was said by somebody.
NOBODY_ANSWERED_S = 0.9


class Fate(StrEnum):
    """What became of a session."""

    SURVIVED = "survived"  # its last exchange, at the end of the workload, was answered
    HUNG = "hung"  # it asked (or tried to open) and nobody answered within its patience
    RESET = "reset"  # somebody ended the open connection: RST, an unexpected end, or a wrong answer
    REFUSED = "refused"  # somebody said no to the opening
    FINISHED = "finished"  # it said all it had to say and was closed as planned


FAILED = frozenset({Fate.HUNG, Fate.RESET, Fate.REFUSED})


class WrongAnswer(Exception):
    """An answer that is not the one to the question that was asked."""


@dataclass(slots=True)
class Session:
    """One session. Times are seconds of the clock of whoever runs it."""

    number: int
    began_at: float
    opened_at: float | None = None
    asked_at: float | None = None
    sequence: int = -1
    answers: int = 0
    last_answer_at: float | None = None
    longest_silence_s: float = 0.0
    fate: Fate | None = None

    def opened(self, now: float) -> None:
        """The connection is open."""
        self.opened_at = now

    def ask(self, now: float) -> int:
        """The number of the next question. One question at a time."""
        assert self.asked_at is None and self.fate is None
        self.sequence += 1
        self.asked_at = now
        return self.sequence

    def answer(self, sequence: int, now: float) -> None:
        """The answer number `sequence` has come. Raises `WrongAnswer` where another one was asked for."""
        if self.asked_at is None or sequence != self.sequence:
            raise WrongAnswer(f"session {self.number} expected the answer {self.sequence} and got {sequence}")
        self._silence(now)
        self.asked_at = None
        self.answers += 1
        self.last_answer_at = now

    def give_up(self, now: float) -> None:
        """The application's patience is at its end."""
        self._silence(now)
        self.end(Fate.HUNG)

    def fail(self, error: BaseException | None, now: float) -> None:
        """The connection ended, or was never opened, and not by this side's wish."""
        self._silence(now)
        if self.opened_at is not None:
            timed_out = isinstance(error, OSError) and error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH)
            self.end(Fate.HUNG if timed_out else Fate.RESET)
        elif isinstance(error, TimeoutError) or (now - self.began_at >= NOBODY_ANSWERED_S and not _said_no(error)):
            self.end(Fate.HUNG)
        else:
            self.end(Fate.REFUSED)

    def end(self, fate: Fate) -> None:
        """Give the session its fate, unless it has one."""
        self.asked_at = None
        if self.fate is None:
            self.fate = fate

    def _silence(self, now: float) -> None:
        if self.asked_at is not None:
            self.longest_silence_s = max(self.longest_silence_s, now - self.asked_at)


def _said_no(error: BaseException | None) -> bool:
    return isinstance(error, ConnectionRefusedError | ConnectionResetError)


def fate_of(error: BaseException) -> Fate:
    """What an error of a file transfer, or of its control connection, makes of it."""
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, TimeoutError) or code in (errno.ETIMEDOUT, errno.EHOSTUNREACH):
        return Fate.HUNG
    if isinstance(error, EOFError | OSError | WrongAnswer) and not isinstance(error, ConnectionRefusedError):
        return Fate.RESET
    return Fate.REFUSED


@dataclass
class Tally:
    """What became of many sessions; tallies of two processes add up."""

    sessions: int = 0
    open: int = 0
    fates: dict[Fate, int] = field(default_factory=lambda: dict.fromkeys(Fate, 0))
    answers: int = 0
    longest_silence_s: float = 0.0
    longest_open_s: float = 0.0
    last_answer: dict[str, tuple[float, float]] = field(default_factory=dict)  # by fate: earliest, latest
    figures: dict[str, int | float] = field(default_factory=dict)  # what its kind of workload counts besides

    @classmethod
    def of(cls, sessions: Iterable[Session]) -> Tally:
        """The tally of these sessions."""
        tally = cls()
        for session in sessions:
            tally.add(session)
        return tally

    def add(self, session: Session) -> None:
        self.sessions += 1
        self.answers += session.answers
        if session.longest_silence_s > self.longest_silence_s:
            self.longest_silence_s = session.longest_silence_s
        if session.opened_at is not None and session.opened_at - session.began_at > self.longest_open_s:
            self.longest_open_s = session.opened_at - session.began_at
        if session.fate is None:
            self.open += 1
        else:
            self.fates[session.fate] += 1
        if session.last_answer_at is not None:
            at = session.last_answer_at
            self._span(str(session.fate or "open"), at, at)

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        total = Tally(
            sessions=self.sessions + other.sessions,
            open=self.open + other.open,
            fates={fate: self.fates[fate] + other.fates[fate] for fate in Fate},
            answers=self.answers + other.answers,
            longest_silence_s=max(self.longest_silence_s, other.longest_silence_s),
            longest_open_s=max(self.longest_open_s, other.longest_open_s),
            last_answer=dict(self.last_answer),
            figures={name: self.figures.get(name, 0) + other.figures.get(name, 0)
                     for name in [*self.figures, *other.figures]},
        )
        for name, (first, last) in other.last_answer.items():
            total._span(name, first, last)
        return total

    def as_json(self) -> dict[str, Any]:
        return {
            "sessions": self.sessions,
            "open": self.open,
            **{str(fate): number for fate, number in self.fates.items()},
            "answers": self.answers,
            "longest_silence_s": round(self.longest_silence_s, 3),
            "longest_open_s": round(self.longest_open_s, 3),
            "last_answer": {name: [round(first, 3), round(last, 3)] for name, (first, last) in
                            self.last_answer.items()},
            "figures": dict(self.figures),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tally:
        return cls(
            sessions=data["sessions"],
            open=data["open"],
            fates={fate: data[str(fate)] for fate in Fate},
            answers=data["answers"],
            longest_silence_s=data["longest_silence_s"],
            longest_open_s=data["longest_open_s"],
            last_answer={name: (span[0], span[1]) for name, span in data["last_answer"].items()},
            figures=dict(data.get("figures", {})),
        )

    def _span(self, name: str, first: float, last: float) -> None:
        old = self.last_answer.get(name)
        if old is None:
            self.last_answer[name] = (first, last)
        elif first < old[0] or last > old[1]:  # most lie within it
            self.last_answer[name] = (min(old[0], first), max(old[1], last))
