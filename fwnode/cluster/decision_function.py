"""The decision function of load sharing: which member processes a packet. Pure.

Every member computes the same answer from the packet's connection key and the set of active members. A key falls into
one of `SLOTS` slots; a slot belongs to the active member that wins its draw (rendezvous hashing), so that when a member
leaves or joins, the slots that it gives up or gets move, and no others.

Symmetric: both directions of a connection fall into the same slot. Asymmetric: the direction from the larger address
and port to the smaller goes to the next active member, so that with two or more members both directions are on
different ones. That is what a network with several ways out does to a cluster, and where flush and ack is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from ipaddress import IPv4Interface, IPv6Interface
from zlib import crc32

SLOTS = 1024
"""Enough for shares that are even within a few percent, and few enough to be drawn anew in some milliseconds."""
HANDED_ON = 0x100
"""Mark of a packet that the pivot hands on; the low byte is the number of the member that it goes to."""


def slot_of(key: bytes) -> int:
    """The slot of a connection key; the same for both of its directions."""
    half = (len(key) - 5) // 2
    one = crc32(key[-4:-2], crc32(key[1 : 1 + half]))
    other = crc32(key[-2:], crc32(key[1 + half : 1 + 2 * half]))
    mixed = one ^ other
    return (mixed ^ mixed >> 10 ^ mixed >> 20) & (SLOTS - 1)


def runs_back(key: bytes) -> bool:
    """Whether the packet goes from the larger address and port to the smaller: one of the two directions, always."""
    half = (len(key) - 5) // 2
    return (key[1 : 1 + half], key[-4:-2]) > (key[1 + half : 1 + 2 * half], key[-2:])


class DecisionFunction:
    """Who processes what, as member `number` sees it. With no active member, nobody does."""

    def __init__(self, number: int, *, asymmetric: bool = False, all_receive: bool = True) -> None:
        self.number = number
        self.asymmetric = asymmetric
        self.all_receive = all_receive
        """Multicast: every member receives every packet, those to the virtual address itself included."""
        self.active: tuple[int, ...] = ()
        self._owners: list[int] = [0] * SLOTS
        self._following: dict[int, int] = {}

    def set_active(self, members: Iterable[int]) -> bool:
        """The active members are these now; False when that is nothing new."""
        active = tuple(sorted(members))
        if active == self.active:
            return False
        self.active = active
        self._following = dict(zip(active, active[1:] + active[:1], strict=True))
        self._owners = [_winner(slot, active) for slot in range(SLOTS)]
        return True

    def member_of(self, key: bytes) -> int:
        """The member that processes packets of this key; 0 for none."""
        owner = self._owners[slot_of(key)]
        if self.asymmetric and owner and runs_back(key):
            return self._following[owner]
        return owner

    def is_mine(self, key: bytes) -> bool:
        """Whether this member processes packets of this key."""
        return self.member_of(key) == self.number

    def share(self, member: int) -> int:
        """Percent of the slots that are the member's; the active members' shares add up to 100."""
        if member not in self.active:
            return 0
        before = sum(self._owners.count(other) for other in self.active if other < member)
        return round((before + self._owners.count(member)) * 100 / SLOTS) - round(before * 100 / SLOTS)

    @property
    def pivot(self) -> int:
        """The active member with the lowest number; 0 for none."""
        return self.active[0] if self.active else 0


def _winner(slot: int, members: tuple[int, ...]) -> int:
    number = slot.to_bytes(2, "big")
    draws = [(blake2b(number + bytes((member,)), digest_size=8).digest(), member) for member in members]
    return max(draws, default=(b"", 0))[1]


def multicast_mac(virtual: Sequence[IPv4Interface | IPv6Interface]) -> bytes:
    """The cluster's MAC on an interface: of its first IPv4 virtual address as RFC 1112 maps groups, or of the IPv6 one
    as RFC 2464 does."""
    for address in virtual:
        if address.version == 4:
            low = int(address.ip) & 0x7F_FFFF
            return b"\x01\x00\x5e" + low.to_bytes(3, "big")
    return b"\x33\x33" + virtual[0].ip.packed[-4:]
