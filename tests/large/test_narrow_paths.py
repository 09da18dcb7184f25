"""Tables become equal again, whatever size of datagram a path bears."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from sync_world import TICK_S, World, settle, traffic

from syncproto.limits import DATAGRAM_MAX, FRAGMENT_DATAGRAM_MAX

MTU_1280 = 1280 - 28
"""UDP payload that passes an interface with an MTU of 1,280 bytes."""

ways = st.fixed_dictionaries({
    (1, 2): st.sampled_from([FRAGMENT_DATAGRAM_MAX, 700, 1000, MTU_1280, 1399, DATAGRAM_MAX]),
    (2, 1): st.sampled_from([FRAGMENT_DATAGRAM_MAX, 700, 1000, MTU_1280, 1399, DATAGRAM_MAX]),
})  # fmt: skip


@examples(60)
@given(
    seed=st.integers(0, 2**32), largest=ways, loss=st.sampled_from([0.0, 0.05, 0.3]),
    delay=st.sampled_from([(0.0005, 0.0005), (0.0, 0.05), (0.0, 0.4)]), ticks=st.integers(1, 12),
)  # fmt: skip
def test_tables_become_equal_whatever_the_path_bears(
    seed: int, largest: dict[tuple[int, int], int], loss: float, delay: tuple[float, float], ticks: int
) -> None:
    """Both members write, the path shrinks after some ticks and grows again later."""
    rng = random.Random(seed)
    world = World({1: "R77.30", 2: "R77.30"}, seed=seed, loss=loss, delay=delay)
    world.run(15)
    for turn in range(3):
        world.largest = largest if turn == 1 else {}
        for _ in range(ticks):
            for member in (1, 2):
                traffic(world, rng, member, keys=range(member * 1000, member * 1000 + 300), ticks=1)
        world.run(rng.choice((TICK_S, 5, 30)))
    settle(world)
    assert (world.nodes[1].engine.status(2), world.nodes[2].engine.status(1)) == ("OK", "OK")
    assert sum(node.went_back for node in world.nodes.values()) == 0
