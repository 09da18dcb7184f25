"""What chaos found, by hand: the shortest procedures that showed it."""

from __future__ import annotations

from simulated_cluster import SimulatedCluster

OFF = "Off - Full-sync failure"


def sync(cluster: SimulatedCluster, member: str, peer: str) -> str:
    return str(cluster.status(member)["sync"]["peers"][peer]["status"])


def keys(cluster: SimulatedCluster, member: str) -> set[bytes]:
    life = cluster.member(member).life
    assert life is not None
    return {connection.key for connection in life.member.firewall.connections}


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


def test_a_member_that_joins_while_another_is_cut_off_from_its_source_hears_what_that_told_last() -> None:
    """The third one's sync link is cut for a while; the first starts anew meanwhile and takes the second's table."""
    cluster = SimulatedCluster(mode="load-sharing-multicast", members=3)
    cluster.up()
    cluster.faults.cut("fw3-sync")
    for port in range(1100, 1130):
        cluster.send(0, port)
    cluster.run(0.2)
    cluster.member("fw1").kill()
    cluster.start("fw1")
    cluster.run(1.0)
    cluster.faults.restore("fw3-sync")
    cluster.run(10.0)
    first, second, third = (keys(cluster, name) for name in cluster.topology.members)
    assert first == second == third and len(first) >= 30
    assert {sync(cluster, "fw1", peer) for peer in ("fw2", "fw3")} == {"OK"}
