"""What passes between this member and each peer on the users' networks, in each direction.

An interface that is up may pass nothing, and hosts on that side are then cut off, although every member is well and
hears the others over its other networks. Both ends find out as on the sync network (`sync_network`) and say so. Which
of the two is at fault does not follow from it, so roles do not depend on it. Pure; driven by `membership`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from fwnode.cluster.sync_network import Reach, ReachChanged, SyncNetwork


class UserNetworks:
    """The networks besides the sync network, by the names of the interfaces, which are alike at all members."""

    def __init__(self, names: Iterable[str], peers: Collection[int], now: float) -> None:
        self._networks = {name: SyncNetwork(peers, now) for name in names}

    def heard(self, name: str, peer: int, now: float) -> None:
        """A datagram of this peer came over this network."""
        if name in self._networks:
            self._networks[name].heard(peer, now)

    def told(self, peer: int, number: int, unheard: Collection[str], now: float) -> None:
        """A heartbeat says on which networks the peer hears whom not; `number` is this member's own."""
        for name, network in self._networks.items():
            network.told(peer, _entry(name, number) not in unheard, now)

    def forget(self, peer: int, now: float) -> None:
        """The peer has gone or come, or it is known why nothing passes."""
        for network in self._networks.values():
            network.forget(peer, now)

    def unheard(self, peers: Iterable[int], now: float, silence_s: float) -> list[str]:
        """What a heartbeat says of peers that are there: on which network which of them is not heard."""
        return [
            _entry(name, peer)
            for name, network in self._networks.items()
            for peer in set(peers).difference(network.hears(now, silence_s))
        ]

    def look(self, peer: int, now: float, silence_s: float, patience_s: float) -> Iterator[ReachChanged]:
        """Decide anew about a peer that is there."""
        for name, network in self._networks.items():
            changed = network.look(peer, now, silence_s, patience_s)
            if changed is not None:
                yield ReachChanged(peer, changed.reach, name)

    def broken(self, name: str) -> dict[int, Reach]:
        """Peers between which and this member not everything passes on this network."""
        network = self._networks.get(name)
        return {} if network is None else {peer: reach for peer, reach in network.reaches() if not reach.whole}


def _entry(name: str, peer: int) -> str:
    return f"{peer} {name}"
