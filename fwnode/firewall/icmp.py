"""What is special about ICMP when a packet is decided: exchanges that have a direction, and errors about packets.

An error comes from anybody on the way, so nothing in its own addresses tells a true one but its receiver: that is the
sender of the packet that it quotes. Pure, as its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable

from .packet import ECHO_REPLY, ECHO_REQUEST, ICMP, ICMPV6, Packet, split_key
from .table import ConnectionTable

LINK_ONLY = {ICMP: frozenset({5}), ICMPV6: frozenset({133, 134, 135, 136, 137})}
"""Redirects, and neighbour discovery, which says them in IPv6: hosts take them from the routers of their own link alone
(RFC 1122, 3.2.2.2; RFC 4861), so no router passes them on."""


def runs_that_way(connection_key: bytes, key: bytes, icmp_type: int) -> bool:
    """Whether a connection has packets of this key and ICMP type (-1: none). Of an echo exchange, requests run from
    the initiator alone and replies to it; everything else runs both ways."""
    protocol = connection_key[0]
    if icmp_type < 0 or protocol not in ECHO_REQUEST:
        return True
    return icmp_type == (ECHO_REQUEST if key == connection_key else ECHO_REPLY)[protocol]


def objection(error: Packet, tables: Iterable[ConnectionTable], now: float) -> str:
    """Why this ICMP error is none that a known connection calls for; empty where one does."""
    known = error.about and any(_has_sent(table, error, now) for table in tables)
    if not known:
        return "ICMP error about no known connection"
    if split_key(error.about)[1] != error.destination:
        return "ICMP error to a host that has not sent the packet it is about"
    return ""


def _has_sent(table: ConnectionTable, error: Packet, now: float) -> bool:
    connection = table.find(error.about)
    if connection is None or table.is_over(connection, now):
        return False
    return runs_that_way(connection.key, error.about, error.about_icmp_type)
