"""A lab file: the pydantic models of its sections, and its reading.

`load` reports every problem of a file at once and runs nothing. All durations are lab time.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from fwnode.configuration import load_releases
from fwnode.explain import shown
from fwnode.fields import CLOCK_RATE_MAX, CLOCK_RATE_MIN, RealNumber, WholeNumber
from fwnode.files import FileError, load_yaml
from fwnode.policy_file import build_policy
from labs.network.discovery import check_name
from labs.network.errors import LabError, TopologyError
from labs.network.members import MemberSettings
from labs.network.topology import Topology, load_topology
from labs.procedure.catalog import FILE
from labs.procedure.expectations import Expectation
from labs.procedure.problems import LabFileError, Problems, from_validation
from labs.procedure.references import References, declared
from labs.procedure.steps import InstallPolicy, Part, legal_parameter
from labs.procedure.verbs import VERBS, Step
from labs.traffic.durations import Spread
from labs.traffic.workload import AnyWorkload, Workload
from syncproto.release import Compatibility

CLIENT, SERVER = "client", "server"
"""The hosts between which workloads run."""
WORKLOAD_NAME_MAX = 40
"""Characters of a workload's name. Lab's own: it heads a line of the report."""


class Clock(Part):
    """How fast lab time runs."""

    rate: RealNumber = Field(default=1.0, ge=CLOCK_RATE_MIN, le=CLOCK_RATE_MAX)
    """Seconds of lab time that pass in a second of wall time."""


class LabFileMember(Part):
    """A member's release and its kernel parameters at its start."""

    release: str
    parameters: dict[str, WholeNumber] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _parameters(self) -> LabFileMember:
        for name, value in self.parameters.items():
            legal_parameter(name, value)
        return self


class Header(Part):
    """What stands in the file besides members, workloads, steps and expectations."""

    title: str
    shows: str
    claims: list[Annotated[str, Field(pattern=r"^[AB]\d{1,2}$")]] = Field(default_factory=list, max_length=100)
    clock: Clock = Clock()
    topology: str | dict[str, Any] = "pair"
    releases: str = ""
    """A table of releases laid over the built-in one, in a file next to the lab's."""
    policy: dict[str, Any] | str


class LabFile(BaseModel):
    """A lab file that was checked."""

    name: str
    path: Path
    header: Header
    topology: Topology
    policy: dict[str, Any]
    members: dict[str, LabFileMember]
    workloads: dict[str, AnyWorkload]
    steps: list[Step]
    expect: list[Expectation]

    def settings(self) -> dict[str, MemberSettings]:
        """What each member is started with; none is until a step says so."""
        return {name: MemberSettings(release=member.release, started=False, parameters=dict(member.parameters),
                                     policy=self.policy)
                for name, member in self.members.items()}  # fmt: skip

    def server_address(self, workload: AnyWorkload) -> str:
        """Where the workload's client finds its server."""
        version = 6 if workload.family == "ipv6" else 4
        return next(str(a) for a in self.topology.hosts[SERVER].addresses if a.version == version)


BESIDE_A_VERB = ("note", "after")
"""What a step may say besides what it does."""
_SECTIONS = frozenset({*Header.model_fields, "members", "workloads", "steps", "expect"})


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def load(path: Path, name: str | None = None) -> LabFile:
    """The lab of a file; FileError tells all that is wrong with it. `name` is what it will run under, else its own."""
    return Reading(path, name).lab(load_yaml(path))


class Reading:
    """One reading of a file: what parses is kept, so that its references are checked although other parts failed."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = path
        self.name = path.absolute().parent.name if path.name == FILE else path.stem
        self.runs_as = self.name if name is None else name
        self.members: frozenset[str] = frozenset()
        self.compatibility: Compatibility | None = None
        self.problems = Problems()

    def lab(self, data: Any) -> LabFile:
        if not isinstance(data, dict):
            raise LabFileError(str(self.path), ["is not a mapping; begin with title: and shows:"])
        for key in data:
            if key not in _SECTIONS:
                self.problem(shown(key)[1:-1], f"unknown key{self.problems.near(key, _SECTIONS)}")
        self.can_be_named()
        self.members = declared(data, "members")
        header = self.take(Header, {key: data[key] for key in Header.model_fields if key in data}, "")
        members = self.mapping(data, "members", LabFileMember)
        workloads = self.mapping(data, "workloads", Workload)
        steps = [step for index, raw in enumerate(self.listed(data, "steps")) if (step := self.step(raw, index))]
        expect = [
            found
            for index, raw in enumerate(self.listed(data, "expect"))
            if (found := self.take(Expectation, raw, f"expect[{index}]"))
        ]
        if not data.get("steps"):
            self.problem("steps", "is missing; a lab without steps does nothing")
        # One by one from the raw file: a slip in `claims` must not hide a release that does not exist.
        extra, source, shape = data.get("releases", ""), data.get("policy"), data.get("topology", "pair")
        if isinstance(extra, str):
            self.releases(extra)
        policy = self.policy(source, "policy") if isinstance(source, str | dict) else {}
        topology = self.topology(shape) if isinstance(shape, str | dict) else None
        for step in steps:
            if isinstance(step.what, InstallPolicy) and step.what.patch is not None:
                step.what.rules = lay_over(policy, step.what.patch)
                self.check_policy(step.what.rules, f"{step.where}.{step.verb}.patch")
        names = References(self.problems, self.compatibility, members=self.members | set(members),
                           workloads=declared(data, "workloads") | set(workloads))
        releases = {name: member.release for name, member in members.items()}
        names.check(topology, releases, workloads, steps, expect)
        if self.problems or header is None or topology is None:
            raise LabFileError(str(self.path), self.problems)
        return LabFile(
            name=self.name, path=self.path, header=header, topology=topology, policy=policy, members=members,
            workloads=workloads, steps=steps, expect=expect,
        )  # fmt: skip

    def can_be_named(self) -> None:
        try:
            check_name(self.runs_as)
        except LabError as error:
            named = "the folder" if self.path.name == FILE else "the file"
            given = self.runs_as is not self.name
            self.problem("", f"--name: {error}" if given else f"{error}; rename {named}, or run it with --name")

    def problem(self, key: str, what: str) -> None:
        self.problems.say(key, what)

    def take(self, kind: Any, value: Any, where: str) -> Any:
        try:
            return _adapter(kind).validate_python(value)
        except ValidationError as error:
            self.problems += from_validation(error, value, where)
            return None

    def mapping(self, data: dict[str, Any], section: str, kind: Any) -> dict[str, Any]:
        raw = data.get(section, {})
        if not isinstance(raw, dict):
            self.problem(section, "is not a mapping; write a name and, beneath it, its keys")
            return {}
        if section == "members" and not raw:
            self.problem(section, "is missing; name each member with its release")
        if section == "workloads":
            for name in raw:
                if not name.isprintable() or "." in name or not 1 <= len(name) <= WORKLOAD_NAME_MAX:
                    self.problem(f"workloads.{shown(name)[1:-1]}", f"is no name; write 1 to {WORKLOAD_NAME_MAX} "
                                 "characters without a dot, which would end it in an expectation's path")
        taken = {str(name): self.take(kind, value, f"{section}.{name}") for name, value in raw.items()}
        return {name: value for name, value in taken.items() if value is not None}

    def listed(self, data: dict[str, Any], section: str) -> list[Any]:
        raw: Any = data.get(section) or []
        if not isinstance(raw, list):
            self.problem(section, "is not a list; begin each of its lines with a dash")
            return []
        return raw

    def step(self, raw: Any, index: int) -> Step | None:
        where = f"steps[{index}]"
        if isinstance(raw, str):
            raw = {raw: None}
        if not isinstance(raw, dict):
            self.problem(where, "is no step; write `- verb: arguments`")
            return None
        note = raw.get("note", "")
        verbs = [str(key) for key in raw if key not in BESIDE_A_VERB]
        if len(verbs) != 1:
            self.problem(where, f"has {len(verbs)} verbs ({', '.join(verbs) or 'none'}); write one a step")
            return None
        verb = verbs[0]
        if verb not in VERBS:
            self.problem(f"{where}.{verb}", f"unknown step{self.problems.near(verb, VERBS)}")
            return None
        what = self.take(VERBS[verb].model, VERBS[verb].fill(raw[verb]), f"{where}.{verb}")
        after = self.take(Spread, raw["after"], f"{where}.after") if "after" in raw else (0.0, 0.0)
        if not isinstance(note, str):
            self.problem(f"{where}.note", "is no text; put it in quotes")
            return None
        if what is None or after is None:
            return None
        if isinstance(what, InstallPolicy):
            what.origin = str(self.path)
            if what.file is not None:
                what.rules, what.file = self.policy(what.file, f"{where}.policy.file"), None
            elif what.rules is not None:
                self.policy(what.rules, f"{where}.policy.rules")
        return Step(where=where, verb=verb, what=what, note=" ".join(note.split()), after=after)

    def topology(self, source: str | dict[str, Any]) -> Topology | None:
        if isinstance(source, str) and source.endswith((".yaml", ".yml")):
            source = str(self.path.parent / source)
        try:
            return load_topology(source, "topology")
        except TopologyError as error:
            self.problems += error.problems
            return None

    def policy(self, source: dict[str, Any] | str, where: str) -> dict[str, Any]:
        """The rule base itself; a name is a file next to the lab's."""
        if isinstance(source, str):
            file = self.path.parent / source
            rules: Any
            try:
                rules = load_yaml(file)
            except FileError as error:
                self.problems += [f"{where}: {problem}" for problem in error.problems]
                return {}
            if not isinstance(rules, dict):
                self.problem(where, f"{source} is not a mapping; it has to be a rule base")
                return {}
            where = f"{where}: {source}"
        else:
            rules = dict(source)
        self.check_policy(rules, where)
        return dict(rules)

    def check_policy(self, rules: dict[str, Any], where: str) -> None:
        try:
            build_policy(rules, where, self.members)
        except FileError as error:
            self.problems += error.problems

    def releases(self, extra: str) -> None:
        try:
            self.compatibility = load_releases(extra, self.path.parent)
        except FileError as error:
            self.problems += [f"releases: {problem}" for problem in error.problems]


def lay_over(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged; everything else is replaced."""
    merged = dict(base)
    for key, value in patch.items():
        old = merged.get(key)
        merged[key] = lay_over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
