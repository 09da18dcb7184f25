"""A full sync makes way for packets, and only for them."""

from __future__ import annotations

from syncproto.limits import FULL_PAUSE_S, FULL_QUIET_S
from syncproto.pacing import Pace


def test_without_packets_slices_follow_one_another() -> None:
    pace = Pace()
    pace.begin(100_000)
    assert [pace.pause(100_000, now) for now in (1.0, 1.1, 9.0)] == [0.0, 0.0, 0.0], "packets of before don't count"


def test_after_a_packet_there_is_a_pause_behind_each_slice_until_it_is_quiet() -> None:
    pace = Pace()
    pace.begin(7)
    assert pace.pause(8, 1.0) == FULL_PAUSE_S
    assert pace.pause(8, 1.0 + FULL_QUIET_S * 0.9) == FULL_PAUSE_S
    assert pace.pause(8, 1.0 + FULL_QUIET_S) == 0.0
    assert pace.pause(9, 5.0) == FULL_PAUSE_S
