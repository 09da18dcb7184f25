"""The cluster protocol's messages as bytes, for one member: encodes what it sends, decodes and checks what it receives,
and counts what it refuses. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from syncproto import codec
from syncproto.errors import SyncError
from syncproto.message import Heartbeat, Message


class Messages:
    """`tell(text)` is for the operator: it hears of the first of each kind that is refused."""

    def __init__(
        self, cluster: int, number: int, incarnation: int, key: bytes | None, tell: Callable[[str], None]
    ) -> None:
        self.refused: Counter[str] = Counter()
        self._cluster = cluster
        self._number = number
        self._incarnation = incarnation
        self._key = key
        self._tell = tell
        self._heartbeats: dict[int, tuple[bytes, codec.Envelope]] = {}
        """The last one of each peer: it comes over every network, and is decoded once."""

    def encode(self, message: Message) -> bytes:
        """Raises `SyncError` for one that no peer would accept."""
        return codec.encode(
            message, cluster=self._cluster, sender=self._number, incarnation=self._incarnation, key=self._key
        )

    def read(self, data: bytes, peer: int, *, sync: bool) -> codec.Envelope | None:
        """What came from this peer's address, over the sync network or another; None where it is refused."""
        last = self._heartbeats.get(peer)
        if last is not None and last[0] == data:
            return last[1]
        try:
            envelope = codec.decode(data, cluster=self._cluster, key=self._key)
        except SyncError as error:
            reason = error.reason.value
            self.refused[reason] += 1
            if self.refused[reason] == 1:
                self._tell(f"a message was refused: {error} (only the first of its kind is shown)")
            return None
        if envelope.sender != peer:
            self.refused["wrong sender"] += 1
            return None
        if isinstance(envelope.message, Heartbeat):
            self._heartbeats[peer] = data, envelope
        elif not sync:
            self.refused["not on the sync network"] += 1
            return None
        return envelope
