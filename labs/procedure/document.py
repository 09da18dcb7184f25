"""The JSON document of a run: what the members and the workloads said, put together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fwnode.firewall.holding import HoldCounters
from labs.procedure.expectations import Judgement
from labs.traffic.fates import Tally
from syncproto.events import SyncCounters
from syncproto.joining import NO_FULL_SYNC

Document = Mapping[str, Any]
"""What a run gives: the keys of its JSON."""
FORMAT = 1  # of the document; a reader may rely on the keys of a format
REAL: Mapping[str, Any] = {"world": "real"}
OWN_ERROR = "an error of fwlab itself"
"""The beginning of a problem that is a mistake of this program, and not of a lab or a machine."""

EMPTY_STATUS: dict[str, Any] = {
    "state": "Stopped", "reason": "", "policy": "", "connections": 0, "peak": 0, "learned": 0, "synced_full": 0,
    "synced_delta": 0, "sync": {"status": "", "peers": {}},
    "full_sync": NO_FULL_SYNC,
    "drops": {}, "packets": {}, "records": {"sent": {}, "received": {}},
    "blocking": {"enabled": False, "heavy": False, "blocking": False, "threshold": 0, "scenarios": 0, "seconds": 0.0,
                 "packets": 0},
    "holding": {"pending": 0, **asdict(HoldCounters())}, "healed": 0,
    "counters": {name: value for name, value in vars(SyncCounters()).items() if isinstance(value, int)},
}  # fmt: skip
SAID = ("reason", "policy", "connections", "peak", "learned", "synced_full", "synced_delta", "full_sync", "sync",
        "records", "packets", "blocking", "holding", "healed", "counters")  # fmt: skip
"""What a member's entry repeats of its status; the counts are those of its present, or last, life."""


@dataclass
class MemberAccount:
    """What a member said of itself, over all its lives: a process that ended takes its counters with it."""

    release: str
    status: dict[str, Any] = field(default_factory=lambda: dict(EMPTY_STATUS))
    running: bool = False
    paused: bool = False
    """Stopped by a signal: it says nothing, and what it said last stays."""
    ended_as: str = "Stopped"
    starts: int = 0
    past_drops: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    """Lines for the cluster's log, of all its lives; those about packets are not among them."""

    def begin(self, release: str) -> None:
        """A new life."""
        self.release, self.running, self.paused = release, True, False
        self.starts += 1
        self.past_drops = self.drops()
        self.status = dict(EMPTY_STATUS, state="Initializing")

    def said(self, status: Mapping[str, Any]) -> None:
        """Take over the member's answer to `status`."""
        self.status = {**EMPTY_STATUS, **status}

    def end(self, how: str) -> None:
        """The process ended; its last words stay."""
        self.running, self.paused, self.ended_as = False, False, how

    @property
    def state(self) -> str:
        if not self.running:
            return self.ended_as
        return "Paused" if self.paused else str(self.status["state"])

    @property
    def able(self) -> bool:
        """Whether it might be the active one."""
        return self.running and self.state not in ("Down", "Paused")

    def drops(self) -> dict[str, int]:
        total = dict(self.past_drops)
        for reason, number in self.status["drops"].items():
            total[reason] = total.get(reason, 0) + number
        return total

    def as_json(self) -> dict[str, Any]:
        status = self.status
        return {
            "state": self.state,
            "release": self.release,
            "running": self.running,
            "starts": self.starts,
            "log": list(self.log),
            **{key: status[key] for key in SAID},
        }


@dataclass(frozen=True)
class Entry:
    """One line of the timeline. `wall_s` counts from the begin of the run, `lab_s` is lab time."""

    wall_s: float
    lab_s: float
    kind: str  # step, note, member, log, workload, takeover, check, problem
    text: str
    member: str | None = None

    def as_json(self) -> dict[str, Any]:
        line = {"wall_s": round(self.wall_s, 3), "lab_s": round(self.lab_s, 3), "kind": self.kind, "text": self.text}
        return line if self.member is None else {**line, "member": self.member}


@dataclass(frozen=True)
class Takeover:
    """Another member became the active one, and what it knew at that moment."""

    wall_s: float
    lab_s: float
    former: str
    taker: str
    release: str  # of the taker
    former_release: str
    cause: str  # the step
    former_connections: int
    taker_connections: int
    sync: str  # the taker's word on its sync with the former, before
    exchange: str  # what the two releases may exchange: nothing, new_connections, full, translated
    state: str  # of the taker, before
    full_sync: str = ""  # how far the taker's full sync came, where it did not bring the whole table

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """What a comparison of the running members' tables found."""

    lab_s: float
    at_end: bool
    found: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        known = {key: self.found[key] for key in ("different", "missing")}
        return {"lab_s": round(self.lab_s, 3), "at_end": self.at_end, **known}


def build(
    *, lab: str, title: str, claims: list[str], rate: float, seconds: float, lab_seconds: float,
    members: Mapping[str, MemberAccount], workloads: Mapping[str, tuple[str, Tally]], takeovers: Iterable[Takeover],
    judgements: Iterable[Judgement], timeline: Iterable[Entry], problem: str = "", epoch: float = 0.0,
    comparisons: Iterable[Comparison] = (), world: Mapping[str, Any] = REAL,
) -> dict[str, Any]:  # fmt: skip
    """The document. `workloads` gives kind and tally a name; `world` is the run's world and what it was begun with."""
    comparisons = list(comparisons)
    judgements = list(judgements)
    return {
        "format": FORMAT,
        "lab": lab,
        "title": title,
        "claims": claims,
        **world,
        "verdict": verdict(judgements, problem),
        "problem": problem,
        "seconds": round(seconds, 3),
        "lab_seconds": round(lab_seconds, 1),
        "rate": rate,
        "workloads": {name: _workload(kind, tally, rate, epoch) for name, (kind, tally) in workloads.items()},
        "members": {name: account.as_json() for name, account in members.items()},
        "drops": {name: account.drops() for name, account in members.items()},
        "differences": comparisons[-1].found if comparisons else None,
        "comparisons": [comparison.as_json() for comparison in comparisons],
        "takeovers": [takeover.as_json() for takeover in takeovers],
        "expectations": [judgement.as_json() for judgement in judgements],
        "timeline": [entry.as_json() for entry in sorted(timeline, key=lambda entry: entry.wall_s)],
    }


def verdict(judgements: Iterable[Judgement], problem: str) -> str:
    broken = [judgement for judgement in judgements if not judgement.held]
    if problem or any(not judgement.warn for judgement in broken):
        return "fail"
    return "warn" if broken else "pass"


def _workload(kind: str, tally: Tally, rate: float, epoch: float) -> dict[str, Any]:
    """Times of last good answers become lab time, in seconds; what a kind counts of its own stands beside the fates."""
    figures = tally.as_json()
    figures["last_answer"] = {
        fate: [round((at - epoch) * rate, 3) for at in span] for fate, span in figures["last_answer"].items()
    }
    own = figures.pop("figures")
    return {"kind": kind, **figures, **own}
