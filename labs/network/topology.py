"""The shape of a lab: which nodes there are, on which switches, with which addresses.

Reads topology files and derives every address and name from them. It must not know namespaces, processes or the
kernel: the same model makes a lab in namespaces and the configuration of virtual machines.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from fwnode import fields
from fwnode.explain import shown, slips
from fwnode.fields import MEMBERS_MAX, IPAddress, IPInterface, IPNetwork, WholeNumber
from fwnode.files import FileError, Strict, load_yaml
from labs.network.errors import TopologyError

MEMBERS_MIN = 2
SWITCHES_MAX = 16
HOSTS_MAX = 100
"""Lab's own: each host is a namespace."""
INTERFACE_NAME_MAX = fields.INTERFACE_NAME_MAX
"""The kernel's limit; a link is named NODE-SWITCH."""
BUILTIN_DIRECTORY = Path(__file__).parent / "topologies"
DEFAULT_TOPOLOGY = "pair"

_NAME = re.compile(r"[a-z][a-z0-9]{0,14}")
_RESERVED = fields.RESERVED_INTERFACES | fields.RESERVED_MEMBERS | {"localhost"}
"""Names that the kernel, a lab's socket or the hosts file has already."""
_UNUSABLE = [ip_network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8")]
"""No machine on a switch can have such an address: unspecified, its own, link-local, multicast, reserved."""


def _member_names(value: object) -> object:
    """`members: 3` means fw1, fw2, fw3; a list of names is taken as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, list)):
        raise ValueError(f"{shown(value)}: give a number from {MEMBERS_MIN} to {MEMBERS_MAX}, or a list of names")
    count = value if isinstance(value, int) else len(value)
    if count > MEMBERS_MAX:
        raise ValueError(f"{shown(count)} members: the limit of a cluster is {MEMBERS_MAX}")
    if count < MEMBERS_MIN:
        raise ValueError(f"{count} member(s): a cluster needs at least {MEMBERS_MIN}")
    return [f"fw{number}" for number in range(1, count + 1)] if isinstance(value, int) else value


class TopologySwitch(Strict):
    """One Ethernet segment, and how the members are numbered on it."""

    networks: list[fields.Network] = Field(min_length=1, max_length=2)
    virtual: list[fields.Address] = Field(default=[], max_length=16)
    first_member: WholeNumber = Field(default=11, ge=1, le=90)
    sync: bool = False

    @field_validator("networks")
    @classmethod
    def _one_network_a_family(cls, networks: list[IPNetwork]) -> list[IPNetwork]:
        versions = [network.version for network in networks]
        if len(set(versions)) != len(versions):
            raise ValueError("give at most one IPv4 and one IPv6 network")
        if 4 not in versions:
            raise ValueError("no IPv4 network is among them; members talk IPv4 on every switch")
        for network in networks:
            if any(network.version == other.version and network.overlaps(other) for other in _UNUSABLE):
                raise ValueError(f"{network} has addresses that no machine can have; write a network such as "
                                 "192.0.2.0/24 or 2001:db8:1::/64")
        return sorted(networks, key=lambda network: network.version)

    @model_validator(mode="after")
    def _virtual_addresses_belong_here(self) -> "TopologySwitch":
        for address in self.virtual:
            if problem := self.problem_of(address):
                raise ValueError(f"virtual: {problem}")
        if self.sync and self.virtual:
            raise ValueError("virtual: a sync switch has no virtual addresses")
        return self

    def interface(self, address: IPAddress) -> IPInterface | None:
        """`address` with the prefix length of the network it lies in, or None where it lies in none."""
        for network in self.networks:
            if address.version == network.version and address in network:
                return ip_interface(f"{address}/{network.prefixlen}")
        return None

    def problem_of(self, address: IPAddress, networks: str = "the switch's networks") -> str:
        """Why no machine on this switch can have the address; empty where one can."""
        interface = self.interface(address)
        if interface is None:
            return f"{address} is in none of {networks}"
        network = interface.network
        if network.prefixlen < network.max_prefixlen - 1:
            if address == network.network_address:
                return f"{address} is the address of the network {network} itself"
            if address == network.broadcast_address and address.version == 4:
                return f"{address} is the broadcast address of {network}"
        return ""

    def member_addresses(self, number: int) -> list[IPInterface]:
        """Addresses of member `number` (from 1): .11 and ::11, so that both families read the same."""
        offset = self.first_member + number - 1
        found: list[IPInterface] = []
        for network in self.networks:
            step = offset if network.version == 4 else int(str(offset), 16)
            found.append(ip_interface(f"{network.network_address + step}/{network.prefixlen}"))
        return found


class TopologyHost(Strict):
    """A client or server: one interface, default routes through the virtual address of its switch."""

    switch: str
    addresses: list[fields.Address] = Field(min_length=1, max_length=16)


class TopologyCluster(Strict):
    """What the members' configurations say about the cluster itself."""

    id: WholeNumber = Field(default=1, ge=0, le=255)
    mode: Literal["high-availability", "load-sharing-multicast", "load-sharing-unicast"] = "high-availability"
    sharing: Literal["symmetric", "asymmetric"] = "symmetric"
    """In load sharing: whether both directions of a connection come to the same member."""


class Topology(Strict):
    """A whole lab's shape. `members` is the list of their names, in the order of their ids (from 1)."""

    name: fields.Name
    members: Annotated[list[str], BeforeValidator(_member_names)]
    switches: dict[str, TopologySwitch] = Field(min_length=1, max_length=SWITCHES_MAX)
    hosts: dict[str, TopologyHost] = Field(default={}, max_length=HOSTS_MAX)
    cluster: TopologyCluster = TopologyCluster()

    @model_validator(mode="after")
    def _consistent(self) -> "Topology":
        problems = [*self._name_problems(), *self._switch_problems(), *self._host_problems(),
                    *self._address_problems()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _name_problems(self) -> list[str]:
        problems: list[str] = []
        seen: set[str] = set()
        named = [("members", name) for name in self.members] + [("hosts", name) for name in self.hosts]
        for key, name in [*named, *(("switches", name) for name in self.switches)]:
            if not _NAME.fullmatch(name):
                problems.append(f"{key}.{name}: a name is lower-case letters and digits and begins with a letter")
            if name in _RESERVED:
                problems.append(f"{key}.{name}: this name is taken by the system; choose another one")
            if name in seen:
                problems.append(f"{key}.{name}: this name is taken; members, hosts and switches need different names")
            seen.add(name)
        for _, node in named:
            for switch in self._switches_of(node):
                if len(link_name(node, switch)) > INTERFACE_NAME_MAX:
                    problems.append(f"switches.{switch}: the link {link_name(node, switch)} would be longer than the "
                                    f"{INTERFACE_NAME_MAX} characters that the kernel allows; choose shorter names")
        return problems

    def _switch_problems(self) -> list[str]:
        problems: list[str] = []
        sync = [name for name, switch in self.switches.items() if switch.sync]
        if not sync:
            problems.append("switches: none of them has `sync: true`; the members need one to share connections")
        if len(sync) > 1:
            problems.append(f"switches: {' and '.join(sync)} have `sync: true`; the product supports one sync network")
        if len(sync) == len(self.switches):
            problems.append("switches: all of them are sync networks; hosts need one, too")
        owners = [(name, network) for name, switch in self.switches.items() for network in switch.networks]
        for index, (name, network) in enumerate(owners):
            problems += [f"switches.{name}.networks: {network} overlaps {other} of switches.{owner}; give each switch "
                         "a network of its own" for owner, other in owners[:index]
                         if network.version == other.version and network.overlaps(other)]
        return problems

    def _host_problems(self) -> list[str]:
        problems: list[str] = []
        for name, host in self.hosts.items():
            switch = self.switches.get(host.switch)
            if switch is None:
                problems.append(f"hosts.{name}.switch: there is no switch {shown(host.switch)}; "
                                f"there are {', '.join(self.switches)}")
                continue
            found = [switch.problem_of(address, f"the networks of {host.switch}") for address in host.addresses]
            problems += [f"hosts.{name}.addresses: {problem}" for problem in found if problem]
        return problems

    def _address_problems(self) -> list[str]:
        problems: list[str] = []
        taken: dict[IPAddress, str] = {}
        claims = [(address, f"switches.{name}.virtual") for name, switch in self.switches.items()
                  for address in switch.virtual]
        for name, switch in self.switches.items():
            key = f"switches.{name}.first_member"
            try:
                own = [interface.ip for number in range(1, len(self.members) + 1)
                       for interface in switch.member_addresses(number)]
            except ValueError:
                problems.append(f"{key}: the networks have no room for {len(self.members)} members from there on")
                continue
            problems += [f"{key}: {problem}" for address in own if (problem := switch.problem_of(address))]
            claims += [(address, key) for address in own]
        claims += [(address, f"hosts.{name}.addresses") for name, host in self.hosts.items()
                   for address in host.addresses]
        for address, key in claims:
            if address in taken:
                problems.append(f"{key}: {address} is taken already by {taken[address]}")
            taken.setdefault(address, key)
        return problems

    def _switches_of(self, node: str) -> list[str]:
        if node in self.members:
            return list(self.switches)
        return [self.hosts[node].switch] if self.hosts[node].switch in self.switches else []

    @property
    def nodes(self) -> list[str]:
        """Every node: hosts, then members."""
        return [*self.hosts, *self.members]

    def interfaces(self, node: str) -> dict[str, list[IPInterface]]:
        """Interface name (that of its switch) -> the node's own addresses on it."""
        if node in self.members:
            number = self.members.index(node) + 1
            return {name: switch.member_addresses(number) for name, switch in self.switches.items()}
        host = self.hosts[node]
        switch = self.switches[host.switch]
        return {host.switch: [found for address in host.addresses if (found := switch.interface(address))]}

    def gateways(self, host: str) -> list[IPAddress]:
        """The virtual addresses that a host routes through, at most one a family."""
        found: dict[int, IPAddress] = {}
        for address in self.switches[self.hosts[host].switch].virtual:
            found.setdefault(address.version, address)
        return list(found.values())

    def links(self, node_or_switch: str | None = None) -> list[str]:
        """Link names NODE-SWITCH: all of them, those of one node, those of one switch, or the one of that name."""
        every = [(link_name(node, switch), node, switch) for node in self.nodes for switch in self._switches_of(node)]
        return [link for link, node, switch in every
                if node_or_switch is None or node_or_switch in (link, node, switch)]


def link_name(node: str, switch: str) -> str:
    """The name of a link, which is also the name of the switch-side end of its veth pair."""
    return f"{node}-{switch}"


def parse_topology(data: object, where: str) -> Topology:
    """A topology from already-loaded YAML. `base: pair` takes a built-in one and replaces the keys that are given."""
    if not isinstance(data, Mapping):
        raise TopologyError([f"{where}: expected keys such as name, members, switches, hosts"])
    merged: dict[str, Any] = dict(data)
    base = merged.pop("base", None)
    if base is not None:
        merged = {**_read(_builtin(str(base), where)), **merged}
    try:
        return Topology.model_validate(merged)
    except ValidationError as error:
        raise TopologyError([f"{where}: {key}: {what}" if key else f"{where}: {what}"
                             for key, what in slips(error, merged)]) from None


def load_topology(source: str | Path | Mapping[str, Any] = DEFAULT_TOPOLOGY, where: str = "topology") -> Topology:
    """A topology by built-in name (`pair`), from a file (anything with a slash or ending in .yaml), or inline."""
    if isinstance(source, Mapping):
        return parse_topology(source, where)
    path = Path(source)
    if isinstance(source, str) and "/" not in source and path.suffix not in (".yaml", ".yml"):
        path = _builtin(source, where)
    return parse_topology(_read(path), str(path))


def builtin_topologies() -> list[str]:
    """Names of the topologies that come with the package."""
    return sorted(path.stem for path in BUILTIN_DIRECTORY.glob("*.yaml"))


def _builtin(name: str, where: str) -> Path:
    path = BUILTIN_DIRECTORY / f"{name}.yaml"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise TopologyError([f"{where}: there is no topology {shown(name)}; built in: "
                             f"{', '.join(builtin_topologies())}; or give the path of a .yaml file"])
    return path


def _read(path: Path) -> Any:
    try:
        return load_yaml(path)
    except FileError as error:
        raise TopologyError(error.problems) from None
