"""The steps of a lab file: one model a verb, the table of verbs, and each step in an operator's words.

Durations are lab time, except those of wires: a wire's delay is wall time, and says so. It must not know how a step is
taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fwnode.explain import shown
from fwnode.firewall.parameters import ParameterError, look_up
from labs.procedure.expectations import Expectation, Until
from labs.quantities import Portion, Rate, Way, WireDelay, format_rate, parse_service
from labs.traffic.durations import Duration, format_duration


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], Field(min_length=1, max_length=100), BeforeValidator(_as_list)]
Share = Annotated[float, Field(gt=0, le=1)]


def legal_parameter(name: str, value: Any) -> None:
    try:
        parameter = look_up(name)
    except ParameterError as error:
        raise ValueError(str(error)) from None
    if not isinstance(value, int) or isinstance(value, bool) or not parameter.low <= value <= parameter.high:
        raise ValueError(f"{name}: {shown(value)} is not legal; legal is {parameter.legal}")


# -- steps: one model a verb; `short` is the field that a bare name or list fills


class Members(Part):
    members: Names


class Upgrade(Part):
    member: str
    release: str


class Failover(Part):
    member: str | None = None
    """The member that is set down; without a name it is the active one."""


class Policy(Part):
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
            legal_parameter(name, value)
            if look_up(name).at_start:
                raise ValueError(f"{name} is read at a start; write it under members.{self.member}.parameters")
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        return self.model_extra or {}


class Workloads(Part):
    workloads: Names


class Reconnect(Part):
    workload: str
    which: Literal["all", "ended"] = "all"
    share: Share = 1.0


class Wait(Part):
    duration: Duration


class Transfer(Part):
    workloads: Names
    wait: bool = False
    """Go on only when the transfers have ended; otherwise as soon as their first bytes have arrived."""


class Links(Part):
    """A deed done to wires: links such as fw1-sync, or every link of a switch. `how` is what the deed is told."""

    links: Names

    def how(self) -> dict[str, Any]:
        return {key: value for key, value in self if key != "links"}


class Cut(Links):
    way: Way = "both"
    """One way, the link stays up; both ways, its port goes down."""


class Limit(Links):
    rate: Rate


class Lose(Links):
    share: Portion
    way: Way = "both"


class Delay(Links):
    by: WireDelay
    """Wall time: wires are wire time."""
    way: Way = "both"


def _legal_service(service: str) -> str:
    parse_service(service)
    return service


class Block(Part):
    between: Annotated[list[str], Field(min_length=2, max_length=2)]
    service: Annotated[str, AfterValidator(_legal_service)]

    @property
    def protocol_and_port(self) -> tuple[str, int]:
        return parse_service(self.service)


class Check(Part):
    expectations: Annotated[list[Expectation], Field(min_length=1)]


class Verb:
    """A step's word: its model, and the field that a short form fills."""

    def __init__(self, model: type[BaseModel], short: str | None = None) -> None:
        self.model = model
        self.short = short

    def fill(self, value: Any) -> Any:
        if value is None:
            return {}
        if self.short == "expectations" and isinstance(value, Mapping) and self.short not in value:
            return {self.short: [value]}
        if self.short is not None and not isinstance(value, Mapping):
            return {self.short: value}
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
    "announce": Verb(Workloads, "workloads"),
    "transfer": Verb(Transfer, "workloads"),
    "reconnect": Verb(Reconnect),
    "wait": Verb(Wait, "duration"),
    "until": Verb(Until),
    "pause": Verb(Members, "members"),
    "resume": Verb(Members, "members"),
    "cut": Verb(Cut, "links"),
    "restore": Verb(Links, "links"),
    "limit": Verb(Limit),
    "unlimit": Verb(Links, "links"),
    "lose": Verb(Lose),
    "unlose": Verb(Links, "links"),
    "delay": Verb(Delay),
    "undelay": Verb(Links, "links"),
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


def describe(step: Step) -> str:
    """The step in an operator's words."""
    what, verb = step.what, step.verb.replace("_", " ")
    if isinstance(what, Members):
        return f"{verb} {', '.join(what.members)}"
    if isinstance(what, Upgrade):
        return f"upgrade {what.member} to {what.release}"
    if isinstance(what, Failover):
        return f"failover away from {what.member or 'the active member'}"
    if isinstance(what, Policy):
        how = f"with {_flat(what.patch)}" if what.patch is not None else "another rule base"
        return f"install policy on {', '.join(what.members or ['every member'])}: {how}"
    if isinstance(what, Set):
        return f"set on {what.member}: " + ", ".join(f"{name} = {value}" for name, value in what.parameters.items())
    if isinstance(what, Workloads | Transfer):
        return f"{verb} {', '.join(what.workloads)}"
    if isinstance(what, Reconnect):
        whose = "all sessions" if what.which == "all" else "the sessions that ended"
        share = "" if what.share == 1 else f"{what.share:.0%} of "
        return f"reconnect {share}{whose} of {what.workload}"
    if isinstance(what, Wait):
        return f"wait {format_duration(what.duration)}"
    if isinstance(what, Until):
        return f"wait until {what.says or what.that} (at most {format_duration(what.within)})"
    if isinstance(what, Links):
        return f"{verb} {', '.join(what.links)}{_how(what)}"
    if isinstance(what, Block):
        return f"{verb} {what.service} between {' and '.join(what.between)}"
    return verb


def _flat(patch: Mapping[str, Any], prefix: str = "") -> str:
    parts = []
    for key, value in patch.items():
        parts.append(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else f"{prefix}{key} = {value}")
    return ", ".join(parts)


def _how(what: Links) -> str:
    if isinstance(what, Limit):
        return f" to {format_rate(what.rate)}"
    told = {"in": ", inwards alone", "out": ", outwards alone", "both": ""}[getattr(what, "way", "both")]
    if isinstance(what, Lose):
        return f": {what.share:.0%} of the packets{told}"
    if isinstance(what, Delay):
        return f" by {format_duration(what.by)} of wall time{told}"
    return told
