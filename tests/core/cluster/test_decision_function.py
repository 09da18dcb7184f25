"""The decision function of load sharing."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwnode.cluster.decision_function import SLOTS, DecisionFunction
from fwnode.firewall.packet import reverse_key

members = st.sets(st.integers(1, 5), min_size=1)
addresses = st.sampled_from([4, 16]).flatmap(lambda size: st.tuples(*[st.binary(min_size=size, max_size=size)] * 2))
keys = st.builds(lambda p, a, ports: bytes((p,)) + a[0] + a[1] + ports, st.sampled_from([1, 6, 17]), addresses,
                 st.binary(min_size=4, max_size=4))  # fmt: skip


def key(number: int) -> bytes:
    """One client's connections to one server: only the source port differs."""
    return b"\x06" + bytes((192, 0, 2, 100, 198, 51, 100, 100)) + (10_000 + number).to_bytes(2, "big") + b"\x00\x50"


def sharing(*active: int, **kw: bool) -> DecisionFunction:
    made = DecisionFunction(1, **kw)
    made.set_active(active)
    return made


@given(keys, members)
def test_both_directions_come_to_the_same_active_member(key: bytes, active: set[int]) -> None:
    made = sharing(*active)
    assert made.member_of(key) == made.member_of(reverse_key(key)) in active


@given(keys, members)
def test_asymmetric_both_directions_are_on_different_members(key: bytes, active: set[int]) -> None:
    made = sharing(*active, asymmetric=True)
    there, back = made.member_of(key), made.member_of(reverse_key(key))
    assert {there, back} <= active
    if len(active) > 1 and key != reverse_key(key):
        assert there != back


@given(members)
def test_shares_add_up_to_100(active: set[int]) -> None:
    made = sharing(*active)
    assert sum(made.share(member) for member in range(1, 6)) == 100
    assert all((made.share(member) > 0) is (member in active) for member in range(1, 6))


@pytest.mark.parametrize("active", [(1, 2), (1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4, 5)])
def test_one_clients_connections_spread_evenly(active: tuple[int, ...]) -> None:
    made = sharing(*active)
    counts = Counter(made.member_of(key(number)) for number in range(10_000))
    assert set(counts) == set(active)
    assert all(abs(count * len(active) / 10_000 - 1) < 0.15 for count in counts.values()), counts


@given(members, st.integers(1, 5))
def test_when_a_member_leaves_only_its_own_share_moves(active: set[int], leaving: int) -> None:
    before, after = sharing(*active), sharing(*(active - {leaving}))
    for number in range(200):
        was = before.member_of(key(number))
        if was != leaving:
            assert after.member_of(key(number)) == was


def test_every_member_computes_the_same() -> None:
    one, other = DecisionFunction(1), DecisionFunction(3)
    one.set_active([3, 1, 2])
    other.set_active([2, 3, 1])
    mine = [(one.is_mine(key(n)), other.is_mine(key(n))) for n in range(100)]
    assert not any(both == (True, True) for both in mine)
    assert (one.pivot, other.pivot) == (1, 1)


def test_without_active_members_nothing_is_anybodys() -> None:
    made = DecisionFunction(1)
    assert (made.member_of(key(1)), made.is_mine(key(1)), made.pivot, made.share(1)) == (0, False, 0, 0)
    assert made.set_active([1]) and not made.set_active([1])
    assert made.is_mine(key(1))
    assert len(made._owners) == SLOTS
