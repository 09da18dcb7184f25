"""Connections that have ended are remembered for a while, so that a late record does not bring them back. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice

from syncproto.columns import Columns
from syncproto.record import Record, RecordFlag

Version = tuple[float, int]
"""When something was born, and its revision: the later, the newer."""


class EndedVersions(OrderedDict[bytes, Version]):
    """The newest version of each key that is known to be over; of more than `at_most` the oldest is forgotten first.
    (Ordered, because in a plain dictionary the oldest is not found at once.)"""

    def __init__(self, at_most: int) -> None:
        super().__init__()
        self._at_most = at_most

    def remember(self, key: bytes, version: Version) -> None:
        """This version is over, and all before it."""
        version = max(version, self.pop(key, version))
        if len(self) >= self._at_most:
            self.popitem(last=False)
        self[key] = version

    def covers(self, key: bytes, version: Version) -> bool:
        """Whether this version is over."""
        ended = self.get(key)
        return ended is not None and version <= ended


def columns_of_ended(versions: Iterable[tuple[bytes, Version]], slice_max: int) -> Iterator[Columns]:
    """Versions that are over as they travel, in slices."""
    following = iter(versions)
    while some := list(islice(following, slice_max)):
        yield Columns.of(Record(key, 0, 0.0, 0.0, 0, "", int(RecordFlag.ENDED), *version) for key, version in some)
