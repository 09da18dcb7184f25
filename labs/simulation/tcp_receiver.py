"""What a TCP endpoint receives: bytes put in order, handed to the application, and acknowledged as Linux does. Pure.

An ACK goes out at once while a connection is young or has been silent, where one side does all the talking, and for
what came twice or too early. Otherwise it waits for data to ride on, 40 ms at first (Linux: tcp_event_data_recv,
__tcp_ack_snd_check, tcp_cleanup_rbuf).
"""

from __future__ import annotations

from math import inf
from typing import Protocol

from labs.simulation.segments import ACK, HALF, MASK, PSH, SCALE
from labs.simulation.tcp_sender import Below, TcpSender

WINDOW_BYTES = 4 << 20  # what a process that does not read may leave with us; Linux: tcp_rmem's upper end, roughly
ATO_MIN_S = 0.04  # Linux: TCP_ATO_MIN, TCP_DELACK_MIN
DELAYED_ACK_MAX_S = 0.2  # Linux: TCP_DELACK_MAX
QUICK_ACKS = 16  # Linux: TCP_MAX_QUICKACKS


class Application(Protocol):
    """Who holds the connection; called from within the connection's own calls."""

    def opened(self) -> None: ...
    def received(self, data: bytes) -> None: ...
    def ended(self) -> None:
        """The other side has said that it sends nothing more."""

    def sent(self) -> None:
        """Something has been acknowledged. Called where `tell_sent` is set."""

    def closed(self, error: int) -> None:
        """The connection has ended, and not by the application's wish: an errno. Nothing more is told."""


class TcpReceiver(TcpSender):
    """The receiving half, on top of the sending one."""

    __slots__ = ("_ahead", "_ato_s", "_heard_at", "_inbox", "_kept", "_ping_pong", "_quick", "application", "reading")

    application: Application | None

    def __init__(self, below: Below, ends: bytes, initial: int) -> None:
        super().__init__(below, ends, initial)
        self._open_window = WINDOW_BYTES >> SCALE
        self._ahead: dict[int, tuple[bytes, bool]] | None = None
        """Data behind a hole, by sequence number; True: and then the end."""
        self._inbox: list[bytes] | None = None
        """What has come since the application stopped reading."""
        self._kept = 0
        self.reading = True
        self._ato_s = 0.0
        self._quick = 0
        """So many ACKs go out at once."""
        self._ping_pong = False
        """Both sides speak in turn: an ACK waits for data to ride on."""
        self._heard_at = -inf

    # -- data in

    def _receive_unordered(self, data: bytes, sequence: int, is_end: bool, now: float) -> bool:
        """Old, or ahead of a hole, or what fills one; True: and that was all."""
        ahead = self._ahead = {} if self._ahead is None else self._ahead
        beyond = (sequence + len(data) + is_end - self._expected) & MASK
        if 0 < beyond <= self._open_window << SCALE:
            known, was_end = ahead.get(sequence, (b"", False))
            ahead[sequence] = (max(known, data, key=len), is_end or was_end)
        parts, ended = self._in_order(ahead)
        if not ahead:
            self._ahead = None
        if not ended:
            self._acknowledge_at_once(now)
        for part in parts:
            self._take(part)
        return ended

    def _in_order(self, ahead: dict[int, tuple[bytes, bool]]) -> tuple[list[bytes], bool]:
        """What can be handed on by now, and whether it is all."""
        parts: list[bytes] = []
        while ahead:
            at = self._expected
            if at not in ahead:
                at = min(ahead, key=self._distance)
            late = -self._distance(at)
            if late < 0:
                break
            data, is_end = ahead.pop(at)
            if late < len(data):
                parts.append(data[late:])
                self._expected = (at + len(data)) & MASK
            if is_end and late <= len(data):
                return parts, True
        return parts, False

    def _distance(self, sequence: int) -> int:
        """How far ahead of what is expected; negative: behind."""
        return ((sequence - self._expected + HALF) & MASK) - HALF

    def _take(self, data: bytes) -> None:
        """For the application, as far as it reads."""
        if self.reading:
            if self.application is not None:
                self.application.received(data)
            return
        if self._inbox is None:
            self._inbox = []
        self._inbox.append(data)
        self._kept += len(data)
        self._open_window = max(0, WINDOW_BYTES - self._kept) >> SCALE

    # -- when to acknowledge (Linux: tcp_event_data_recv, __tcp_ack_snd_check, tcp_cleanup_rbuf)

    def _schedule(self, bits: int, now: float) -> None:
        """Data has come in order, and its application is about to read it."""
        gap = now - self._heard_at
        if not self._ato_s:
            self._quick, self._ato_s = QUICK_ACKS, ATO_MIN_S
        elif gap <= ATO_MIN_S / 2:
            self._ato_s = self._ato_s / 2 + ATO_MIN_S / 2
        elif gap < self._ato_s:
            self._ato_s = min(self._ato_s / 2 + gap, self.rto_s)
        elif gap > self.rto_s:
            self._quick = QUICK_ACKS
        self._heard_at = now
        pushed_again = bits & PSH and self._ack_at < inf
        if (
            (not self._ping_pong and (self._quick or bits & PSH)) or pushed_again
            or (self._expected - self._told_expected) & MASK > self.mss
        ):  # fmt: skip
            self._acknowledge(now)
        elif self._ack_at == inf:
            self._delay_acknowledgement(now)

    def _delay_acknowledgement(self, now: float) -> None:
        self._ack_at = now + min(max(self._ato_s, ATO_MIN_S), DELAYED_ACK_MAX_S)
        self._alarm(self._ack_at)

    def _acknowledge(self, now: float) -> None:
        self._emit(ACK, self.oldest + self._top, now)
        if self._quick:
            self._quick -= 1

    def _acknowledge_at_once(self, now: float) -> None:
        """Something came twice or too early."""
        self._quick, self._ping_pong, self._ato_s = QUICK_ACKS, False, ATO_MIN_S
        self._acknowledge(now)

    def _sent_data(self, now: float) -> None:
        if now - self._heard_at < self._ato_s:
            self._ping_pong = True
        if self._quick:
            self._quick -= 1
