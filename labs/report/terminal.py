"""A run for the person at the terminal: the steps as they happen, then the tables and the sentence.

Reads well through a pipe, too: no colour there, and a width that does not fold the tables.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from labs.procedure.document import REAL, Entry
from labs.procedure.model import LabFile
from labs.report.sentence import sentence
from labs.traffic.durations import format_duration

PIPE_WIDTH = 120
COUNTED = {"ftp": ("transfers", "transferred"), "tftp": ("transfers", "transferred"), "ping": ("sent", "answered"),
           "flood": ("offered", "arrived")}  # fmt: skip
"""Of a kind: what it tried, and what came through."""
NO_LOSS = {"OTHER_MEMBER"}
"""Reasons of packets that somebody else forwarded."""
FATES = ("survived", "hung", "reset", "refused", "finished")
_STYLES = {"step": "bold", "note": "italic", "member": "cyan", "log": "yellow", "takeover": "bold magenta",
           "problem": "bold red"}  # fmt: skip
_MARKS = {"step": "", "note": "", "member": "  · ", "log": "  · ", "workload": "  · ", "check": "  · ",
          "takeover": "  » ", "problem": "  ! "}  # fmt: skip
_CLOCK_WIDTH = 10


def console() -> Console:
    """Standard output; through a pipe without colour and wide enough for every table."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False, emoji=False)


class Live:
    """The timeline, line by line."""

    def __init__(self, to: Console | None = None) -> None:
        self._console = to or console()

    def title(self, file: LabFile, seed: int | None = None) -> None:
        """`seed`: of a simulated world."""
        clock = file.header.clock.rate
        pace = "lab time runs at wall speed" if clock == 1 else f"a second is {format_duration(clock)} of lab time"
        self._console.print(Text(f"{file.name}: {file.header.title}", style="bold"))
        self._console.print(Padding(Text(" ".join(file.header.shows.split())), (0, 0, 0, 2)))
        world = "" if seed is None else f"a simulated world, seed {seed}; "
        self._console.print(Text(f"  {world}{pace}\n", style="dim"))

    def say(self, text: str) -> None:
        self._console.print(Text(f"\n  {text}", style="bold"))

    def tell(self, entry: Entry) -> None:
        clock = "" if entry.kind == "note" else format_duration(entry.lab_s)
        line = Table.grid(padding=(0, 2))
        line.add_column(width=_CLOCK_WIDTH, justify="right", style="dim")
        line.add_column(overflow="fold")
        line.add_row(clock, Text(_MARKS[entry.kind] + entry.text, style=_STYLES.get(entry.kind, "")))
        self._console.print(line)


def report(document: Mapping[str, Any], to: Console | None = None) -> None:
    """After the run."""
    out = to or console()
    out.print()
    for title, table in (
        ("What became of the sessions", fates(document)),
        ("Transfers, pings and floods", counts(document)),
        ("The members", members(document)),
        ("Delta sync, where it was in trouble", trouble(document)),
        ("How the members' tables differed", comparisons(document)),
        ("Packets dropped, by reason", drops(document)),
    ):
        if table.row_count:
            out.print(Text(title, style="bold"))
            out.print(table)
            out.print()
    for expectation in document["expectations"]:
        out.print(expectation_line(expectation))
    out.print()
    out.print(Text(sentence(document), style="bold"))
    style = {"pass": "bold green", "warn": "bold yellow", "fail": "bold red"}[document["verdict"]]
    out.print(Text(f"{document['verdict'].upper()}: {document['lab']}, {document['seconds']:.1f} s{_where(document)}",
                   style=style))


def _where(document: Mapping[str, Any]) -> str:
    """The world of a run that was not on real packets, and what replays it."""
    name = document.get("world", REAL["world"])
    world = "" if name == REAL["world"] else f" of a {name} world"
    return f"{world}, seed {document['seed']}" if "seed" in document else world


def fates(document: Mapping[str, Any]) -> Table:
    """What became of the sessions of each workload."""
    table = _table("workload", "sessions", *FATES, "still open", "slowest answer (wall)")
    for name, figures in document["workloads"].items():
        if figures["kind"] in COUNTED and figures["kind"] != "ftp":
            continue
        numbers = [f"{figures[key]:,}" for key in ("sessions", *FATES, "open")]
        table.add_row(Text(name), *numbers, f"{figures['longest_silence_s']:.2f} s")
    return table


def counts(document: Mapping[str, Any]) -> Table:
    """Workloads of which it matters how many came through."""
    table = _table("workload", "kind", "tried", "came through", "did not", "seconds (wall)")
    for name, figures in document["workloads"].items():
        if figures["kind"] in COUNTED:
            tried, through = (figures[key] for key in COUNTED[figures["kind"]])
            seconds = f"{figures['seconds']:.1f}" if "seconds" in figures else ""
            table.add_row(Text(name), figures["kind"], f"{tried:,}", f"{through:,}", f"{tried - through:,}", seconds)
    return table


def members(document: Mapping[str, Any]) -> Table:
    """Each member with its state, release and counts."""
    table = _table("member", "release", "state", "connections", "peak", "learned", "by full sync", "by delta sync")
    for name, member in document["members"].items():
        numbers = [f"{member[key]:,}" for key in ("connections", "peak", "learned", "synced_full", "synced_delta")]
        table.add_row(Text(name), Text(member["release"]), member["state"], *numbers)
    return table


def trouble(document: Mapping[str, Any]) -> Table:
    """Members whose delta sync had to repeat, or gave up, updates; that blocked new connections; that healed."""
    table = _table("member", "sent again", "rejects sent", "received", "updates lost", "most without ACK",
                   "blocking", "seconds (wall)", "packets", "healed")  # fmt: skip
    for name, member in document["members"].items():
        counters, blocking = member["counters"], member["blocking"]
        again, *rejects_and_lost = (counters[key] for key in ("sent_retransmission_updates", "sent_rejects",
                                                              "received_rejects", "lost_updates"))  # fmt: skip
        figures = [again, *rejects_and_lost, counters["max_unacknowledged"], blocking["scenarios"]]
        if any([again, *rejects_and_lost, blocking["scenarios"], member["healed"]]):
            table.add_row(Text(name), *(f"{figure:,}" for figure in figures), f"{blocking['seconds']:.1f}",
                          f"{blocking['packets']:,}", f"{member['healed']:,}")  # fmt: skip
    return table


def comparisons(document: Mapping[str, Any]) -> Table:
    """Each time that the tables were compared, if they ever differed."""
    made = document["comparisons"]
    table = _table("at", "connections that differ", *(f"missing on {name}" for name in document["members"]))
    for comparison in made if any(comparison["different"] for comparison in made) else ():
        at = "the end" if comparison["at_end"] else format_duration(comparison["lab_s"])
        missing = comparison["missing"]
        numbers = [f"{missing[name]:,}" if name in missing else "" for name in document["members"]]
        table.add_row(at, f"{comparison['different']:,}", *numbers)
    return table


def drops(document: Mapping[str, Any]) -> Table:
    """What each member dropped, by reason."""
    reasons = sorted({reason for counts in document["drops"].values() for reason, n in counts.items() if n} - NO_LOSS)
    table = _table("member", *reasons)
    for name, counts in document["drops"].items():
        if reasons:
            table.add_row(Text(name), *(f"{counts.get(reason, 0):,}" for reason in reasons))
    return table


def expectation_line(expectation: Mapping[str, Any]) -> Text:
    word = "held" if expectation["held"] else "warning" if expectation["warn"] else "FAILED"
    style = {"held": "green", "warning": "yellow", "FAILED": "bold red"}[word]
    line = Text(f"{word:>8}  ", style=style)
    line.append(expectation["text"], style="")
    line.append(f"  ({expectation['that']}: {expectation['seen']}", style="dim")
    line.append(")" if expectation["held"] else f", wanted {expectation['wanted']})", style="dim")
    return line


def catalog(labs: Sequence[LabFile], to: Console | None = None) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in ("lab", "shows", "claims"):
        table.add_column(heading, overflow="fold")
    for file in labs:
        table.add_row(Text(file.name), Text(file.header.title), " ".join(file.header.claims))
    out = to or console()
    out.print(table)
    out.print(Text("\n`fwlab show LAB` explains a lab and its claims; labs/claims.md has them all.", style="dim"))


def show(file: LabFile, guide: str, claims: Mapping[str, str], to: Console | None = None) -> None:
    out = to or console()
    out.print(Text(f"{file.name}: {file.header.title}", style="bold"))
    out.print(Text(f"{file.path}\n", style="dim"))
    out.print(Text(" ".join(file.header.shows.split()) + "\n"))
    if file.header.claims:
        out.print("It shows these claims:")
        table = Table(box=None, show_header=False)
        for number in file.header.claims:
            table.add_row(number, Text(claims.get(number, "(not one of labs/claims.md)")))
        out.print(table)
        out.print()
    if guide:
        from rich.markdown import Markdown  # a fifth of what this module takes to load, and used here alone

        out.print(Markdown(guide))


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="left" if heading in ("release", "state", "kind") else "right")
    return table
