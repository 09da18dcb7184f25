"""Who forwards in a member's node: the member's queue, or one of its peers in the same kernel, over the same wires.

The member goes on running; what changes is the rules in front of it. A change is read back: a peer that was measured
by mistake with the member's queue in its way would flatter us.
"""

from __future__ import annotations

from enum import Enum

from labs.bench.node_programs import output, succeeds
from labs.network.errors import LabError
from labs.network.lab import Lab

ACTIVE, STANDBY = "fw1", "fw2"
"""The two nodes, whoever runs in them."""
QUEUE_OF_OTHERS = 77
"""Queue number of a program that is not ours; a member's own begin at 0."""


class ForwardingWay(Enum):
    """Who forwards; the value names it in the figures."""

    MEMBER = "the member"
    CONNTRACK = "the kernel with conntrack rules"
    OTHER_QUEUE = "a C program on libnetfilter_queue that accepts everything"
    PLAIN = "the kernel without a rule"


RULES: dict[ForwardingWay, list[list[str]]] = {
    ForwardingWay.MEMBER: [["-j", "FWPAIR-FORWARD"]],
    ForwardingWay.CONNTRACK: [
        ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"],
        ["-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"],
    ],
    ForwardingWay.OTHER_QUEUE: [["-j", "NFQUEUE", "--queue-num", str(QUEUE_OF_OTHERS)]],
    ForwardingWay.PLAIN: [],
}
"""What is in the chain FORWARD."""


async def take(lab: Lab, way: ForwardingWay, node: str = ACTIVE) -> None:
    """From now on packets go this way, and no other."""
    for other, rules in RULES.items():
        for rule in rules:
            wanted = other is way
            if await succeeds(lab, node, "iptables", "-w", "-C", "FORWARD", *rule) is not wanted:
                await output(lab, node, "iptables", "-w", "-A" if wanted else "-D", "FORWARD", *rule)
            if await succeeds(lab, node, "iptables", "-w", "-C", "FORWARD", *rule) is not wanted:
                raise LabError(f"{node}: the rule {' '.join(rule)} is {'not there' if wanted else 'still there'}")
