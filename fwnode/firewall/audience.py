"""Whether a peer heard what was told of a connection. Pure: who listens comes in, a number to remember comes out.

`Connection.told` keeps the number: 0, nobody was told; `NOBODY_HEARD`, it was told while nobody listened;
`PEERS_MAY_KNOW`, it came from a peer, or follows one of which peers knew; otherwise the audience of that time.
Audiences are numbered upwards. A new one begins when none of the peers is left in the life in which it listened, for
what those were told, the next ones may not know; and when a peer begins to listen that takes no whole table in order
to join: what was told before, it has to be told anew.
"""

from __future__ import annotations

from syncproto.events import Listeners
from syncproto.record import Op

NOBODY_HEARD = 1
PEERS_MAY_KNOW = 2


class Audience:
    """The peers that hear this member's updates."""

    def __init__(self) -> None:
        self.number = PEERS_MAY_KNOW + 1
        """Of the present audience."""
        self._lives: dict[int, int] = {}
        self._without_table: dict[int, int] = {}
        """Of them, those that have to be told everything, each in the life in which it listened."""
        self._anew_before = 0
        self.listening = False
        """Whether anyone does."""
        self._only_new = False
        self.all_hear = 0
        """What to remember of whatever is told, while who listens hears everything; else 0: see `told`."""
        self.anew_before = 0
        """What was told to an audience before this one has to be told anew; 0: nothing, or not now."""

    def listen(self, now: Listeners) -> None:
        """These peers listen now."""
        lives, without_table = now.lives, {peer: now.lives[peer] for peer in now.without_table}
        needs_all = any(self._without_table.get(peer) != life for peer, life in without_table.items())
        if needs_all or (lives and not any(self._lives.get(peer) == life for peer, life in lives.items())):
            self.number += 1
        if needs_all:
            self._anew_before = self.number
        self._lives.update(lives)
        # One that is there, and not among them any more, has taken a whole table, or takes one in a new life.
        away = {peer: life for peer, life in self._without_table.items() if peer not in lives}
        self._without_table = away | without_table
        if not self._without_table:
            self._anew_before = 0
        self.listening, self._only_new = bool(lives), now.only_new
        self.all_hear = self.number if lives and not now.only_new else 0
        self.anew_before = self._anew_before if self.all_hear else 0

    def told(self, before: int, op: Op) -> int:
        """What to remember of a connection that is told by `op`."""
        heard = self.listening and (op is Op.SET or not self._only_new)
        return self.number if heard else before or NOBODY_HEARD

    def told_whole(self) -> tuple[int, int]:
        """What to remember of a connection that a peer takes with the whole table, and a bound: of a connection that
        was told to an audience with a smaller number others have to be told anew, so what was remembered stays."""
        return self.number, self._anew_before

    def knows(self, told: int) -> bool:
        """Whether those who listen now have heard of it."""
        return self.listening and PEERS_MAY_KNOW < told == self.number
