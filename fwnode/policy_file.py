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

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import inf
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fwnode.files import FileError, Strict, validate
from fwnode.firewall.inspection import INSPECTED_PROTOCOLS
from fwnode.firewall.packet import ICMP, TCP, UDP
from fwnode.firewall.policy import PREDEFINED, Action, Network, OnInstall, Policy, Rule, Service

ANY = "any"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)")
_PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP}


def parse_duration(value: Any) -> float:
    """Seconds of a duration written with its unit (`90d`, `24h`, `25s`, `100ms`). Raises `ValueError`."""
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration: write a number and its unit, such as 25s, 30m, 24h, 90d")
    return float(match[1]) * _UNITS[match[2]]


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _network(value: Any) -> IPv4Network | IPv6Network:
    try:
        if not isinstance(value, str):  # a bare number would be an address too
            raise ValueError("write it as 192.0.2.0/24")
        return ip_network(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is not a network or address: {error}") from None


def _ports(value: Any) -> tuple[int, int]:
    first, _, last = str(value).partition("-")
    if not (first.strip().isdigit() and (not last or last.strip().isdigit())):
        raise ValueError(f"{value!r} is not a port: write 80 or 8000-8010")
    low, high = int(first), int(last or first)
    if not 0 < low <= high < 65_536:
        raise ValueError(f"{value!r} is not a port range within 1 to 65535")
    return low, high


Names = Annotated[list[str], BeforeValidator(_one_or_many)]
Networks = Annotated[
    list[Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]], BeforeValidator(_one_or_many)
]
Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]


class ServiceModel(Strict):
    protocol: Literal["tcp", "udp", "icmp"] | Annotated[int, Field(ge=0, le=255)]
    port: Annotated[tuple[int, int], BeforeValidator(_ports)] | None = None
    icmp: Literal["echo"] | None = None
    session_timeout: Duration | None = None
    synchronise: bool = True
    synchronise_after: Duration | None = None
    inspect: Literal["ftp", "tftp", "sip"] | None = None


class RuleModel(Strict):
    name: str = ""
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
    name: str
    networks: dict[str, Networks] = Field(default_factory=dict)
    hosts: dict[str, Networks] = Field(default_factory=dict)
    services: dict[str, ServiceModel] = Field(default_factory=dict)
    rules: list[RuleModel]
    implied_rules: ImpliedRules = ImpliedRules()
    out_of_state: OutOfState = OutOfState()
    on_install: OnInstall = OnInstall.REMATCH


def build_policy(data: Any, where: str, members: frozenset[str] = frozenset()) -> Policy:
    """The policy that a loaded document describes; `where` names it in messages. `members`, if given, are the names
    that exceptions may use. Raises `FileError` with all problems."""
    problems: list[str] = []
    try:
        model = validate(PolicyModel, data, where)
    except FileError as error:
        # Dangling names are reported too, as far as the broken document lets them be seen.
        raise FileError(error.problems + _unknown_names_raw(data, where)) from error
    networks = {**model.networks, **model.hosts}
    services = PREDEFINED | {name: _service(name, s, where, problems) for name, s in model.services.items()}
    rules = [
        Rule(
            number,
            rule.name or f"rule {number}",
            rule.action,
            _resolve_networks(rule.source, networks, f"{where}: rules.{number - 1}.source", problems),
            _resolve_networks(rule.destination, networks, f"{where}: rules.{number - 1}.destination", problems),
            _resolve_services(rule.service, services, f"{where}: rules.{number - 1}.service", problems),
            rule.track == "log",
        )
        for number, rule in enumerate(model.rules, 1)
    ]
    for name in model.out_of_state.exceptions:
        if members and name not in members:
            problems.append(f"{where}: out_of_state.exceptions: no member {name!r}; members are {_listed(members)}")
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


def _resolve_networks(
    names: list[str], known: Mapping[str, list[IPv4Network | IPv6Network]], where: str, problems: list[str]
) -> tuple[Network, ...]:
    resolved: list[Network] = []
    for name in names:
        if name == ANY:
            continue
        members = known.get(name)
        if members is None:
            try:
                members = [ip_network(name)]
            except ValueError:
                problems.append(f"{where}: no network or host {name!r}; known are {_listed(known)}, any")
                continue
        for net in members:
            size = net.max_prefixlen // 8
            resolved.append(Network(size, int(net.network_address), int(net.netmask)))
    return () if ANY in names else tuple(resolved)


def _resolve_services(
    names: list[str], known: Mapping[str, Service], where: str, problems: list[str]
) -> tuple[Service, ...]:
    for name in names:
        if name not in known:
            problems.append(f"{where}: no service {name!r}; known are {_listed(known)}")
    return () if ANY in names else tuple(known[name] for name in names if name in known)


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
                    problems.append(f"{where}: rules.{index}.{key}: no {key} {name!r} is defined")
    return problems


def _is_network(name: str) -> bool:
    try:
        ip_network(name)
    except ValueError:
        return False
    return True


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"


__all__ = ["PolicyModel", "build_policy", "parse_duration"]
