"""Every reference of a lab file, checked against what exists: members, links, workloads, releases, figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from fwnode.firewall.verdict import Reason
from labs.network.topology import Topology
from labs.procedure.document import EMPTY_STATUS
from labs.procedure.expectations import Expectation, Until
from labs.procedure.problems import one_of
from labs.procedure.steps import Block, Check, Links, Members, Policy, Reconnect, Step, Transfer, Upgrade, Workloads
from labs.traffic.fates import Fate
from labs.traffic.workload import KINDS, AnyWorkload
from syncproto.errors import SyncError

if TYPE_CHECKING:
    from labs.procedure.model import Member, Reading


class References:
    """Every reference of a file, checked against what exists."""

    def __init__(self, reading: Reading, policy: dict[str, Any], data: dict[str, Any], members: set[str],
                 workloads: set[str]) -> None:  # fmt: skip
        self.reading = reading
        # A part that did not parse is still declared: do not report its name as unknown, too.
        self.members = members | declared(data, "members")
        self.workloads = workloads | declared(data, "workloads")
        self.policy = policy
        self.kinds: dict[str, AnyWorkload] = {}

    def check(self, topology: Topology | None, members: dict[str, Member], workloads: dict[str, AnyWorkload],
              steps: list[Step], expect: list[Expectation]) -> None:  # fmt: skip
        links: set[str] | None = None
        switches: set[str] = set()
        if topology is not None:
            switches = set(topology.switches)
            links = {*topology.links(), *topology.switches}
            for name in sorted(self.members - set(topology.members)):
                has = one_of(topology.members)
                self.say(f"members.{name}", f"the topology {topology.name} has no such member; it has {has}")
            if workloads and not {"client", "server"} <= set(topology.hosts):
                self.say("topology", f"{topology.name} needs the hosts client and server for workloads")
        for name, member in members.items():
            self.release(f"members.{name}.release", member.release)
        self.kinds = workloads
        self.ports(workloads)
        for step in steps:
            self.step(step, links, switches, workloads)
        self.blocks([step for step in steps if isinstance(step.what, Block)])
        for index, expectation in enumerate(expect):
            self.expectation(f"expect[{index}]", expectation)

    def near(self, word: str, words: Any) -> str:
        return self.reading.problems.near(word, words)

    def say(self, key: str, what: str) -> None:
        self.reading.problem(key, what)

    def ports(self, workloads: dict[str, AnyWorkload]) -> None:
        used: dict[tuple[str, str, int], str] = {}
        for name, workload in workloads.items():
            protocol, ports = workload.ports
            takers = {used.setdefault((workload.family, protocol, port), name): port for port in reversed(ports)}
            takers.pop(name, None)
            for other, port in takers.items():
                self.say(f"workloads.{name}.port", f"{port} is taken by {other}; give each workload its own")

    def release(self, key: str, release: str) -> None:
        if self.reading.compatibility is not None:
            try:
                self.reading.compatibility.release(release)
            except SyncError as error:
                self.say(key, str(error))

    def step(self, step: Step, links: set[str] | None, switches: set[str],
             workloads: dict[str, AnyWorkload]) -> None:  # fmt: skip
        what, key = step.what, f"{step.where}.{step.verb}"
        for member in _members_of(what):
            self.known(key, "member", member, self.members)
        for name in _workloads_of(what):
            self.known(key, "workload", name, self.workloads)
            kind = workloads.get(name)
            if kind is not None and step.verb not in kind.verbs:
                able = " or ".join(other for other in KINDS if step.verb in VERBS_OF[other])
                self.say(key, f"{name} is of kind {kind.kind}, which cannot {step.verb}; name one of kind {able}")
        if isinstance(what, Links) and links is not None:
            for link in what.links:
                self.known(key, "link or switch", link, links)
            self.way(key, what, switches)
        if isinstance(what, Upgrade):
            self.release(f"{key}.release", what.release)
        if isinstance(what, Policy) and what.patch is not None:
            self.reading.check_policy(lay_over(self.policy, what.patch), f"{key}.patch")
        if isinstance(what, Until):
            self.expectation(key, what)
        if isinstance(what, Check):
            for index, expectation in enumerate(what.expectations):
                self.expectation(f"{key}[{index}]", expectation)

    def way(self, key: str, what: Links, switches: set[str]) -> None:
        """Only a link has an inside and an outside."""
        way = getattr(what, "way", "both")
        for link in what.links:
            if way != "both" and link in switches:
                self.say(f"{key}.way", f"{link} is a switch and has no way {way}; name a link, such as fw2-{link}")

    def blocks(self, steps: list[Step]) -> None:
        """A block is put once and taken away once; its rules are the same in both members, whoever is named first."""
        there: set[tuple[frozenset[str], tuple[str, int]]] = set()
        for step in steps:
            block = (frozenset(step.what.between), step.what.protocol_and_port)
            what = f"{step.what.service} between {' and '.join(step.what.between)}"
            if step.verb == "block":
                if block in there:
                    self.say(f"{step.where}.block", f"{what} is blocked already; remove this step")
                there.add(block)
            else:
                if block not in there:
                    self.say(f"{step.where}.unblock", f"{what} is not blocked here; block it in an earlier step")
                there.discard(block)

    def known(self, key: str, kind: str, name: str, names: set[str]) -> None:
        if name not in names:
            self.say(key, f"unknown {kind} {name!r}; known: {one_of(names)}")

    def expectation(self, key: str, expectation: Expectation) -> None:
        for path in expectation.paths():
            first, *rest = path.split(".")
            if first not in PATHS:
                self.say(key, f"nothing in a run is called {path!r}; begin with one of {one_of(PATHS)}")
            elif first in ("members", "drops") and rest:
                self.known(key, "member", rest[0], self.members)
            elif first == "workloads" and rest:
                self.known(key, "workload", rest[0], self.workloads)
            elif first == "differences":
                self.differences(key, path, rest)
            fields = PATHS.get(first)
            if first == "workloads" and rest and rest[0] in self.kinds:
                fields = WORKLOAD_FIELDS | self.kinds[rest[0]].figures
            if fields and len(rest) > 1 and rest[1] not in fields:
                self.say(key, f"{path}: {first} have no {rest[1]!r}{self.near(rest[1], fields)}")
            elif first == "members" and len(rest) > 2 and rest[2] not in FIGURES.get(rest[1], rest[2]):
                self.say(key, f"{path}: {rest[1]} has no {rest[2]!r}{self.near(rest[2], FIGURES[rest[1]])}")

    def differences(self, key: str, path: str, rest: list[str]) -> None:
        """`different`, `equal`, `unsynchronised`, `missing.MEMBER`, `kinds.KIND.MEMBER.FIGURE`."""
        shape = DIFFERENCES.get(rest[0]) if rest else None
        if shape is None or len(rest) != 1 + len(shape):
            can_be = ", ".join(".".join(("differences", *word)) for word in
                               ((name, *parts) for name, parts in DIFFERENCES.items()))
            self.say(key, f"nothing in a run is called {path!r}; write one of {can_be}")
            return
        for part, kind in zip(rest[1:], shape, strict=True):
            if kind == "MEMBER":
                self.known(key, "member", part, self.members)
            elif part not in DIFFERENCE_PARTS[kind]:
                self.say(key, f"{path}: no {kind.lower()} is called {part!r}{self.near(part, DIFFERENCE_PARTS[kind])}")


KIND_MODELS = get_args(AnyWorkload)
VERBS_OF = {kind: model.verbs for kind, model in zip(KINDS, KIND_MODELS, strict=True)}
WORKLOAD_FIELDS = frozenset(
    {"kind", "sessions", "open", *map(str, Fate), "answers", "longest_silence_s", "longest_open_s", "last_answer"}
)
MEMBER_FIELDS = frozenset(
    {"state", "release", "running", "connections", "peak", "learned", "synced_full", "synced_delta", "full_sync",
     "sync", "records", "packets", "policy", "reason", "starts", "log", "blocking", "holding", "healed", "counters"}
)  # fmt: skip
FIGURES = {name: frozenset(EMPTY_STATUS[name]) for name in ("blocking", "holding", "counters")}
"""Of a member: figures that have names of their own beneath the field."""
DIFFERENCES: dict[str, tuple[str, ...]] = {
    "different": (), "equal": (), "unsynchronised": (), "missing": ("MEMBER",), "kinds": ("KIND", "MEMBER", "FIGURE"),
}  # fmt: skip
"""How a comparison of the members' tables can be asked for, and what its path goes on with."""
DIFFERENCE_PARTS = {"KIND": frozenset({"TCP", "UDP", "ICMP", "other"}),
                    "FIGURE": frozenset({"has", "missing", "other_state"})}  # fmt: skip
# The beginnings of an expectation's path, and the fields beneath a name where they are fixed.
PATHS: dict[str, frozenset[str] | None] = {
    "seconds": None,
    "workloads": WORKLOAD_FIELDS.union(*(kind.figures for kind in KIND_MODELS)),
    "members": MEMBER_FIELDS,
    "drops": frozenset(Reason.__members__),
    "differences": None,
    "takeovers": None,
}


def _members_of(what: Any) -> list[str]:
    if isinstance(what, Block):
        return what.between
    if isinstance(what, Members | Policy):
        return what.members or []
    member = getattr(what, "member", None)
    return [member] if isinstance(member, str) else []


def _workloads_of(what: Any) -> list[str]:
    if isinstance(what, Workloads | Transfer):
        return what.workloads
    return [what.workload] if isinstance(what, Reconnect) else []


def lay_over(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged; everything else is replaced."""
    merged = dict(base)
    for key, value in patch.items():
        old = merged.get(key)
        merged[key] = lay_over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def declared(data: Mapping[str, Any], section: str) -> frozenset[str]:
    raw = data.get(section)
    return frozenset(map(str, raw)) if isinstance(raw, dict) else frozenset()
