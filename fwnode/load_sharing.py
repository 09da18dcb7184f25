"""A member's load sharing: the decision function between the cluster and the firewall. Pure.

Keeps the set of active members, says whether this one answers for the virtual addresses, and gives the pivot's packets
their verdicts. Which states members have is the cluster's business, what may pass the firewall's, and what the kernel
must do for it `fwnode.datapath.sharing_rules`'s.
"""

from __future__ import annotations

from collections.abc import Iterable

from fwnode.cluster.decision_function import HANDED_ON, DecisionFunction
from fwnode.configuration import ClusterModel
from fwnode.firewall.packet import MalformedPacket, parse
from fwnode.firewall.sharing_key import SharingKeys
from fwnode.firewall.verdict import ACCEPT, Verdict


class LoadSharing:
    """For member `number` of a cluster in one of the load-sharing modes."""

    def __init__(self, cluster: ClusterModel, number: int) -> None:
        self._number = number
        self._keys = SharingKeys()
        self.hands_on = cluster.hands_on
        self.decision = DecisionFunction(
            number, asymmetric=cluster.sharing == "asymmetric", all_receive=cluster.load_sharing and not self.hands_on
        )

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
