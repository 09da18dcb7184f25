"""What the protocol tells its owner, and the figures it counts. Values only; nothing here acts.

Events come out of `SyncEngine.next_event()` in the order in which they must be applied.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

from syncproto.columns import Columns
from syncproto.record import Op, Update
from syncproto.release import Gate

# Texts of the product. Up to R80.10 there is one line for every risk; from R80.20 on it names the side.
RISK_OLD = (
    "FW-1: State synchronization is in risk. Please examine your synchronization network to avoid further problems!"
)
RISK_RECEIVED_REJECT = (
    "State synchronization is in risk - received 'Reject notification' from remote member, "
    "might need to enlarge 'Delta Sync Sending Queue' on that member."
)
RISK_SENT_REJECT = (
    "State synchronization is in risk - sent 'Reject notification' to remote member, "
    "might need to enlarge 'Delta Sync Sending Queue' on local member."
)

# Reasons of the product after "Off - ". The release mismatch comes from the gate.
FULL_SYNC_FAILURE = "Full-sync failure"
FULL_SYNC_CHECKSUM = "Full-sync checksum error"
FULL_SYNC_QUEUE_FULL = "Full-sync received queue is full"
TIMED_OUT = "Connection to remote member timed-out"
TERMINATED = "Connection terminated by remote member"
NOT_STARTED = "Could not start a connection to remote member"

# What the lab adds to a reason.
NOT_ACKNOWLEDGED = "updates are not acknowledged"
NOT_COMING = "updates do not arrive"
SUPERSEDED = "another full sync has begun"


@dataclass(frozen=True, slots=True)
class GateDecided:
    """What may be exchanged with this peer. An open gate is told when updates can flow both ways, not before; it is
    told again when a peer that was away is back."""

    peer: int
    gate: Gate


@dataclass(frozen=True, slots=True)
class Updates:
    """Apply these, in this order. A record that is older, by (born, revision), than the table's is to be ignored."""

    peer: int
    updates: list[Update]
    at: float = field(default=0.0, compare=False)
    """When it was so, in the engine's time: what is left of a connection counts from here."""


@dataclass(frozen=True, slots=True)
class TableSlice:
    """Part of the peer's whole table, from a full sync. As with updates, what is older than the table's is ignored."""

    peer: int
    columns: Columns
    attempt: int = 0
    at: float = field(default=0.0, compare=False)
    """When it was so, as with updates: not after the peer's beginning of the whole was heard of."""


@dataclass(frozen=True, slots=True)
class PeerRestarted:
    """The peer came with another incarnation: its stream begins anew, and the gate is decided again."""

    peer: int
    others: tuple[int, ...] = ()
    """The peers that may have heard what it told last."""
    missed: bool = False
    """This member may have missed some of that."""


@dataclass(frozen=True, slots=True)
class PeerGone:
    """The cluster no longer hears the peer, in the life that it was in."""

    peer: int


@dataclass(frozen=True, slots=True)
class PeerUnreachable:
    """The peer is behind and has sent nothing at all for too long; it no longer holds others up."""

    peer: int
    reason: str


@dataclass(frozen=True, slots=True)
class FullSyncBegun:
    """The peer sends its table: so many records, by its estimate. `attempt`, here and below: the number that the owner
    gave to this full sync."""

    peer: int
    expected: int
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class FullSyncDone:
    """The whole table of this peer has come, and its checksum is right."""

    peer: int
    records: int
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class FullSyncFailed:
    """The full sync from this peer ended without success. `refused`: one of the two sides would not start it."""

    peer: int
    reason: str
    refused: bool = False
    detail: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class LostUpdates:
    """So many numbered datagrams of this peer will never come: the tables may differ from now on, silently."""

    peer: int
    count: int


@dataclass(frozen=True, slots=True)
class LagChanged:
    """A stream stands still, although `count` updates are owed; or it has got past where it stood still."""

    peer: int
    receiving: bool
    """The stream that comes from the peer; otherwise ours, which the peer does not acknowledge."""
    behind: bool
    count: int


@dataclass(frozen=True, slots=True)
class PathChanged:
    """Whole datagrams do not get to the peer, which is sent fragments from now on; or they do again."""

    peer: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Risk:
    """A line for the cluster's log."""

    text: str


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who hears this member's updates: the peers, each in its present life (incarnation)."""

    lives: dict[int, int]
    only_new: bool = False
    """They take nothing but new connections."""
    without_table: frozenset[int] = frozenset()
    """Those that began before this member, or with it, and are not given its whole table, either."""


SyncEvent = (
    GateDecided | Updates | TableSlice | PeerRestarted | PeerGone | PeerUnreachable
    | FullSyncBegun | FullSyncDone | FullSyncFailed | LostUpdates | LagChanged | PathChanged | Risk
)  # fmt: skip


@dataclass
class SyncCounters:
    """The figures of `fw ctl pstat` and `cphaprob syncstat`. "Updates" are numbered datagrams, as in the product."""

    # syncstat: drops
    lost_updates: int = 0
    lost_bulks: int = 0
    """How often the receiver stopped waiting because the gap had grown wider than its queue."""
    oversized_not_sent: int = 0
    """Updates of ours that no peer would accept."""
    overload_dropped: int = 0
    """Updates of ours dropped because too many waited to be sent."""
    # syncstat: sync at risk
    sent_rejects: int = 0
    received_rejects: int = 0
    # syncstat: sent
    generated_updates: int = 0
    sent_packets: int = 0
    """Transmissions of updates, to every peer, first ones and repeated ones."""
    sent_retransmission_requests: int = 0
    requested_updates: int = 0
    """Missing updates that those requests named."""
    sent_retransmission_updates: int = 0
    sent_probes: int = 0
    """The newest number told to a peer that is behind and says nothing."""
    peak_fragments: int = 0
    """Most datagrams that one update was sent in."""
    sent_acks: int = 0
    # syncstat: received
    received_updates: int = 0
    received_retransmission_requests: int = 0
    duplicate_requests: int = 0
    """Requests for nothing but what was about to be sent again anyway."""
    received_acks: int = 0
    were_queued: int = 0
    """Updates that arrived ahead of a missing one."""
    dropped_by_net: int = 0
    """Updates found missing when a later one arrived (some come after all)."""
    duplicates: int = 0
    """Updates that came twice, or after the receiver stopped waiting for them."""
    illegal_requests: int = 0
    """Retransmission requests for updates that were never sent."""
    ignored_not_new: int = 0
    """Updates of connections not got by SET, where only new connections are exchanged."""
    saved: int = 0
    """Updates saved while a full sync ran."""
    covered_by_full: int = 0
    """Saved updates that the snapshot already contained."""
    full_records_sent: int = 0
    full_records_received: int = 0
    max_backlog: int = 0
    """Most updates that ever waited to be sent."""
    max_unacknowledged: int = 0
    """Most updates that were ever without an ACK of every live peer."""
    unacknowledged_sum: int = 0
    """Updates without an ACK, summed over the bursts in which updates were sent."""
    bursts: int = 0
    silent_peers: int = 0
    """How often a peer that was behind had said nothing for so long that it was left behind."""
    records_sent: Counter[Op] = field(default_factory=Counter)
    records_received: Counter[Op] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    """Messages refused, by `Reason.value`."""
    # Filled in by SyncEngine.counters(): what stands in the queues now, and their sizes
    backlog: int = 0
    sending_queue: int = 0
    receiving_queue: int = 0
    unacknowledged: int = 0
    sending_queue_size: int = 0
    receiving_queue_size: int = 0

    def reset(self) -> None:
        """Start counting anew, in place: the object is shared."""
        fresh = SyncCounters()
        for entry in fields(self):
            setattr(self, entry.name, getattr(fresh, entry.name))
