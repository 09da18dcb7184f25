"""Split brains in words, for a member's events, `stat` and programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fwnode.cluster.split_brain import PossibleSplit, SplitBrain, SplitBrains


def words(event: SplitBrain | PossibleSplit, name: str) -> str:
    """An event's text; `name` is the peer's."""
    if isinstance(event, PossibleSplit):
        return (
            f"possible split brain: {name} is silent on every cluster network while the interfaces here are up; "
            "whether it is dead or active, too, cannot be known"
        )
    if not event.over:
        return f"split brain: {name} is active, too, and has been for {event.seconds:.1f} s"
    return (
        f"split brain is over: this member and {name} were both active for {event.seconds:.1f} s; meanwhile "
        f"{event.accepted} new connections were accepted here, {event.accepted_there} at {name}, and either may have "
        f"forwarded the {event.known} that were known before"
    )


def figures(splits: SplitBrains, names: Mapping[int, str], now: float) -> dict[str, Any]:
    """Split brains for `stat` and `status`. `names`: number -> name of each peer; `now`: wire time."""
    last = splits.last
    return {
        "count": splits.count,
        "present": [names[peer] for peer in splits.present],
        "possible": [names[peer] for peer in splits.possible],
        "last": {
            "peer": names[last.peer],
            "ago_s": round(now - splits.last_at, 3),
            "seconds": round(last.seconds, 3),
            "accepted": last.accepted,
            "accepted_there": last.accepted_there,
            "known": last.known,
        }
        if last is not None
        else None,
    }
