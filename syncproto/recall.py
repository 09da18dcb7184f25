"""How far the whole table that a member took when it started holds what third members told. Pure.

A source's table is as far as the source had heard its peers. What a third member told last may have been on its way to
it, and it is told once, to the peers that listened then: a member that took the table meanwhile would never hear of it.
So a source says with its table how far it had heard each peer, and the joiner asks each peer for what follows that and
precedes the beginning of the peer's stream for the joiner (`DeltaReceiver.recall`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

StreamPosition = tuple[int, int]
"""An incarnation of a member, and a number of its stream in that life."""


class TableTaken:
    """The first whole table that a member took in its present life; `heard` by member, empty before."""

    def __init__(self) -> None:
        self.heard: dict[int, StreamPosition] = {}
        self.taken = False

    def take(self, source: int, sequence: StreamPosition, heard: Iterable[list[int]]) -> bool:
        """The table of this source has come, with what the source told itself up to `sequence`. Whether it is the
        first one: what comes later only adds."""
        if self.taken:
            return False
        self.taken = True
        self.heard = {member: (incarnation, number) for member, incarnation, number in heard}
        self.heard[source] = sequence
        return True

    def holds(self, member: int, incarnation: int) -> int | None:
        """Up to which number of this life of the member it holds what that told; None: no table was taken."""
        if not self.taken:
            return None
        life, number = self.heard.get(member, (incarnation, 0))
        return number if life == incarnation else 0


def positions(heard: Mapping[int, StreamPosition | None], saved: Iterable[tuple[int, int]]) -> list[list[int]]:
    """As they travel, by member. Of what is `saved`, (member, number) in order, nothing is in the table yet."""
    waits = dict(reversed([*saved]))
    return [
        [member, known[0], min(known[1], waits.get(member, known[1] + 1) - 1)]
        for member, known in heard.items()
        if known is not None
    ]
