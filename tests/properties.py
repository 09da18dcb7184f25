"""How much a property test looks at. For a night: `FWPAIR_EXAMPLES=20 make test` looks at twenty times as much."""

from __future__ import annotations

import os

from hypothesis import settings

FACTOR = int(os.environ.get("FWPAIR_EXAMPLES", "1"))
EXAMPLES = 100


def examples(count: int = EXAMPLES) -> settings:
    """So many examples; no example fails for being slow, which says more about the machine."""
    return settings(max_examples=count * FACTOR, deadline=None)
