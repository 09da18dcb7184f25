"""What chaos found, by hand: the shortest procedures that showed it."""

from __future__ import annotations

from simulated_cluster import SimulatedCluster

OFF = "Off - Full-sync failure"


def sync(cluster: SimulatedCluster, member: str, peer: str) -> str:
    return str(cluster.status(member)["sync"]["peers"][peer]["status"])


def test_a_member_that_waited_for_a_table_in_vain_says_so_when_the_peer_is_heard_later() -> None:
    """Nothing passed on the sync network while it started, not even a release; then all is well again."""
    cluster = SimulatedCluster()
    cluster.up()
    cluster.stream(0.5)
    cluster.member("fw2").kill()
    cluster.faults.lose("sync", 1.0)
    cluster.run(1.0)
    cluster.start("fw2")
    cluster.run(6.0)
    cluster.faults.unlose("sync")
    cluster.run(10.0)
    assert cluster.states() == ["Active", "Standby"]
    assert [cluster.status(name)["connections"] for name in ("fw1", "fw2")] == [1, 0]
    assert sync(cluster, "fw2", "fw1") == OFF
    cluster.member("fw2").kill()
    cluster.start("fw2")
    cluster.run(3.0)
    assert sync(cluster, "fw2", "fw1") == sync(cluster, "fw1", "fw2") == "OK"
