"""The lines of one direction of a TCP stream, followed by sequence number. Knows nothing of what the lines say.

Segments come as the network brings them: again, overlapping, out of order, cut off, or not at all. A line is told
only when every byte of it was seen, from the end of the line before it; past a gap that nothing fills the follower
goes on at the next line. So it may miss lines of the stream, and never returns one
that was not in it.
"""

from __future__ import annotations

from typing import NamedTuple

LINE_BYTES_MAX = 1_024
"""A longer line is passed over. Lab's own; the longest announcement (EPRT with IPv6) has 60 bytes."""
HELD_SEGMENTS_MAX = 8
"""Segments that wait for a gap to be filled; one more, and the gap is given up. Lab's own."""
HELD_BYTES_MAX = 2_048
"""Bytes in them. Lab's own: commands and replies are short."""
AHEAD_BYTES_MAX = 1 << 20
"""A segment further ahead than this is none of this stream. Lab's own: no end offers commands such a window."""

_MODULUS = 1 << 32


class Position(NamedTuple):
    """Where a follower stood, to go back to when a segment is not let through."""

    sequence: int | None
    line: bytes
    lost: bool
    losses: int
    held: dict[int, tuple[bytes, int]]


class LineFollower:
    """`losses` counts how often something of the stream was passed over: bytes that were not seen, or a long line."""

    __slots__ = ("_held", "_line", "_lost", "_sequence", "losses")

    def __init__(self) -> None:
        self.losses = 0
        self._sequence: int | None = None
        """What comes next; None before the first segment, which is taken to begin with a line."""
        self._line = bytearray()
        self._lost = False
        """What comes next is the rest of a line whose beginning was not seen."""
        self._held: dict[int, tuple[bytes, int]] = {}

    def start(self, sequence: int) -> None:
        """A SYN: the stream begins at `sequence`, unless it is an old one that came again."""
        if self._sequence is None or not -AHEAD_BYTES_MAX <= self._ahead(sequence) <= 0:
            self._sequence, self._lost = sequence % _MODULUS, False
            self._line.clear()
            self._held.clear()

    def position(self) -> Position:
        """Where it stands now, for `go_back`."""
        return Position(self._sequence, bytes(self._line), self._lost, self.losses, dict(self._held))

    def go_back(self, position: Position) -> None:
        """Forget every segment since that position."""
        self._sequence, line, self._lost, self.losses, self._held = position
        self._line = bytearray(line)

    @property
    def begun(self) -> bool:
        """Whether anything of the stream was seen."""
        return self._sequence is not None

    def rests_at(self, sequence: int) -> bool:
        """Whether what was seen of the stream ends with a whole line just before `sequence`, or nothing was seen."""
        return self._sequence is None or not (self._ahead(sequence) or self._line or self._lost or self._held)

    def feed(self, sequence: int, data: bytes, length: int) -> list[bytes]:
        """The lines that this segment completes. `length` is what it carries, `data` as much of it as was copied."""
        if not length:
            return []  # an acknowledgement, or a keepalive, whose number lies one before what comes next
        if self._sequence is None:
            self._sequence = sequence
        lines: list[bytes] = []
        ahead = self._ahead(sequence)
        if ahead > AHEAD_BYTES_MAX:
            return lines
        if ahead > 0:
            self._hold(sequence, data, length, lines)
        else:
            self._take(sequence, data, length, lines)
        self._take_held(lines)
        return lines

    def acknowledged(self, sequence: int) -> None:
        """The other end has everything before `sequence`: what was not seen of it will not come again."""
        if self._sequence is not None and self._ahead(sequence) > 0:
            self._jump(sequence)

    def _ahead(self, sequence: int) -> int:
        """How far `sequence` lies after what comes next; negative before it."""
        assert self._sequence is not None
        distance = (sequence - self._sequence) % _MODULUS
        return distance - _MODULUS if distance >= _MODULUS // 2 else distance

    def _hold(self, sequence: int, data: bytes, length: int, lines: list[bytes]) -> None:
        known = self._held.get(sequence)
        if known is None or known[1] < length:
            self._held[sequence] = data, length
        while len(self._held) > HELD_SEGMENTS_MAX or sum(len(d) for d, _ in self._held.values()) > HELD_BYTES_MAX:
            self._jump(min(self._held, key=self._ahead))
            self._take_held(lines)

    def _take_held(self, lines: list[bytes]) -> None:
        while self._held:
            first = min(self._held, key=self._ahead)
            if self._ahead(first) > 0:
                break
            self._take(first, *self._held.pop(first), lines)

    def _take(self, sequence: int, data: bytes, length: int, lines: list[bytes]) -> None:
        known = -self._ahead(sequence)
        if length <= known:
            return
        assert self._sequence is not None
        fresh = data[known:]
        self._sequence = (self._sequence + len(fresh)) % _MODULUS
        for piece in _pieces(fresh):
            self._add(piece, lines)
        missing = length - max(len(data), known)
        if missing > 0:
            assert self._sequence is not None
            self._jump((self._sequence + missing) % _MODULUS)

    def _add(self, piece: bytes, lines: list[bytes]) -> None:
        ended = piece.endswith(b"\n")
        if not self._lost:
            self._line += piece
            if len(self._line) > LINE_BYTES_MAX:
                self._lost = True
                self.losses += 1
            elif ended:
                lines.append(bytes(self._line).rstrip(b"\r\n"))
        if ended or self._lost:
            self._line.clear()
        if ended:
            self._lost = False

    def _jump(self, sequence: int) -> None:
        """Go on at `sequence`, and at the first line that begins after it."""
        self._sequence = sequence
        self._line.clear()
        self._lost = True
        self.losses += 1


def _pieces(data: bytes) -> list[bytes]:
    """Split behind each LF alone: a lone CR ends no line."""
    pieces = [piece + b"\n" for piece in data.split(b"\n")]
    pieces[-1] = pieces[-1][:-1]
    return [piece for piece in pieces if piece]
