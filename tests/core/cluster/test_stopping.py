"""A stop in good order: first what piled up, then what changed last, then the farewell; no wait is without bound."""

from __future__ import annotations

from cluster_world import pair
from hypothesis import given
from hypothesis import strategies as st

from fwnode.cluster.stopping import DRAIN_S, LAST_S, GracefulStop, StopStep

NOW = 100.0


def test_a_member_that_owes_nothing_leaves_at_once() -> None:
    stop = GracefulStop()
    assert [stop.next(True, NOW), stop.next(True, NOW)] == [StopStep.LEAVE, StopStep.END]


def test_it_forwards_until_what_piled_up_is_acknowledged_and_waits_for_the_last_changes() -> None:
    stop = GracefulStop()
    assert stop.next(False, NOW) is StopStep.WAIT
    assert stop.next(False, NOW + 1) is StopStep.WAIT
    assert stop.next(True, NOW + 1.1) is StopStep.LEAVE
    assert stop.next(False, NOW + 1.1) is StopStep.WAIT, "the last changes are under way"
    assert stop.next(True, NOW + 1.2) is StopStep.END


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=60))
def test_it_ends_in_bounded_time_and_leaves_before(turns: list[tuple[bool, float]]) -> None:
    stop, now, steps = GracefulStop(), NOW, []
    for settled, seconds in [*turns, *[(False, 0.25)] * 20]:
        steps.append((stop.next(settled, now), now))
        if steps[-1][0] is StopStep.END:
            break
        now += seconds
    assert [step for step, _ in steps if step is not StopStep.WAIT] == [StopStep.LEAVE, StopStep.END]
    [left] = [at for step, at in steps if step is StopStep.LEAVE]
    assert left < NOW + DRAIN_S + 1 and steps[-1][1] < left + LAST_S + 1


def test_a_member_that_leaves_sends_no_heartbeat_and_is_not_woken_for_one() -> None:
    world = pair()
    cluster = world.cluster(1)
    farewell = cluster.leave(world.now)
    assert farewell.leaving and not cluster.state.forwards
    assert cluster.outgoing(world.now + 1) is None
    world.announced.clear()
    assert world.run(0.4) == "1 Down, 2 Standby", "nobody was told yet"
    again = cluster.leave(world.now)
    assert again.leaving and again.number > farewell.number
