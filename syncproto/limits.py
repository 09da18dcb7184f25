"""Every cap and default of the sync protocol: a named constant with its unit and where the number comes from.

Specification constants (the wire depends on them) come first, then the product's documented defaults, then the lab's
own choices. `Limits` gathers those that an operator may tune. Nothing here computes.

"Guide" below is the vendor's ClusterXL administration guide, "SK" a vendor article.
"""

from __future__ import annotations

from dataclasses import dataclass

# --- The wire (both ends must agree) --------------------------------------------------------------------------------

PROTOCOL_VERSION = 1
"""First element of every frame. A frame with another number is refused."""

DATAGRAM_MAX = 1400
"""Bytes of one delta datagram, UDP payload. Lab's own: fits an Ethernet frame of 1500 with IPv6 and a little room."""

FRAME_OVERHEAD_MAX = 80
"""Bytes around the body of a delta datagram: frame array, ids, sequence number, bin header, authentication tag."""

DELTA_BODY_MAX = DATAGRAM_MAX - FRAME_OVERHEAD_MAX
"""Bytes of packed updates in one datagram."""

FRAGMENT_DATAGRAM_MAX = 512
"""Bytes of a datagram that carries part of an update, UDP payload: with its headers it fits 576 bytes, which every
IPv4 host must take (RFC 791)."""

FRAGMENT_BODY_MAX = FRAGMENT_DATAGRAM_MAX - FRAME_OVERHEAD_MAX
"""Bytes of packed updates in such a datagram, unless a single one is longer."""

UPDATES_PER_DATAGRAM_MAX = 128
"""Updates in one datagram; a receiver refuses more. Lab's own: the smallest update has 20 bytes or so."""

STREAM_FRAME_MAX = 131_072
"""Bytes of one full-sync frame; checked on the length prefix, before a byte of it is buffered. Lab's own."""

FULL_SLICE_RECORDS_MAX = 512
"""Records in one full-sync frame that a joiner takes. Lab's own; 512 of the largest are 90 KB."""

STREAM_PREFIX_BYTES = 4
"""Length prefix of a full-sync frame: unsigned, big-endian."""

RETRANSMIT_RANGE_MAX = 32
"""Consecutive sequence numbers in one retransmission request (SK34475)."""

NESTING_MAX = 3
"""Levels below the frame's own array: fields, then a list or map in a field."""

AUTHENTICATION_TAG_BYTES = 16
"""Bytes of the keyed blake2b tag, when authentication is switched on. The product has none."""

AUTHENTICATION_KEY_MAX = 64
"""Bytes of a key: blake2b's own limit."""

CHECKSUM_BYTES = 16
"""Bytes of the full-sync checksum (blake2b over the packed records). Lab's own."""

CLUSTER_MAX = 0xFFFF
"""Largest cluster id. Lab's own."""

MEMBER_MAX = 255
"""Largest member id on the wire. The product has up to 5 (13 in VSLS); the wire leaves room."""

COUNTER_MAX = (1 << 63) - 1
"""Largest sequence number, revision and incarnation: signed 64 bits, never reached."""

SCHEMAS = (1, 2, 3)
"""Record schemas that this code can read."""

SERVICE_NAME_MAX = 64
"""UTF-8 bytes of a service's name in a record. Lab's own."""

NAME_MAX = 128
"""UTF-8 bytes of any other name or text in a message (release, policy, interface, problem). Lab's own."""

REASON_MAX = 256
"""UTF-8 bytes of a reason sent to a peer. Lab's own."""

LIST_MAX = 64
"""Entries in a list or map of a heartbeat. Lab's own: a cluster has 5 members and a handful of interfaces."""

DURATION_MAX_S = 1e10
"""Longest duration in a record, seconds (317 years). Longer ones are clamped when sent and refused when received."""

AGE_MAX_MS = 86_400_000
"""Largest age of an update, milliseconds: a day, and no update waits so long in a queue."""

TIME_MAX_S = 1e15
"""Largest point in time in a message, seconds; excludes NaN and infinity."""

RULE_MAX = 0x7FFF_FFFF
"""Largest rule number, either sign."""

FLAGS_MAX = 0xFFFF
"""Flags of a record: 16 bits."""

# --- The product's defaults -----------------------------------------------------------------------------------------

SENDING_QUEUE = 512
"""Datagrams kept for retransmission; default and minimum of `fw_sync_sending_queue_size` (Guide)."""

RECEIVING_QUEUE = 256
"""Datagrams held per peer until the sequence is complete; default and minimum of `fw_sync_recv_queue_size` (Guide).
Also the width of the gap beyond which the receiver stops waiting (SK34475)."""

FULL_SYNC_PORT = 256
"""TCP port of full sync up to R80.40 (Guide)."""

SYNC_TICK_S = 0.1
"""Interval at which a member hands over its changes, seconds (Guide: 10 x 1 x 10 ms)."""

# --- The lab's own --------------------------------------------------------------------------------------------------

HELLO_INTERVAL_S = 0.2
"""First interval between HELLOs to a peer that has not answered, seconds; doubles up to the next one."""

HELLO_INTERVAL_MAX_S = 5.0
"""Longest interval between HELLOs, seconds. A peer that starts says HELLO itself, so this one may be lazy."""

PROBE_INTERVAL_S = 0.2
"""A peer is behind and says nothing: tell it the newest number after this, seconds (two sync ticks); doubles."""

PROBE_INTERVAL_MAX_S = 1.0
"""Longest interval between two such messages, seconds."""

PATH_TRIES_MAX = 4
"""So often may a peer ask for the very update that it lacks first, although it was sent: then whole datagrams do not
arrive, and it is sent fragments. Requests come after 0, 0.1, 0.3 and 0.7 s."""

PATH_TRIAL_S = 10.0
"""Seconds until one whole datagram is tried again on such a path; doubles after each that did not get there."""

PATH_TRIAL_MAX_S = 640.0
"""Longest interval between two such trials, seconds."""

BEHIND_AFTER_S = 2.5
"""A stream in which something is owed and nothing has moved for this long (seconds) is behind, and said to be: as long
as the product's dead timer."""

REQUEST_INTERVAL_S = 0.1
"""Repeat a retransmission request after this, seconds (one sync tick); doubles."""

REQUEST_INTERVAL_MAX_S = 1.0
"""Longest interval between repetitions of a request, seconds."""

REQUEST_TRIES_MAX = 40
"""Repetitions without any progress before the receiver stops waiting: about 38 s. Longer than a peer's silence."""

REQUESTS_PER_CALL_MAX = 8
"""Retransmission requests (of 32 each) in one outgoing() call: the receiving queue and no more."""

PEER_SILENCE_S = 5.0
"""A peer that is behind and has sent nothing at all for this long (seconds) is asked for HELLO again, and no longer
counts among those that hold others up. Twice the product's 2.5 s dead timer: the cluster should decide first."""

PEER_RECALL_S = 10.0
"""Members remember for so long (seconds), at least, what a peer told, and tell it on when that peer is gone. Lab's own:
in that time a member that lacked something has got it again, or knows that it is lost."""

STALE_AFTER_S = 3.0
"""A smaller incarnation than the known one is believed only after this much silence (seconds): before, it is a
delayed datagram of the past, heartbeats included. Covers a clock that was set back between two starts."""

BURST_MAX = 32
"""Delta datagrams sent in one outgoing() call. A default UDP socket buffer (212,992 bytes) holds about 90."""

PACE_S = (0.002, 0.010, 0.050)
"""Pause between bursts, seconds: while up to 64, up to 256, more datagrams are unacknowledged."""

PACE_STEPS = (64, 256)
"""Unacknowledged datagrams at which the pause grows."""

BACKLOG_UPDATES_MAX = 200_000
"""Updates that wait to be sent for the first time; more are dropped and counted ("dropped updates as a result of sync
overload"). About 30 MB of records."""

SAVED_UPDATES_MAX = 200_000
"""Updates saved while a full sync runs. Past it the full sync fails with "Full-sync received queue is full" and the
saved ones are released. The product's `fw_sync_max_saved_buf_mem` is unlimited by default; the lab is not."""

KNOWN_KEYS_MAX = 200_000
"""Keys got by SET from one peer, kept where only new connections are exchanged; past it the oldest are forgotten,
and later changes to them are ignored."""

FULL_SLICE_RECORDS = 128
"""Records in one full-sync frame as it is sent: the work of one outgoing() call, for which packets wait. Lab's own:
0.2 to 0.4 ms at either end, among a million connections."""

FULL_PAUSE_S = 0.001
"""Between two frames of a full sync while packets are forwarded. Lab's own: the grain of the loop's timer. A million
connections take 12 s in that way, and 2 s without packets."""

FULL_QUIET_S = 0.1
"""So long after a packet more of them are expected. Lab's own."""

FULL_TOTAL_RECORDS_MAX = 10_000_000
"""Records in one full sync; a sink takes no more. Lab's own."""

FULL_STALL_S = 10.0
"""A full sync in which not a byte moves for this long (seconds) has failed."""

JOIN_GATE_WAIT_S = 3.0
"""A joining member waits this long (seconds) for a source's release before it goes on to the next one, or without a
full sync. Lab's own: more than a start of the sync protocol takes."""

JOIN_TRIES_MAX = 3
"""A peer whose table came in part is asked so often in one join. Lab's own."""

RISK_INTERVAL_S = 1.0
"""At most one `State synchronization is in risk` line of a kind in this time, seconds; the counters count all."""

HEAL_QUIET_S = 1.0
"""Healing begins when no update was lost for this long, seconds (ten sync ticks)."""

HEAL_LATEST_S = 10.0
"""Healing begins this long after the first lost update at the latest, seconds, even if updates are still being lost."""

HEAL_RETRY_S = 5.0
"""After a healing full sync failed, the next one begins this much later, seconds."""


@dataclass(frozen=True)
class Limits:
    """What an operator may tune; the rest are constants. Units as in the constants of the same name."""

    sending_queue: int = SENDING_QUEUE
    receiving_queue: int = RECEIVING_QUEUE
    hello_interval_s: float = HELLO_INTERVAL_S
    hello_interval_max_s: float = HELLO_INTERVAL_MAX_S
    probe_interval_s: float = PROBE_INTERVAL_S
    probe_interval_max_s: float = PROBE_INTERVAL_MAX_S
    request_interval_s: float = REQUEST_INTERVAL_S
    request_interval_max_s: float = REQUEST_INTERVAL_MAX_S
    request_tries_max: int = REQUEST_TRIES_MAX
    peer_silence_s: float = PEER_SILENCE_S
    stale_after_s: float = STALE_AFTER_S
    burst_max: int = BURST_MAX
    backlog_updates_max: int = BACKLOG_UPDATES_MAX
    saved_updates_max: int = SAVED_UPDATES_MAX
    known_keys_max: int = KNOWN_KEYS_MAX
    full_slice_records: int = FULL_SLICE_RECORDS
    full_stall_s: float = FULL_STALL_S
    risk_interval_s: float = RISK_INTERVAL_S


DEFAULT_LIMITS = Limits()
