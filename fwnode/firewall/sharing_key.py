"""What the decision function of load sharing looks at in a packet: the connection key that it is decided by.

A fragment after the first carries no ports. It follows its first fragment, so that fragments and whole packets of a
connection come to one member: every member that decides sees all fragments. One whose first fragment was not seen goes
by its addresses, to a member that will drop it. An ICMP error follows the packet that it is about. Pure.
"""

from __future__ import annotations

from collections import OrderedDict

from .packet import Packet

FRAGMENTED_MAX = 16_384
"""Datagrams whose first fragment is remembered, about 3 MB; the oldest makes room. Lab's own: many more than the
firewall follows, because no rule is asked here, and those that are refused take places, too."""


class SharingKeys:
    """Remembers the first fragments; see the module docstring."""

    def __init__(self) -> None:
        self._firsts: OrderedDict[bytes, bytes] = OrderedDict()

    def of(self, packet: Packet) -> bytes:
        """The connection key by which this packet is decided."""
        if packet.about:
            return packet.about
        if not packet.fragment:
            return packet.key
        if not packet.first_fragment:
            return self._firsts.get(packet.fragment, packet.key)
        self._firsts.pop(packet.fragment, None)
        while len(self._firsts) >= FRAGMENTED_MAX:
            self._firsts.popitem(last=False)
        self._firsts[packet.fragment] = packet.key
        return packet.key
