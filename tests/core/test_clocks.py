"""The wall clock decides nothing: it gives dates to people, and everything counts on the monotonic clock."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fwnode.clock import wall_now, wire_now
from fwnode.lab_clock import LabClock

ROOT = Path(__file__).parents[2]
WALL = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "datetime.now", "datetime.utcnow",
        "datetime.datetime.now", "datetime.today", "date.today"}  # fmt: skip
DATES = {"fwnode/clock.py", "labs/network/capture.py"}
"""Who may read the wall clock: whoever gives dates to people, and time stamps to captures."""


def readings(source: str) -> Iterator[str]:
    """Where a source names the wall clock, or imports its name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL:
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"time.{alias.name}" for alias in node.names if f"time.{alias.name}" in WALL)


def test_the_wall_clock_is_read_for_dates_only() -> None:
    paths = [path for package in ("fwnode", "syncproto", "labs") for path in sorted((ROOT / package).rglob("*.py"))]
    found = {str(path.relative_to(ROOT)): list(readings(path.read_text())) for path in paths}
    assert {path: names for path, names in found.items() if names and path not in DATES} == {}
    assert all(found[path] for path in DATES)


def test_the_reader_sees_it_wherever_it_hides() -> None:
    text = "import time\nfrom time import time_ns as n\nf = time.time\ndef g(): return datetime.now()\n"
    assert set(readings(text)) == {"time.time", "time.time_ns", "datetime.now"}


def test_an_epoch_that_is_a_date_or_of_another_boot_is_refused() -> None:
    """Lab time would be negative, and nothing would ever end."""
    for epoch in (time.time(), wire_now() + 1000.0):
        assert "ahead of this machine's monotonic clock" in LabClock(epoch=epoch).problem(wire_now())
    now = wire_now()
    assert LabClock(epoch=now).problem(now) == LabClock().problem(now) == ""


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, -1.8e9])
def test_a_step_of_the_wall_clock_moves_dates_and_nothing_else(step_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = LabClock(rate=60.0, epoch=wire_now() - 2.0)
    before, date = clock.at(wire_now()), clock.date(60.0, wire_now(), wall_now())
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + step_s)
    assert before == pytest.approx(120.0, abs=60.0)
    assert 0 <= clock.at(wire_now()) - before < 60.0
    assert clock.date(60.0, wire_now(), wall_now()) == pytest.approx(date + step_s, abs=1.0)
    assert date == pytest.approx(real() - 1.0, abs=1.0)
    assert wall_now() == pytest.approx(real() + step_s, abs=1.0)
