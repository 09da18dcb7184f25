"""A member's answers as text, in the product's layouts where it has one. Pure: dictionaries in, lines out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from math import ceil
from typing import Any

_LABEL_WIDTH = 45
"""The product pads a label with dots to this column."""


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%a %b %d %H:%M:%S %Y")


def dotted(label: str, value: object) -> str:
    """A label, dots up to the column of values, and the value."""
    return f"{label:.<{_LABEL_WIDTH}} {value}"


def stat(data: Mapping[str, Any]) -> Iterator[str]:
    """`cphaprob state`, layout of R80.20 and later."""
    yield f"Cluster Mode:   {data['mode']}"
    yield ""
    yield f"{'ID':<11}{'Unique Address':<17}{'Assigned Load':<16}{'State':<18}{'Name':<10}Release"
    yield ""
    for m in data["members"]:
        number = f"{m['id']} (local)" if m["local"] else str(m["id"])
        state = {"Active Attention": "ACTIVE(!)", "Initializing": "INIT"}.get(m["state"], m["state"].upper())
        yield f"{number:<11}{m['address']:<17}{str(m['load']) + '%':<16}{state:<18}{m['name']:<10}{m['release']}"
    yield ""
    problems = [f"{d['name']} ({d['problem']})" for d in data["devices"] if d["problem"]]
    yield f"Active PNOTEs: {', '.join(problems) or 'None'}"
    yield ""
    yield "Last member state change event:"
    yield f"   State:                      {data['state']}"
    yield f"   Reason for state change:    {data['reason']}"
    yield f"   Event time:                 {_clock(data['changed_at'])}"
    failover = data["last_failover"]
    if failover:
        yield ""
        yield "Last cluster failover event:"
        yield f"   Transition to new ACTIVE:   {failover['former'] or '-'} -> {failover['active']}"
        yield f"   Reason:                     {failover['reason']}"
        yield f"   Event time:                 {_clock(failover['at'])}"
    yield ""
    yield f"Cluster failover count:        {data['failovers']}"
    yield from _split_brains(data["split_brains"])
    yield f"Sync:                          {data['sync']['status']}"
    yield f"Policy:                        {data['policy']['name']}, {data['policy']['origin']}"
    if data["full_sync"]["state"] not in ("none", "done"):
        yield f"Full sync:                     {_full_sync(data['full_sync'])}"
    for entry in data["interfaces"]:
        for peer, reach in entry["broken"].items():
            yield f"Network {entry['name'] + ':':<23}with {peer}: {reach}; hosts there may be cut off"
    if data["over_limit"]:
        yield f"No room:                       for {data['over_limit']:,} records of peers (connections_limit)"


def _full_sync(full: Mapping[str, Any]) -> str:
    """How the full sync goes that runs, or how the last one went."""
    whose = f" from {full['peer']}" if full["peer"] else ""
    reason = f" ({full['reason']})" if full["reason"] else ""
    return f"{full['state']}{whose}{reason}{': ' if full['text'] else ''}{full['text']}"


def _split_brains(data: Mapping[str, Any]) -> Iterator[str]:
    if data["possible"]:
        yield f"Possible split brain:          {', '.join(data['possible'])} is silent, and may be active, too"
    if data["count"]:
        last = data["last"]
        told = f"the last one with {last['peer']} for {last['seconds']:.1f} s"
        yield f"Split brains:                  {data['count']}, {told}{', it goes on' if data['present'] else ''}"


def devices(entries: list[dict[str, Any]]) -> Iterator[str]:
    """`cphaprob -l list`."""
    for device in entries:
        yield f"Device Name: {device['name']}"
        yield f"Current state: {'problem (' + device['problem'] + ')' if device['problem'] else 'OK'}"
        yield ""


def interfaces(entries: list[dict[str, Any]]) -> Iterator[str]:
    """`cphaprob -a if`."""
    yield f"Required interfaces: {len(entries)}"
    yield f"Required secured interfaces: {sum(e['sync'] for e in entries)}"
    yield ""
    for entry in entries:
        kind = "sync(secured)" if entry["sync"] else "non sync(non secured)"
        broken = "".join(f"; with {peer}: {reach}" for peer, reach in entry["broken"].items())
        yield f"{entry['name']:<10}{'UP' if entry['up'] else 'DOWN':<8}{kind}, unicast{broken}"
    virtual = [(e["name"], address) for e in entries for address in e["virtual"]]
    yield ""
    yield f"Virtual cluster interfaces: {len({name for name, _ in virtual})}"
    yield ""
    for name, address in virtual:
        yield f"{name:<10}{address}"


def pstat(data: Mapping[str, Any]) -> Iterator[str]:
    """`fw ctl pstat`: the parts that this firewall has."""
    connections, packets = data["connections"], data["packets"]
    yield "Connections:"
    yield f"        {connections['connections']} in the table, peak {connections['peak']}, " \
          f"{connections['created']} created, {connections['learned']} learned out of state"  # fmt: skip
    yield "Packets:"
    yield f"        {packets['accepted']} accepted, {packets['dropped']} dropped"
    overruns = f"{packets['lost_queue']} queue overruns, {packets['lost_socket']} socket overruns"
    yield f"        not seen by the firewall: {overruns}"
    yield "Drops:"
    drops = {reason: count for reason, count in data["drops"].items() if count}
    for reason, count in drops.items():
        yield f"        {reason}: {count}"
    if not drops:
        yield "        none"
    yield from _pstat_sync(data)


def _pstat_sync(data: Mapping[str, Any]) -> Iterator[str]:
    status, reach, counters, holding = data["sync"]["status"], data["sync"]["reach"], data["counters"], data["holding"]
    if "Unable" in reach:
        status = f"{reach} sync packets"
    elif status == "OK":
        status = f"{'Saving incoming' if data['saving'] else 'Able to Send/Receive'} sync packets"
    yield "Sync:"
    yield "        Version: new"
    yield f"        Status: {status}"
    yield "        Sync packets sent:"
    yield (
        f"         total : {counters['sent_packets']}, retransmitted : {counters['sent_retransmission_updates']}, "
        f"retrans reqs : {counters['sent_retransmission_requests']}, acks : {counters['sent_acks']}"
    )
    yield "        Sync packets received:"
    yield (
        f"         total : {counters['received_updates']}, were queued : {counters['were_queued']}, "
        f"dropped by net : {counters['dropped_by_net']}"
    )
    yield (
        f"         retrans reqs : {counters['received_retransmission_requests']}, "
        f"received {counters['received_acks']} acks"
    )
    yield f"         retrans reqs for illegal seq : {counters['illegal_requests']}"
    yield f"         dropped updates as a result of sync overload: {counters['overload_dropped']}"
    yield f"        Delta Sync memory usage: currently using {ceil(data['memory_bytes'] / 1024)} KB mem"
    average = holding["total_s"] / holding["released"] if holding["released"] else 0.0
    yield (
        f"        Callback statistics: handled {holding['released']} cb, average delay : {_ticks(average)},  "
        f"max delay : {_ticks(holding['longest_s'])}"
    )
    if holding["pending"]:
        yield f"        Number of Pending packets currently held: {holding['pending']}"
    if holding["timed_out"]:
        yield f"        Packets released due to timeout: {holding['timed_out']}"


def syncstat(data: Mapping[str, Any]) -> Iterator[str]:
    """`cphaprob syncstat`: first as the product has it from R80.20 on, then the figures that it had up to R80.10, then
    what this lab adds."""
    counters = data["counters"]
    yield "Delta Sync Statistics"
    yield ""
    yield f"Sync status: {data['status']}"
    for title, rows in _sync_sections(data).items():
        yield ""
        yield title
        yield from (dotted(label, value) for label, value in rows.items())
    yield ""
    yield f"Reset on {_clock(data['reset']['at'])} (triggered by {data['reset']['by']})."
    yield ""
    peers = data["active_peers"]
    yield f"Sync Statistics (IDs of F&A Peers - {', '.join(map(str, peers)) or 'none'}):"
    for title, rows in _older_sections(counters, data["blocking"], data["holding"]).items():
        yield ""
        yield title
        yield from (dotted(label, value) for label, value in rows.items())
    for title, rows in _added_sections(data).items():
        yield ""
        yield title
        yield from (dotted(label, value) for label, value in rows.items())


_Rows = dict[str, object]


def _sync_sections(data: Mapping[str, Any]) -> dict[str, _Rows]:
    """Layout of R80.20 and later."""
    counters = data["counters"]
    return {
        "Drops:": {
            "Lost updates": counters["lost_updates"],
            "Lost bulk update events": counters["lost_bulks"],
            "Oversized updates not sent": counters["oversized_not_sent"],
        },
        "Sync at risk:": {
            "Sent reject notifications": counters["sent_rejects"],
            "Received reject notifications": counters["received_rejects"],
        },
        "Sent updates:": {
            "Total generated sync messages": counters["generated_updates"],
            "Sent retransmission requests": counters["sent_retransmission_requests"],
            "Sent retransmission updates": counters["sent_retransmission_updates"],
            # An update of this lab fits a datagram; fragments are for a path that does not bear large ones.
            "Peak fragments per update": counters["peak_fragments"],
        },
        "Received updates:": {
            "Total received updates": counters["received_updates"],
            "Received retransmission requests": counters["received_retransmission_requests"],
        },
        "Queue sizes (num of updates):": {
            "Sending queue size": counters["sending_queue_size"],
            "Receiving queue size": counters["receiving_queue_size"],
            "Fragments queue size": 0,
        },
        "Timers:": {"Delta Sync interval (ms)": data["interval_ms"]},
    }


def _older_sections(
    counters: Mapping[str, Any], blocking: Mapping[str, Any], holding: Mapping[str, Any]
) -> dict[str, _Rows]:
    """The product's figures up to R80.10."""
    requests, bursts, released = counters["sent_retransmission_requests"], counters["bursts"], holding["released"]
    return {
        "Other Member Updates:": {
            "Sent retransmission requests": requests,
            "Avg missing updates per request": round(counters["requested_updates"] / requests) if requests else 0,
            "Old or too-new arriving updates": counters["duplicates"],
            "Unsynced missing updates": counters["lost_updates"],
            "Lost sync connection (num of events)": counters["silent_peers"],
            "Timed out sync connection": holding["slow"],
        },
        "Local Updates:": {
            "Total generated updates": counters["generated_updates"],
            "Recv retransmission requests": counters["received_retransmission_requests"],
            "Recv duplicate retrans request": counters["duplicate_requests"],
            "Blocking scenarios": blocking["scenarios"],
            "Blocked packets": blocking["packets"],
            "Max length of sending queue": counters["max_unacknowledged"],
            "Avg length of sending queue": round(counters["unacknowledged_sum"] / bursts) if bursts else 0,
            "Hold Pkts events": holding["held"],
            "Unhold Pkt events": released,
            "Not held due to no members": holding["no_members"],
            "Max held duration (ticks)": _ticks(holding["longest_s"]),
            "Avg held duration (ticks)": _ticks(holding["total_s"] / released) if released else 0,
        },
    }


def _added_sections(data: Mapping[str, Any]) -> dict[str, _Rows]:
    """What this lab shows besides."""
    counters, blocking, full, heals = data["counters"], data["blocking"], data["full_sync"], data["heals"]
    state = "yes" if blocking["blocking"] else "no"
    enabled = "" if blocking["enabled"] else " (fw_sync_block_new_conns is -1)"
    peers: _Rows = {}
    for name, peer in data["peers"].items():
        exchange = f", exchanges: {peer['exchange'].replace('_', ' ')}" if peer["exchange"] else ""
        peers[f"{name} ({peer['release'] or 'release not known'})"] = f"{peer['status']}{exchange}"
    ways = {"sent": "Sent records:", "received": "Received records:"}
    records: dict[str, _Rows] = {
        title: {op: data["records"][way].get(op, 0) for op in ("SET", "MODIFY", "REFRESH", "DELETE")}
        for way, title in ways.items()
    }
    return {
        "Blocking new connections:": {
            "Blocking now": state + enabled,
            "Not yet acknowledged": counters["unacknowledged"],
            "Threshold": f"{blocking['threshold']} of {counters['sending_queue_size']}",
            "Seconds of blocking": f"{blocking['seconds']:.1f}",
        },
        "Peers:": peers,
        "Full sync:": {
            "Last full sync of this member": _full_sync(full),
            "Connections received by full sync": data["synced"]["full"],
            "Connections updated by delta sync": data["synced"]["delta"],
            "Connections that found no room": data["over_limit"],
            "After a lost update": "stays diverged, as in the product" if not heals else "heals by a full sync",
            "Healed": data["healed"],
        },
        **records,
        "Sync interface:": {
            "Bytes sent": data["bytes"]["sent"],
            "Bytes received": data["bytes"]["received"],
            "Refused messages": _counts(data["refused_messages"]),
            "Errors of sending": _counts(data["send_errors"]),
        },
    }


def _counts(counts: Mapping[str, int]) -> str | int:
    return ", ".join(f"{count} {why}" for why, count in counts.items()) or 0


def _ticks(seconds: float) -> int:
    """Sync ticks of 100 ms, begun ones counted."""
    return ceil(seconds * 10)


def status(data: Mapping[str, Any]) -> Iterator[str]:
    """Everything, each figure on a line of its own; what belongs together is set in below its name."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield f"{name}:" if value else f"{name}: none"
            yield from (f"    {line}" for line in status(value))
        else:
            yield f"{name}: {_plain(value)}"


def _plain(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or "none"
    return str(value)


def tab_summary(data: Mapping[str, Any]) -> Iterator[str]:
    """`fw tab -t connections -s`. The product's columns run together from 100,000 on; here a space stays between."""
    yield f"{'HOST':<21} {'NAME':<33} {'ID':>4} {'#VALS':>5} {'#PEAK':>5} {'#SLINKS':>7}"
    counts = f"{data['values']:>5} {data['peak']:>5} {data['links']:>7}"
    yield f"{'localhost':<21} {data['name']:<33} {data['id']:>4} {counts}"
    if data.get("learned"):
        yield f"learned from packets out of state: {data['learned']}"


def tab(data: Mapping[str, Any]) -> Iterator[str]:
    """The table's rows, readable, as they come: `rows` may be an iterator."""
    yield f"{data['name']}: {data['values']} connections, {data['links']} links, peak {data['peak']}"
    left = data["values"]
    for row in data["rows"]:
        left -= 1
        marks = [name for name in ("learned", "synchronised", "copy") if row[name]]
        marks += [f"data of {row['data_of']}"] if row["data_of"] else []
        marks += [f"{row['past_end_s']:.1f} s past its owner's word"] if row["past_end_s"] else []
        yield (
            f"{_endpoint(row['source'], row['source_port']):>24} -> "
            f"{_endpoint(row['destination'], row['destination_port']):<24} "
            f"proto {row['protocol']:<3} {row['state'] or '-':<18} rule {row['rule']:<3} {row['service'] or '-':<12} "
            f"{row['ttl_s']:.0f}/{row['timeout_s']:.0f} s {' '.join(marks)}".rstrip()
        )
    if left > 0:
        yield f"({left} more; -u shows all)"


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def log_entry(entry: Mapping[str, Any]) -> str:
    """One line of the log."""
    time = datetime.fromtimestamp(entry["at"]).strftime("%H:%M:%S.%f")[:-3]
    reason = f" {entry['reason']}" if entry["reason"] else ""
    return f"{time} {entry['action']}{reason} {entry['connection']} ({entry['hook']}): {entry['text']}"


def drops(data: Mapping[str, Any]) -> Iterator[str]:
    """Counts, then the last drops."""
    for reason, count in data["counts"].items():
        if count:
            yield dotted(reason, count)
    yield from map(log_entry, data["entries"])


def event(entry: Mapping[str, Any]) -> str:
    """One line of the events."""
    time = datetime.fromtimestamp(entry["at"]).strftime("%H:%M:%S.%f")[:-3]
    return f"{time} {entry['member']} {entry['kind']}: {entry['text']}"
