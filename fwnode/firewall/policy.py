"""The rule base: networks, services, ordered rules, implied rules, and matching a packet against them.

Matching is first match wins, an unmatched packet meets the implied cleanup rule (drop). Rules come from a file through
`fwnode.policy_file`; this module knows nothing of files. Matching looks at the direction of the packet it is given:
who calls decides that the first packet seen sets a connection's direction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum

from .packet import ECHO_REQUEST, ICMP, ICMPV6, TCP, UDP, split_key


class Action(Enum):
    """What a rule says of a packet."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"


class OnInstall(Enum):
    """What happens to the connections in the table when a policy is installed."""

    REMATCH = "rematch"
    KEEP = "keep"


class Implied(IntEnum):
    """Rule numbers of what no rule of the file says; a rule's own number starts at 1."""

    CLEANUP = 0
    CONTROL_CONNECTIONS = -1
    OUTGOING = -2


@dataclass(frozen=True)
class AddressRange:
    """An address range of one family; a host is a range of one address."""

    size: int
    """4 or 16: bytes of an address."""
    address: int
    mask: int


@dataclass(frozen=True)
class Service:
    """`protocol` None is any. `ports` are inclusive ranges of destination ports, empty for all.
    `session_timeout` in seconds overrides the parameter of the protocol. `sync_after`: peers hear of its connections
    when they are so many seconds old; infinity: never. `inspect` names how its connections are inspected for data
    connections that they announce, empty for not."""

    name: str
    protocol: int | None = None
    ports: tuple[tuple[int, int], ...] = ()
    echo_only: bool = False
    session_timeout: float | None = None
    sync_after: float = 0.0
    inspect: str = ""

    def covers(self, protocol: int, port: int, icmp_type: int) -> bool:
        """Whether a packet of this protocol, destination port and ICMP type (-1: none) is of this service."""
        if self.protocol is None:
            return True
        if protocol != self.protocol and not (self.protocol == ICMP and protocol == ICMPV6):
            return False
        if self.echo_only:
            return icmp_type == ECHO_REQUEST[protocol]
        return not self.ports or any(low <= port <= high for low, high in self.ports)


ANY_SERVICE = Service("any")
FW1 = Service("FW1", TCP, ((256, 256),))

PREDEFINED = {
    service.name: service
    for service in (
        ANY_SERVICE,
        FW1,
        Service("ftp", TCP, ((21, 21),), inspect="ftp"),
        Service("ssh", TCP, ((22, 22),)),
        Service("telnet", TCP, ((23, 23),)),
        Service("smtp", TCP, ((25, 25),)),
        Service("http", TCP, ((80, 80),)),
        Service("https", TCP, ((443, 443),)),
        Service("oracle", TCP, ((1521, 1521),)),
        Service("mysql", TCP, ((3306, 3306),)),
        Service("postgresql", TCP, ((5432, 5432),)),
        Service("iperf3", TCP, ((5201, 5201),)),
        Service("dns", UDP, ((53, 53),)),
        Service("tftp", UDP, ((69, 69),), inspect="tftp"),
        Service("ntp", UDP, ((123, 123),)),
        # A telephone rings longer than a UDP session lasts; the product, too, has a timeout of its own for SIP.
        Service("sip", UDP, ((5060, 5060),), session_timeout=180.0, inspect="sip"),
        Service("tcp", TCP),
        Service("udp", UDP),
        Service("icmp", ICMP),
        Service("echo-request", ICMP, echo_only=True),
    )
}


@dataclass(frozen=True)
class Rule:
    """Empty `sources` or `destinations` mean any; so does an empty `services`."""

    number: int
    name: str
    action: Action
    sources: tuple[AddressRange, ...] = ()
    destinations: tuple[AddressRange, ...] = ()
    services: tuple[Service, ...] = ()
    log: bool = False


@dataclass(frozen=True)
class Match:
    """What the rule base says about a new connection."""

    action: Action
    rule: int
    rule_name: str
    service: str
    session_timeout: float | None
    log: bool
    sync_after: float = 0.0


MATCH_CACHE_MAX = 65_536
"""Remembered answers of a policy; the cache starts again when it is full."""


@dataclass
class Policy:
    """One installed rule base. Members named in `out_of_state_exceptions` do not drop out-of-state TCP."""

    name: str
    rules: tuple[Rule, ...] = ()
    control_connections: bool = True
    outgoing: bool = True
    icmp_errors: bool = True
    drop_out_of_state_tcp: bool = True
    out_of_state_exceptions: frozenset[str] = frozenset()
    on_install: OnInstall = OnInstall.REMATCH
    inspected: dict[str, Service] = field(init=False, repr=False)
    """By name: the services of accepting rules whose control connections are inspected."""
    _answers: dict[tuple[bytes, int], Match] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.inspected = {}
        for rule in self.rules:
            if rule.action is Action.ACCEPT:
                # A rule for any service names a connection by the predefined service that fits.
                named = [s for s in rule.services if s is not ANY_SERVICE]
                everything = PREDEFINED.values() if len(named) < len(rule.services) or not rule.services else ()
                self.inspected.update({s.name: s for s in (*everything, *named) if s.inspect})

    def allows_out_of_state(self, member: str) -> bool:
        """Whether this member accepts out-of-state TCP where the rule base accepts the packet."""
        return not self.drop_out_of_state_tcp or member in self.out_of_state_exceptions

    def match(self, key: bytes, icmp_type: int) -> Match:
        """The answer for a connection that starts in the direction of `key`."""
        # The source port never decides, so it is left out of what the answer is remembered by.
        question = (key[:-4] + key[-2:], icmp_type)
        answer = self._answers.get(question)
        if answer is None:
            if len(self._answers) >= MATCH_CACHE_MAX:
                self._answers.clear()
            answer = self._answers[question] = self._search(key, icmp_type)
        return answer

    def _search(self, key: bytes, icmp_type: int) -> Match:
        protocol, source, destination, _, port = split_key(key)
        for rule in self.rules:
            if not (_covers(rule.sources, source) and _covers(rule.destinations, destination)):
                continue
            service = next((s for s in rule.services or (ANY_SERVICE,) if s.covers(protocol, port, icmp_type)), None)
            if service is None:
                continue
            named = service if service is not ANY_SERVICE else _name_service(protocol, port, icmp_type)
            timeout = service.session_timeout
            return Match(rule.action, rule.number, rule.name, named.name, timeout, rule.log, service.sync_after)
        name = _name_service(protocol, port, icmp_type).name
        return Match(Action.DROP, Implied.CLEANUP, "implied cleanup", name, None, False)


def _covers(networks: tuple[AddressRange, ...], address: bytes) -> bool:
    if not networks:
        return True
    number, size = int.from_bytes(address), len(address)
    return any(network.size == size and number & network.mask == network.address for network in networks)


def _name_service(protocol: int, port: int, icmp_type: int) -> Service:
    """The predefined service that fits best, for display."""
    fitting = (s for s in PREDEFINED.values() if s.protocol is not None and s.covers(protocol, port, icmp_type))
    return max(fitting, key=lambda s: bool(s.ports) + s.echo_only, default=ANY_SERVICE)
