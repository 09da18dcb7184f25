"""A session's fate: each way to end, exactly one, and the silences that it saw."""

import errno

import pytest

from labs.traffic.fates import Fate, Session, Tally, WrongAnswer


def opened(began: float = 0.0) -> Session:
    session = Session(1, began_at=began)
    session.opened(began + 0.01)
    return session


def test_answers_are_numbered_and_silences_measured() -> None:
    session = opened()
    assert session.ask(1.0) == 0
    session.answer(0, 1.5)
    assert session.ask(2.0) == 1
    session.answer(1, 2.1)
    assert (session.answers, session.last_answer_at, session.longest_silence_s) == (2, 2.1, 0.5)
    assert session.fate is None


@pytest.mark.parametrize("number", [-1, 1, 7])
def test_a_wrong_answer_is_no_answer(number: int) -> None:
    session = opened()
    session.ask(1.0)
    with pytest.raises(WrongAnswer, match=f"got {number}"):
        session.answer(number, 2.0)
    assert session.answers == 0


def test_an_answer_that_nobody_asked_for() -> None:
    with pytest.raises(WrongAnswer):
        opened().answer(0, 1.0)


def test_no_answer_within_patience_is_hung() -> None:
    session = opened()
    session.ask(1.0)
    session.give_up(7.0)
    assert session.fate is Fate.HUNG
    assert session.longest_silence_s == 6.0


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (ConnectionResetError(), Fate.RESET),
        (None, Fate.RESET),
        (OSError(errno.ETIMEDOUT, "timed out"), Fate.HUNG),
        (WrongAnswer("x"), Fate.RESET),
    ],
)
def test_an_open_connection_ends(error: BaseException | None, fate: Fate) -> None:
    session = opened()
    session.ask(1.0)
    session.fail(error, 2.0)
    assert session.fate is fate


@pytest.mark.parametrize(
    ("error", "after_s", "fate"),
    [
        (ConnectionRefusedError(), 0.01, Fate.REFUSED),
        (ConnectionRefusedError(), 3.0, Fate.REFUSED),
        (OSError(errno.EHOSTUNREACH, "prohibited"), 0.01, Fate.REFUSED),
        (OSError(errno.EHOSTUNREACH, "no neighbour"), 3.0, Fate.HUNG),
        (TimeoutError(), 6.0, Fate.HUNG),
    ],
)
def test_an_opening_fails(error: BaseException, after_s: float, fate: Fate) -> None:
    session = Session(1, began_at=10.0)
    session.fail(error, 10.0 + after_s)
    assert session.fate is fate


def test_the_first_fate_stays() -> None:
    session = opened()
    session.end(Fate.FINISHED)
    session.fail(ConnectionResetError(), 2.0)
    session.end(Fate.SURVIVED)
    assert session.fate is Fate.FINISHED


def test_tallies_add_up_and_travel_as_json() -> None:
    sessions = [opened(float(number)) for number in range(3)]
    for session in sessions:
        session.ask(session.began_at)
        session.answer(0, session.began_at + 1)
    sessions[0].end(Fate.SURVIVED)
    sessions[1].end(Fate.HUNG)
    whole = Tally.of(sessions)
    parts = Tally.of(sessions[:1]).plus(Tally.of(sessions[1:]))
    assert whole == parts
    assert (whole.sessions, whole.open, whole.fates[Fate.SURVIVED], whole.fates[Fate.HUNG]) == (3, 1, 1, 1)
    assert sum(whole.fates.values()) + whole.open == whole.sessions
    assert whole.last_answer == {"survived": (1, 1), "hung": (2, 2), "open": (3, 3)}
    assert Tally.from_json(whole.as_json()).as_json() == whole.as_json()
