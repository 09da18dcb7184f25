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

from collections.abc import Callable, Generator, Iterator
from ipaddress import IPv4Network, IPv6Network
from math import inf
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from fwnode.explain import listed, shown, slips
from fwnode.fields import (
    Label,
    Lasting,
    Name,
    Names,
    Network,
    Ports,
    ServiceName,
    WholeNumber,
    one_or_many,
    parse_network,
)
from fwnode.files import FileError, Strict, validate
from fwnode.firewall.inspection import INSPECTED_PROTOCOLS
from fwnode.firewall.packet import ICMP, TCP, UDP
from fwnode.firewall.policy import ANY_SERVICE, PREDEFINED, Action, AddressRange, OnInstall, Policy, Rule, Service

ANY = "any"
RULES_MAX = 100_000
"""Rules of one rule base. Lab's own: to read so many takes two seconds."""
OBJECTS_MAX = 100_000
"""Networks, hosts or services of one rule base. Lab's own."""
STEP = 64
"""Rules or objects that are looked at in a row: about a millisecond."""
_PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP}

T = TypeVar("T")
Networks = Annotated[list[Network], Field(max_length=OBJECTS_MAX), BeforeValidator(one_or_many)]


class ServiceModel(Strict):
    """A service as it is written: `oracle: {protocol: tcp, port: 1521}`."""

    protocol: Literal["tcp", "udp", "icmp"] | Annotated[WholeNumber, Field(ge=0, le=255)]
    port: Ports | None = None
    icmp: Literal["echo"] | None = None
    session_timeout: Lasting | None = None
    synchronise: bool = True
    synchronise_after: Lasting | None = None
    inspect: Literal["ftp", "tftp", "sip"] | None = None


class RuleModel(Strict):
    """A rule as it is written. An empty list means any."""

    name: Label = ""
    source: Names = Field(default_factory=list)
    destination: Names = Field(default_factory=list)
    service: Names = Field(default_factory=list)
    action: Action
    track: Literal["log", "none"] = "none"


class ImpliedRules(Strict):
    """Rules that stand before the written ones; each can be switched off."""

    control_connections: bool = True
    outgoing: bool = True
    icmp_errors: bool = True


class OutOfState(Strict):
    """Whether out-of-state TCP is dropped, and at which members not."""

    drop_tcp: bool = True
    exceptions: Names = Field(default_factory=list)


class PolicyModel(Strict):
    """A rule base whose sections were not looked into yet."""

    name: Name
    networks: dict[str, Any] = Field(default_factory=dict, max_length=OBJECTS_MAX)
    hosts: dict[str, Any] = Field(default_factory=dict, max_length=OBJECTS_MAX)
    services: dict[str, Any] = Field(default_factory=dict, max_length=OBJECTS_MAX)
    rules: list[Any] = Field(max_length=RULES_MAX)
    implied_rules: ImpliedRules = ImpliedRules()
    out_of_state: OutOfState = OutOfState()
    on_install: OnInstall = OnInstall.REMATCH


def build_policy(data: Any, where: str, members: frozenset[str] = frozenset()) -> Policy:
    """The policy that a loaded document describes; `where` names it in messages. `members`, if given, are the names
    that exceptions may use. Raises `FileError` with all problems."""
    steps = building(data, where, members)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(Policy, end.value)


def building(data: Any, where: str, members: frozenset[str] = frozenset()) -> Generator[None, None, Policy]:
    """`build_policy` in steps of about a millisecond, between which a member forwards packets; returns the policy."""
    return _Building(where, members).steps(data)


class _Building:
    """One reading of a rule base: what is in order is kept, so that names are checked although other parts failed."""

    def __init__(self, where: str, members: frozenset[str]) -> None:
        self._where, self._members = where, members
        self._problems: list[str] = []
        self._networks: dict[str, list[IPv4Network | IPv6Network]] = {}
        self._services: dict[str, Service] = dict(PREDEFINED)
        self._ranges: dict[tuple[str, ...], tuple[AddressRange, ...]] = {}
        """Many rules name the same: each list of names is resolved once."""
        self._covered: dict[tuple[str, ...], tuple[Service, ...]] = {}
        self._known_networks = self._known_services = ""

    def steps(self, data: Any) -> Generator[None, None, Policy]:
        model: PolicyModel | None = None
        try:
            model = validate(PolicyModel, data, self._where)
        except FileError as error:
            self._problems += error.problems
        sections = data if isinstance(data, dict) else {}
        for section in ("networks", "hosts", "services"):
            yield from self._objects(section, sections.get(section))
        self._known_networks, self._known_services = listed(self._networks), listed(self._services)
        rules: list[Rule] = []
        listing = sections.get("rules")
        for index, raw in enumerate(listing if isinstance(listing, list) else ()):
            if index % STEP == 0:
                yield
            if index < RULES_MAX and (rule := self._rule(index, raw)):
                rules.append(rule)
        if model is not None:
            self._exceptions(model)
        if self._problems or model is None:
            raise FileError(self._problems)
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

    def _say(self, key: str, what: str) -> None:
        self._problems.append(f"{self._where}: {key}: {what}")

    def _take(self, kind: TypeAdapter[T], raw: Any, key: str) -> T | None:
        try:
            return kind.validate_python(raw)
        except ValidationError as error:
            for part, what in slips(error, raw):
                self._say(f"{key}{part}" if part.startswith("[") or not part else f"{key}.{part}", what)
            return None

    def _objects(self, section: str, objects: Any) -> Iterator[None]:
        for index, (name, raw) in enumerate(objects.items() if isinstance(objects, dict) else ()):
            if index % STEP == 0:
                yield
            key = f"{section}.{name}"
            if self._take(_SERVICE_NAME if section == "services" else _NAME, name, key) is None:
                continue
            if name == ANY:
                self._say(key, f"{ANY} stands for everything; choose another name")
            elif section == "services":
                service = self._take(_SERVICE, raw, key)
                # What is wrong in itself is declared all the same: rules may name it.
                self._services[name] = ANY_SERVICE if service is None else self._service(name, service)
            else:
                if section == "hosts" and name in self._networks:
                    self._say(key, "a network has this name, too; give each its own")
                self._networks[name] = self._take(_NETWORKS, raw, key) or []

    def _rule(self, index: int, raw: Any) -> Rule | None:
        key = f"rules[{index}]"
        rule = self._take(_RULE, raw, key)
        names = [rule.source, rule.destination, rule.service] if rule else list(map(_names_in(raw), _NAMING))
        sources = self._ranges_of(names[0], f"{key}.source")
        destinations = self._ranges_of(names[1], f"{key}.destination")
        services = self._services_of(names[2], f"{key}.service")
        if rule is None:
            return None
        name = rule.name or f"rule {index + 1}"
        return Rule(index + 1, name, rule.action, sources, destinations, services, rule.track == "log")

    def _ranges_of(self, names: list[str], key: str) -> tuple[AddressRange, ...]:
        asked = tuple(names)
        found = self._ranges.get(asked)
        if found is None:
            before = len(self._problems)
            ranges = tuple(one for name in names if name != ANY for one in self._range(name, key))
            found = () if ANY in names else ranges
            if len(self._problems) == before:
                self._ranges[asked] = found
        return found

    def _range(self, name: str, key: str) -> list[AddressRange]:
        networks = self._networks.get(name)
        if networks is None:
            try:
                networks = [parse_network(name)]
            except ValueError:
                self._say(key, f"no network or host {shown(name)}; known are {self._known_networks}, any")
                return []
        return [AddressRange(net.max_prefixlen // 8, int(net.network_address), int(net.netmask)) for net in networks]

    def _services_of(self, names: list[str], key: str) -> tuple[Service, ...]:
        asked = tuple(names)
        found = self._covered.get(asked)
        if found is None:
            missing = [name for name in names if name not in self._services]
            for name in missing:
                self._say(key, f"no service {shown(name)}; known are {self._known_services}")
            found = () if ANY in names else tuple(self._services[name] for name in names if name in self._services)
            if not missing:
                self._covered[asked] = found
        return found

    def _exceptions(self, model: PolicyModel) -> None:
        for name in model.out_of_state.exceptions:
            if self._members and name not in self._members:
                self._say("out_of_state.exceptions", f"no member {shown(name)}; members are {listed(self._members)}")

    def _service(self, name: str, model: ServiceModel) -> Service:
        key = f"services.{name}"
        protocol = _PROTOCOLS[model.protocol] if isinstance(model.protocol, str) else model.protocol
        if model.port and protocol not in (TCP, UDP):
            self._say(f"{key}.port", "only tcp and udp have ports")
        if model.icmp and protocol != ICMP:
            self._say(f"{key}.icmp", "only for protocol icmp")
        if model.synchronise_after and protocol != TCP:
            self._say(f"{key}.synchronise_after", "only for tcp")
        if model.synchronise_after and not model.synchronise:
            self._say(key, "synchronise: false and synchronise_after exclude each other")
        if model.inspect and (protocol != INSPECTED_PROTOCOLS[model.inspect] or not model.port):
            needed = "tcp" if INSPECTED_PROTOCOLS[model.inspect] == TCP else "udp"
            self._say(f"{key}.inspect", f"{model.inspect} needs protocol {needed} and a port")
        ports = (model.port,) if model.port else ()
        sync_after = (model.synchronise_after or 0.0) if model.synchronise else inf
        inspect = model.inspect or ""
        return Service(name, protocol, ports, model.icmp == "echo", model.session_timeout, sync_after, inspect)


_NAME, _SERVICE_NAME = TypeAdapter(Name), TypeAdapter(ServiceName)
_NETWORKS, _SERVICE, _RULE = TypeAdapter(Networks), TypeAdapter(ServiceModel), TypeAdapter(RuleModel)
_NAMING = ("source", "destination", "service")


def _names_in(rule: Any) -> Callable[[str], list[str]]:
    """The names in a rule whose shape is wrong elsewhere, as far as they can be seen."""

    def under(key: str) -> list[str]:
        value = one_or_many(rule.get(key)) if isinstance(rule, dict) else None
        return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []

    return under


__all__ = ["PolicyModel", "build_policy", "building"]
