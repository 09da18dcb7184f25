"""Invariants about connections tables: what a member knows goes forward, and members come to know the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import inf

from fwnode.control import compare
from fwnode.firewall.connection import Connection
from fwnode.firewall.ended import Version
from fwnode.firewall.table import ConnectionTable
from fwnode.firewall.tcp_states import ConnectionState
from labs.simulation.invariants.look import WALKED_MOST, Invariant, Look, MemberLook
from syncproto.release import Exchange

WALKED_EACH_LOOK = 100
"""A table of no more connections is walked through at every look, a larger one each second."""
LOOKS_APART_MAX_S = 0.5
"""Two looks that are not further apart have missed no end after a closing (a second at least)."""
COMPARED_MOST = 300
"""Connections of all members together whose comparison is compared, as it packs them twice."""
EQUAL_AFTER_S = 4.0
"""Wire seconds for which a difference may last while sync says OK: it says so until nothing has moved for 2.5 s
(`BEHIND_AFTER_S`), and a request is repeated each second at the latest (`REQUEST_INTERVAL_MAX_S`)."""
RECOVERED_AFTER_S = 8.0
"""Wire seconds until two members that run, on whole wires, have all of each other's updates: a HELLO is repeated after
5 s at the latest (`HELLO_INTERVAL_MAX_S`), then what was owed takes its turn."""

Content = dict[bytes, int]
"""Key -> state."""
View = tuple[float, int, float]
"""When a connection was born, its state, and when it ends as far as its owner knows; minus infinity for a copy."""


class StateForward(Invariant):
    name = "state-forward"
    sentence = (
        "What a member knows of a connection never goes back: to an earlier state, to an older connection, or to an "
        "earlier end of one that it forwards."
    )
    source = "README: two views of one connection; copies end when the owner's entry would"

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], dict[bytes, View]] = {}

    def look(self, look: Look) -> Iterator[str]:
        for member in look.running():
            table = member.firewall.connections
            if look.second or len(table.entries) <= WALKED_EACH_LOOK:
                life = (member.number, member.life)
                was = self._known.get(life, {})
                now = {
                    c.key: (c.born, int(c.state), c.expires if c.owned else -inf)
                    for c in islice(table.entries.values(), WALKED_MOST)
                }
                self._known[life] = now
                yield from self._gone_back(member.name, was, now)

    @staticmethod
    def _gone_back(name: str, was: dict[bytes, View], now: dict[bytes, View]) -> Iterator[str]:
        for key, view in now.items():
            before = was.get(key)
            if before is None or view >= before or (view[:2] == before[:2] and view[2] == -inf):
                continue
            yield (f"{name} knew connection {key.hex()}, born at {before[0]:.3f}, in state {before[1]}, until "
                   f"{before[2]:.3f}, and now as born at {view[0]:.3f}, in state {view[1]}, until {view[2]:.3f}")
            return


class OwnStays(Invariant):
    """It may forward alone and not have been the last to: frozen, or alone on its side of a cut, it believes that a
    connection goes on which another member has taken over meanwhile and seen end. That one's word comes late and is
    right. Copies say nothing new: only who forwards makes a later version of a connection."""

    name = "own-stays"
    sentence = (
        "A connection that one member alone forwards ends when its time is over there, or when a peer that has "
        "forwarded it since says so, whatever its copies do."
    )
    source = "README: copies end when the owner's entry would; two views of one connection"

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], tuple[int, float, dict[bytes, tuple[float, Version]]]] = {}

    def look(self, look: Look) -> Iterator[str]:
        """In high availability, where nobody else forwards, and of small tables, which are looked at often enough."""
        seen, self._seen = self._seen, {}
        forwarding = [] if look.load_sharing else [member for member in look.running() if member.forwards]
        if len(forwarding) != 1:
            return
        member, table = forwarding[0], forwarding[0].firewall.connections
        life = (member.number, member.life)
        if len(table.entries) > WALKED_EACH_LOOK:
            return
        generation, at, known = seen.get(life, (-1, 0.0, {}))
        if generation == member.firewall.generation and look.now - at < LOOKS_APART_MAX_S:
            gone = {key: version for key, (end, version) in known.items() if key not in table and end > member.lab_now}
            if gone and (lost := _without_newer_end(gone, table)):
                yield f"{member.name} has lost {len(lost)} connections of its own before their time: {lost[0].hex()}"
        generation = member.firewall.generation
        own = {c.key: (c.expires, (c.born, c.revision)) for c in table.entries.values() if _stays(c, generation)}
        self._seen[life] = (generation, look.now, own)


class TablesEqual(Invariant):
    name = "tables-equal"
    sentence = "Where sync says OK on both sides and nothing has been lost, no difference of two tables lasts for 4 s."
    source = "clusterxl.md 1.2: deltas each 100 ms, what is missing is asked for; README: a peer that is behind"

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], dict[bytes, tuple[float, int | None, int | None]]] = {}

    def look(self, look: Look) -> Iterator[str]:
        if not look.second:
            return
        pairs = list(look.pairs())
        contents: dict[int, Content] = {}
        since, self._since = self._since, {}
        for one, other in pairs:
            pair = (one.number, other.number)
            those = [one, other, *_who_tells(one, other, look)]
            links = [(a, b) for a in (one, other) for b in those if a is not b]
            if not all(_should_agree(a, b) and _should_agree(b, a) for a, b in links):
                continue
            # What is on its way is no difference, and no sign that there is none.
            if any(_owes(member) for member in those):
                self._since[pair] = since.get(pair, {})
                continue
            for member in (one, other):
                if member.number not in contents:
                    contents[member.number] = content(member)
            found = self._since[pair] = {}
            was = since.get(pair, {})
            for key, views in differences(contents[one.number], contents[other.number]):
                before = was.get(key)
                begun = before[0] if before is not None and before[1:] == views else look.now
                found[key] = (begun, *views)
            yield from self._lasting(one, other, found, look.now)

    @staticmethod
    def _lasting(
        one: MemberLook, other: MemberLook, found: dict[bytes, tuple[float, int | None, int | None]], now: float
    ) -> Iterator[str]:
        lasting = [(key, views) for key, (begun, *views) in found.items() if now - begun >= EQUAL_AFTER_S]
        if lasting:
            key, (here, there) = lasting[0]
            yield (f"{one.name} and {other.name} have differed in {len(lasting)} connections for {EQUAL_AFTER_S:g} s, "
                   f"although sync is OK and nothing was lost: {key.hex()} is {_view(here)} at {one.name}, "
                   f"{_view(there)} at {other.name}")


class CompareTells(Invariant):
    name = "compare-tells"
    sentence = "What two tables differ in is what `fwctl sync compare` shows."
    source = "README: how many connections each member lacks, by kind"

    def look(self, look: Look) -> Iterator[str]:
        members = look.running() if look.second else []
        if len(members) < 2 or sum(len(m.firewall.connections) for m in members) > COMPARED_MOST:
            return
        contents = {member.name: content(member) for member in members}
        everything = {key for table in contents.values() for key in table}
        really = {key for key in everything if len({table.get(key) for table in contents.values()}) > 1}
        tables = {m.name: compare.unpack(compare.pack(m.firewall.connections, m.lab_now)) for m in members}
        shown = {key for _, key, _ in compare.differences(tables)}
        if shown != really:
            yield f"{len(really)} connections differ, and `sync compare` shows {len(shown)} of them"


class OnlyWhatCame(Invariant):
    name = "only-what-came"
    sentence = "A member acknowledges an update only when it and all before it have come."
    source = "clusterxl.md 1.2 and 1.3: sequence numbers; a held packet goes on when the others have acknowledged"

    def look(self, look: Look) -> Iterator[str]:
        for one, other in look.pairs():
            for teller, hearer in ((one, other), (other, one)):
                if teller.engine.life(hearer.number) != hearer.engine.incarnation:
                    continue
                acknowledged = teller.engine.acknowledged((hearer.number,))
                came = hearer.engine.came(teller.number, teller.engine.incarnation)
                if came is not None and teller.engine.hears(hearer.number) and acknowledged > came:
                    yield (f"{hearer.name} has acknowledged the updates of {teller.name} up to {acknowledged}, and has "
                           f"them up to {came}")


class SyncRecovers(Invariant):
    name = "sync-recovers"
    sentence = "Members that may synchronise, run, and have whole wires between them say OK after 8 s, and owe nothing."
    source = "clusterxl.md 1.2: what is missing is asked for, and sent again; README: flow control"

    def look(self, look: Look) -> Iterator[str]:
        for one, other in look.pairs() if look.second else ():
            times = (one.whole_since, other.whole_since, one.runs_since, other.runs_since)
            begun = max(inf if time is None else time for time in times)
            if look.now - begun < RECOVERED_AFTER_S or not look.gate(one.release, other.release).is_open:
                continue
            for member, peer in ((one, other), (other, one)):
                status = member.engine.status(peer.number)
                if "timed-out" in status or "Could not start" in status or "terminated" in status:
                    well_s = look.now - begun
                    yield f"{member.name} says of sync with {peer.name}: {status}, {well_s:.0f} s after all is well"


def _who_tells(one: MemberLook, other: MemberLook, look: Look) -> list[MemberLook]:
    """Others from which either of the two learns: what one of them owes to one of the two is no difference either."""
    return [
        third for third in look.running()
        if third is not one and third is not other
        and any(look.gate(third.release, member.release).is_open for member in (one, other))
    ]  # fmt: skip


def _stays(connection: Connection, generation: int) -> bool:
    """Nothing but idleness ends it: it is this member's own, not closed, and matched with the policy of now."""
    return connection.owned and connection.state is not ConnectionState.CLOSING and connection.generation == generation


def _without_newer_end(gone: dict[bytes, Version], table: ConnectionTable) -> list[bytes]:
    """Those of which this table does not remember that a later version than this one is over."""
    over = {r.key: (r.born, r.revision) for columns in table.snapshot_ended() for r in columns}
    return [key for key, version in gone.items() if over.get(key, version) <= version]


def _should_agree(member: MemberLook, peer: MemberLook) -> bool:
    """As far as this one can tell, it knows what the peer knows, and the peer what it knows."""
    engine = member.engine
    gate = engine.gate(peer.number)
    if gate is None or gate.exchange < Exchange.FULL or engine.status(peer.number) != "OK" or engine.saving:
        return False
    counters, table = engine.counters(), member.firewall.connections
    lost = counters.lost_updates or counters.overload_dropped or counters.oversized_not_sent or table.over_limit
    return member.joined and member.reached(peer.number) and not lost


def _owes(member: MemberLook) -> bool:
    return bool(member.engine.unacknowledged() or member.engine.backlog)


def content(member: MemberLook) -> Content:
    """Key and state of every connection that peers are to know."""
    return {c.key: int(c.state) for c in member.firewall.connections if _is_shared(c, member.lab_now)}


def _is_shared(connection: Connection, now: float) -> bool:
    return bool(connection.told) or connection.sync_at <= now


def differences(one: Content, other: Content) -> Iterator[tuple[bytes, tuple[int | None, int | None]]]:
    for key in one.keys() | other.keys():
        here, there = one.get(key), other.get(key)
        if here != there:
            yield key, (here, there)


def _view(state: int | None) -> str:
    return "unknown" if state is None else f"in state {state}"
