"""A lab file: the pydantic models of its sections and steps, and the checks of what refers to what.

`load` reports every problem of a file at once and runs nothing. All durations are lab time.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from fwnode.configuration import load_releases
from fwnode.files import FileError
from fwnode.firewall.firewall import Reason
from fwnode.firewall.parameters import ParameterError, look_up
from fwnode.policy_file import build_policy
from labs.network.errors import TopologyError
from labs.network.topology import Topology, load_topology
from labs.procedure.expectations import Expectation, Until
from labs.procedure.problems import LabFileError, from_validation, one_of, read_yaml
from labs.traffic.durations import Duration
from labs.traffic.fates import Fate
from labs.traffic.workload import Sessions, Short, Workload
from syncproto.errors import SyncError
from syncproto.release import Compatibility

RATE_MAX = 100_000.0
SERVICES = {"FW1": ("tcp", 256)}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], Field(min_length=1), BeforeValidator(_as_list)]
Share = Annotated[float, Field(gt=0, le=1)]


class Clock(_Part):
    rate: float = Field(default=1.0, ge=0.1, le=RATE_MAX)
    """Seconds of lab time that pass in a second of wall time."""


def _legal_parameter(name: str, value: Any) -> None:
    try:
        parameter = look_up(name)
    except ParameterError as error:
        raise ValueError(str(error)) from None
    if not isinstance(value, int) or isinstance(value, bool) or not parameter.low <= value <= parameter.high:
        raise ValueError(f"{name}: {value!r} is not legal; legal is {parameter.legal}")


class Member(_Part):
    release: str
    parameters: dict[str, int] = {}

    @model_validator(mode="after")
    def _parameters(self) -> Member:
        for name, value in self.parameters.items():
            _legal_parameter(name, value)
        return self


class Header(_Part):
    title: str
    shows: str
    claims: list[Annotated[str, Field(pattern=r"^[AB]\d{1,2}$")]] = []
    clock: Clock = Clock()
    topology: str | dict[str, Any] = "pair"
    releases: str = ""
    """A table of releases laid over the built-in one, in a file next to the lab's."""
    policy: dict[str, Any] | str


# -- steps: one model a verb; `short` is the field that a bare name or list fills


class Members(_Part):
    members: Names


class Upgrade(_Part):
    member: str
    release: str


class Failover(_Part):
    member: str | None = None
    """The member that is set down; without a name it is the active one."""


class Policy(_Part):
    members: Names | None = None
    rules: dict[str, Any] | None = None
    file: str | None = None
    patch: dict[str, Any] | None = None
    """Laid over the lab's policy, mapping by mapping."""

    @model_validator(mode="before")
    @classmethod
    def _one_member(cls, data: Any) -> Any:
        if isinstance(data, dict) and "member" in data and "members" not in data:
            data = {**{key: value for key, value in data.items() if key != "member"}, "members": data["member"]}
        return data

    @model_validator(mode="after")
    def _one_source(self) -> Policy:
        if sum(source is not None for source in (self.rules, self.file, self.patch)) != 1:
            raise ValueError("give one of rules (a whole rule base), file, or patch (laid over the lab's policy)")
        return self


class Set(BaseModel):
    """`{member: fw2, fw_allow_out_of_state_tcp: 1}`: kernel parameters on the fly."""

    model_config = ConfigDict(extra="allow")

    member: str

    @model_validator(mode="after")
    def _numbers(self) -> Set:
        if not self.parameters:
            raise ValueError("sets nothing; add a kernel parameter, such as fw_allow_out_of_state_tcp: 1")
        for name, value in self.parameters.items():
            _legal_parameter(name, value)
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        return self.model_extra or {}


class Workloads(_Part):
    workloads: Names


class Reconnect(_Part):
    workload: str
    which: Literal["all", "ended"] = "all"
    share: Share = 1.0


class Wait(_Part):
    duration: Duration


class Links(_Part):
    links: Names


def _protocol_and_port(service: str) -> tuple[str, int]:
    """`tcp/443` -> tcp, 443."""
    protocol, _, port = service.partition("/")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    if protocol not in ("tcp", "udp") or not 1 <= number <= 65535:
        raise ValueError(f"{service!r} is no service; write {one_of(SERVICES)}, or tcp or udp with a port from 1 to "
                         "65535, such as tcp/443")
    return protocol, number


def _legal_service(service: str) -> str:
    if service not in SERVICES:
        _protocol_and_port(service)
    return service


class Block(_Part):
    between: Annotated[list[str], Field(min_length=2, max_length=2)]
    service: Annotated[str, AfterValidator(_legal_service)]

    @property
    def protocol_and_port(self) -> tuple[str, int]:
        return SERVICES.get(self.service) or _protocol_and_port(self.service)


class Check(_Part):
    expectations: Annotated[list[Expectation], Field(min_length=1)]


class Verb:
    """A step's word: its model, and the field that a short form fills."""

    def __init__(self, model: type[BaseModel], short: str | None = None) -> None:
        self.model = model
        self.short = short

    def fill(self, value: Any) -> Any:
        if value is None:
            return {}
        if self.short is not None and not (isinstance(value, Mapping) and self.short in value):
            return {self.short: [value] if self.short == "expectations" and isinstance(value, Mapping) else value}
        return value


VERBS: dict[str, Verb] = {
    "start": Verb(Members, "members"),
    "stop": Verb(Members, "members"),
    "kill": Verb(Members, "members"),
    "power_cut": Verb(Members, "members"),
    "power_on": Verb(Members, "members"),
    "down": Verb(Members, "members"),
    "up": Verb(Members, "members"),
    "upgrade": Verb(Upgrade),
    "failover": Verb(Failover, "member"),
    "policy": Verb(Policy),
    "set": Verb(Set),
    "open": Verb(Workloads, "workloads"),
    "speak": Verb(Workloads, "workloads"),
    "finish": Verb(Workloads, "workloads"),
    "reconnect": Verb(Reconnect),
    "wait": Verb(Wait, "duration"),
    "until": Verb(Until),
    "cut": Verb(Links, "links"),
    "restore": Verb(Links, "links"),
    "block": Verb(Block),
    "unblock": Verb(Block),
    "check": Verb(Check, "expectations"),
}


class Step(BaseModel):
    """One step: a verb with its arguments, and what the runner tells the learner before it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    where: str
    verb: str
    what: Any  # an instance of the verb's model
    note: str = ""


class LabFile(BaseModel):
    """A lab file that was checked."""

    name: str
    path: Path
    header: Header
    topology: Topology
    policy: dict[str, Any]
    members: dict[str, Member]
    workloads: dict[str, Sessions | Short]
    steps: list[Step]
    expect: list[Expectation]


_SECTIONS = frozenset({*Header.model_fields, "members", "workloads", "steps", "expect"})


def load(path: Path) -> LabFile:
    """The lab of a file; FileError tells all that is wrong with it."""
    return _Reading(path).lab(read_yaml(path))


class _Reading:
    """One reading of a file: what parses is kept, so that its references are checked although other parts failed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: frozenset[str] = frozenset()
        self.compatibility: Compatibility | None = None
        self.problems: list[str] = []

    def lab(self, data: Any) -> LabFile:
        if not isinstance(data, dict):
            raise LabFileError(str(self.path), ["is not a mapping; begin with title: and shows:"])
        for key in data:
            if key not in _SECTIONS:
                self.problem(str(key), f"unknown key{_near(str(key), _SECTIONS)}")
        self.members = _declared(data, "members")
        header = self.take(Header, {key: data[key] for key in Header.model_fields if key in data}, "")
        members = self.mapping(data, "members", Member)
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
        names = _Names(self, policy, data, set(members), set(workloads))
        names.check(topology, members, workloads, steps, expect)
        if self.problems or header is None or topology is None:
            raise LabFileError(str(self.path), self.problems)
        return LabFile(
            name=self.path.parent.name if self.path.name == "lab.yaml" else self.path.stem,
            path=self.path, header=header, topology=topology, policy=policy, members=members, workloads=workloads,
            steps=steps, expect=expect,
        )  # fmt: skip

    def problem(self, key: str, what: str) -> None:
        self.problems.append(f"{key}: {what}" if key else what)

    def take(self, kind: Any, value: Any, where: str) -> Any:
        try:
            return TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            self.problems += from_validation(error, where)
            return None

    def mapping(self, data: dict[str, Any], section: str, kind: Any) -> dict[str, Any]:
        raw = data.get(section, {})
        if not isinstance(raw, dict):
            self.problem(section, "is not a mapping; write a name and, beneath it, its keys")
            return {}
        if section == "members" and not raw:
            self.problem(section, "is missing; name each member with its release")
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
        verbs = [str(key) for key in raw if key != "note"]
        if len(verbs) != 1:
            self.problem(where, f"has {len(verbs)} verbs ({', '.join(verbs) or 'none'}); write one a step")
            return None
        verb = verbs[0]
        if verb not in VERBS:
            self.problem(f"{where}.{verb}", f"unknown step{_near(verb, VERBS)}")
            return None
        what = self.take(VERBS[verb].model, VERBS[verb].fill(raw[verb]), f"{where}.{verb}")
        if not isinstance(note, str):
            self.problem(f"{where}.note", "is no text; put it in quotes")
            return None
        if what is None:
            return None
        if isinstance(what, Policy) and what.file is not None:
            what.rules, what.file = self.policy(what.file, f"{where}.policy.file"), None
        elif isinstance(what, Policy) and what.rules is not None:
            self.policy(what.rules, f"{where}.policy.rules")
        return Step(where=where, verb=verb, what=what, note=" ".join(note.split()))

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
                rules = read_yaml(file)
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


class _Names:
    """Every reference of a file, checked against what exists."""

    def __init__(self, reading: _Reading, policy: dict[str, Any], data: dict[str, Any], members: set[str],
                 workloads: set[str]) -> None:  # fmt: skip
        self.reading = reading
        # A part that did not parse is still declared: do not report its name as unknown, too.
        self.members = members | _declared(data, "members")
        self.workloads = workloads | _declared(data, "workloads")
        self.policy = policy

    def check(self, topology: Topology | None, members: dict[str, Member], workloads: dict[str, Sessions | Short],
              steps: list[Step], expect: list[Expectation]) -> None:  # fmt: skip
        links: set[str] | None = None
        if topology is not None:
            links = {*topology.links(), *topology.switches}
            for name in sorted(self.members - set(topology.members)):
                has = one_of(topology.members)
                self.say(f"members.{name}", f"the topology {topology.name} has no such member; it has {has}")
            if workloads and not {"client", "server"} <= set(topology.hosts):
                self.say("topology", f"{topology.name} needs the hosts client and server for workloads")
        for name, member in members.items():
            self.release(f"members.{name}.release", member.release)
        self.ports(workloads)
        for step in steps:
            self.step(step, links, workloads)
        self.blocks([step for step in steps if isinstance(step.what, Block)])
        for index, expectation in enumerate(expect):
            self.expectation(f"expect[{index}]", expectation)

    def say(self, key: str, what: str) -> None:
        self.reading.problem(key, what)

    def ports(self, workloads: dict[str, Sessions | Short]) -> None:
        used: dict[tuple[str, int], str] = {}
        for name, workload in workloads.items():
            other = used.setdefault((workload.family, workload.port), name)
            if other != name:
                self.say(f"workloads.{name}.port", f"{workload.port} is taken by {other}; give each workload its own")

    def release(self, key: str, release: str) -> None:
        if self.reading.compatibility is not None:
            try:
                self.reading.compatibility.release(release)
            except SyncError as error:
                self.say(key, str(error))

    def step(self, step: Step, links: set[str] | None, workloads: dict[str, Sessions | Short]) -> None:
        what, key = step.what, f"{step.where}.{step.verb}"
        for member in _members_of(what):
            self.known(key, "member", member, self.members)
        for workload in [*getattr(what, "workloads", []), *([what.workload] if isinstance(what, Reconnect) else [])]:
            self.known(key, "workload", workload, self.workloads)
            if isinstance(workloads.get(workload), Short) and step.verb in ("speak", "reconnect"):
                self.say(key, f"{workload} is of kind short, which cannot {step.verb}; name one of kind sessions")
        if isinstance(what, Links) and links is not None:
            for link in what.links:
                self.known(key, "link or switch", link, links)
        if isinstance(what, Upgrade):
            self.release(f"{key}.release", what.release)
        if isinstance(what, Policy) and what.patch is not None:
            self.reading.check_policy(lay_over(self.policy, what.patch), f"{key}.patch")
        if isinstance(what, Until):
            self.expectation(key, what)
        if isinstance(what, Check):
            for index, expectation in enumerate(what.expectations):
                self.expectation(f"{key}[{index}]", expectation)

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
            fields = PATHS.get(first)
            if fields and len(rest) > 1 and rest[1] not in fields:
                self.say(key, f"{path}: {first} have no {rest[1]!r}{_near(rest[1], fields)}")


WORKLOAD_FIELDS = frozenset(
    {"kind", "sessions", "open", *map(str, Fate), "answers", "longest_silence_s", "longest_open_s", "last_answer"}
)
MEMBER_FIELDS = frozenset(
    {"state", "release", "running", "connections", "peak", "learned", "synced_full", "synced_delta", "full_sync",
     "sync", "records", "packets", "policy", "reason", "starts"}
)  # fmt: skip
# The beginnings of an expectation's path, and the fields beneath a name where they are fixed.
PATHS: dict[str, frozenset[str] | None] = {
    "seconds": None,
    "workloads": WORKLOAD_FIELDS,
    "members": MEMBER_FIELDS,
    "drops": frozenset(Reason.__members__),
    "takeovers": None,
}


def lay_over(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged; everything else is replaced."""
    merged = dict(base)
    for key, value in patch.items():
        old = merged.get(key)
        merged[key] = lay_over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _declared(data: Mapping[str, Any], section: str) -> frozenset[str]:
    raw = data.get(section)
    return frozenset(map(str, raw)) if isinstance(raw, dict) else frozenset()


def _members_of(what: Any) -> list[str]:
    if isinstance(what, Block):
        return what.between
    if isinstance(what, Members | Policy):
        return what.members or []
    member = getattr(what, "member", None)
    return [member] if isinstance(member, str) else []


def _near(word: str, words: Any) -> str:
    close = difflib.get_close_matches(word, list(words), 1)
    return f"; did you mean {close[0]}?" if close else f"; known: {one_of(words)}"
