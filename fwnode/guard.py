"""What the member's loop calls may fail: the kernel refuses, a device is gone, a message cannot be made, we are wrong.

The loop goes on. Each kind of failure is counted, and told when it is new and then ever so often; whoever failed is
called again at its time, and it is up to it to try again. In a simulated world a failure is a found fault: `fatal`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import ParamSpec

TOLD_EVERY_S = 60.0
"""Wall seconds between two events about failures of one kind; the counter counts all. Lab's own."""

P = ParamSpec("P")

log = logging.getLogger("fwnode")


class Guard:
    """`tell(text)` is for the operator, `clock()` is wire time."""

    def __init__(self, tell: Callable[[str], None], clock: Callable[[], float]) -> None:
        self.failures: Counter[str] = Counter()
        """How often what failed, and how."""
        self.fatal = False
        """Whether a failure is raised after it was counted."""
        self._tell = tell
        self._clock = clock
        self._told_at: dict[str, float] = {}

    def run(self, what: str, action: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> bool:
        """Do it; False when it failed. `what` names it for people."""
        try:
            action(*args, **kwargs)
        except Exception as error:
            self.failed(what, error)
            return False
        return True

    def failed(self, what: str, error: Exception) -> None:
        kind = f"{what}: {type(error).__name__}"
        self.failures[kind] += 1
        if self.fatal:
            raise error
        now = self._clock()
        if now - self._told_at.get(kind, -inf) < TOLD_EVERY_S:
            return
        self._told_at[kind] = now
        times = f" ({self.failures[kind]} times so far)" if self.failures[kind] > 1 else ""
        log.error("%s failed", what, exc_info=error)
        self._tell(f"{what} failed: {error or type(error).__name__}; the member goes on and tries again{times}")
