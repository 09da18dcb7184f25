"""A kernel's TCP tells the stories that the simulated one is tested with: the same kinds of packets in the same order,
and the same times of what is sent again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import tcp_stories as stories

from labs.network.private import needs_user_namespace

LINUX = tuple(int(number) for number in os.uname().release.split("-")[0].split(".")[:2])
pytestmark = pytest.mark.skipif(
    LINUX < (6, 7),
    reason="what is simulated is TCP of Linux 6.7 and later: older ones acknowledge more, and repeat SYNs later",
)
Seen = list[tuple[float, str]]


@cache
def seen() -> dict[str, list[Seen]]:
    """What was on the wire, story by story, each time that it was told."""
    user = ["-r"] if needs_user_namespace() else []
    line = ["unshare", *user, "-n", sys.executable, "-P", str(Path(__file__).with_name("real_tcp.py"))]
    done = subprocess.run(line, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Seen]] = json.loads(done.stdout)
    return found


def words(story: Seen) -> str:
    return " ".join(word for _, word in story)


def without_hurry(told: list[Seen]) -> list[str]:
    """The times it was told on which no process was so late that the kernel acknowledged in its place (40 ms), or, at
    10 ms of thinking, the wait became a long one."""
    kept = []
    for story in told:
        answers = [(at - before, word) for (before, _), (at, word) in pairwise(story)]
        if all(gap < 0.035 for gap, word in answers if word in ("<P.6", "<F.")):
            kept.append(words(story))
    return kept


def test_questions_answers_and_an_end_in_order() -> None:
    wanted = " ".join([stories.HANDSHAKE, stories.FIRST_EXCHANGE, stories.LATER_EXCHANGES, stories.BOTH_CLOSE])
    assert wanted in without_hurry(seen()["later"])


def test_quick_exchanges_and_an_abort() -> None:
    wanted = " ".join([stories.HANDSHAKE, stories.QUICK_EXCHANGES, stories.LAST_ACK, stories.ABORT])
    assert wanted in without_hurry(seen()["quick"])


def test_one_side_closes_and_still_hears_the_other() -> None:
    assert words(seen()["half_close"][0]) == f"{stories.HANDSHAKE} {stories.HALF_CLOSE}"


def test_a_closed_port() -> None:
    assert words(seen()["refused"][0]) == stories.REFUSED


def test_what_nobody_answers_is_sent_again_at_the_same_times() -> None:
    data = [at for at, word in seen()["dark_data"][0] if word == ">P.4"][1:]
    assert [at - data[0] for at in data] == pytest.approx(stories.DARK_DATA_S, rel=0.1, abs=0.02)
    syns = [at for at, word in seen()["dark_syn"][0] if word == ">S"]
    assert [at - syns[0] for at in syns] == pytest.approx(stories.DARK_SYN_S, rel=0.1, abs=0.02)


def test_after_a_slow_opening_the_first_data_waits_for_two_round_trips() -> None:
    """The opening counts as one; a kernel's timer of two seconds may be a quarter of one late."""
    story = seen()["slow"][0]
    round_trip_s = next(at for at, word in story if word == ">.") - story[0][0]
    data = [at for at, word in story if word == ">P.4"]
    assert round_trip_s > 0.9
    assert data[1] - data[0] == pytest.approx(stories.SLOW_DATA_S[1] + 2 * (round_trip_s - 1), rel=0.15)
