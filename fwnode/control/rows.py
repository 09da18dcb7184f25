"""The rows of `tab`: a connection, or one that was announced, as people and programs read it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from fwnode.firewall.announced import AnnouncedConnection
from fwnode.firewall.audience import Audience
from fwnode.firewall.connection import Connection
from fwnode.firewall.packet import TCP, describe_key, split_key


def _ends(key: bytes) -> dict[str, Any]:
    protocol, source, destination, source_port, destination_port = split_key(key)
    return {
        "source": str(ip_address(source)),
        "source_port": source_port,
        "destination": str(ip_address(destination)),
        "destination_port": destination_port,
        "protocol": protocol,
    }


def expected_row(announced: AnnouncedConnection, now: float, audience: Audience) -> dict[str, Any]:
    """A data connection that has not begun; its source port 0 is any."""
    return {
        **_ends(announced.key),
        "state": "",
        "rule": announced.rule,
        "service": announced.service,
        "learned": False,
        "copy": not announced.owned,
        "synchronised": not announced.owned or (announced.told and audience.listening),
        "data_of": describe_key(announced.parent),
        "ttl_s": round(announced.expires - now, 1),
        "timeout_s": announced.lifetime,
        "past_end_s": 0.0,
    }


def row(connection: Connection, now: float, audience: Audience) -> dict[str, Any]:
    """A connection, with what is left of it at the lab time `now`."""
    return {
        **_ends(connection.key),
        "state": connection.state.name if connection.key[0] == TCP else "",
        "rule": connection.rule,
        "service": connection.service,
        "learned": connection.learned,
        # It came from a peer, or a peer that listens now has heard of it.
        "synchronised": not connection.owned or audience.knows(connection.told),
        "copy": not connection.owned,
        "data_of": describe_key(connection.parent) if connection.parent else "",
        "ttl_s": round(min(connection.left(now), connection.timeout), 1),
        "timeout_s": connection.timeout,
        # A copy is kept a little longer than its owner said: a word of it may be on its way.
        "past_end_s": 0.0 if connection.owned else round(max(0.0, now - connection.expires), 1),
    }
