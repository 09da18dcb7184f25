"""How long a member that was started is waited for: as long as it gets on. Pure.

A full sync over a slow link takes minutes, and says how far it has come. Only a member in which nothing moves is given
up, and it is not ended for that: whoever waits is told what it was doing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

READY_POLL_S = 0.02
"""Wall seconds between two questions to a member that is not ready yet; who has waited long asks less often."""
READY_POLL_MAX_S = 0.5
STOP_TIMEOUT_S = 10.0
"""Wall seconds for a member to end after it agreed to stop."""
NO_PROGRESS_S = 30.0
"""Wall seconds without any change in a member that is not ready. Three times what a full sync may stand still."""


class Readiness:
    """Of one start. `doing` says what the member does, for people."""

    def __init__(self, now: float) -> None:
        self.doing = "its control socket does not answer"
        self._moved_at = now
        self._seen: tuple[object, ...] = ()

    def heard(self, status: Mapping[str, Any], now: float) -> bool:
        """The member's status; True when it is ready."""
        full: Mapping[str, Any] = status.get("full_sync") or {}
        seen = (status.get("state"), full.get("state"), full.get("attempt"), full.get("records"))
        if seen != self._seen:
            self._seen, self._moved_at = seen, now
        self.doing = f"its state is {status.get('state')}{_full_sync(full)}"
        return bool(status.get("ready"))

    def left_s(self, now: float) -> float:
        """Seconds for which it is still waited for, if nothing moves; 0 when it is given up."""
        return max(0.0, self._moved_at + NO_PROGRESS_S - now)

    def complaint(self, member: str) -> str:
        """Why it is not waited for any longer, and what to do."""
        return (f"{member} is not ready, and nothing has moved for {NO_PROGRESS_S:g} s: {self.doing}. It was left "
                f"running: `fwctl {member} stat` says how it goes on, `fwlab do kill member={member}` ends it")


def _full_sync(full: Mapping[str, Any]) -> str:
    if full.get("state") not in ("waiting", "running"):
        return ""
    text = full.get("text")
    return f", its full sync from {full.get('peer')} {text or 'is about to begin'}"
