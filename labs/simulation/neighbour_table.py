"""A machine's neighbour entries, ARP and neighbour discovery alike: which MAC stands behind an address.

As Linux keeps them. An address that is not known is asked for three times, a second apart, while packets to it wait;
then they come back as unreachable. An entry is good for about half a minute, and longer where the transport confirms
it. When it is used after that, five seconds pass, then the MAC is asked itself, three times, before it is given up: so
a host whose router has gone without a word finds another answer by itself. An announcement changes an entry that is
there and makes none; any other news of another MAC is believed only where the entry has not changed within a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

from labs.simulation.loop import World
from labs.simulation.wires import BROADCAST, NEIGHBOUR, Interface, Neighbourly

PROBES = 3
PROBE_S = 1.0
"""Linux: mcast_solicit and ucast_solicit, retrans_time_ms."""
REACHABLE_S = 30.0
"""Linux: base_reachable_time_ms; each interface draws half to one and a half of it."""
DELAY_S = 5.0
"""Linux: delay_first_probe_time."""
LOCK_S = 1.0
"""Linux: locktime, ARP only."""
WAITING_MAX = 101
"""Packets that wait for an answer, by entry (Linux: unres_qlen); the oldest makes room."""

FAILED, INCOMPLETE, REACHABLE, STALE, DELAY, PROBE = range(6)


class Neighbour:
    """One entry. While `now < fresh_until`, packets go to `mac` without a question."""

    __slots__ = ("address", "changed_at", "confirmed_at", "fresh_until", "interface", "mac", "probes", "state",
                 "turn", "waiting")  # fmt: skip

    def __init__(self, address: bytes, interface: Interface) -> None:
        self.address = address
        self.interface = interface
        self.mac = b""
        self.state = FAILED
        self.fresh_until = -inf
        self.confirmed_at = -inf
        self.changed_at = -inf
        self.probes = 0
        self.turn = 0
        """Number of the timer that counts."""
        self.waiting: deque[bytes] = deque(maxlen=WAITING_MAX)


class NeighbourTable:
    """All entries of a machine. `send(packet, entry)` sends what has waited, `unreachable(packet)` hears of what cannot
    be sent."""

    def __init__(
        self, world: World, send: Callable[[bytes, Neighbour], None], unreachable: Callable[[bytes], None]
    ) -> None:
        self._world = world
        self._send = send
        self._unreachable = unreachable
        self._entries: dict[tuple[str, bytes], Neighbour] = {}
        self._reachable_s = 0.0

    def entry(self, interface: Interface, address: bytes) -> Neighbour:
        """The entry for this address behind the interface; a new one knows no MAC."""
        found = self._entries.get((interface.name, address))
        if found is None:
            found = self._entries[interface.name, address] = Neighbour(address, interface)
        return found

    def known(self) -> dict[str, str]:
        """Address on interface -> MAC, for people."""
        return {f"{entry.address.hex()} {name}": entry.mac.hex(":")
                for (name, _), entry in self._entries.items() if entry.mac}  # fmt: skip

    def use(self, entry: Neighbour, packet: bytes) -> None:
        """Send a packet to an entry that is not fresh."""
        if entry.state == INCOMPLETE:
            entry.waiting.append(packet)
        elif entry.state == FAILED:
            entry.waiting.append(packet)
            entry.state, entry.probes = INCOMPLETE, 0
            self._ask(entry)
        else:
            if entry.state in (REACHABLE, STALE):
                entry.state = DELAY
                entry.fresh_until = inf
                self._set_timer(entry, DELAY_S)
            self._send(packet, entry)

    def _set_timer(self, entry: Neighbour, after_s: float) -> None:
        entry.turn += 1
        self._world.at(self._world.now + after_s, self._on_timer, (entry, entry.turn))

    def _on_timer(self, what: tuple[Neighbour, int]) -> None:
        entry, turn = what
        if turn != entry.turn:
            return
        if entry.state == DELAY:
            if entry.confirmed_at > self._world.now - DELAY_S:
                self._is_reachable(entry, entry.confirmed_at)
                return
            entry.state, entry.probes = PROBE, 0
        if entry.probes < PROBES:
            self._ask(entry)
        else:
            self._give_up(entry)

    def _ask(self, entry: Neighbour) -> None:
        entry.probes += 1
        interface = entry.interface
        own = next((a for a in interface.addresses if len(a) == len(entry.address)), b"")
        to = entry.mac if entry.state == PROBE else BROADCAST
        question = Neighbourly(True, interface.mac, own, entry.address)
        self._set_timer(entry, PROBE_S)
        interface.send((to, interface.mac, NEIGHBOUR, question), self._world.now)

    def _give_up(self, entry: Neighbour) -> None:
        self._fail(entry)
        waiting = list(entry.waiting)
        entry.waiting.clear()
        for packet in waiting:
            self._unreachable(packet)

    def _fail(self, entry: Neighbour) -> None:
        entry.turn += 1
        entry.state, entry.mac, entry.fresh_until = FAILED, b"", -inf

    def forget(self, interface: Interface) -> None:
        """The interface has lost its carrier: every entry behind it goes."""
        for (name, _), entry in self._entries.items():
            if name == interface.name:
                self._fail(entry)
                entry.waiting.clear()

    # -- what neighbours say --------------------------------------------------------------------------------------

    def learn(self, message: Neighbourly, interface: Interface, *, asked_me: bool) -> None:
        """From a message of any kind: who its sender is. Who asks for this machine becomes known by that."""
        if not message.sender:
            return
        entry = self._entries.get((interface.name, message.sender))
        if entry is None:
            if not asked_me:
                return
            entry = self.entry(interface, message.sender)
        is_answer = not message.is_request and not message.to_all
        announces = message.to_all or message.sender == message.wanted
        now = self._world.now
        if entry.mac and entry.mac != message.mac:
            locked = len(entry.address) == 4 and now < entry.changed_at + LOCK_S and not announces
            if locked:
                return
        elif entry.mac and not is_answer:
            return  # nothing new, and no sign that it is there now
        if is_answer:
            self._is_reachable(entry, now)
        else:
            entry.turn += 1
            entry.state, entry.fresh_until = STALE, -inf
        if entry.mac != message.mac:
            entry.changed_at = now
        entry.mac = message.mac
        waiting = list(entry.waiting)
        entry.waiting.clear()
        for packet in waiting:
            self.use(entry, packet) if entry.fresh_until <= now else self._send(packet, entry)

    def _is_reachable(self, entry: Neighbour, since: float) -> None:
        if not self._reachable_s:
            self._reachable_s = REACHABLE_S * (0.5 + self._world.random.random())
        entry.turn += 1
        entry.state, entry.fresh_until = REACHABLE, since + self._reachable_s
