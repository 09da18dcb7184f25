"""What must hold throughout every simulated run. `INVARIANTS` is the list, `Judge` asks them at every look.

`look` says what an invariant sees; `forwarding`, `tables` and `accounts` hold them, by what they are about. Pure: the
world is looked at elsewhere (`labs.simulation.observer`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from labs.simulation.invariants.accounts import CountsAddUp, InsideCaps, LoadMeasured, NoFailure
from labs.simulation.invariants.forwarding import (
    ForwardsNothing,
    OneForwards,
    RuleOrConnection,
    SomebodyForwards,
    StateBeforeAddress,
)
from labs.simulation.invariants.look import Invariant, Look
from labs.simulation.invariants.tables import (
    CompareTells,
    OnlyWhatCame,
    OwnStays,
    StateForward,
    SyncRecovers,
    TablesEqual,
)

__all__ = ["INVARIANTS", "Broken", "Invariant", "Judge", "Look"]

INVARIANTS: tuple[type[Invariant], ...] = (
    OneForwards,
    SomebodyForwards,
    ForwardsNothing,
    StateBeforeAddress,
    RuleOrConnection,
    StateForward,
    OwnStays,
    TablesEqual,
    CompareTells,
    OnlyWhatCame,
    SyncRecovers,
    LoadMeasured,
    CountsAddUp,
    InsideCaps,
    NoFailure,
)


@dataclass(frozen=True)
class Broken:
    """The first time in a run that an invariant did not hold. `at` is in wall seconds since the run began."""

    invariant: str
    at: float
    text: str
    sentence: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Judge:
    """All invariants of one run."""

    def __init__(self) -> None:
        self._invariants = [kind() for kind in INVARIANTS]
        self.broken: list[Broken] = []

    def look(self, look: Look, at: float) -> list[Broken]:
        """What this look breaks for the first time."""
        found: list[Broken] = []
        for invariant in list(self._invariants):
            text = next(invariant.look(look), "")
            if text:
                found.append(Broken(invariant.name, round(at, 3), text, invariant.sentence))
                self._invariants.remove(invariant)
        self.broken += found
        return found
