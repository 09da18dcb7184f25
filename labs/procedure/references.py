"""Every reference of a lab file, checked against what exists: members, links, workloads, releases, figures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fwnode.explain import listed, shown
from fwnode.firewall.verdict import DropReason
from labs.network.topology import Topology
from labs.procedure import paths
from labs.procedure.expectations import Expectation
from labs.procedure.lives import Lives
from labs.procedure.problems import Problems
from labs.procedure.steps import Await, Check, Links, OneWay, Upgrade
from labs.procedure.verbs import Step
from labs.traffic.workload import KINDS, AnyWorkload
from syncproto.errors import SyncError
from syncproto.release import Compatibility


class References:
    """Every reference of a file, checked against what exists. A part that did not parse is still declared: its name is
    not reported as unknown, too."""

    def __init__(self, problems: Problems, compatibility: Compatibility | None, members: frozenset[str],
                 workloads: frozenset[str]) -> None:  # fmt: skip
        self.problems = problems
        self.compatibility = compatibility
        self.members = members
        self.workloads = workloads
        self.kinds: dict[str, AnyWorkload] = {}

    def check(self, topology: Topology | None, releases: Mapping[str, str], workloads: dict[str, AnyWorkload],
              steps: list[Step], expect: list[Expectation]) -> None:  # fmt: skip
        links: set[str] | None = None
        switches: set[str] = set()
        if topology is not None:
            switches = set(topology.switches)
            links = {*topology.links(), *topology.switches}
            for name in sorted(self.members - set(topology.members)):
                has = listed(topology.members)
                self.say(f"members.{name}", f"the topology {topology.name} has no such member; it has {has}")
            if workloads and not {"client", "server"} <= set(topology.hosts):
                self.say("topology", f"{topology.name} needs the hosts client and server for workloads")
        if topology is not None:
            self.families(topology, workloads)
        for name, release in releases.items():
            self.release(f"members.{name}.release", release)
        self.kinds = workloads
        self.ports(workloads)
        for step in steps:
            self.step(step, links, switches, workloads)
        Lives(self.members, workloads, self.say).follow(steps)
        for index, expectation in enumerate(expect):
            self.expectation(f"expect[{index}]", expectation)

    def near(self, word: str, words: Any) -> str:
        return self.problems.near(word, words)

    def say(self, key: str, what: str) -> None:
        self.problems.say(key, what)

    def ports(self, workloads: dict[str, AnyWorkload]) -> None:
        used: dict[tuple[str, str, int], str] = {}
        for name, workload in workloads.items():
            protocol, ports = workload.ports
            takers = {used.setdefault((workload.family, protocol, port), name): port for port in reversed(ports)}
            takers.pop(name, None)
            for other, port in takers.items():
                self.say(f"workloads.{name}.port", f"{port} is taken by {other}; give each workload its own")

    def families(self, topology: Topology, workloads: dict[str, AnyWorkload]) -> None:
        """Both ends of a workload have an address of its family, and a way to the other end."""
        ends = [name for name in ("client", "server") if name in topology.hosts]
        apart = len({topology.hosts[name].switch for name in ends}) > 1
        for name, workload in workloads.items():
            version, noun = (6, "IPv6") if workload.family == "ipv6" else (4, "IPv4")
            for end in ends:
                host = topology.hosts[end]
                if version not in {address.version for address in host.addresses}:
                    self.say(f"workloads.{name}.family", f"{end} has no {noun} address; give it one in the topology, "
                             "or choose the other family")
                elif apart and version not in {address.version for address in topology.gateways(end)}:
                    self.say(f"workloads.{name}.family", f"{host.switch} has no virtual {noun} address, which {end} "
                             "routes through; give it one in the topology")

    def release(self, key: str, release: str) -> None:
        if self.compatibility is not None:
            try:
                self.compatibility.release(release)
            except SyncError as error:
                self.say(key, str(error))

    def step(self, step: Step, links: set[str] | None, switches: set[str],
             workloads: dict[str, AnyWorkload]) -> None:  # fmt: skip
        what, key = step.what, f"{step.where}.{step.verb}"
        for member in what.members_named():
            self.known(key, "member", member, self.members)
        for name in what.workloads_named():
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
        if isinstance(what, Await):
            self.expectation(key, what)
        if isinstance(what, Check):
            for index, expectation in enumerate(what.expectations):
                self.expectation(f"{key}[{index}]", expectation)

    def way(self, key: str, what: Links, switches: set[str]) -> None:
        """Only a link has an inside and an outside."""
        for link in what.links:
            if isinstance(what, OneWay) and what.way != "both" and link in switches:
                self.say(f"{key}.way", f"{link} is a switch and has no way {what.way}; name a link, such as fw2-{link}")

    def known(self, key: str, kind: str, name: str, names: Collection[str]) -> None:
        if name not in names:
            self.say(key, f"unknown {kind} {name!r}; known: {listed(names)}")

    def expectation(self, key: str, expectation: Expectation) -> None:
        before = len(self.problems)
        for path in expectation.paths():
            self.path(key, path)
        if len(self.problems) == before:
            for mistake in paths.mistakes(expectation):
                self.say(key, mistake)

    def path(self, key: str, path: str) -> None:
        first, *rest = path.split(".")
        if first not in PATHS:
            self.say(key, f"nothing in a run is called {shown(path)}; begin with one of {listed(PATHS)}")
            return
        before = len(self.problems)
        if first in ("members", "drops") and rest:
            self.known(key, "member", rest[0], self.members)
        elif first == "workloads" and rest:
            self.known(key, "workload", rest[0], self.workloads)
        elif first == "differences":
            self.differences(key, path, rest)
        fields = PATHS.get(first)
        if first == "workloads" and rest and rest[0] in self.kinds:
            fields = paths.workload_fields(self.kinds[rest[0]])
        if fields and len(rest) > 1 and rest[1] not in fields:
            self.say(key, f"{path}: {first} have no {rest[1]!r}{self.near(rest[1], fields)}")
        elif first == "members" and len(rest) > 2 and rest[2] not in paths.FIGURES.get(rest[1], rest[2]):
            self.say(key, f"{path}: {rest[1]} has no {rest[2]!r}{self.near(rest[2], paths.FIGURES[rest[1]])}")
        _, problem = paths.find(path)
        if problem and len(self.problems) == before:
            self.say(key, problem)

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


VERBS_OF = {kind: model.verbs for kind, model in zip(KINDS, paths.KINDS, strict=True)}
DIFFERENCES: dict[str, tuple[str, ...]] = {
    "different": (), "equal": (), "unsynchronised": (), "missing": ("MEMBER",), "kinds": ("KIND", "MEMBER", "FIGURE"),
}  # fmt: skip
"""How a comparison of the members' tables can be asked for, and what its path goes on with."""
DIFFERENCE_PARTS = {"KIND": frozenset({"TCP", "UDP", "ICMP", "other"}),
                    "FIGURE": frozenset({"has", "missing", "other_state"})}  # fmt: skip
# The beginnings of an expectation's path, and the fields beneath a name where they are fixed.
PATHS: dict[str, frozenset[str] | None] = {
    **dict.fromkeys(paths.DOCUMENT),
    "workloads": paths.workload_fields(None),
    "members": paths.MEMBER_FIELDS,
    "drops": frozenset(DropReason.__members__),
}


def declared(data: Mapping[str, Any], section: str) -> frozenset[str]:
    raw = data.get(section)
    return frozenset(map(str, raw)) if isinstance(raw, dict) else frozenset()
