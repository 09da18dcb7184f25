"""A follower's memory stays in its caps, and what is none of its stream does not disturb it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from fwnode.firewall.lines import AHEAD_BYTES_MAX, HELD_BYTES_MAX, HELD_SEGMENTS_MAX, LINE_BYTES_MAX, LineFollower


def follower(start: int = 100) -> LineFollower:
    made = LineFollower()
    made.start(start)
    return made


def test_lines_end_with_lf_and_lose_their_cr() -> None:
    assert follower().feed(100, b"one\r\ntwo\n\rthree", 15) == [b"one", b"two"]


@examples(60)
@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 3_000), st.booleans()), max_size=40))
def test_memory_stays_in_the_caps(segments: list[tuple[int, int, bool]]) -> None:
    made = follower()
    for at, length, ends in segments:
        made.feed(100 + at, b"x" * (length - 1) + (b"\n" if ends else b"x"), length)
        position = made.position()
        assert len(position.line) <= LINE_BYTES_MAX
        assert len(position.held) <= HELD_SEGMENTS_MAX
        assert sum(len(data) for data, _ in position.held.values()) <= HELD_BYTES_MAX


def test_a_line_without_end_is_not_kept() -> None:
    made = follower()
    for number in range(10):
        made.feed(100 + number * 1_000, b"x" * 1_000, 1_000)
        assert len(made.position().line) <= LINE_BYTES_MAX
    assert made.feed(10_100, b"\nnext\n", 6) == [b"next"]
    assert made.losses == 1


def test_more_segments_ahead_than_may_be_held_give_the_gap_up() -> None:
    made = follower()
    told = [line for n in range(HELD_SEGMENTS_MAX + 1) for line in made.feed(110 + n * 2, b"%d\n" % n, 2)]
    assert told == [b"%d" % n for n in range(1, HELD_SEGMENTS_MAX + 1)], "all but the first, whose beginning is unsure"
    assert made.losses == 1


def test_segments_far_ahead_are_none_of_this_stream() -> None:
    made = follower()
    for number in range(HELD_SEGMENTS_MAX + 2):
        assert made.feed(101 + AHEAD_BYTES_MAX + number, b"x\n", 2) == []
    assert made.feed(100, b"one\n", 4) == [b"one"]


def test_a_new_beginning_forgets_what_was_held() -> None:
    made = follower()
    made.feed(110, b"old\n", 4)
    made.start(5_000_000)
    assert not made.position().held
    assert made.feed(5_000_000, b"new\n", 4) == [b"new"]


def test_a_keepalive_is_no_line() -> None:
    made = LineFollower()
    assert made.feed(99, b"", 0) == []
    assert made.feed(100, b"one\n", 4) == [b"one"]
    assert made.feed(103, b"\0", 1) == []
    assert made.feed(104, b"two\n", 4) == [b"two"]
