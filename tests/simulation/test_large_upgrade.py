"""The lab of an upgrade with very many connections: the same five steps, and the same end."""

from __future__ import annotations

import pytest

from labs.bench.large_upgrade import large_upgrade
from labs.simulation.run import simulate
from labs.traffic.workload import SESSIONS_MAX


@pytest.mark.parametrize("connections", [20, 2_000, 14_800, 100_000])
def test_the_lab_has_as_many_connections_as_are_asked_for(connections: int) -> None:
    counts = {name: workload.count for name, workload in large_upgrade(connections).workloads.items()}
    assert sum(count or 0 for count in counts.values()) == connections
    assert max(count or 0 for count in counts.values()) <= SESSIONS_MAX


def test_of_very_many_connections_those_that_spoke_survive_and_the_silent_ones_are_lost() -> None:
    document = simulate(large_upgrade(2_000), 1)
    assert [each["text"] for each in document["expectations"] if not each["held"]] == []
    fates = {name: (account["survived"], account["hung"]) for name, account in document["workloads"].items()}
    assert fates == {"database1": (1_900, 0), "idle": (0, 100)}
