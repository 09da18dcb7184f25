"""Wall clocks that are set while members do not hear each other, and again when they do: nobody decides by a date."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import UpLab, time_passes, until
from splits import SERVERS, hear, heard, hosts_point_to, point_hosts_to, split, texts
from stepped import HOUR_S, Clock, established, left, stepped_pair

from fwnode.cluster.announcing import ANNOUNCE_AFTER_S


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture
def stepped(clock: Clock) -> Iterator[UpLab]:
    with stepped_pair(clock) as lab:
        yield lab


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("during", "after", "order"),
    [
        ({"fw1": HOUR_S}, {}, ("fw2", "fw1")),
        ({"fw2": -HOUR_S}, {"fw2": 0}, ("fw2", "fw1")),
        ({"fw1": -HOUR_S, "fw2": HOUR_S}, {"fw1": HOUR_S}, ("fw1", "fw2")),
    ],
)
def test_a_split_brain_ends_as_ever_though_clocks_were_set(
    stepped: UpLab, clock: Clock, during: dict[str, int], after: dict[str, int], order: tuple[str, str]
) -> None:
    stepped.serve(1521)
    talks = [stepped.talk(1521, SERVERS[n % 2]) for n in range(4)]
    assert [talk.ask() for talk in talks] == ["hello"] * 4
    until(lambda: established(stepped, "fw2") == 4, "fw2 knows all")
    split(stepped, "fw1", "fw2")
    for member, seconds in during.items():
        clock.step(member, seconds)
    stepped.wait_for_state("fw2", "Active")
    time_passes(stepped, ANNOUNCE_AFTER_S[-1] + 0.5)  # nobody announces the addresses any more
    point_hosts_to(stepped, "fw2")
    talks.append(stepped.talk(1521))
    assert [talk.ask("split") for talk in talks] == ["split"] * 5, "fw2 has the hosts now"
    time_passes(stepped, 1.0)  # a shorter split brain is none
    hear(stepped, order[0])
    until(lambda: heard(stepped, order[0]), f"{order[0]} has heard the other")
    for member, seconds in after.items():
        clock.step(member, seconds)
    hear(stepped, order[1])
    stepped.wait_for_state("fw2", "Standby")
    until(lambda: hosts_point_to(stepped, "fw1"), "the hosts have fw1's MAC", 5.0)
    until(lambda: established(stepped, "fw1") == 5, "fw1 has heard of what fw2 accepted")
    assert [talk.ask("still?") for talk in talks] == ["still?"] * 5
    assert stepped.status("fw1")["state"] == "Active"
    for member in ("fw1", "fw2"):
        assert established(stepped, member) == 5
        until(lambda m=member: texts(stepped, m, "split brain is over"), f"{member} tells of it")
        found = stepped.ask(member, "stat")["split_brains"]
        assert found["count"] == 1 and 0 < found["last"]["seconds"] < 120, "it lasted as long as it did"
    assert min(left(stepped)) > HOUR_S - 120, "nothing was taken off"
    until(lambda: {stepped.ask(m, "stat")["failovers"] for m in ("fw1", "fw2")} == {1}, "one count")
