"""What a member's process asks of the machine that it runs on, in the simulated world. No implementation here: that is
`labs.simulation.member_machine`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from fwnode.configuration import MemberConfig
from labs.simulation.loop import World
from labs.simulation.stack import Stack
from labs.simulation.wires import Interface, Neighbourly


class Kernel(Protocol):
    """The machine, as its process sees it."""

    world: World
    stack: Stack
    interfaces: dict[str, Interface]
    virtual: dict[str, list[bytes]]
    """The virtual addresses by interface."""
    offset_s: float
    drift: float

    def wire(self) -> float:
        """The monotonic clock."""

    def world_time(self, wire: float) -> float:
        """When that clock shows this."""

    def date(self) -> float:
        """The wall clock."""

    # -- packets

    def go_on(self, packet: bytes, hook: int, destination: bytes, when: float) -> None:
        """A packet was accepted, and goes on from its hook at this time."""

    def hand_on(self, packet: bytes, member: int, interface: Interface | None, when: float) -> None:
        """It is another member's share (load sharing by unicast)."""

    def send_beneath(self, packet: bytes) -> None:
        """A packet of the machine's own that no rule base is asked about."""

    def send_datagram(self, peer: int, interface: str, data: bytes) -> None: ...

    # -- the virtual addresses

    def tell_virtual(self, interface: Interface, address: bytes, asked: Neighbourly | None) -> None: ...
    def ask_virtual(self, interface: Interface, address: bytes) -> None: ...

    # -- the process itself

    def ended(self, how: str) -> None: ...
    def told(self, event: Mapping[str, Any]) -> None: ...
    def keep_policy(self, config: MemberConfig, policy: dict[str, Any], file: str, at: float) -> None: ...
