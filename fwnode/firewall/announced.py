"""Announced connections: data connections that a control connection has told of and that have not begun yet.

Each is used once, by the first new packet that fits, whichever member forwards it: they are synchronised like
connections, as records of a key with source port 0 (any) and the flag EXPECTED. What was used or is over stays over:
a peer's older word does not bring it back. Knows nothing of packets' bytes or
rules. Times are lab seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from syncproto.cluster_time import ClusterTime
from syncproto.record import Op, Record, RecordFlag, Update

from .announcements import Announcement
from .ended import EndedVersions

EXPECTED_MAX = 4_096
"""Announced connections on a member; the oldest makes room. Lab's own."""
EXPECTED_PER_CONTROL_MAX = 16
"""Of one control connection: two ends of a call announce four media streams each, RTP and RTCP."""
ENDED_MAX = EXPECTED_MAX
"""Ends that peers have not been told yet, and ends that are remembered; what is beyond ends by itself, in time."""


class AnnouncedConnection:
    """One announced connection."""

    __slots__ = ("born", "expires", "key", "lifetime", "owned", "parent", "revision", "rule", "service", "told")

    def __init__(self, key: bytes, parent: bytes, service: str, rule: int, lifetime: float, born: float) -> None:
        self.key = key
        """Source port 0: any."""
        self.parent = parent
        """Key of the control connection."""
        self.service = service
        self.rule = rule
        self.lifetime = lifetime
        self.born = born
        self.revision = 0
        self.expires = 0.0
        self.owned = True
        """Announced through this member, not told by a peer."""
        self.told = False
        """Peers may hold it, so they must hear of its end."""

    def record(self, now: float) -> Record:
        """The record by which peers are told of it."""
        return Record(
            key=self.key,
            state=0,
            ttl_s=max(0.0, self.expires - now),
            timeout_s=self.lifetime,
            rule=self.rule,
            service=self.service,
            flags=int(RecordFlag.EXPECTED),
            born=self.born,
            revision=self.revision,
            parent=self.parent,
        )


class AnnouncedConnections:
    """All announced connections of a member. `floor` is the shortest time any of them lives (lab seconds)."""

    def __init__(self, floor: float = 0.0, cluster_time: ClusterTime | None = None) -> None:
        self.entries: dict[bytes, AnnouncedConnection] = {}
        """Oldest first."""
        self.peak = 0
        self._floor = floor
        self._cluster_time = cluster_time or ClusterTime()
        self._of_parent: dict[bytes, dict[bytes, None]] = {}
        self._changed: dict[bytes, AnnouncedConnection] = {}
        self._ended: dict[bytes, AnnouncedConnection] = {}
        """What peers are to be told of."""
        self.over = EndedVersions(ENDED_MAX)
        """Versions that ended, oldest first."""
        self._due = inf

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[AnnouncedConnection]:
        return iter(self.entries.values())

    def announce(self, found: Announcement, parent: bytes, rule: int, now: float) -> None:
        """A control connection told of it, perhaps again."""
        born = self._cluster_time.at(now)
        made = AnnouncedConnection(found.key, parent, found.service, rule, found.lifetime_s, born)
        old = self.entries.get(found.key) or self._ended.get(found.key)
        if old is not None:
            made.told = old.told
        last = max((old.born, old.revision) if old else (born, 0), self.over.get(found.key, (born, 0)))
        if last > (born, 0):  # two may be announced at one time; peers must take it as the newer one
            made.born, made.revision = last[0], last[1] + 1
        self._ended.pop(found.key, None)
        self._put(made, now + max(found.lifetime_s, self._floor), tell=True)
        self._changed[made.key] = made

    def _put(self, made: AnnouncedConnection, expires: float, *, tell: bool) -> None:
        self._forget(made.key)
        siblings = self._of_parent.get(made.parent, {})
        while len(siblings) >= EXPECTED_PER_CONTROL_MAX:
            self._end(next(iter(siblings)), tell)
        while len(self.entries) >= EXPECTED_MAX:
            self._end(next(iter(self.entries)), tell)
        made.expires = expires
        self._due = min(self._due, expires)
        self.entries[made.key] = made
        self._of_parent.setdefault(made.parent, {})[made.key] = None
        self.peak = max(self.peak, len(self.entries))

    def _forget(self, key: bytes) -> AnnouncedConnection | None:
        known = self.entries.pop(key, None)
        if known is not None:
            self._changed.pop(key, None)
            siblings = self._of_parent[known.parent]
            del siblings[key]
            if not siblings:
                del self._of_parent[known.parent]
        return known

    def _end(self, key: bytes, tell: bool) -> None:
        """It ended here. `tell`: peers that heard of it are told."""
        known = self._forget(key)
        if known is None:
            return
        self.over.remember(key, (known.born, known.revision))
        if tell and known.told and len(self._ended) < ENDED_MAX:
            self._ended[key] = known

    def find(self, key: bytes, now: float) -> AnnouncedConnection | None:
        """The announcement that a new packet of this key fits, if there is one."""
        if not self.entries:
            return None
        known = self.entries.get(key[:-4] + b"\0\0" + key[-2:])
        return known if known is not None and now < known.expires else None

    def use(self, known: AnnouncedConnection) -> None:
        """The data connection has begun: no second one may."""
        self._end(known.key, True)

    def parent_ended(self, parent: bytes, *, tell: bool) -> None:
        """The control connection is over, and with it what it announced."""
        if parent in self._of_parent:
            for key in list(self._of_parent[parent]):
                self._end(key, tell)

    def expire(self, now: float) -> None:
        """End what nobody used in time; peers' copies end by themselves."""
        if now < self._due:
            return
        for known in [known for known in self if known.expires <= now]:
            self._forget(known.key)
        self._due = min((known.expires for known in self), default=inf)

    # -- sync ----------------------------------------------------------------------------------------------------

    def take_updates(self, now: float) -> list[Update]:
        """What peers must hear of; empties the collection."""
        updates = [Update(Op.DELETE, e.key, None, e.born, e.revision) for e in self._ended.values()]
        self._ended = {}
        changed, self._changed = self._changed, {}
        for known in changed.values():
            known.told = True
            known.revision += 1
            updates.append(Update(Op.SET, known.key, known.record(now)))
        return updates

    def apply(self, update: Update, now: float) -> bool:
        """What a peer said. False when it was older than what is known, or about nothing known."""
        known, record = self.entries.get(update.key), update.record
        version = (record.born, record.revision) if record else (update.born, update.revision)
        if known is not None and version < (known.born, known.revision) and (record or version != (0.0, 0)):
            return False
        if record is None or update.op is Op.DELETE:
            self.over.remember(update.key, version)
            return self._forget(update.key) is not None
        if self.over.covers(update.key, version):
            return False
        ends, rule = (record.key, record.parent), record.rule
        made = AnnouncedConnection(*ends, record.service, rule, record.timeout_s, record.born)
        made.revision = record.revision
        made.owned, made.told = False, True
        self._put(made, now + record.ttl_s, tell=False)
        return True

    def snapshot(self, now: float) -> Iterator[Record]:
        """Every one that there is when the walk begins and still is when it gets there."""
        for known in list(self):
            if self.entries.get(known.key) is known:
                known.told = True
                yield known.record(now)
