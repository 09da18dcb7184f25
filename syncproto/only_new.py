"""Which updates count where two releases exchange new connections only: those of keys that came by SET. Pure."""

from __future__ import annotations

from syncproto.events import SyncCounters
from syncproto.record import Op, Update


class OnlyNew:
    """Of each peer up to `known_max` keys are remembered; of more the oldest is forgotten first."""

    def __init__(self, known_max: int, counters: SyncCounters) -> None:
        self._known_max = known_max
        self._counters = counters
        self._known: dict[int, dict[bytes, None]] = {}

    def forget(self, peer: int) -> None:
        """The peer's life has ended."""
        self._known.pop(peer, None)

    def of(self, peer: int, updates: list[Update]) -> list[Update]:
        """Those that count."""
        known = self._known.setdefault(peer, {})
        found: list[Update] = []
        for update in updates:
            if update.op is Op.SET:
                known[update.key] = None
                if len(known) > self._known_max:
                    del known[next(iter(known))]
            elif update.key not in known:
                self._counters.ignored_not_new += 1
                continue
            elif update.op is Op.DELETE:
                del known[update.key]
            found.append(update)
        return found
