"""One sentence that says what happened in a run and why, from its document. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labs.procedure.document import Document
from labs.traffic.durations import format_duration
from labs.words import counted

LASTING = ("sessions", "ftp")
"""Kinds of workloads whose sessions outlive one exchange."""
DROPPED = {"OUT_OF_STATE": "as out of state", "POLICY": "by the rule base"}
"""Reasons for which a packet of a session is dropped silently, as the sentence says them."""


def sentence(document: Document) -> str:
    clauses = [
        *([f"the run ended early ({_first_line(document['problem'])})"] if document["problem"] else []),
        *_fates(document),
        *_why(document),
        *_tables(document),
        *_comparisons(document),
        *_sync_trouble(document),
        *_new_connections(document),
        *_transfers(document),
        *_floods(document),
    ]
    text = "; ".join(clause for clause in clauses if clause) or "no workload ran"
    return text[0].upper() + text[1:] + "."


def _fates(document: Document) -> list[str]:
    """What became of the long-lived sessions."""
    clauses = []
    for name, figures in document["workloads"].items():
        if figures["kind"] not in LASTING or not figures["sessions"]:
            continue
        if figures["kind"] == "ftp" and figures["finished"] == figures["sessions"]:
            continue  # its transfers say it all
        ended = ("survived", *(["finished"] if figures["kind"] == "ftp" else []), "hung", "reset", "refused")
        settled = {fate: figures[fate] for fate in ended if figures[fate]}
        total = sum(settled.values())
        if figures["finished"] and not settled:
            clauses.append(f"all {figures['finished']:,} sessions of `{name}` finished")
        elif len(settled) == 1:
            fate, number = next(iter(settled.items()))
            clauses.append(f"{_all(number, 'session')} of `{name}` {_said(fate)}")
        elif settled:
            parts = [f"{number:,} {_said(fate)}" for fate, number in settled.items()]
            clauses.append(f"of {total:,} sessions of `{name}` {_listed(parts)}")
    if len(clauses) > 1 and len({clause.rsplit("` ", 1)[1] for clause in clauses}) == 1:
        # All of them ended alike: say it once.
        whose = _listed([clause.rsplit(" of ", 1)[0] + " of " + _name(clause) for clause in clauses])
        return [f"{whose} {clauses[0].rsplit('` ', 1)[1]}"]
    return [_listed(clauses)] if clauses else []


def _why(document: Document) -> list[str]:
    """The takeovers, what the new active member knew, and what it did with what it did not know."""
    clauses = []
    takeovers = document["takeovers"]
    for takeover in takeovers[-2:]:
        clauses.append(_takeover(document, takeover))
    takers = list(dict.fromkeys(takeover["taker"] for takeover in takeovers)) or list(document["members"])
    for member in takers:
        deeds = []
        learned = document["members"][member]["learned"]
        if learned:
            deeds.append(f"learned {counted(learned, 'connection')} from packets that it would otherwise have dropped")
        deeds += _drops(document["drops"][member])
        if deeds:
            clauses.append(f"{member} {_listed(deeds)}")
    return clauses


def _drops(counts: Mapping[str, int]) -> list[str]:
    """What a member dropped that may have been part of a session."""
    dropped = [f"{counted(counts[reason], 'packet')} {why}" for reason, why in DROPPED.items() if counts.get(reason)]
    deeds = [f"dropped {_listed(dropped)} without telling anyone"] if dropped else []
    if rejected := counts.get("REJECTED"):
        deeds.append(f"rejected {counted(rejected, 'packet')} by the rule base")
    return deeds


def _takeover(document: Document, takeover: Mapping[str, Any]) -> str:
    knew, had = takeover["taker_connections"], takeover["former_connections"]
    who = f"{takeover['taker']} ({takeover['release']}) took over"
    share = "none" if knew == 0 else "all" if knew >= had else f"{knew:,}"
    of = f"the {counted(had, 'connection')} of {takeover['former']}"
    clause = f"{who} knowing {share} of {of}"
    sync = takeover["sync"]
    if takeover["full_sync"]:
        clause += f", because its full sync did not bring the whole table: it {takeover['full_sync']}"
    elif knew < had and sync and sync != "OK":
        clause += f", because sync was {_sync(sync)}"
    elif knew < had and takeover["exchange"] == "new_connections":
        clause += ", because only new connections cross between these releases"
    elif knew >= had and had:
        clause += ", because they were synchronised"
    return clause


def _sync(status: str) -> str:
    """`Off - Release version mismatch` -> `off (Release version mismatch)`."""
    word, _, reason = status.partition(" - ")
    return f"{word.lower()} ({reason})" if reason else word


def _tables(document: Document) -> list[str]:
    """Running members whose full sync failed, and whether their tables differ.

    Only a regular end is one at which their counts can be compared: in the middle of it one is a sync tick ahead of the
    other. Where the tables themselves were compared, counts say nothing more.
    """
    if document["takeovers"]:
        return []
    clauses = []
    counts = {name: member["connections"] for name, member in document["members"].items() if member["running"]}
    for name, member in document["members"].items():
        full = member["full_sync"]
        if member["running"] and full.get("state") == "failed":
            reason = f" ({full['reason']})" if full.get("reason") else ""
            took = f" (it {full['text']})" if full.get("text") else ""
            clauses.append(f"full sync of {name} failed{reason}{took} while delta sync went on with "
                           f"{counted(member['synced_delta'], 'record')}")
    if len(counts) > 1 and any(counts.values()) and not document["problem"] and not document["comparisons"]:
        alike = len(set(counts.values())) == 1
        held = _listed([f"{name} {number:,}" for name, number in counts.items()])
        clauses.append(f"the members' tables {'are equal' if alike else 'differ'} ({held} connections)")
    return clauses


def _comparisons(document: Document) -> list[str]:
    """What was found where connection was compared with connection: the worst of it, and how it ended."""
    if not document["comparisons"]:
        return []
    worst = max(document["comparisons"], key=lambda comparison: comparison["different"])
    last = document["comparisons"][-1]
    clauses = []
    if worst["different"] and worst is not last:
        at = format_duration(worst["lab_s"])
        clauses.append(f"at {at} the members' tables differed in {_difference(worst, 'lacked')}")
    be, differ, lack = ("are", "differ", "lacks") if last["at_end"] else ("were", "differed", "lacked")
    when = "" if last["at_end"] else f" when they were last compared, at {format_duration(last['lab_s'])}"
    again = "in the end " if clauses and last["at_end"] else ""
    what = f"{differ} in {_difference(last, lack)}" if last["different"] else f"{be} equal"
    return [*clauses, f"{again}the members' tables {what}{when}"]


def _difference(comparison: Mapping[str, Any], lack: str) -> str:
    lacks = [f"{member} {lack} {number:,}" for member, number in comparison["missing"].items() if number]
    return counted(comparison["different"], "connection") + (f" ({_listed(lacks)})" if lacks else "")


def _sync_trouble(document: Document) -> list[str]:
    """Updates that were lost, new connections that were blocked for it, and what was mended."""
    clauses = []
    for name, member in document["members"].items():
        deeds = []
        blocking = member["blocking"]
        if blocking["scenarios"]:
            deeds.append(f"blocked new connections {_times(blocking['scenarios'])}, for {blocking['seconds']:.1f} s in "
                         f"all, and dropped {counted(blocking['packets'], 'packet')} of them")
        if lost := member["counters"]["lost_updates"]:
            deeds.append(f"lost {counted(lost, 'update')} of the others for good")
        if member["healed"]:
            deeds.append(f"mended its table by a full sync of its own accord {_times(member['healed'])}")
        if deeds:
            clauses.append(f"{name} {_listed(deeds)}")
    return clauses


def _new_connections(document: Document) -> list[str]:
    clauses = []
    for name, figures in document["workloads"].items():
        if figures["kind"] == "short" and figures["sessions"]:
            worked, total = figures["finished"], figures["sessions"]
            clauses.append(f"{worked:,} of {total:,} short connections of `{name}` worked")
    return clauses


def _transfers(document: Document) -> list[str]:
    clauses = []
    for name, figures in document["workloads"].items():
        if figures.get("transfers"):
            complete, total = figures["transferred"], figures["transfers"]
            if complete == total:
                clauses.append(f"{_all(total, 'transfer')} of `{name}` {'was' if total == 1 else 'were'} complete")
            else:
                clauses.append(f"{complete:,} of {total:,} transfers of `{name}` were complete")
    return clauses


def _floods(document: Document) -> list[str]:
    clauses = []
    for name, figures in document["workloads"].items():
        if figures["kind"] == "flood" and figures["offered"]:
            arrived, offered = figures["arrived"], figures["offered"]
            if arrived == offered:
                clauses.append(f"{_all(offered, 'new connection')} of `{name}` passed")
            else:
                clauses.append(f"{arrived:,} of {offered:,} new connections of `{name}` passed, {figures['refused']:,} "
                               "were refused")
        elif figures["kind"] == "ping" and figures["sent"]:
            clauses.append(f"{figures['answered']:,} of {counted(figures['sent'], 'ping')} of `{name}` "
                           f"{'was' if figures['sent'] == 1 else 'were'} answered")
    return clauses


def _first_line(text: str) -> str:
    return text.splitlines()[0].rstrip(" .;:")


def _said(fate: str) -> str:
    return {"survived": "went on", "reset": "were reset", "refused": "were refused"}.get(fate, fate)


def _name(clause: str) -> str:
    return "`" + clause.split("`")[1] + "`"


def _times(number: int) -> str:
    return "once" if number == 1 else "twice" if number == 2 else f"{number:,} times"


def _all(number: int, noun: str) -> str:
    return f"the one {noun}" if number == 1 else f"all {number:,} {noun}s"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
