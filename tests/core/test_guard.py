"""What the loop calls may fail: it is counted and told, and nothing else happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwnode.cluster.membership import Cluster
from fwnode.edges import DivertError
from fwnode.guard import TOLD_EVERY_S, Guard
from syncproto import codec
from syncproto.errors import Reason, SyncError


@pytest.mark.parametrize("error", [OSError(6, "no such device"), DivertError("ip refused"), KeyError("x"),
                                   SyncError(Reason.BAD_FIELD, "too long"), MemoryError()])  # fmt: skip
def test_any_failure_is_counted_told_once_and_told_again_much_later(error: Exception) -> None:
    told: list[str] = []
    now = 100.0
    guard = Guard(told.append, lambda: now)

    def fail() -> None:
        raise error

    for _ in range(50):
        assert not guard.run("the routes", fail)
    kind = f"the routes: {type(error).__name__}"
    assert guard.failures == {kind: 50}
    assert len(told) == 1 and told[0].startswith("the routes failed: ")
    now += TOLD_EVERY_S
    guard.run("the routes", fail)
    assert len(told) == 2 and "51 times" in told[1]


def test_kinds_are_told_apart_and_what_succeeds_is_nobodys_news() -> None:
    told: list[str] = []
    guard = Guard(told.append, lambda: 0.0)
    done: list[int] = []
    assert guard.run("one", done.append, 1)
    assert not guard.run("one", int, "x") and not guard.run("two", int, "x") and not guard.run("two", [].pop)
    assert done == [1] and len(told) == 3 and len(guard.failures) == 3


def test_a_world_may_want_to_stop_at_a_failure() -> None:
    told: list[str] = []
    guard = Guard(told.append, lambda: 0.0)
    guard.fatal = True
    with pytest.raises(ValueError, match="x"):
        guard.run("one", int, "x")
    assert guard.failures == {"one: ValueError": 1} and not told


@given(st.text(max_size=400), st.lists(st.text(min_size=1, max_size=40), max_size=100), st.text(max_size=300))
def test_a_heartbeat_can_always_be_said(problem: str, interfaces: list[str], policy: str) -> None:
    """Whatever devices, interfaces and rule bases are called: peers would take a silent member for lost."""
    cluster = Cluster(1, {2: "fw2"}, "R77.30", lambda a, b: 0, now=0.0)
    cluster.policy_name = policy
    for number, name in enumerate(interfaces):
        cluster.set_interface(name, False, 0.0)
        cluster.set_device(f"{name}{number}", problem, 0.0)
    heartbeat = cluster.outgoing(1.0)
    assert heartbeat is not None
    data = codec.encode(heartbeat, cluster=1, sender=1, incarnation=1)
    assert codec.decode(data, cluster=1).message == heartbeat
