"""The connection table and the expiry of what is in it. Knows nothing of rules, packets' bytes or the network.

The table holds each connection once, under the key of its initiator's direction; a key of the other direction is found
by a second look-up. (The product has a link there. It would double what the table takes, and the work of filling and of
emptying it.) What peers must hear of is collected in `telling`.

Times are lab seconds. A connection that came by sync belongs to the member that forwards its packets; only the owner
announces its end, and how long it lives on (`refreshing`). A copy is kept for a short grace beyond what its owner said.

Which view wins, where two members differ: the connection that was born later; of one connection, the higher revision,
and in any case the further state (`tcp_states.further`), so that no message, however late, takes a state back. What
peers said is over stays over: an older record that arrives afterwards does not bring it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import inf, nextafter
from operator import itemgetter

from syncproto.cluster_time import ClusterTime
from syncproto.columns import Columns
from syncproto.limits import FULL_SLICE_RECORDS, SYNC_TICK_S
from syncproto.record import OWNER_SHIFT, Op, Record, RecordFlag, Update

from .announced import AnnouncedConnections
from .audience import PEERS_MAY_KNOW
from .connection import NEXT_PACKET, Connection
from .ended import EndedVersions, columns_of_ended
from .packed import Batch, PackedCopies, Place
from .packet import reverse_key
from .refreshing import GRACE_TICKS, merged_end
from .tcp_states import ConnectionState, further, usual_timeout
from .tellers import NOBODY, Teller, Tellers
from .telling import Telling
from .wheel import Wheel

ENDED_MAX = 16_384
"""Ended connections that are remembered, so that a late record of one does not bring it back; about 3 MB. The oldest
is forgotten first. Lab's own: more than end within the seconds that a retransmission takes."""
EXPIRED_AT_ONCE_MAX = 1_000
"""Connections, packed ones as others, that are looked at in one call of `expire` (2 ms): packets wait meanwhile."""
ENDED_TOGETHER = 100
"""Of them, those that are removed together."""
# Plain numbers, for arithmetic of flags is slow.
_LEARNED, _EXPECTED, _ENDED = int(RecordFlag.LEARNED), int(RecordFlag.EXPECTED), int(RecordFlag.ENDED)
_NO_CONNECTION = _EXPECTED | _ENDED
_STATES = tuple(ConnectionState)  # by number, for calling an enum is slow


class ConnectionTable:
    """All connections of a member. `timer_floor` is the shortest time any entry lives, `tick_s` a sync tick, in lab
    seconds; `timeout_in` gives the seconds that one may be idle in a state, from those of its session."""

    def __init__(
        self,
        timer_floor: float = 0.0,
        bucket_width: float = 1.0,
        timeout_in: Callable[[ConnectionState, float], float] = usual_timeout,
        member: int = 0,
        limit: Callable[[], float] = lambda: inf,
        tick_s: float = SYNC_TICK_S,
    ) -> None:
        self.member = member
        """Number of the member whose table it is."""
        self.entries: dict[bytes, Connection] = {}
        """Connections by the key of the initiator's direction. What is not here may still be packed: `find` knows."""
        self.peak = 0
        self._learned = 0
        self.cluster_time = ClusterTime()
        """What `born` of a new connection is read from."""
        self.expected = AnnouncedConnections(timer_floor, self.cluster_time)
        """Data connections that control connections of this table have announced."""
        self._floor = timer_floor
        self.grace_s = GRACE_TICKS * tick_s
        """Seconds that a copy is kept beyond the end that its owner announced."""
        self._timeout_in, self._limit = timeout_in, limit
        """Connections taken from peers at most; who decides on packets looks at it himself."""
        self.over_limit = 0
        """Peers' connections that found no room."""
        self._ended = EndedVersions(ENDED_MAX)
        self._unconfirmed: dict[int, set[bytes]] = {}
        self._own_only: set[int] = set()
        self._wheel: Wheel[Connection | Batch] = Wheel(bucket_width)
        self._packed = PackedCopies()
        """Copies that nobody has asked for yet."""
        self._rows: list[Connection | Batch | None] = []
        """Everything that is held, each in a row of its own: a walk by rows goes on while the table changes."""
        self._free_rows: list[int] = []
        self._places: list[Place] = []
        """Where the walks over all connections are that go on now."""
        self._telling = Telling(self._rows, self.lifetime, tick_s)
        self._changed, self._deleted = self._telling.changed, self._telling.deleted
        self.audience = self._telling.audience
        self.tellers = Tellers(tick_s, self.audience)
        """The peers that copies came from, or belong to."""
        self.announce = self._telling.announce
        """Have peers hear of a connection at the next sync tick."""

    def __len__(self) -> int:
        return len(self.entries) + len(self._packed)

    @property
    def learned(self) -> int:
        """How many were created by an out-of-state packet, here or at a peer."""
        return self._learned + self._packed.learned

    def __contains__(self, key: bytes) -> bool:
        return any(name in held for name in (key, reverse_key(key)) for held in (self.entries, self._packed))

    def __iter__(self) -> Iterator[Connection]:
        """All connections that there are when the walk begins and still are when it gets there, and perhaps later ones.
        What is packed is shown unpacked, and stays packed."""
        place = Place(len(self._rows))
        self._places.append(place)
        try:
            for row, item in enumerate(islice(self._rows, place.end)):
                place.row = row
                if isinstance(item, Connection):
                    if not place.met or item not in place.met:
                        yield item
                elif item is not None:
                    for n in self._packed.held(item):
                        place.n = n
                        yield self._unpacked(item, n)
                    place.n = -1
            place.row = place.end
            yield from (connection for connection in place.moved if connection.row >= 0)
        finally:
            self._places.remove(place)

    def find(self, key: bytes) -> Connection | None:
        """The connection of this key, in either direction; from now on unpacked."""
        connection = self.entries.get(key)
        if connection is None:
            other = reverse_key(key)
            connection = self.entries.get(other)
            if connection is None:
                for held in (key, other):
                    if held in self._packed:
                        return self._unpack(held)
        return connection

    def next_end(self) -> float:
        """Before this time no connection ends."""
        return self._wheel.next_at()

    def lifetime(self, timeout: float) -> float:
        """`timeout`, but never under the floor: what a timer of that length really lasts."""
        return timeout if timeout > self._floor else self._floor

    # -- what happens here ---------------------------------------------------------------------------------------

    def add(self, connection: Connection, now: float) -> None:
        """A connection that this member decided on. One with the same key is replaced."""
        old = self.find(connection.key)
        ended = self._ended.get(connection.key)
        if ended is not None:
            self._be_younger(connection, ended[0])
        if old is not None:
            self._be_younger(connection, old.born)
            self._drop(old)
            self.expected.parent_ended(old.key, tell=True)
            if old.key == connection.key:
                connection.told = old.told
            elif old.told:
                self._deleted[old.key] = old
                self._ended.remember(old.key, (old.born, old.revision))
        self._put(connection)
        self.refresh(connection, now)
        self.announce(connection, Op.SET)

    @staticmethod
    def _be_younger(connection: Connection, born: float) -> None:
        """Two may begin at one time; peers must take a connection that begins here as the newer one."""
        if connection.born <= born:
            connection.born = nextafter(born, inf)

    def _put(self, connection: Connection) -> None:
        self.entries[connection.key] = connection
        if self._deleted.pop(connection.key, None) is not None:
            connection.told = PEERS_MAY_KNOW
        self._learned += connection.learned
        self._give_row(connection)
        size = len(self)
        if size > self.peak:
            self.peak = size

    def _give_row(self, item: Connection | Batch) -> None:
        if self._free_rows:
            item.row = self._free_rows.pop()
            self._rows[item.row] = item
        else:
            item.row = len(self._rows)
            self._rows.append(item)

    def _free_row(self, item: Connection | Batch) -> None:
        self._rows[item.row] = None
        self._free_rows.append(item.row)
        item.row = item.bucket = -1

    def _drop(self, connection: Connection) -> None:
        del self.entries[connection.key]
        self._changed.pop(connection.key, None)
        self._learned -= connection.learned
        self._free_row(connection)

    def remove(self, connection: Connection) -> None:
        """The connection ended here; peers that heard of it are told."""
        self._finish(connection, connection.owned)

    def clear(self, key: bytes) -> None:
        """The connection is over here and at the peers, whoever owns it and whatever they say meanwhile."""
        connection = self.find(key)
        if connection is not None:
            connection.revision += 2  # beyond what its owner has told meanwhile, and is about to tell
            self._finish(connection, tell=True)

    @property
    def untold_ends(self) -> int:
        """Ends that peers have not been told yet."""
        return len(self._deleted)

    def _finish(self, connection: Connection, tell: bool) -> None:
        self._drop(connection)
        self.expected.parent_ended(connection.key, tell=tell)
        if tell and connection.told:
            self._deleted[connection.key] = connection
            self._ended.remember(connection.key, (connection.born, connection.revision))

    def refresh(self, connection: Connection, now: float) -> None:
        """A packet moved its end away; after a change of `timeout` this must be called."""
        connection.expires = now + self.lifetime(connection.timeout)
        self._wheel.plan(connection, connection.expires)

    def _end(self, connection: Connection) -> float:
        """When it is removed, if no packet comes and nobody tells of one."""
        return connection.expires if connection.owned else connection.expires + self.grace_s

    def is_over(self, connection: Connection, now: float) -> bool:
        """Whether it has been idle for too long."""
        return now >= self._end(connection)

    def expire(self, now: float, at_most: int = EXPIRED_AT_ONCE_MAX) -> bool:
        """End what has been idle for too long. True: there is more to look at than was to be done at once."""
        self.expected.expire(now)
        looked_at, ended = 0, list[Connection]()
        while looked_at < at_most and (item := self._wheel.next_due(now)) is not None:
            if isinstance(item, Batch):
                looked_at += len(item)
                self._expire_packed(item, now)
                continue
            looked_at += 1
            end = self._end(item)
            if end <= now:
                ended.append(item)
            else:
                self._wheel.plan(item, end)
                self._telling.announce_news(item)
            if len(ended) == ENDED_TOGETHER:
                self._remove_all(ended)
                ended = []
        self._remove_all(ended)
        return looked_at >= at_most

    def _remove_all(self, connections: list[Connection]) -> None:
        if connections:
            # Who has been idle is in no cache of the processor. Looked up in one go, several of them wait for memory at
            # the same time; one removal after the other, each would wait for itself.
            itemgetter(*[connection.key for connection in connections])(self.entries)
        for connection in connections:
            self.remove(connection)

    def visit_all(self) -> None:
        """Make the next packet of every connection take the longer way: new policy, or the member begins to forward."""
        for item in self._rows:
            if isinstance(item, Connection):  # what is packed takes it anyhow
                item.refresh_at = NEXT_PACKET

    # -- what peers hear -----------------------------------------------------------------------------------------

    def take_updates(self, now: float, room: int = 0) -> list[Update]:
        """What peers must hear of, each once, as it is. Connections of which they know too little fill it to `room`."""
        self._tell_on(self.tellers.take_untold(room - len(self._deleted) - len(self._changed)))
        return self._telling.take_updates(now, room) + self.expected.take_updates(now)

    def snapshot(self, now: float, slice_max: int = FULL_SLICE_RECORDS) -> Iterator[Columns]:
        """Every synchronised connection, in slices: those there when the walk begins and ends, perhaps later ones."""
        yield from self._telling.snapshot(self, now, slice_max)
        if announced := list(self.expected.snapshot(now)):
            yield Columns.of(announced)

    def snapshot_ended(self, slice_max: int = FULL_SLICE_RECORDS) -> Iterator[Columns]:
        """What ended and is remembered, in slices: for a peer that lost updates, ends among them perhaps."""
        return columns_of_ended([*self._ended.items(), *self.expected.over.items()], slice_max)

    # -- what peers say ------------------------------------------------------------------------------------------

    def apply_slice(self, columns: Columns, now: float, generation: int = 0, origin: int = 0) -> int:
        """Part of the whole table of the peer `origin`; returns how many of its connections were news."""
        self.tellers.of(origin).note(columns.key, now)
        if not self._is_news(columns):
            told = (Update(Op.SET, record.key, record, record.born, record.revision) for record in columns)
            return sum(self.apply(update, now, generation, origin) for update in told)
        owners = {flags >> OWNER_SHIFT for flags in set(columns.flags)}
        batch = Batch(columns, now, generation, {owner: self._owner(owner, origin) for owner in owners})
        self._packed.add(batch)
        self._give_row(batch)
        self._wheel.plan(batch, now + batch.soonest_ttl_s + self.grace_s)
        self.peak = max(self.peak, len(self))
        return len(batch)

    def _is_news(self, columns: Columns) -> bool:
        """Whether nothing is known of any of them: then they need not be looked at one by one."""
        keys = {*columns.key, *map(reverse_key, columns.key)}
        return (
            len(keys) == 2 * len(columns)
            and not any(self._unconfirmed.values())
            and not self._own_only
            and len(self) + len(columns) <= self._limit()
            and self.entries.keys().isdisjoint(keys)
            and self._packed.keys().isdisjoint(keys)
            and self._ended.keys().isdisjoint(keys)
            and self._deleted.keys().isdisjoint(keys)
            and not any(flags & _NO_CONNECTION for flags in set(columns.flags))
        )

    def apply_all(self, updates: list[Update], now: float, generation: int = 0, origin: int = 0) -> int:
        """What the peer `origin` said, and has to be told on when it is gone; returns how much of it was news."""
        self.tellers.of(origin).note([update.key for update in updates], now)
        return sum([self.apply(update, now, generation, origin) for update in updates])

    def apply(self, update: Update, now: float, generation: int = 0, origin: int = 0) -> bool:
        """What the peer `origin` said. False when it was older than what is known, or about nothing known."""
        record = update.record
        if record is not None and record.flags & _ENDED:
            return self._apply_end(Update(Op.DELETE, record.key, None, record.born, record.revision), now)
        for unconfirmed in self._unconfirmed.values():
            unconfirmed.discard(update.key)
        if record is not None and record.flags & _EXPECTED:
            return self.expected.apply(update, now)
        if update.op is Op.DELETE:
            return self._apply_end(update, now)
        if record is None:
            return False
        if self._ended.covers(record.key, (record.born, record.revision)):
            self._tell_end(record.key)  # who tells of it has not heard so
            return False
        if origin in self._own_only and record.flags >> OWNER_SHIFT not in (0, self.member):
            return False
        known = self.find(update.key)
        if known is not None:
            if record.born < known.born:
                return False
            if record.born == known.born and known.key == record.key:
                return self._merge(known, record, now, origin)
            if record.born == known.born and record.revision <= known.revision:
                return False  # one connection seen to begin in two directions; the newer view wins
            self._drop(known)
        elif len(self) >= self._limit():
            self.over_limit += 1
            return False
        self._put_copy(self._copy(record, now, generation, self._owner(record.flags >> OWNER_SHIFT, origin)))
        return True

    def _apply_end(self, update: Update, now: float) -> bool:
        if update.key in self.expected.entries and self.expected.apply(update, now):
            return True
        known = self.find(update.key)
        version = (update.born, update.revision)
        anything = version == (0.0, 0)
        if not anything:
            self._ended.remember(update.key, version)
        if known is None or known.key != update.key:
            return False
        if not anything and version < (known.born, known.revision_to_tell):
            return False
        self._drop(known)
        self.expected.parent_ended(known.key, tell=False)
        return True

    def _merge(self, known: Connection, record: Record, now: float, origin: int) -> bool:
        """Another view of the same connection: the higher revision's, in the further of both states."""
        was, told = known.state, _STATES[record.state]
        state = further(was, told)
        newer = record.revision >= known.revision_to_tell
        if not newer and state is was:
            return False
        if newer:
            self._changed.pop(known.key, None)
            self._learned -= known.learned
            known.take(record, self._owner(record.flags >> OWNER_SHIFT, origin), self.member)
            self._learned += known.learned
            known.pending = None
            # `refresh_at` stays: a member that sees one direction alone must not take it back with every packet.
        known.state = state
        known.timeout = self._timeout_in(state, known.session_timeout)
        known.expires = merged_end(known, was, told, newer, now, record.ttl_s, self._lasts)
        if newer and known.owned:
            known.peers_until = min(known.peers_until, now + record.ttl_s)  # the others have heard so, too
        self._wheel.plan(known, self._end(known))
        if state is not told:
            self.announce(known, Op.MODIFY)  # we knew more than the teller
        return True

    def _lasts(self, connection: Connection, state: ConnectionState) -> float:
        return self.lifetime(self._timeout_in(state, connection.session_timeout))

    def _put_copy(self, connection: Connection) -> Connection:
        self._put(connection)
        self._wheel.plan(connection, self._end(connection))
        return connection

    def _copy(self, record: Record, came: float, generation: int, owner: Teller) -> Connection:
        state, session_timeout = _STATES[record.state], record.timeout_s
        timeout = self._timeout_in(state, session_timeout)
        connection = Connection(record.key, state, timeout, session_timeout, record.born)
        connection.generation = generation
        connection.owned = False
        connection.take(record, owner, self.member)
        connection.expires = came + record.ttl_s
        return connection

    def _owner(self, owner: int, teller: int) -> Teller:
        """To whom a copy belongs of which `teller` says that it is `owner`'s; 0: its own. Nobody's if it is said to be
        this member's."""
        if owner == self.member != 0:
            return NOBODY
        return self.tellers.present.get(owner or teller) or self.tellers.of(owner or teller)

    # -- copies that are still packed ----------------------------------------------------------------------------

    def _unpacked(self, batch: Batch, n: int) -> Connection:
        return self._copy(batch.record(n), batch.came, batch.generation, batch.owner(n))

    def _unpack(self, key: bytes) -> Connection:
        """The held connection of this key, as an object from now on."""
        batch, n = self._packed.take(key)
        connection = self._put_copy(self._unpacked(batch, n))
        for place in self._places:
            place.note_unpacked(batch.row, n, connection)
        return connection

    def _expire_packed(self, batch: Batch, now: float) -> None:
        """End those of a batch whose time has come; the batch is over when none is left."""
        ended, soonest = self._packed.end_due(batch, now, self.grace_s)
        for key in ended:
            self.expected.parent_ended(key, tell=False)
        if soonest < inf:
            self._wheel.plan(batch, soonest)
        else:
            self._free_row(batch)

    # -- a whole table from a peer, over what is known ------------------------------------------------------------

    def await_whole(self, peer: int, own_only: bool) -> None:
        """The peer's whole table is about to come: what it told us so far, and does not tell again, is no more.
        `own_only`: its copies of other members' connections are not news, those members tell us themselves."""
        self._unconfirmed[peer] = set(self._copies_of(peer))
        if own_only:
            self._own_only.add(peer)

    def _copies_of(self, peer: int) -> Iterator[bytes]:
        for item in self._rows:
            if isinstance(item, Connection):
                if item.origin.number == peer and not item.owned:
                    yield item.key
            elif item is not None:
                for n in self._packed.held(item):
                    if item.owner(n).number == peer:
                        yield item.keys[n]

    def whole_has_come(self, peer: int, complete: bool) -> int:
        """The end of it; returns how many copies were dropped. Where it is not complete, nothing is concluded."""
        unconfirmed = self._unconfirmed.pop(peer, set())
        self._own_only.discard(peer)
        gone = 0
        for key in unconfirmed if complete else ():
            connection = self.find(key)
            if connection is None or connection.key != key or connection.owned or connection.origin.number != peer:
                continue
            self._drop(connection)
            self._ended.remember(key, (connection.born, connection.revision))
            gone += 1
        return gone

    def _tell_on(self, keys: Iterable[bytes]) -> None:
        """Peers hear what one told of these that is gone."""
        for key in keys:
            known = self.find(key)
            if known is None:
                self._tell_end(key)
            elif not known.owned:
                self.announce(known, Op.MODIFY)

    def _tell_end(self, key: bytes) -> None:
        """Peers hear that what is remembered to be over is over."""
        if key in self._ended and self.find(key) is None:
            born, revision = self._ended[key]
            self._deleted[key] = over = Connection(key, ConnectionState.NONE, 0.0, 0.0, born)
            over.revision = revision
