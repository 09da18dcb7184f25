"""What is special about data connections when a packet is decided: they were announced, and no rule is asked for them.

Between `inspection` (what a packet says), `announced` (what was said) and the rule base. Pure, as its neighbours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from .announced import AnnouncedConnection
from .inspection import inspector
from .packet import Packet, split_key
from .policy import Action, Match, OnInstall, Policy
from .table import ConnectionTable


class Announced(NamedTuple):
    """A new connection that a control connection has announced, and what stands in for a rule of its own."""

    by: AnnouncedConnection
    match: Match


class NotInspectable(Exception):
    """A packet of an inspected service that does not hold all that would have to be looked at."""


def find_announced(table: ConnectionTable, policy: Policy, packet: Packet, now: float) -> Announced | None:
    """What was said of this new connection, as long as the rule base accepts the control connection that said it."""
    known = table.expected.find(packet.key, now)
    if known is None:
        return None
    match = policy.match(known.parent, -1)
    if match.action is not Action.ACCEPT:
        if policy.on_install is OnInstall.REMATCH:
            return None
        match = replace(match, action=Action.ACCEPT, rule=known.rule, rule_name=f"rule {known.rule}", log=False)
    return Announced(known, replace(match, service=known.service, session_timeout=None))


def inspect(table: ConnectionTable, policy: Policy, packet: Packet, data: bytes, now: float) -> bool:
    """Look into a packet that is accepted, if its connection is of an inspected service. True when it announced
    something; raises `AnnouncementRefused` when it announces what it may not, `NotInspectable` for a first fragment."""
    connection = table.find(packet.key)
    service = policy.inspected.get(connection.service) if connection is not None else None
    if connection is None or service is None or service.protocol != packet.protocol:
        return False
    if packet.fragment:
        raise NotInspectable(f"a fragment of {connection.service}, which is inspected: its rest could say anything")
    if connection.inspector is None:
        _, client, server, _, _ = split_key(connection.key)
        connection.inspector = inspector(service.inspect, client, server)
    announced = connection.inspector.see(packet, data, packet.key == connection.key)
    for found in announced:
        table.expected.announce(found, connection.key, connection.rule, now)
    return bool(announced)
