"""Ten ways to break the code, one at a time and while it runs: chaos has to find each of them.

`python tests/simulation/deliberate_faults.py [NAME…]` searches from the first seed on, and prints where it
finds each; `test_chaos.py` begins with those seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fwnode.cluster.membership import Cluster
from fwnode.firewall import table
from fwnode.firewall.connection import Connection
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.load import SyncLoad
from fwnode.firewall.packet import TCP, Packet
from fwnode.firewall.policy import Action, Match
from fwnode.firewall.table import ConnectionTable
from fwnode.firewall.tcp_states import SEGMENT_KINDS, SegmentKind
from fwnode.firewall.verdict import Verdict
from fwnode.member import Member
from syncproto.delta import DeltaSender
from syncproto.engine import SyncEngine
from syncproto.full import FullSink
from syncproto.message import Ack, Message
from syncproto.record import Op, Record, Update
from syncproto.session import PeerSession

SEEDS_MAX = 2_000
Break = Callable[[pytest.MonkeyPatch], None]


def ack_before_apply(patch: pytest.MonkeyPatch) -> None:
    """The newest update that came is acknowledged, although one before it is missing."""
    original = PeerSession.outgoing

    def messages(self: PeerSession, now: float) -> Iterator[Message]:
        for message in original(self, now):
            if isinstance(message, Ack) and self.receiver is not None:
                yield replace(message, sequence=self.receiver.highest)
            else:
                yield message

    patch.setattr(PeerSession, "outgoing", messages)


def older_record_wins(patch: pytest.MonkeyPatch) -> None:
    """Whatever a peer says of a connection is taken for the newer view."""
    original = ConnectionTable._merge

    def merge(self: ConnectionTable, known: Connection, record: Record, now: float, origin: int) -> bool:
        return original(self, known, replace(record, revision=max(record.revision, known.revision)), now, origin)

    patch.setattr(ConnectionTable, "_merge", merge)
    patch.setattr(table, "further", lambda one, other: other)


def address_before_state(patch: pytest.MonkeyPatch) -> None:
    """A member that takes over answers for the virtual addresses before it may decide."""
    original = Member._state_changed

    def changed(self: Member, event: Any, *rest: Any) -> None:
        if event.new.forwards:
            self.edges.answer(True)
        original(self, event, *rest)

    patch.setattr(Member, "_state_changed", changed)


def threshold_off_by_one(patch: pytest.MonkeyPatch) -> None:
    """Load begins with as many updates as are allowed."""
    original = SyncLoad.threshold.fget
    assert original is not None
    patch.setattr(SyncLoad, "threshold", property(lambda self: original(self) - 1))


def delete_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Peers do not hear of ends."""
    original = ConnectionTable.take_updates

    def take(self: ConnectionTable, now: float, room: int = 0) -> list[Update]:
        return [update for update in original(self, now, room) if update.op is not Op.DELETE]

    patch.setattr(ConnectionTable, "take_updates", take)


def saved_deltas_ignored(patch: pytest.MonkeyPatch) -> None:
    """What came during a full sync is thrown away at its end."""
    original = SyncEngine._on_full_end

    def end(self: SyncEngine, sink: FullSink) -> None:
        self._saved.clear()
        original(self, sink)

    patch.setattr(SyncEngine, "_on_full_end", end)


def newer_not_ready(patch: pytest.MonkeyPatch) -> None:
    """A member of the newer release does not mind one of the older."""
    original = Cluster._compare
    patch.setattr(Cluster, "_compare", lambda self, peer: -abs(original(self, peer)))


def copys_end_for_the_owners(patch: pytest.MonkeyPatch) -> None:
    """A connection ends at its owner, too, when its copies end as far as peers were told."""
    original = ConnectionTable._end

    def end(self: ConnectionTable, connection: Connection) -> float:
        copys = connection.peers_until or connection.expires
        return min(copys, connection.expires) if connection.owned else original(self, connection)

    patch.setattr(ConnectionTable, "_end", end)


def retransmission_from_the_wrong_number(patch: pytest.MonkeyPatch) -> None:
    """What is sent again begins one number too late."""
    original = DeltaSender.on_retransmit

    def again(self: DeltaSender, peer: int, first: int, count: int, now: float) -> int | None:
        return original(self, peer, first + 1, count - 1, now)

    patch.setattr(DeltaSender, "on_retransmit", again)


def learning_without_rules(patch: pytest.MonkeyPatch) -> None:
    """Where packets out of state are let in, the rule base is not asked."""
    original = Firewall._decide_unknown

    def decide(self: Firewall, packet: Packet, *rest: Any) -> Verdict:
        if packet.protocol == TCP and SEGMENT_KINDS[packet.flags] is not SegmentKind.SYN and self.allows_out_of_state:
            accepted = Match(Action.ACCEPT, 0, "", "", None, False)
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(self, "_match", lambda *asked: accepted, raising=False)
                return original(self, packet, *rest)
        return original(self, packet, *rest)

    patch.setattr(Firewall, "_decide_unknown", decide)


FAULTS: dict[str, Break] = {
    fault.__name__: fault
    for fault in (
        ack_before_apply, older_record_wins, address_before_state, threshold_off_by_one, delete_forgotten,
        saved_deltas_ignored, newer_not_ready, copys_end_for_the_owners, retransmission_from_the_wrong_number,
        learning_without_rules,
    )
}  # fmt: skip


def search(name: str, seeds: Iterator[int]) -> tuple[int, dict[str, Any]] | None:
    """The first of these seeds that finds the fault, and what it finds."""
    from labs.chaos.hunting import broken
    from labs.chaos.making import make_lab

    with pytest.MonkeyPatch.context() as patch:
        FAULTS[name](patch)
        for seed in seeds:
            if found := broken(make_lab(seed), seed):
                return seed, found[0]
    return None


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    for name in sys.argv[1:] or FAULTS:
        found = search(name, iter(range(1, SEEDS_MAX + 1)))
        print(f"{name}: " + (f"seed {found[0]}, {found[1]['invariant']}: {found[1]['text']}" if found else "NOT FOUND"),
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
