"""Durations of lab files: every unit, what is refused, and that what is formatted can be read again."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwnode.fields import UNITS_S
from labs.traffic.durations import format_duration, parse_duration, parse_spread


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86400), ("25s", 25), ("100ms", 0.1), ("90d", 7_776_000), ("1h30m", 5400), ("2 min", 120), ("0.5s", 0.5)],
)
def test_reads(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [24, 1.5, "24", "h", "", "-3s", "3 weeks", None, True, "5s x", ["5s"]])
def test_refuses_with_what_to_write(text: object) -> None:
    with pytest.raises(ValueError, match="25s, 24h or 90d"):
        parse_duration(text)


@given(st.integers(0, 3650), st.sampled_from(sorted(UNITS_S)))
def test_number_and_unit(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == pytest.approx(number * UNITS_S[unit])


@given(st.text(max_size=12))
def test_nothing_else_escapes(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= 0


@given(st.floats(0, 10**8))
def test_what_is_formatted_can_be_read(seconds: float) -> None:
    again = parse_duration(format_duration(seconds))
    assert again == pytest.approx(seconds, rel=0.05, abs=0.006)


def test_spreads() -> None:
    assert parse_spread("2s..20s") == (2, 20)
    assert parse_spread("5s") == (5, 5)
    with pytest.raises(ValueError, match="shorter duration first"):
        parse_spread("20s..2s")
    with pytest.raises(ValueError, match="no unit"):
        parse_spread(5)
