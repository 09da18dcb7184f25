"""A rule base as people write it (YAML), checked and made into a `Policy`.

    name: standard
    networks: {inside: [192.0.2.0/24, "2001:db8:1::/64"]}
    hosts: {db: [198.51.100.100]}
    services:
      oracle: {protocol: tcp, port: 1521, session_timeout: 90d}
      dns: {protocol: udp, port: 53, synchronise: false}
      web: {protocol: tcp, port: 80, synchronise_after: 10s}
      upload: {protocol: tcp, port: 2121, inspect: ftp}
    rules:
      - {name: database, source: inside, destination: db, service: oracle, action: accept, track: log}
    implied_rules: {control_connections: true, outgoing: true, icmp_errors: true}
    out_of_state: {drop_tcp: true, exceptions: [fw2]}
    on_install: rematch
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import inf
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fwnode.explain import listed, shown
from fwnode.fields import Label, Lasting, Name, Names, Network, Ports, ServiceName, one_or_many
from fwnode.files import FileError, Strict, validate
from fwnode.firewall.inspection import INSPECTED_PROTOCOLS
from fwnode.firewall.packet import ICMP, TCP, UDP
from fwnode.firewall.policy import PREDEFINED, Action, OnInstall, Policy, Rule, Service
from fwnode.firewall.policy import Network as Range

ANY = "any"
RULES_MAX = 100_000
"""Rules of one rule base. Lab's own: to read so many takes a member two seconds, less than its dead timer."""
OBJECTS_MAX = 100_000
"""Networks, hosts or services of one rule base. Lab's own."""
_PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP}

Networks = Annotated[list[Network], Field(max_length=OBJECTS_MAX), BeforeValidator(one_or_many)]


class ServiceModel(Strict):
    protocol: Literal["tcp", "udp", "icmp"] | Annotated[int, Field(ge=0, le=255)]
    port: Ports | None = None
    icmp: Literal["echo"] | None = None
    session_timeout: Lasting | None = None
    synchronise: bool = True
    synchronise_after: Lasting | None = None
    inspect: Literal["ftp", "tftp", "sip"] | None = None


class RuleModel(Strict):
    name: Label = ""
    source: Names = Field(default_factory=list)
    destination: Names = Field(default_factory=list)
    service: Names = Field(default_factory=list)
    action: Action
    track: Literal["log", "none"] = "none"


class ImpliedRules(Strict):
    control_connections: bool = True
    outgoing: bool = True
    icmp_errors: bool = True


class OutOfState(Strict):
    drop_tcp: bool = True
    exceptions: Names = Field(default_factory=list)


class PolicyModel(Strict):
    name: Name
    networks: dict[Name, Networks] = Field(default_factory=dict, max_length=OBJECTS_MAX)
    hosts: dict[Name, Networks] = Field(default_factory=dict, max_length=OBJECTS_MAX)
    services: dict[ServiceName, ServiceModel] = Field(default_factory=dict, max_length=OBJECTS_MAX)
    rules: list[RuleModel] = Field(max_length=RULES_MAX)
    implied_rules: ImpliedRules = ImpliedRules()
    out_of_state: OutOfState = OutOfState()
    on_install: OnInstall = OnInstall.REMATCH

    @model_validator(mode="after")
    def _one_name_one_thing(self) -> PolicyModel:
        both = self.networks.keys() & self.hosts.keys()
        problems = [f"hosts.{name}: a network has this name, too; give each its own" for name in sorted(both)]
        problems += [f"{section}.{ANY}: {ANY} stands for everything; choose another name"
                     for section in ("networks", "hosts", "services") if ANY in getattr(self, section)]  # fmt: skip
        if problems:
            raise ValueError("\n".join(problems))
        return self


def build_policy(data: Any, where: str, members: frozenset[str] = frozenset()) -> Policy:
    """The policy that a loaded document describes; `where` names it in messages. `members`, if given, are the names
    that exceptions may use. Raises `FileError` with all problems."""
    try:
        model = validate(PolicyModel, data, where)
    except FileError as error:
        # Dangling names are reported too, as far as the broken document lets them be seen.
        raise FileError(error.problems + _unknown_names_raw(data, where)) from None
    problems: list[str] = []
    networks = _Networks({**model.networks, **model.hosts}, problems)
    services = _Services(
        PREDEFINED | {name: _service(name, s, where, problems) for name, s in model.services.items()}, problems
    )
    rules = [
        Rule(
            number,
            rule.name or f"rule {number}",
            rule.action,
            networks.of(rule.source, f"{where}: rules[{number - 1}].source"),
            networks.of(rule.destination, f"{where}: rules[{number - 1}].destination"),
            services.of(rule.service, f"{where}: rules[{number - 1}].service"),
            rule.track == "log",
        )
        for number, rule in enumerate(model.rules, 1)
    ]
    for name in model.out_of_state.exceptions:
        if members and name not in members:
            problems.append(f"{where}: out_of_state.exceptions: no member {name!r}; members are {listed(members)}")
    if problems:
        raise FileError(problems)
    return Policy(
        model.name,
        tuple(rules),
        model.implied_rules.control_connections,
        model.implied_rules.outgoing,
        model.implied_rules.icmp_errors,
        model.out_of_state.drop_tcp,
        frozenset(model.out_of_state.exceptions),
        model.on_install,
    )


def _service(name: str, model: ServiceModel, where: str, problems: list[str]) -> Service:
    protocol = _PROTOCOLS[model.protocol] if isinstance(model.protocol, str) else model.protocol
    if model.port and protocol not in (TCP, UDP):
        problems.append(f"{where}: services.{name}.port: only tcp and udp have ports")
    if model.icmp and protocol != ICMP:
        problems.append(f"{where}: services.{name}.icmp: only for protocol icmp")
    if model.synchronise_after and protocol != TCP:
        problems.append(f"{where}: services.{name}.synchronise_after: only for tcp")
    if model.synchronise_after and not model.synchronise:
        problems.append(f"{where}: services.{name}: synchronise: false and synchronise_after exclude each other")
    if model.inspect and (protocol != INSPECTED_PROTOCOLS[model.inspect] or not model.port):
        needed = "tcp" if INSPECTED_PROTOCOLS[model.inspect] == TCP else "udp"
        problems.append(f"{where}: services.{name}.inspect: {model.inspect} needs protocol {needed} and a port")
    ports = (model.port,) if model.port else ()
    sync_after = (model.synchronise_after or 0.0) if model.synchronise else inf
    inspect = model.inspect or ""
    return Service(name, protocol, ports, model.icmp == "echo", model.session_timeout, sync_after, inspect)


class _Networks:
    """Names in rules as address ranges. Many rules name the same: each list of names is resolved once."""

    def __init__(self, known: Mapping[str, list[IPv4Network | IPv6Network]], problems: list[str]) -> None:
        self._known, self._problems = known, problems
        self._found: dict[tuple[str, ...], tuple[Range, ...]] = {}
        self._all = listed(known)

    def of(self, names: list[str], where: str) -> tuple[Range, ...]:
        asked = tuple(names)
        found = self._found.get(asked)
        if found is None:
            before = len(self._problems)
            ranges = tuple(found for name in names if name != ANY for found in self._ranges(name, where))
            found = () if ANY in names else ranges
            if len(self._problems) == before:
                self._found[asked] = found
        return found

    def _ranges(self, name: str, where: str) -> list[Range]:
        networks = self._known.get(name)
        if networks is None:
            try:
                networks = [ip_network(name)]
            except ValueError:
                self._problems.append(f"{where}: no network or host {shown(name)}; known are {self._all}, any")
                return []
        return [Range(net.max_prefixlen // 8, int(net.network_address), int(net.netmask)) for net in networks]


class _Services:
    """Names in rules as services."""

    def __init__(self, known: Mapping[str, Service], problems: list[str]) -> None:
        self._known, self._problems = known, problems
        self._found: dict[tuple[str, ...], tuple[Service, ...]] = {}
        self._all = listed(known)

    def of(self, names: list[str], where: str) -> tuple[Service, ...]:
        asked = tuple(names)
        found = self._found.get(asked)
        if found is None:
            missing = [name for name in names if name not in self._known]
            self._problems += [f"{where}: no service {shown(name)}; known are {self._all}" for name in missing]
            found = () if ANY in names else tuple(self._known[name] for name in names if name in self._known)
            if not missing:
                self._found[asked] = found
        return found


def _unknown_names_raw(data: Any, where: str) -> list[str]:
    """Names in rules that nothing defines, read from a document whose shape is wrong elsewhere."""
    if not isinstance(data, dict) or not isinstance(data.get("rules"), list):
        return []
    known: dict[str, set[str]] = {"source": {ANY}, "destination": {ANY}, "service": set(PREDEFINED)}
    for section, keys in (("networks", ("source", "destination")), ("hosts", ("source", "destination")),
                          ("services", ("service",))):  # fmt: skip
        if isinstance(data.get(section), dict):
            for key in keys:
                known[key] |= {str(name) for name in data[section]}
    problems = []
    for index, rule in enumerate(data["rules"]):
        for key, names in known.items():
            value = rule.get(key) if isinstance(rule, dict) else None
            for name in value if isinstance(value, list) else [value]:
                if isinstance(name, str) and name not in names and not _is_network(name):
                    problems.append(f"{where}: rules[{index}].{key}: no {key} {shown(name)} is defined")
    return problems


def _is_network(name: str) -> bool:
    try:
        ip_network(name)
    except ValueError:
        return False
    return True


__all__ = ["PolicyModel", "build_policy"]
