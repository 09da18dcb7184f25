"""Whole clusters: whatever happened to members and wires, in the end all is as it should be."""

from __future__ import annotations

from cluster_world import KNOWN_WITHIN_S, World, broken, pair, reach
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from fwnode.cluster.split_brain import SplitBrain
from fwnode.cluster.sync_network import Reach

Ways = set[tuple[int, int]]
"""From whom to whom nothing passes."""
Past = list[tuple[Ways, float, str]]
WAYS = st.sets(st.sampled_from([(1, 2), (2, 1)]))


def pasts(*ends: str) -> st.SearchStrategy[Past]:
    """What may have been before: what did not pass, for how many seconds, and what befell member 2 then."""
    return st.lists(st.tuples(WAYS, st.floats(0.05, 8), st.sampled_from(["", *ends])), max_size=6)


OLD, NEW = "R77.30", "R80.10"
FATES = ("start", "stop", "kill", "power_cut", "admin_down", "admin_up", "lan_down", "lan_up", "split", "heal", "wait")
PAUSES = st.sampled_from((0.0, 0.02, 0.15, 0.6, 3.0))


def happen(world: World, fate: str, number: int) -> None:
    runs = world.machines[number].cluster is not None
    if fate == "start":
        if not runs:
            world.start(number)
    elif fate in ("stop", "kill", "power_cut", "admin_down", "admin_up"):
        if runs:
            getattr(world, fate)(number)
    elif fate in ("lan_down", "lan_up"):
        world.interface(number, "lan", fate == "lan_up")
    elif fate == "split":
        world.partition(range(1, number + 1), range(number + 1, len(world.machines) + 1))
    elif fate == "heal":
        world.partition()


@examples(15)
@given(
    st.integers(2, 5),
    st.lists(st.tuples(st.sampled_from(FATES), st.integers(1, 5), PAUSES), max_size=14),
    st.lists(st.sampled_from((OLD, NEW)), min_size=5, max_size=5),
    st.booleans(),
)
def test_whatever_happens_in_the_end_each_group_that_hears_itself_has_one_that_forwards(
    members: int, fates: list[tuple[str, int, float]], versions: list[str], mixed: bool
) -> None:
    world = World(members)
    for number in world.machines:
        world.start(number, release=versions[number - 1] if mixed else OLD)
    for fate, number, pause in fates:
        happen(world, fate, min(number, members))
        world.run(pause)
    world.run(4.5)
    settled = world.states
    world.forget()
    assert world.run(1.5) == settled and not world.history, "it comes to rest"
    left = {c.number for c in world.running()}
    while left:
        first = min(left)
        group = {n for n in left if n == first or frozenset((first, n)) not in world.severed}
        forwarding = [n for n in world.forwarding() if n in group]
        assert len(forwarding) == 1, (settled, group)
        oldest = min(world.machines[n].release for n in group)
        assert world.machines[forwarding[0]].release == oldest, settled
        left -= group


@examples(60)
@given(pasts("kill", "stop"), WAYS)
def test_both_ends_agree_with_the_wire_whatever_was_before(past: Past, cut: Ways) -> None:
    world = pair()
    for no_sync, seconds, end in past:
        world.no_sync = no_sync
        if end:
            getattr(world, end)(2)
            world.run(seconds)
            world.start(2)
        world.run(seconds)
    world.no_sync = cut
    world.run(KNOWN_WITHIN_S)
    there, back = (1, 2) not in cut, (2, 1) not in cut
    assert reach(world, 1, 2) == Reach(sends=there, receives=back)
    assert reach(world, 2, 1) == Reach(sends=back, receives=there)


@examples(60)
@given(pasts("kill", "link"), WAYS)
def test_both_ends_agree_about_a_users_network_whatever_was_before(past: Past, cut: Ways) -> None:
    world = pair()
    for no_lan, seconds, end in past:
        world.no_lan = no_lan
        if end == "kill":
            world.kill(2)
            world.run(seconds)
            world.start(2)
        elif end == "link":
            world.interface(1, "lan", up=False)
            world.run(seconds)
            world.interface(1, "lan", up=True)
        world.run(seconds)
    world.no_lan = cut
    world.run(KNOWN_WITHIN_S + 0.2)
    there, back = (1, 2) not in cut, (2, 1) not in cut
    assert broken(world, 1) == ({} if there and back else {2: Reach(sends=there, receives=back)})
    assert broken(world, 2) == ({} if there and back else {1: Reach(sends=back, receives=there)})


@examples(20)
@given(st.lists(st.tuples(st.sampled_from([(1, 2), (2, 1)]), st.sampled_from((0.1, 0.6, 3.0))), max_size=8))
def test_after_any_cuts_both_have_told_of_as_many_ends_as_beginnings(cuts: list[tuple[tuple[int, int], float]]) -> None:
    world = pair()
    for way, pause in cuts:
        (world.deaf.discard if way in world.deaf else world.deaf.add)(way)
        world.run(pause)
    world.deaf.clear()
    world.run(5)
    for number in (1, 2):
        told = [event for who, event in world.splits if who == number and isinstance(event, SplitBrain)]
        splits = world.cluster(number).split_brains
        assert splits.present == []
        assert sum(split.over for split in told) == splits.count
