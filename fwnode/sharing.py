"""A member's load sharing: the decision function between the cluster, the firewall and the kernel.

Prepares the kernel for the mode, keeps the set of active members, and gives the pivot's queue its verdicts. Which
states members have is the cluster's business, what may pass the firewall's.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from fwnode.cluster.sharing import Sharing
from fwnode.configuration import InterfaceModel, MemberConfig
from fwnode.datapath.sharing import HANDED_ON, SharedInterface, accept_multicast, hand_on, multicast_mac, route
from fwnode.firewall.packet import MalformedPacket, parse
from fwnode.firewall.sharing_key import SharingKeys
from fwnode.firewall.verdict import ACCEPT, Verdict

ROUTES_AGAIN_S = 1.0
"""Wall seconds after which routes that could not be made are tried again: each try takes some milliseconds."""
MULTICAST, UNICAST = "load-sharing-multicast", "load-sharing-unicast"


class LoadSharing:
    """For a cluster in one of the load-sharing modes. Raises `DivertError` where the kernel cannot do it."""

    def __init__(self, config: MemberConfig) -> None:
        cluster = config.cluster
        self._number = config.number
        self._keys = SharingKeys()
        self.hands_on = cluster.mode == UNICAST
        """One member, the pivot, receives everything; its queue `SHARING_QUEUE_NUMBER` asks `decide_whose`."""
        self.decision = Sharing(
            config.number, asymmetric=cluster.sharing == "asymmetric", all_receive=cluster.mode == MULTICAST
        )
        shared = [interface for interface in cluster.interfaces if interface.virtual]
        self._routes_due_at = inf
        self.macs: dict[str, bytes] = {}
        """The cluster's MAC by interface, where all members receive."""
        self._shared = [self._others(interface, config) for interface in shared]
        if self.hands_on:
            hand_on(self._shared)
        else:
            self.macs = {interface.kernel_name: multicast_mac(interface.virtual) for interface in shared}
            accept_multicast(self.macs)

    @staticmethod
    def _others(interface: InterfaceModel, config: MemberConfig) -> SharedInterface:
        addresses = {number: interface.members[name] for number, name in config.peers.items()}
        return SharedInterface(interface.kernel_name, addresses)

    def interface_is_back(self) -> None:
        """An interface was down, and the kernel has taken its routes away: `restore_routes` is due."""
        if self.hands_on:
            self._routes_due_at = -inf

    def restore_routes(self, now: float) -> None:
        """Make the routes anew if that is due. Raises `DivertError` where the kernel refuses one, as it does while an
        address is missing; it is tried again after a while."""
        if now < self._routes_due_at:
            return
        self._routes_due_at = now + ROUTES_AGAIN_S
        for family in (4, 6):
            route(family, self._shared)
        self._routes_due_at = inf

    def set_active(self, members: Iterable[int]) -> bool:
        """These share the packets out among themselves now; False when that is nothing new."""
        return self.decision.set_active(members)

    @property
    def answers(self) -> bool:
        """Whether this member, if it is active, answers for the virtual addresses."""
        return not self.hands_on or self.decision.pivot == self._number

    def decide_whose(self, data: bytes, _hook: int, _now: float) -> Verdict:
        """Before routing: what is another member's gets the mark that takes it there."""
        if self.decision.pivot != self._number:
            return ACCEPT
        try:
            member = self.decision.member_of(self._keys.of(parse(data)))
        except MalformedPacket:
            return ACCEPT  # it meets its end where this member forwards
        return Verdict(True, mark=HANDED_ON | member) if member not in (0, self._number) else ACCEPT
