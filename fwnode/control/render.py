"""A member's answers as text, in the product's layouts where it has one. Pure: dictionaries in, lines out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

_LABEL_WIDTH = 45
"""The product pads a label with dots to this column."""


# The product's sections and labels (R80.20 and later) and the counter that each shows.
_SYNC_SECTIONS = {
    "Drops:": {"Lost updates": "lost_updates", "Oversized updates not sent": "oversized_not_sent"},
    "Sync at risk:": {
        "Sent reject notifications": "sent_rejects",
        "Received reject notifications": "received_rejects",
    },
    "Sent updates:": {
        "Total generated sync messages": "generated_updates",
        "Sent retransmission requests": "sent_retransmission_requests",
        "Sent retransmission updates": "sent_retransmission_updates",
    },
    "Received updates:": {
        "Total received updates": "received_updates",
        "Received retransmission requests": "received_retransmission_requests",
    },
    "Queue sizes (num of updates):": {
        "Sending queue size": "sending_queue_size",
        "Receiving queue size": "receiving_queue_size",
        "Not yet acknowledged": "unacknowledged",
    },
}


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%a %b %d %H:%M:%S %Y")


def dotted(label: str, value: object) -> str:
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
    yield f"Sync:                          {data['sync']['status']}"


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
        yield f"{entry['name']:<10}{'UP' if entry['up'] else 'DOWN':<8}{kind}, unicast"
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
    status, counters = data["sync"]["status"], data["counters"]
    yield "Sync:"
    yield f"        Status: {'Able to Send/Receive sync packets' if status == 'OK' else status}"
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


def syncstat(data: Mapping[str, Any]) -> Iterator[str]:
    """`cphaprob syncstat`: sections and padding as the product has them."""
    yield "Delta Sync Statistics"
    yield ""
    yield f"Sync status: {data['status']}"
    yield ""
    yield "Peers:"
    for name, peer in data["peers"].items():
        exchange = f", exchanges: {peer['exchange'].replace('_', ' ')}" if peer["exchange"] else ""
        yield dotted(f"{name} ({peer['release'] or 'release not known'})", f"{peer['status']}{exchange}")
    yield ""
    yield "Full sync:"
    full = data["full_sync"]
    reason = f" ({full['reason']})" if full["reason"] else ""
    yield dotted("Last full sync of this member", f"{full['state']}{reason}")
    yield dotted("Connections received by full sync", data["synced"]["full"])
    yield dotted("Connections updated by delta sync", data["synced"]["delta"])
    for way, title in (("sent", "Sent records:"), ("received", "Received records:")):
        yield ""
        yield title
        for op in ("SET", "MODIFY", "REFRESH", "DELETE"):
            yield dotted(op, data["records"][way].get(op, 0))
    yield ""
    for title, labels in _SYNC_SECTIONS.items():
        yield title
        for label, counter in labels.items():
            yield dotted(label, data["counters"][counter])
        yield ""
    refused = data["refused_messages"]
    yield dotted("Refused messages", ", ".join(f"{count} {reason}" for reason, count in refused.items()) or 0)
    yield ""
    yield "Sync interface:"
    yield dotted("Bytes sent", data["bytes"]["sent"])
    yield dotted("Bytes received", data["bytes"]["received"])


def tab_summary(data: Mapping[str, Any]) -> Iterator[str]:
    """`fw tab -t connections -s`."""
    yield f"{'HOST':<22}{'NAME':<34}{'ID':>4}{'#VALS':>6}{'#PEAK':>6}{'#SLINKS':>8}"
    yield f"{'localhost':<22}{data['name']:<34}{data['id']:>4}{data['values']:>6}{data['peak']:>6}{data['links']:>8}"


def tab(data: Mapping[str, Any]) -> Iterator[str]:
    """The table's rows, readable."""
    yield f"{data['name']}: {data['values']} connections, {data['links']} links, peak {data['peak']}"
    for row in data["rows"]:
        marks = [name for name, on in (("learned", row["learned"]), ("synchronised", row["synchronised"])) if on]
        marks += [f"data of {row['data_of']}"] if row["data_of"] else []
        yield (
            f"{_endpoint(row['source'], row['source_port']):>24} -> "
            f"{_endpoint(row['destination'], row['destination_port']):<24} "
            f"proto {row['protocol']:<3} {row['state'] or '-':<18} rule {row['rule']:<3} {row['service'] or '-':<12} "
            f"{row['ttl_s']:.0f}/{row['timeout_s']:.0f} s {' '.join(marks)}".rstrip()
        )
    if len(data["rows"]) < data["values"]:
        yield f"({data['values'] - len(data['rows'])} more; -u shows all)"


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
    time = datetime.fromtimestamp(entry["at"]).strftime("%H:%M:%S.%f")[:-3]
    return f"{time} {entry['member']} {entry['kind']}: {entry['text']}"
