"""A member's configuration file: who it is, its cluster, its interfaces, its release and policy.

The same file serves a member in a lab's namespace and one that runs as a service in a virtual machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from fwnode.explain import shown
from fwnode.fields import (
    CLOCK_RATE_MAX,
    CLOCK_RATE_MIN,
    MEMBERS_MAX,
    SOCKET_PATH_MAX,
    AuthenticationKey,
    InterfaceAddress,
    InterfaceName,
    IPInterface,
    MemberName,
    Name,
    RealNumber,
    WholeNumber,
)
from fwnode.files import FileError, Strict, load_yaml, validate
from fwnode.firewall.parameters import PARAMETERS, ParameterError, Parameters
from fwnode.firewall.policy import Policy
from fwnode.policy_file import build_policy
from syncproto.errors import SyncError
from syncproto.limits import LIST_MAX
from syncproto.release import BUILTIN_RELEASES, Compatibility, Release


class InterfaceModel(Strict):
    """One cluster interface; every member has an address on it, `virtual` is what the active one answers for."""

    name: InterfaceName
    device: Literal[""] | InterfaceName = ""
    """The kernel's name of it on this machine, if that is another (`eth1`)."""
    sync: bool = False
    virtual: list[InterfaceAddress] = Field(default_factory=list)
    members: dict[MemberName, list[InterfaceAddress]]

    @property
    def kernel_name(self) -> str:
        """The interface's name on this machine."""
        return self.device or self.name


class ClusterModel(Strict):
    """What is the same at all members: number, mode, interfaces with everybody's addresses."""

    id: WholeNumber = Field(default=1, ge=0, le=255)
    mode: Literal["high-availability", "load-sharing-multicast", "load-sharing-unicast"] = "high-availability"
    sharing: Literal["symmetric", "asymmetric"] = "symmetric"
    """In load sharing: whether both directions of a connection come to the same member."""
    interfaces: list[InterfaceModel] = Field(min_length=1, max_length=LIST_MAX)

    @property
    def load_sharing(self) -> bool:
        """Whether all healthy members process traffic."""
        return self.mode != "high-availability"

    @property
    def hands_on(self) -> bool:
        """Unicast: one member, the pivot, receives everything, and hands on what is another's."""
        return self.mode == "load-sharing-unicast"

    @model_validator(mode="after")
    def _members_agree(self) -> ClusterModel:
        names = list(self.interfaces[0].members)
        if len(names) > MEMBERS_MAX:
            raise ValueError(f"{len(names)} members; a ClusterXL cluster has at most {MEMBERS_MAX}")
        for interface in self.interfaces:
            if set(interface.members) != set(names):
                raise ValueError(f"interface {interface.name} must name the same members as {self.interfaces[0].name}")
            if any(not addresses or addresses[0].version != 4 for addresses in interface.members.values()):
                raise ValueError(f"interface {interface.name}: the first address of each member must be IPv4")
        if sum(interface.sync for interface in self.interfaces) > 1:
            raise ValueError("more than one sync interface; the product does not support several sync networks")
        return self


class ClockModel(Strict):
    """Lab time: how fast it runs, and when it was 0."""

    rate: RealNumber = Field(default=1.0, ge=CLOCK_RATE_MIN, le=CLOCK_RATE_MAX)
    epoch: float = 0.0
    """Monotonic time of the machine (CLOCK_MONOTONIC) at which lab time was 0."""


class MemberConfig(Strict):
    """The whole file."""

    member: MemberName
    release: Name
    cluster: ClusterModel
    policy: dict[str, Any] | str
    releases: str = ""
    clock: ClockModel = ClockModel()
    parameters: dict[str, WholeNumber] = Field(default_factory=dict)
    control: str = ""
    key: AuthenticationKey = ""
    """Shared secret that authenticates sync messages; empty, as in the product, for none."""

    @model_validator(mode="after")
    def _member_is_known(self) -> MemberConfig:
        if self.member not in self.members:
            raise ValueError(f"member {self.member!r} is not in the cluster; members are {', '.join(self.members)}")
        return self

    @field_validator("control")
    @classmethod
    def _socket_can_be_made(cls, control: str) -> str:
        if len(control.encode(errors="replace")) > SOCKET_PATH_MAX:
            raise ValueError(f"{shown(control)} is longer than the {SOCKET_PATH_MAX} bytes of a socket's path")
        return control

    @field_validator("parameters")
    @classmethod
    def _parameters_are_legal(cls, parameters: dict[str, int]) -> dict[str, int]:
        problems, store = [], Parameters()
        for name, value in parameters.items():
            try:
                store.set(name, value)
            except ParameterError as error:
                problems.append(str(error))
        if problems:
            raise ValueError("; ".join(problems))
        return parameters

    @property
    def members(self) -> dict[str, int]:
        """Names and numbers (1…) of the members, in the order of the first interface."""
        return {name: number for number, name in enumerate(self.cluster.interfaces[0].members, 1)}

    @property
    def number(self) -> int:
        """This member's number, which is its priority: 1 is the highest."""
        return self.members[self.member]

    @property
    def peers(self) -> dict[int, str]:
        """Numbers and names of the other members."""
        return {number: name for name, number in self.members.items() if name != self.member}

    @property
    def control_path(self) -> Path:
        """Where the control socket is."""
        return Path(self.control or f"/run/fwpair/{self.member}.sock")

    @property
    def sync_interface(self) -> InterfaceModel | None:
        """The interface of the sync network, if there is one."""
        return next((i for i in self.cluster.interfaces if i.sync), None)

    def own_addresses(self, interface: InterfaceModel) -> list[IPInterface]:
        """This member's addresses on the interface, the IPv4 one first."""
        return interface.members[self.member]

    def wires(self) -> dict[str, tuple[str, dict[int, str]]]:
        """By interface, the address from which this member speaks to its peers, and theirs by number."""
        return {
            interface.name: (
                str(self.own_addresses(interface)[0].ip),
                {number: str(interface.members[name][0].ip) for number, name in self.peers.items()},
            )
            for interface in self.cluster.interfaces
        }

    def load_policy(self, directory: Path) -> Policy:
        """The rule base: inline, or from a file relative to `directory`. Raises `FileError`."""
        document, where = self.policy_document(directory)
        return build_policy(document, where, frozenset(self.members))

    def policy_document(self, directory: Path) -> tuple[Any, str]:
        """The rule base as it is written, and its name in messages. Raises `FileError`."""
        if isinstance(self.policy, dict):
            return self.policy, "policy"
        path = directory / self.policy
        return load_yaml(path), str(path)


def load(path: Path) -> MemberConfig:
    """The configuration in a file. Raises `FileError` with all its problems."""
    return validate(MemberConfig, load_yaml(path), str(path))


def load_releases(extra: str, directory: Path = Path()) -> Compatibility:
    """The built-in table of releases, with a user's file over it. Raises `FileError`."""
    try:
        table = Compatibility.from_mapping(load_yaml(Path(BUILTIN_RELEASES)), BUILTIN_RELEASES)
        if extra:
            path = directory / extra
            table = table.merged(load_yaml(path), str(path))
    except SyncError as error:
        raise FileError(str(error).splitlines()) from None
    problems = [problem for name in table.names for problem in _defaults(table.release(name))]
    if problems:
        raise FileError([f"{directory / extra}: {problem}" for problem in problems])
    return table


def _defaults(release: Release) -> Iterator[str]:
    """What is wrong with a release's own kernel parameters. Names that this lab does not model are left alone."""
    store = Parameters()
    for name, value in release.defaults.items():
        try:
            if name in PARAMETERS:
                store.set(name, value)
        except ParameterError as error:
            yield f"releases.{release.name}.defaults.{error}"
