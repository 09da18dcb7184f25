"""Datagrams that come in fragments: which of them the firewall has accepted, by their first fragment.

Only accepted ones are remembered, so that nothing that is refused takes their place. A later fragment of one that is
not here is dropped: one whose first fragment was refused, has not come yet, or was accepted by an older policy.
Knows nothing of packets' bytes. Times are lab seconds.
"""

from __future__ import annotations

from collections import OrderedDict

FRAGMENTS_MAX = 1_024
"""Datagrams whose fragments are followed at a time; the oldest makes room (Linux: ipfrag_high_thresh, 4 MB)."""
FRAGMENT_TIMEOUT_S = 30.0
"""How long fragments of a datagram are expected (RFC 791 and Linux: 15 to 30 s)."""


class AcceptedFragments:
    """By identity (`Packet.fragment`), oldest first, with the time until which more fragments pass."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def accept(self, identity: bytes, until: float) -> None:
        """The first fragment has passed; the rest may, too."""
        self._until.pop(identity, None)
        while len(self._until) >= FRAGMENTS_MAX:
            self._until.popitem(last=False)
        self._until[identity] = until

    def passes(self, identity: bytes, now: float) -> bool:
        """Whether a later fragment of this datagram may pass."""
        return now < self._until.get(identity, now)

    def forget(self) -> None:
        """Another policy decides from now on."""
        self._until.clear()
