"""Faults of simulated wires, by the names and with the arguments that `labs.network.lab` gives them.

Links are named NODE-SWITCH, and a switch by its name means all of its links. What only this world can do (jitter,
duplication, reordering) is `disturb`.
"""

from __future__ import annotations

from collections.abc import Sequence

from labs.network.errors import LabError
from labs.quantities import Way, format_rate
from labs.simulation.simulated_network import SimulatedNetwork
from labs.simulation.wires import Impairment, Interface

_PROTOCOLS = {"tcp": 6, "udp": 17}


class SimulatedFaults:
    """The faults of one network. Raises `LabError` for a link or service that is not there."""

    def __init__(self, network: SimulatedNetwork) -> None:
        self._network = network
        self._cut: set[str] = set()
        """Links that were cut; only asked for members."""
        self._dark: set[str] = set()
        """Links of machines without power."""
        self._blocked: dict[tuple[str, ...], list[tuple[str, frozenset[bytes], int, int]]] = {}

    def links_of(self, link: str, way: Way = "both") -> list[str]:
        """The links that a name means."""
        topology = self._network.topology
        links = topology.links(link)
        if not links:
            raise LabError(f"there is no link or switch {link}; switches: {', '.join(topology.switches)}; "
                           f"links: {', '.join(topology.links())}")  # fmt: skip
        if way != "both" and link in topology.switches:
            raise LabError(f"{link} is a switch and has no way {way}; name a link, such as {links[-1]}")
        return links

    def active(self) -> list[str]:
        """What is done to the wires now, as words: `lose fw2-sync`."""
        words: list[str] = []
        for name, link in self._network.links.items():
            ways = (("in", link.inward), ("out", link.outward))
            words += [f"cut {way} {name}" for way, at in ways if at.cut]
            words += [f"{deed} {name}" for deed in ("lose", "delay") if any(_has(at, deed) for _, at in ways)]
            if link.rate:
                words.append(f"limit {name} to {format_rate(link.rate)}")
        return words + [f"block {_service(service)}" for service in self._blocked]

    # -- up and down ----------------------------------------------------------------------------------------------

    def cut(self, link: str, way: Way = "both") -> None:
        """Take a link down, or every link of a switch. One way: it stays up, and no IP packet passes that way."""
        links = self.links_of(link, way)
        if way == "both":
            self._cut.update(links)
            self._apply(links)
            return
        for name in links:
            for at in self._ways(name, way, whole_switch=False):
                at.cut = True
            self._network.links[name].changed()
            self._network.world.tell(name, f"cut {way}")

    def restore(self, link: str) -> None:
        """Undo `cut`, whichever way."""
        links = self.links_of(link)
        self._cut.difference_update(links)
        for name in links:
            for at in self._ways(name, "both", whole_switch=False):
                at.cut = False
            self._network.links[name].changed()
        self._apply(links)

    def power(self, node: str, on: bool) -> None:
        """Every link of a machine goes dark, or lights up again unless it was cut besides."""
        links = self._network.topology.links(node)
        if on:
            self._dark.difference_update(links)
        else:
            self._dark.update(links)
        self._apply(links)

    def _apply(self, links: Sequence[str]) -> None:
        for name in links:
            self._network.links[name].set_up(name not in self._cut and name not in self._dark)

    # -- rate, loss, delay ----------------------------------------------------------------------------------------

    def limit(self, link: str, rate: int) -> None:
        """So many bits a second, in both directions; a short queue, then drops."""
        for name in self.links_of(link):
            self._network.links[name].limit(rate)

    def unlimit(self, link: str) -> None:
        for name in self.links_of(link):
            self._network.links[name].limit(None)

    def lose(self, link: str, share: float, way: Way = "both") -> None:
        """Lose packets at random. Over a switch by its name, each packet is lost with this probability once."""
        links = self.links_of(link, way)
        self._clear(link, loss=0.0)
        self._change(links, way, link in self._network.topology.switches, {"loss": share})

    def unlose(self, link: str) -> None:
        self._clear(link, loss=0.0)

    def delay(self, link: str, by_s: float, way: Way = "both") -> None:
        """Each packet comes `by_s` later, in order."""
        links = self.links_of(link, way)
        self.undelay(link)
        self._change(links, way, link in self._network.topology.switches, {"delay_s": by_s})

    def undelay(self, link: str) -> None:
        """What is kept back goes on at once."""
        self._clear(link, delay_s=0.0)
        for name in self.links_of(link):
            self._network.links[name].let_go()

    def disturb(self, link: str, *, jitter_s: float = 0.0, duplication: float = 0.0, reordering: float = 0.0) -> None:
        """Packets come up to `jitter_s` later, twice, or after others: shares from 0 to 1. All 0: no more of it."""
        self._clear(link, jitter_s=0.0, duplication=0.0, reordering=0.0)
        values = {"jitter_s": jitter_s, "duplication": duplication, "reordering": reordering}
        self._change(self.links_of(link), "both", link in self._network.topology.switches, values)

    def _clear(self, link: str, **values: float) -> None:
        self._change(self.links_of(link), "both", False, values)

    def _change(self, links: Sequence[str], way: Way, whole_switch: bool, values: dict[str, float]) -> None:
        for name in links:
            for at in self._ways(name, way, whole_switch):
                for key, value in values.items():
                    setattr(at, key, value)
            self._network.links[name].changed()

    def _ways(self, name: str, way: Way, whole_switch: bool) -> list[Impairment]:
        """Of a whole switch only the inward side: what enters a node there has left another one."""
        link: Interface = self._network.links[name]
        if whole_switch or way == "in":
            return [link.inward]
        return [link.outward] if way == "out" else [link.inward, link.outward]

    # -- services -------------------------------------------------------------------------------------------------

    def block(self, between: Sequence[str], protocol: str, port: int) -> None:
        """Drop, in both members, what the other one sends to or from this service."""
        service = (*sorted(between), protocol, str(port))
        self._forget_block(service)
        rules = []
        for member, other in (tuple(between), tuple(reversed(between))):
            interfaces = self._network.topology.interfaces(other)
            addresses = frozenset(a.ip.packed for own in interfaces.values() for a in own)
            rule = (addresses, _PROTOCOLS[protocol], port)
            self._network.machines[member].blocked.append(rule)
            rules.append((member, *rule))
        self._blocked[service] = rules

    def unblock(self, between: Sequence[str], protocol: str, port: int) -> None:
        service = (*sorted(between), protocol, str(port))
        if service not in self._blocked:
            raise LabError(f"{_service(service)} is not blocked")
        self._forget_block(service)

    def _forget_block(self, service: tuple[str, ...]) -> None:
        for member, addresses, protocol, port in self._blocked.pop(service, []):
            self._network.machines[member].blocked.remove((addresses, protocol, port))


def _has(way: Impairment, deed: str) -> bool:
    return bool(way.loss if deed == "lose" else way.delay_s)


def _service(service: tuple[str, ...]) -> str:
    one, other, protocol, port = service
    return f"{protocol}/{port} between {one} and {other}"
