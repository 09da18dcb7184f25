"""Each invariant with a history that breaks it, and one that does not. No world runs here: a look is made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from fwnode.cluster.membership import MemberState
from fwnode.firewall.connection import Connection
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.parameters import Parameters
from fwnode.firewall.tcp_states import ConnectionState
from fwnode.firewall.verdict import DropReason
from fwnode.policy_file import build_policy
from labs.simulation.invariants import INVARIANTS, Judge
from labs.simulation.invariants.forwarding import may_pass
from labs.simulation.invariants.look import Look, MemberLook
from labs.simulation.invariants.tables import EQUAL_AFTER_S, RECOVERED_AFTER_S
from syncproto.record import Op, Update
from syncproto.release import Exchange, Gate

POLICY = {
    "name": "standard",
    "rules": [{"name": "web", "service": "http", "action": "accept"}, {"name": "cleanup", "action": "drop"}],
}
FULL = Gate(Exchange.FULL, "", 2)


def engine(**figures: Any) -> Any:
    counters = {"lost_updates": 0, "overload_dropped": 0, "oversized_not_sent": 0, "sending_queue": 0,
                "receiving_queue": 0, "backlog": 0}  # fmt: skip
    status = figures.pop("status", "OK")
    has = SimpleNamespace(
        incarnation=7, life=lambda peer: 7, hears=lambda peer: True, came=lambda peer, life: figures.get("came", 9),
        acknowledged=lambda peers: figures.get("acknowledged", 9), gate=lambda peer: FULL,
        status=lambda peer: status, saving=False, peers=(1, 2),
        unacknowledged=lambda: figures.get("unacknowledged", 0), backlog=figures.get("backlog", 0),
        counters=lambda: SimpleNamespace(**{**counters, **figures}), sequence=figures.get("sequence", 9),
    )  # fmt: skip
    return has


def firewall(number: int = 1, *, forwarding: bool = True, policy: dict[str, Any] = POLICY) -> Firewall:
    made = Firewall(f"fw{number}", build_policy(policy, "policy"), Parameters(), number=number)
    made.forwarding = forwarding
    return made


def member(number: int = 1, **changed: Any) -> MemberLook:
    """One that runs, is well, and is heard by its peer."""
    state = changed.pop("state", MemberState.ACTIVE)
    values: dict[str, Any] = {
        "name": f"fw{number}", "number": number, "release": "R77.30", "life": 1, "runs_since": 0.0,
        "away_since": 0.0, "whole_since": 0.0,
        "state": state, "changed_at": 0.0, "problems": (), "heard_at": {}, "heartbeat_s": 0.1, "dead_timeout_s": 2.5,
        "answers": state.forwards, "answered_early": False,
        "forwarded": 0, "forwarded_before": 0, "unfounded": b"", "queued": 0, "held": 0,
        "lab_now": 0.0, "firewall": firewall(number, forwarding=state.forwards), "engine": engine(),
        "reached": lambda peer: True, "joined": True, "failures": {}, "events": 0,
    }  # fmt: skip
    return MemberLook(**{**values, **changed})


def looks(members: Callable[[float], Sequence[MemberLook]], times: Iterable[float], **more: Any) -> list[str]:
    """The names of the invariants that such a history breaks."""
    judge = Judge()
    for now in times:
        there = list(members(now))
        for one in there:
            one.lab_now = now
            silent = {number: at for number, at in one.heard_at.items() if at < 0}
            one.heard_at = {other.number: now for other in there} | silent
        judge.look(Look(now, more.get("load_sharing", False), there, lambda a, b: FULL, **{
            key: value for key, value in more.items() if key != "load_sharing"}), now)
    return [broken.invariant for broken in judge.broken]


def seconds(end: float, step: float = 0.1) -> list[float]:
    return [round(n * step, 3) for n in range(int(end / step) + 1)]


def key(number: int = 1, port: int = 80) -> bytes:
    return bytes((6, 192, 0, 2, 100, 198, 51, 100, 100)) + (10_000 + number).to_bytes(2) + port.to_bytes(2)


def connection(
    number: int = 1, state: ConnectionState = ConnectionState.ESTABLISHED, born: float = 1.0, port: int = 80
) -> Connection:
    return Connection(key(number, port), state, 3600.0, 3600.0, born)


def holding(owner: Firewall, *connections: Connection) -> Firewall:
    for one in connections:
        owner.connections.add(one, 1.0)
    return owner


def test_a_pair_in_good_order_breaks_nothing() -> None:
    pair = [member(1), member(2, state=MemberState.STANDBY)]
    assert looks(lambda now: pair, seconds(20)) == []


def test_every_invariant_has_a_name_a_sentence_and_a_source() -> None:
    assert len({kind.name for kind in INVARIANTS}) == len(INVARIANTS)
    for kind in INVARIANTS:
        assert kind.sentence.endswith(".") and len(kind.sentence) > 30, kind.name
        assert any(page in kind.source for page in ("clusterxl.md", "README", "ARCHITECTURE")), kind.name


# -- who forwards


def test_two_that_forward_and_hear_each_other() -> None:
    both = [member(1), member(2)]
    assert looks(lambda now: both, seconds(0.9)) == []
    assert looks(lambda now: both, seconds(1.3)) == ["one-forwards"]
    assert looks(lambda now: both, seconds(5), load_sharing=True) == []


def test_two_that_forward_and_do_not_hear_each_other_are_a_split_brain_and_no_breach() -> None:
    apart = [member(1, heard_at={2: -5.0}), member(2)]
    assert looks(lambda now: apart, seconds(5)) == []


def test_nobody_forwards_although_one_is_healthy() -> None:
    standby = member(2, state=MemberState.STANDBY)
    gone = member(1, runs_since=None)
    assert looks(lambda now: [gone, standby], seconds(6.9)) == []
    assert looks(lambda now: [gone, standby], seconds(7.3)) == ["somebody-forwards"]


def test_nobody_forwards_and_nobody_is_able_to() -> None:
    starting = member(2, state=MemberState.INITIALIZING)
    troubled = member(1, state=MemberState.DOWN, problems=("Policy: none",))
    assert looks(lambda now: [troubled, starting], seconds(20)) == []


def test_a_standby_that_forwards_packets() -> None:
    def forwarding(now: float) -> list[MemberLook]:
        return [member(1), member(2, state=MemberState.STANDBY, forwarded=int(now), forwarded_before=int(now))]

    assert looks(forwarding, seconds(2.2)) == ["forwards-nothing"]


def test_what_was_forwarded_before_a_member_gave_way_is_no_breach() -> None:
    def gives_way(now: float) -> list[MemberLook]:
        if now < 1.0:
            return [member(2, forwarded=int(now * 100), forwarded_before=int(now * 100))]
        return [member(2, state=MemberState.STANDBY, changed_at=0.95, forwarded=100, forwarded_before=100),
                    member(1)]

    assert looks(gives_way, seconds(3)) == []


def test_a_killed_member_that_forwards_packets() -> None:
    def killed(now: float) -> list[MemberLook]:
        gone = now >= 1.0
        sent = int(now * 10)
        return [member(1, runs_since=None if gone else 0.0, away_since=0.95, forwarded=sent, forwarded_before=sent),
                member(2)]  # fmt: skip

    assert "forwards-nothing" in looks(killed, seconds(2))


def test_addresses_before_state() -> None:
    standing_by = member(2, state=MemberState.STANDBY, answers=True)
    for early in (standing_by, member(2, answered_early=True)):
        assert looks(lambda now, early=early: [early], seconds(0.1)) == ["state-before-address"]


# -- what passes


def packet(port: int, flags: int = 0x10) -> bytes:
    ends = bytes((192, 0, 2, 100, 198, 51, 100, 100))
    head = bytes((0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0)) + ends
    return head + (10_001).to_bytes(2) + port.to_bytes(2) + bytes(8) + bytes((0x50, flags)) + bytes(6)


def test_a_packet_without_rule_and_connection() -> None:
    assert not may_pass(firewall(), packet(23))
    assert looks(lambda now: [member(unfounded=packet(23))], seconds(0.2)) == ["rule-or-connection"]


def test_a_packet_with_either() -> None:
    assert may_pass(firewall(), packet(80))
    assert may_pass(holding(firewall(), connection(1, port=23)), packet(23))


def test_a_connection_that_began_without_a_rule() -> None:
    learned = holding(firewall(), connection(1, port=23))
    assert looks(lambda now: [member(firewall=learned)], seconds(0.2)) == ["rule-or-connection"]
    assert looks(lambda now: [member(firewall=holding(firewall(), connection(1, port=80)))], seconds(0.2)) == []


# -- tables


@pytest.mark.parametrize("later", [connection(1, ConnectionState.SYN_SENT, 1.0),
                                   connection(1, ConnectionState.ESTABLISHED, 0.5)])  # fmt: skip
def test_a_state_or_a_birth_that_goes_back(later: Connection) -> None:
    one = holding(firewall(), connection(1, ConnectionState.ESTABLISHED, 1.0))

    def history(now: float) -> list[MemberLook]:
        if now > 0.5:
            one.connections.entries[later.key] = later
        return [member(firewall=one)]

    assert "state-forward" in looks(history, seconds(1))


def test_states_that_go_forward_and_a_younger_connection() -> None:
    one = holding(firewall(), connection(1, ConnectionState.SYN_SENT))

    def history(now: float) -> list[MemberLook]:
        held = one.connections.entries[key(1)]
        if now == 0.3:
            held.state = ConnectionState.ESTABLISHED
        if now == 0.6:
            held.born, held.state = 2.0, ConnectionState.SYN_SENT
        return [member(firewall=one)]

    assert looks(history, seconds(1)) == []


def different() -> list[MemberLook]:
    one, other = firewall(1), firewall(2, forwarding=False)
    holding(one, connection(1), connection(2))
    holding(other, connection(1))
    return [member(1, firewall=one), member(2, state=MemberState.STANDBY, firewall=other)]


def test_tables_that_stay_different_while_all_is_well() -> None:
    pair = different()
    assert looks(lambda now: pair, seconds(EQUAL_AFTER_S - 0.5)) == []
    assert looks(lambda now: pair, seconds(EQUAL_AFTER_S + 0.5)) == ["tables-equal"]


@pytest.mark.parametrize("excuse", [
    {"engine": engine(lost_updates=1)}, {"engine": engine(status="Off - Release version mismatch")},
    {"engine": engine(unacknowledged=3)}, {"joined": False}, {"reached": lambda peer: False},
])  # fmt: skip
def test_tables_that_have_a_reason_to_differ(excuse: dict[str, Any]) -> None:
    one, other = different()
    excused = member(2, state=MemberState.STANDBY, firewall=other.firewall, **excuse)
    assert "tables-equal" not in looks(lambda now: [one, excused], seconds(20))


def test_differences_that_come_and_go() -> None:
    one, other = different()

    def history(now: float) -> list[MemberLook]:
        if now % 3 < 0.05:  # another connection each time
            for table in (one.firewall.connections, other.firewall.connections):
                for held in list(table):
                    table.remove(held)
            holding(one.firewall, connection(round(now) + 1))
        return [one, other]

    assert looks(history, seconds(20), load_sharing=True) == []


def test_compare_shows_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = different()
    assert looks(lambda now: pair, seconds(0.1)) == []
    monkeypatch.setattr("fwnode.control.compare.differences", lambda tables: set())
    assert looks(lambda now: pair, seconds(0.1)) == ["compare-tells"]


def test_an_end_of_a_connection_of_its_own_that_goes_back() -> None:
    one = holding(firewall(), connection(1))
    held = one.connections.entries[key(1)]

    def history(now: float, owned: bool) -> list[MemberLook]:
        held.owned, held.expires = owned, 100.0 - now
        return [member(firewall=one)]

    assert looks(lambda now: history(now, True), seconds(0.3)) == ["state-forward"]
    assert looks(lambda now: history(now, False), seconds(0.3)) == []


def test_a_connection_of_its_own_that_is_gone_before_its_time() -> None:
    def history(now: float, end: float, sharing: bool = False) -> list[MemberLook]:
        one = firewall()
        if now < 0.5:
            holding(one, connection(1)).connections.entries[key(1)].expires = end
        return [member(firewall=one)]

    assert looks(lambda now: history(now, 100.0), seconds(1)) == ["own-stays"]
    assert looks(lambda now: history(now, 0.45), seconds(1)) == []
    assert looks(lambda now: history(now, 100.0), seconds(1), load_sharing=True) == []


@pytest.mark.parametrize(("revision", "breaks"), [(1, ["own-stays"]), (2, [])])
def test_a_connection_of_its_own_that_a_peer_says_is_over(revision: int, breaks: list[str]) -> None:
    """A copy tells of the end of the version that it holds; a peer that took the connection over, of a later one."""
    one = holding(firewall(), connection(1))
    one.connections.take_updates(1.0)

    def history(now: float) -> list[MemberLook]:
        if now == 0.5:
            one.connections.apply(Update(Op.DELETE, key(1), None, 1.0, revision), now, origin=2)
        return [member(firewall=one)]

    assert looks(history, seconds(1)) == breaks


def test_an_acknowledgement_of_what_has_not_come() -> None:
    early = [member(1, engine=engine(acknowledged=9)), member(2, state=MemberState.STANDBY, engine=engine(came=8))]
    assert looks(lambda now: early, seconds(0.2)) == ["only-what-came"]


def test_sync_that_does_not_recover() -> None:
    status = "Off - Connection to remote member timed-out: not acknowledged"
    stuck = [member(1, engine=engine(status=status)), member(2, state=MemberState.STANDBY)]
    faulty = [member(1, engine=engine(status=status), whole_since=None), stuck[1]]
    assert looks(lambda now: stuck, seconds(RECOVERED_AFTER_S - 0.5)) == []
    assert looks(lambda now: stuck, seconds(RECOVERED_AFTER_S + 0.5)) == ["sync-recovers"]
    assert looks(lambda now: faulty, seconds(RECOVERED_AFTER_S + 0.5)) == []


# -- figures


def test_load_at_the_threshold_and_one_above() -> None:
    def loaded(unacknowledged: int, heavy: bool) -> list[str]:
        one = firewall()
        one.load.heavy, one.load.unacknowledged = heavy, unacknowledged
        return looks(lambda now: [member(firewall=one, engine=engine(unacknowledged=unacknowledged))], seconds(0.1))

    stale = member(engine=engine(unacknowledged=3))
    assert looks(lambda now: [stale], [0.0]) == []
    assert looks(lambda now: [stale], [0.0, 0.1]) == ["load-measured"]
    busy = (member(engine=engine(unacknowledged=3, sequence=sent)) for sent in (9, 12))
    assert looks(lambda now: [next(busy)], [0.0, 0.1]) == [], "an ACK came just before either look"
    assert loaded(410, heavy=False) == loaded(411, heavy=True) == []
    assert loaded(410, heavy=True) == loaded(411, heavy=False) == ["load-measured"]


def test_drops_without_a_reason_and_packets_that_nobody_accepted() -> None:
    one = firewall()
    one.counters.dropped = 1
    assert looks(lambda now: [member(firewall=one)], seconds(0.1)) == ["counts-add-up"]
    one.counters.drops[DropReason.POLICY] = one.counters.accepted = 1
    assert looks(lambda now: [member(firewall=one, forwarded=5, forwarded_before=4)], seconds(0.1)) == []
    assert looks(lambda now: [member(firewall=one, forwarded=5, forwarded_before=3)], seconds(0.1)) == ["counts-add-up"]


def test_sessions_without_a_fate() -> None:
    assert looks(lambda now: [], [0.0], sessions={"database": (3, 2)}) == ["counts-add-up"]
    assert looks(lambda now: [], [0.0], sessions={"database": (3, 3)}) == []


def test_queues_and_tables_past_their_limits() -> None:
    assert looks(lambda now: [member(engine=engine(sending_queue=513))], seconds(0.1)) == ["inside-caps"]
    assert looks(lambda now: [member(queued=16_385)], seconds(0.1)) == ["inside-caps"]
    one = holding(firewall(), *(connection(n) for n in range(12)))
    one.parameters.set("connections_limit", 10)

    def grows(now: float) -> list[MemberLook]:
        if now > 0.15:
            holding(one, connection(20 + int(now * 10)))
        return [member(firewall=one)]

    assert "inside-caps" in looks(grows, seconds(0.4))


def test_a_limit_that_is_set_below_what_has_come_since_the_last_look() -> None:
    one = firewall()

    def lowered(now: float) -> list[MemberLook]:
        if len(one.connections) < 12:
            one.parameters.set("connections_limit", 10 if now else 25_000)
            holding(one, *(connection(n) for n in range(12 if now else 2)))
        return [member(firewall=one)]

    assert looks(lowered, seconds(0.4)) == []


def test_something_failed() -> None:
    assert looks(lambda now: [member(failures={"delta sync: KeyError": 2})], seconds(0.1)) == ["no-failure"]
