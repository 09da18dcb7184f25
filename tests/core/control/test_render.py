"""What `fwctl` prints, in the product's layouts where it has one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fwnode.control import render
from fwnode.control.watching import log_line
from fwnode.firewall.holding import HoldCounters
from fwnode.firewall.verdict import DropReason, LogEntry
from syncproto.events import SyncCounters
from syncproto.joining import NO_FULL_SYNC

COUNTERS = asdict(SyncCounters())
HOLDING = {"pending": 0, **asdict(HoldCounters())}
BLOCKING: dict[str, Any] = {
    "enabled": False, "heavy": False, "blocking": False, "threshold": 410, "scenarios": 0, "seconds": 0.0, "packets": 0,
}  # fmt: skip

STAT: dict[str, Any] = {
    "mode": "High Availability (Active Up)",
    "members": [
        {"id": 1, "local": False, "name": "fw1", "address": "203.0.113.1", "load": 0, "state": "Lost", "release": ""},
        {"id": 2, "local": True, "name": "fw2", "address": "203.0.113.2", "load": 100, "state": "Active Attention",
         "release": "R77.30"},
    ],
    "devices": [{"name": "Policy", "problem": ""},
                {"name": "Interface Active Check", "problem": "interface lan is down"}],
    "policy": {"name": "standard", "origin": "from the configuration"},
    "state": "Active Attention",
    "reason": "no other member is better",
    "changed_at": 0.0,
    "failovers": 1,
    "split_brains": {"count": 0, "present": [], "possible": [], "last": None},
    "last_failover": {"former": "fw1", "active": "fw2", "reason": "member fw1 was lost", "at": 0.0},
    "sync": {"status": "OK", "reach": "Able to send / Able to receive", "peers": {}},
    "full_sync": NO_FULL_SYNC,
    "interfaces": [],
    "over_limit": 0,
}  # fmt: skip


def test_the_table_summary_has_the_products_columns() -> None:
    """A real member's lines, to the column."""
    data = {"name": "connections", "id": 8158, "values": 1508, "peak": 14569, "links": 5168}
    assert list(render.tab_summary(data)) == [
        "HOST                  NAME                                ID #VALS #PEAK #SLINKS",
        "localhost             connections                       8158  1508 14569    5168",
    ]


def test_the_cluster_state_has_the_products_columns() -> None:
    lines = list(render.stat(STAT))
    assert lines[0] == "Cluster Mode:   High Availability (Active Up)"
    assert lines[2] == "ID         Unique Address   Assigned Load   State             Name      Release"
    assert lines[4:6] == [
        "1          203.0.113.1      0%              LOST              fw1       ",
        "2 (local)  203.0.113.2      100%            ACTIVE(!)         fw2       R77.30",
    ]
    text = "\n".join(lines)
    assert "Active PNOTEs: Interface Active Check (interface lan is down)" in text
    assert "Transition to new ACTIVE:   fw1 -> fw2" in text
    assert "Cluster failover count:        1" in text


def test_a_cluster_without_trouble_and_without_a_past_says_so() -> None:
    text = "\n".join(render.stat({**STAT, "devices": [], "last_failover": None, "failovers": 0}))
    assert "Active PNOTEs: None" in text
    assert "Last cluster failover" not in text


def test_the_cluster_state_says_what_does_not_pass_and_what_found_no_room() -> None:
    broken = {"name": "lan", "broken": {"fw1": "Able to send / Unable to receive"}}
    lines = list(render.stat({**STAT, "interfaces": [{"name": "wan", "broken": {}}, broken], "over_limit": 1234}))
    assert lines[-2:] == [
        "Network lan:                   with fw1: Able to send / Unable to receive; hosts there may be cut off",
        "No room:                       for 1,234 records of peers (connections_limit)",
    ]


def test_the_cluster_state_says_what_a_full_sync_does_or_did_not_bring() -> None:
    partial = {
        "state": "failed", "peer": "fw1", "reason": "Connection terminated by remote member", "records": 2176,
        "text": "took 2,176 of 2,500 (87 %); 324 connections of fw1 are missing",
    }  # fmt: skip
    assert list(render.stat({**STAT, "full_sync": NO_FULL_SYNC | partial}))[-1] == (
        "Full sync:                     failed from fw1 (Connection terminated by remote member): "
        "took 2,176 of 2,500 (87 %); 324 connections of fw1 are missing"
    )
    running = {"state": "running", "peer": "fw1", "text": "took 1,024 of 2,500 (40 %)"}
    assert list(render.stat({**STAT, "full_sync": NO_FULL_SYNC | running}))[-1] == (
        "Full sync:                     running from fw1: took 1,024 of 2,500 (40 %)"
    )
    for state in ("none", "done"):
        assert "Full sync:" not in "\n".join(render.stat({**STAT, "full_sync": NO_FULL_SYNC | {"state": state}}))


def test_sync_statistics_name_every_peer_with_its_reason() -> None:
    data = {
        "status": "Off - Release version mismatch",
        "peers": {
            "fw2": {"release": "R80.10", "status": "Off - Release version mismatch", "exchange": "nothing"},
            "fw3": {"release": "", "status": "OK", "exchange": "new_connections"},
        },
        "full_sync": NO_FULL_SYNC | {"state": "refused", "peer": "fw2", "reason": "Release version mismatch"},
        "synced": {"full": 0, "delta": 7},
        "records": {"sent": {"SET": 3}, "received": {}},
        "counters": COUNTERS | {"lost_updates": 12},
        "refused_messages": {"WRONG_CLUSTER": 2, "MALFORMED": 1},
        "send_errors": {"sync: EMSGSIZE": 4},
        "bytes": {"sent": 100, "received": 0},
        "blocking": BLOCKING | {"enabled": True, "blocking": True, "scenarios": 3, "packets": 40, "seconds": 1.25},
        "holding": HOLDING | {"held": 8, "released": 8, "total_s": 0.8, "longest_s": 0.31},
        "healed": 1,
        "over_limit": 0,
        "heals": False,
        "interval_ms": 100,
        "reset": {"at": 0.0, "by": "command"},
        "active_peers": [2, 3],
    }
    lines = list(render.syncstat(data))
    assert "Sync status: Off - Release version mismatch" in lines
    dotted = {line[:45].rstrip("."): line[46:] for line in lines if "..." in line}
    assert dotted["fw2 (R80.10)"] == "Off - Release version mismatch, exchanges: nothing"
    assert dotted["fw3 (release not known)"] == "OK, exchanges: new connections"
    assert dotted["Last full sync of this member"] == "refused from fw2 (Release version mismatch)"
    assert dotted["Connections updated by delta sync"] == "7"
    assert (dotted["SET"], dotted["Lost updates"]) == ("0", "12")
    assert dotted["Refused messages"] == "2 WRONG_CLUSTER, 1 MALFORMED"
    assert dotted["Errors of sending"] == "4 sync: EMSGSIZE"
    assert "Sync Statistics (IDs of F&A Peers - 2, 3):" in lines
    assert (dotted["Blocking scenarios"], dotted["Blocked packets"], dotted["Blocking now"]) == ("3", "40", "yes")
    assert (dotted["Max held duration (ticks)"], dotted["Avg held duration (ticks)"]) == ("4", "1")
    assert lines.index("Drops:") < lines.index("Sync at risk:") < lines.index("Sent updates:") < lines.index("Timers:")


def test_the_products_layout_is_kept_to_the_letter() -> None:
    """`cphaprob syncstat` of R80.20 and later: titles, order, and labels padded to 45 columns."""
    data: dict[str, Any] = {
        "status": "OK", "peers": {}, "full_sync": NO_FULL_SYNC, "synced": {"full": 0, "delta": 0},
        "records": {"sent": {}, "received": {}}, "refused_messages": {}, "send_errors": {},
        "bytes": {"sent": 0, "received": 0},
        "counters": COUNTERS | {"generated_updates": 12316, "received_updates": 12, "sending_queue_size": 512,
                                "receiving_queue_size": 256, "peak_fragments": 1},
        "blocking": BLOCKING, "holding": HOLDING, "healed": 0, "over_limit": 0, "heals": False, "interval_ms": 100,
        "reset": {"at": 0.0, "by": "command"}, "active_peers": [],
    }  # fmt: skip
    lines = list(render.syncstat(data))
    assert lines[:26] == [
        "Delta Sync Statistics", "",
        "Sync status: OK", "",
        "Drops:",
        "Lost updates................................. 0",
        "Lost bulk update events...................... 0",
        "Oversized updates not sent................... 0", "",
        "Sync at risk:",
        "Sent reject notifications.................... 0",
        "Received reject notifications................ 0", "",
        "Sent updates:",
        "Total generated sync messages................ 12316",
        "Sent retransmission requests................. 0",
        "Sent retransmission updates.................. 0",
        "Peak fragments per update.................... 1", "",
        "Received updates:",
        "Total received updates....................... 12",
        "Received retransmission requests............. 0", "",
        "Queue sizes (num of updates):",
        "Sending queue size........................... 512",
        "Receiving queue size......................... 256",
    ]  # fmt: skip
    assert lines[28:30] == ["Timers:", "Delta Sync interval (ms)..................... 100"]
    assert lines[31].startswith("Reset on ")


def test_statistics_show_drops_by_reason_and_packets_that_were_never_seen() -> None:
    data: dict[str, Any] = {
        "connections": {"connections": 200, "peak": 210, "created": 300, "learned": 20},
        "packets": {"accepted": 5, "dropped": 3, "lost_queue": 1, "lost_socket": 2},
        "drops": {"OUT_OF_STATE": 3, "POLICY": 0},
        "sync": {"status": "OK", "reach": "Able to send / Able to receive", "peers": {}},
        "counters": COUNTERS | {"sent_packets": 9, "received_acks": 175},
        "saving": False,
        "memory_bytes": 2049,
        "holding": HOLDING | {"pending": 2, "released": 4, "total_s": 1.0, "longest_s": 5.0, "timed_out": 1},
    }
    lines = [line.strip() for line in render.pstat(data)]
    assert "200 in the table, peak 210, 300 created, 20 learned out of state" in lines
    assert "not seen by the firewall: 1 queue overruns, 2 socket overruns" in lines
    assert "OUT_OF_STATE: 3" in lines and not any(line.startswith("POLICY") for line in lines)
    assert "Status: Able to Send/Receive sync packets" in lines
    assert "total : 9, retransmitted : 0, retrans reqs : 0, acks : 0" in lines
    assert "retrans reqs : 0, received 175 acks" in lines
    assert "Delta Sync memory usage: currently using 3 KB mem" in lines
    assert "Callback statistics: handled 4 cb, average delay : 3,  max delay : 50" in lines
    assert lines[-2:] == [
        "Number of Pending packets currently held: 2",
        "Packets released due to timeout: 1",
    ]
    assert "Status: Saving incoming sync packets" in [line.strip() for line in render.pstat({**data, "saving": True})]
    assert "none" in [line.strip() for line in render.pstat({**data, "drops": {}})]
    cut = {"status": "Off - Connection to remote member timed-out", "reach": "Able to send / Unable to receive"}
    lines = [line.strip() for line in render.pstat({**data, "sync": cut})]
    assert "Status: Able to send / Unable to receive sync packets" in lines


def test_rows_of_the_table_show_both_ends_and_how_many_are_left_out() -> None:
    row = {
        "source": "2001:db8:1::100", "source_port": 40001, "destination": "198.51.100.100", "destination_port": 1521,
        "protocol": 6, "state": "ESTABLISHED", "rule": 3, "service": "oracle", "learned": True, "synchronised": True,
        "copy": True, "ttl_s": 3599.6, "timeout_s": 3600.0, "data_of": "", "past_end_s": 0.0,
    }  # fmt: skip
    data = {"name": "connections", "values": 20, "links": 20, "peak": 25, "rows": [row]}
    head, line, more = render.tab(data)
    assert head == "connections: 20 connections, 20 links, peak 25"
    assert "[2001:db8:1::100]:40001 -> 198.51.100.100:1521" in line
    assert line.endswith("3600/3600 s learned synchronised copy")
    assert more == "(19 more; -u shows all)"
    assert len(list(render.tab({**data, "values": 1}))) == 2
    parent = "tcp 192.0.2.100:40001 -> 198.51.100.100:21"
    _, line, _ = render.tab({**data, "rows": [{**row, "learned": False, "data_of": parent}]})
    assert line.endswith("s synchronised copy data of tcp 192.0.2.100:40001 -> 198.51.100.100:21")
    late = {**row, "learned": False, "ttl_s": 0.0, "timeout_s": 20.0, "past_end_s": 0.3}
    _, line, _ = render.tab({**data, "rows": [late]})
    assert line.endswith("0/20 s synchronised copy 0.3 s past its owner's word")


def test_a_dropped_packet_is_one_line_of_the_log() -> None:
    key = b"\x06" + bytes([192, 0, 2, 100, 198, 51, 100, 100]) + (40001).to_bytes(2, "big") + (80).to_bytes(2, "big")
    text = "TCP packet out of state: First packet isn't SYN"
    entry = log_line(LogEntry(1, 5.0, DropReason.OUT_OF_STATE, 2, key, 0x18, 0, text), lambda at: 100.0 + at)
    assert (entry["lab_time"], entry["at"]) == (5.0, 105.0)
    assert render.log_entry(entry).partition(" ")[2] == (
        "drop OUT_OF_STATE tcp 192.0.2.100:40001 -> 198.51.100.100:80 (forward): "
        "TCP packet out of state: First packet isn't SYN; tcp_flags: PUSH-ACK"
    )
    accepted = log_line(LogEntry(2, 5.0, None, 2, key[:1] + key[1:], 0x02, 3, "web"), lambda at: at)
    assert " accept tcp " in render.log_entry(accepted)
    counts = {"OUT_OF_STATE": 1, "POLICY": 0}
    assert [line[:12] for line in render.drops({"counts": counts, "entries": []})] == ["OUT_OF_STATE"]
