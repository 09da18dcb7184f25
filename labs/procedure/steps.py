"""What a step is told: one model for each shape of arguments, which says whom it names and what it is in words.

Lab files and `fwlab do` are read by the same models. Durations are lab time, except those of wires: a wire's delay is
wall time, and says so. It must not know how a step is taken: `labs.procedure.verbs` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fwnode.explain import shown
from fwnode.firewall.parameters import ParameterError, look_up
from labs.procedure.expectations import Expectation, Until
from labs.quantities import Portion, Rate, Way, WireDelay, format_rate, parse_service
from labs.traffic.durations import Duration, format_duration


class Part(BaseModel):
    """A mapping of a lab file; keys that it does not know are an error."""

    model_config = ConfigDict(extra="forbid")


class Arguments(Part):
    """What one step is told."""

    asked: ClassVar[tuple[str, ...]] = ()
    """The keys that `fwlab do` takes; nothing: those of the model, lists by their singular."""
    also: ClassVar[Mapping[str, str]] = {}
    """Other names of keys: `member: fw1` for `members: [fw1]`."""

    @model_validator(mode="before")
    @classmethod
    def _other_names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key if (name := cls.also.get(key, key)) in data else name: value for key, value in data.items()}

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """The keys as `fwlab do` takes them."""
        short = {name: key for key, name in cls.also.items()}
        return cls.asked or tuple(short.get(name, name) for name in cls.model_fields)

    @classmethod
    def filled(cls, value: Any, short: str | None) -> Any:
        """The arguments as a mapping; a bare name or list fills the argument `short`."""
        if value is None:
            return {}
        return {short: value} if short is not None and not isinstance(value, Mapping) else value

    def words(self, verb: str) -> str:
        """The step in an operator's words."""
        return verb

    def members_named(self) -> list[str]:
        """The members that the step names, for the checker."""
        return []

    def workloads_named(self) -> list[str]:
        """The workloads that the step names, for the checker."""
        return []

    def targets(self, members: Iterable[str]) -> list[str]:
        """What the deed is done to, one after the other: members or links. `members` are all that there are."""
        return self.members_named()


def _as_list(value: object) -> object:
    """One name, or several with commas, as a list."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


TargetNames = Annotated[list[str], Field(min_length=1, max_length=100), BeforeValidator(_as_list)]
Share = Annotated[float, Field(gt=0, le=1)]


def legal_parameter(name: str, value: Any) -> None:
    """Raises `ValueError` for a kernel parameter that is unknown, or a value that it cannot have."""
    try:
        parameter = look_up(name)
    except ParameterError as error:
        raise ValueError(str(error)) from None
    if not isinstance(value, int) or isinstance(value, bool) or not parameter.low <= value <= parameter.high:
        raise ValueError(f"{name}: {shown(value)} is not legal; legal is {parameter.legal}")


# -- members


class Members(Arguments):
    """Steps that take members alone: start, stop, kill, and the like."""

    also = {"member": "members"}

    members: TargetNames

    def words(self, verb: str) -> str:
        return f"{verb} {', '.join(self.members)}"

    def members_named(self) -> list[str]:
        return self.members


class Upgrade(Arguments):
    member: str
    release: str

    def words(self, verb: str) -> str:
        return f"{verb} {self.member} to {self.release}"

    def members_named(self) -> list[str]:
        return [self.member]


class Failover(Arguments):
    member: str | None = None
    """The member that is set down; without a name it is the active one."""

    def words(self, verb: str) -> str:
        return f"{verb} away from {self.member or 'the active member'}"

    def members_named(self) -> list[str]:
        return [self.member] if self.member else []


class InstallPolicy(Arguments):
    asked = ("member", "policy")
    also = {"member": "members", "policy": "file"}

    members: TargetNames | None = None
    """Nothing: every member."""
    rules: dict[str, Any] | None = None
    file: str | None = None
    """Its reader puts what it holds into `rules`."""
    patch: dict[str, Any] | None = None
    """Laid over the lab's policy, mapping by mapping; the lab file's reader puts the outcome into `rules`."""
    origin: str = "policy"
    """The file that a member names when something is wrong with the rules."""

    @model_validator(mode="after")
    def _one_source(self) -> InstallPolicy:
        if sum(source is not None for source in (self.rules, self.file, self.patch)) != 1:
            raise ValueError("give one of rules (a whole rule base), file, or patch (laid over the lab's policy)")
        return self

    def words(self, verb: str) -> str:
        how = f"with {_flat(self.patch)}" if self.patch is not None else "another rule base"
        return f"install {verb} on {', '.join(self.members or ['every member'])}: {how}"

    def members_named(self) -> list[str]:
        return self.members or []

    def targets(self, members: Iterable[str]) -> list[str]:
        return self.members or list(members)


class Set(Arguments):
    """`{member: fw2, fw_allow_out_of_state_tcp: 1}`: kernel parameters on the fly. `fwlab do` has one by its name and
    value."""

    model_config = ConfigDict(extra="allow")
    asked = ("member", "name", "value")

    member: str

    @model_validator(mode="before")
    @classmethod
    def _by_name_and_value(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not {"name", "value"} <= set(data):
            return data
        value = data["value"]
        if isinstance(value, str) and value.lstrip("-").isdecimal() and len(value) <= 20:
            value = int(value) if value.count("-") < 2 else value
        return {"member": data.get("member"), str(data["name"]): value}

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
        """Kernel parameters and their values."""
        return self.model_extra or {}

    def words(self, verb: str) -> str:
        return f"{verb} on {self.member}: " + ", ".join(f"{name} = {value}" for name, value in self.parameters.items())

    def members_named(self) -> list[str]:
        return [self.member]


def _flat(patch: Mapping[str, Any], prefix: str = "") -> str:
    parts = []
    for key, value in patch.items():
        parts.append(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else f"{prefix}{key} = {value}")
    return ", ".join(parts)


# -- workloads


class Workloads(Arguments):
    """Steps that take workloads alone: open, speak, and the like."""

    workloads: TargetNames

    def words(self, verb: str) -> str:
        return f"{verb} {', '.join(self.workloads)}"

    def workloads_named(self) -> list[str]:
        return self.workloads


class Transfer(Workloads):
    wait: bool = False
    """Go on only when the transfers have ended; otherwise as soon as their first bytes have arrived."""


class Reconnect(Arguments):
    workload: str
    which: Literal["all", "ended"] = "all"
    share: Share = 1.0

    def words(self, verb: str) -> str:
        whose = "all sessions" if self.which == "all" else "the sessions that ended"
        share = "" if self.share == 1 else f"{self.share:.0%} of "
        return f"{verb} {share}{whose} of {self.workload}"

    def workloads_named(self) -> list[str]:
        return [self.workload]


# -- time and expectations


class Wait(Arguments):
    """`wait: 24h`, in lab time."""

    duration: Duration

    def words(self, verb: str) -> str:
        return f"{verb} {format_duration(self.duration)}"


class Await(Until, Arguments):
    """`until`: goes on when an expectation holds."""

    def words(self, verb: str) -> str:
        return f"wait {verb} {self.says or self.that} (at most {format_duration(self.within)})"


class Check(Arguments):
    """`check`: expectations that have to hold now."""

    expectations: Annotated[list[Expectation], Field(min_length=1)]

    @classmethod
    def filled(cls, value: Any, short: str | None) -> Any:
        """A single expectation needs no list."""
        if isinstance(value, Mapping) and short is not None and short not in value:
            return {short: [value]}
        return super().filled(value, short)


# -- wires


class Links(Arguments):
    """What is done to wires: links such as fw1-sync, or every link of a switch."""

    also = {"link": "links"}

    links: TargetNames

    def words(self, verb: str) -> str:
        return f"{verb} {', '.join(self.links)}{self.how()}"

    def how(self) -> str:
        """What is done to them, in words behind their names."""
        return ""

    def targets(self, members: Iterable[str]) -> list[str]:
        return self.links


class OneWay(Links):
    """What can be done to one way of a link alone."""

    way: Way = "both"

    def how(self) -> str:
        return {"in": ", inwards alone", "out": ", outwards alone", "both": ""}[self.way]


class Limit(Links):
    """So many bits a second, each way."""

    rate: Rate

    def how(self) -> str:
        return f" to {format_rate(self.rate)}"


class Lose(OneWay):
    """Random loss."""

    share: Portion

    def how(self) -> str:
        return f": {self.share:.0%} of the packets{super().how()}"


class Delay(OneWay):
    """Each packet comes later."""

    by: WireDelay
    """Wall time: wires are wire time."""

    def how(self) -> str:
        return f" by {format_duration(self.by)} of wall time{super().how()}"


def _legal_service(service: str) -> str:
    parse_service(service)
    return service


def _two(value: object) -> object:
    members = _as_list(value)
    if not isinstance(members, list) or len(members) != 2:
        raise ValueError("name two members, such as fw1,fw2")
    return members


class Block(Arguments):
    """A service between two members."""

    between: Annotated[list[str], BeforeValidator(_two)]
    service: Annotated[str, AfterValidator(_legal_service)]

    @property
    def protocol_and_port(self) -> tuple[str, int]:
        """Such as tcp, 256."""
        return parse_service(self.service)

    def words(self, verb: str) -> str:
        return f"{verb} {self.service} between {' and '.join(self.between)}"

    def members_named(self) -> list[str]:
        return self.between

    def targets(self, members: Iterable[str]) -> list[str]:
        """Both at once."""
        return [" and ".join(self.between)]
