"""The timing wheel: nothing is shown too soon, nothing is forgotten, and what moved on is shown when its time comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fwnode.firewall.wheel import Wheel


class Item:
    def __init__(self, name: int) -> None:
        self.name = name
        self.bucket = -1


def due(wheel: Wheel[Item], now: float) -> list[int]:
    names = []
    while (item := wheel.next_due(now)) is not None:
        names.append(item.name)
    return names


def test_an_item_is_due_at_the_end_of_its_bucket_and_once() -> None:
    wheel: Wheel[Item] = Wheel(1.0)
    wheel.plan(Item(1), 2.5)
    assert [due(wheel, now) for now in (2.5, 2.99, 3.0, 9.0)] == [[], [], [1], []]


def test_what_is_planned_again_meanwhile_is_looked_at_at_the_sooner_of_both_times() -> None:
    wheel: Wheel[Item] = Wheel(1.0)
    item = Item(1)
    wheel.plan(item, 5.0)
    wheel.plan(item, 9.0)  # a packet moved its end away: nothing to be done now
    assert due(wheel, 5.0) == [1]
    wheel.plan(item, 9.0)
    wheel.plan(item, 7.0)  # its timeout became shorter
    assert [due(wheel, now) for now in (6.0, 7.0, 9.0)] == [[], [1], []]


def test_what_is_over_is_not_shown() -> None:
    wheel: Wheel[Item] = Wheel(1.0)
    item, other = Item(1), Item(2)
    wheel.plan(item, 3.0)
    wheel.plan(other, 3.0)
    item.bucket = -1
    assert due(wheel, 3.0) == [2]


def test_what_is_planned_into_the_past_is_due_at_the_next_bucket() -> None:
    """Not at once: who plans it for now while it is being looked at would never come to an end."""
    wheel: Wheel[Item] = Wheel(1.0)
    item = Item(1)
    wheel.plan(item, 5.0)
    assert wheel.next_due(5.0) is item
    wheel.plan(item, 2.0)
    assert [due(wheel, now) for now in (5.0, 6.0)] == [[], [1]]


def test_looking_can_stop_anywhere_and_go_on() -> None:
    wheel: Wheel[Item] = Wheel(1.0)
    for name in range(6):
        wheel.plan(Item(name), 3.0 + name % 2)
    first = [item.name for _ in range(2) if (item := wheel.next_due(4.0))]
    wheel.plan(Item(9), 3.5)
    assert sorted(first + due(wheel, 4.0)) == [0, 1, 2, 3, 4, 5, 9]


@given(
    st.sampled_from([0.5, 1.0, 6.0]),
    # Subnormal seconds are no times: divided by the width of a bucket they are lost.
    st.lists(
        st.tuples(
            st.integers(0, 5), st.floats(0, 60, allow_subnormal=False), st.floats(0, 12, allow_subnormal=False)
        ),
        max_size=60,
    ),
)
def test_a_naive_calendar_agrees(width: float, steps: list[tuple[int, float, float]]) -> None:
    """Items are planned at random times; each is shown once for all plans before, in time, and never early."""
    wheel: Wheel[Item] = Wheel(width)
    items = [Item(n) for n in range(6)]
    calendar: dict[int, float] = {}
    now = 0.0
    for number, ahead, passes in steps:
        wheel.plan(items[number], now + ahead)
        calendar[number] = min(calendar.get(number, now + ahead), now + ahead)
        now += passes
        shown = due(wheel, now)
        assert len(shown) == len(set(shown))
        for name in shown:
            assert calendar.pop(name) <= now, "too early"
        assert all(at + 2 * width > now for at in calendar.values()), "forgotten"
    assert sorted(due(wheel, now + 100.0)) == sorted(calendar)
