"""Whether a peer heard what was told of a connection. Pure: who listens comes in, a number to remember comes out.

`Connection.told` keeps the number: 0, nobody was told; `NOBODY_HEARD`, it was told while nobody listened; otherwise the
audience of that time. An audience ends when none of its peers is left in the life in which it listened: what those were
told, the peers of the next one may not know.
"""

from __future__ import annotations

from collections.abc import Mapping

from syncproto.record import Op

NOBODY_HEARD = 1


class Audience:
    """The peers that hear this member's updates."""

    def __init__(self) -> None:
        self._number = NOBODY_HEARD
        self._lives: dict[int, int] = {}
        self.listening = False
        """Whether anyone does."""
        self._only_new = False
        self.all_hear = 0
        """What to remember of whatever is told, while who listens hears everything; else 0: see `told`."""

    def listen(self, lives: Mapping[int, int], *, only_new: bool) -> None:
        """These peers listen now, each in this life (incarnation); `only_new`: to new connections alone."""
        if lives and not any(self._lives.get(peer) == life for peer, life in lives.items()):
            self._number += 1
        self._lives.update(lives)
        self.listening, self._only_new = bool(lives), only_new
        self.all_hear = self._number if lives and not only_new else 0

    def told(self, before: int, op: Op) -> int:
        """What to remember of a connection that is told by `op`."""
        heard = self.listening and (op is Op.SET or not self._only_new)
        return self._number if heard else before or NOBODY_HEARD

    def told_whole(self) -> int:
        """The same for one that a peer takes with the whole table."""
        return max(self._number, NOBODY_HEARD + 1)

    def knows(self, told: int) -> bool:
        """Whether one who listens now has heard of it."""
        return self.listening and NOBODY_HEARD < told == self._number
