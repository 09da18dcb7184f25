"""What a TCP endpoint sends: its buffer, its windows, and when it sends something again. Pure.

Numbers are Linux' own where they decide when a packet is sent: a retransmission timeout of 200 ms at least and two
minutes at most that doubles (RFC 6298), a probe of the last segment before the first timeout (RFC 8985), giving up
after `tcp_retries2`. Losses are found by duplicate acknowledgements and repaired one a round trip (RFC 6582), without
selective acknowledgements. Nagle's delay is not there: every workload, and asyncio, switches it off.
"""

from __future__ import annotations

from math import inf
from typing import Any, Protocol

from labs.simulation.segments import (
    ACK,
    FIN,
    HALF,
    MASK,
    MSS,
    PSH,
    TICKS,
    TIMESTAMPS,
    WITH_OPTIONS,
    pack_ipv4,
    pack_ipv6,
)

RTO_INITIAL_S = 1.0  # RFC 6298 2.1
RTO_MIN_S = 0.2  # Linux: TCP_RTO_MIN
RTO_MAX_S = 120.0  # Linux: TCP_RTO_MAX
GIVE_UP_S = 924.6  # Linux: tcp_retries2 = 15, as it counts them: by time
ORPHAN_GIVE_UP_S = 102.2  # Linux: 8 retries of what no process holds any more
PROBE_MARGIN_S = 0.002  # Linux: TCP_TIMEOUT_MIN
WINDOW_INITIAL_SEGMENTS = 10  # RFC 6928
DUPLICATES = 3  # RFC 5681: so many duplicate acknowledgements are a loss
TRIM_BYTES = 65_536
"""Acknowledged bytes that the buffer keeps at most, so that they are not moved at each acknowledgement."""


class Below(Protocol):
    """What a connection stands on."""

    def send(self, packet: bytes) -> None: ...
    def arm(self, when: float, connection: Any) -> None:
        """Call `on_wakeup` then."""

    def established(self, connection: Any) -> None:
        """One that answered a SYN is open now; it has no application yet."""

    def gone(self, connection: Any) -> None:
        """It does not exist any more."""


class TcpSender:
    """The sending half. Offsets count from the oldest byte that is not acknowledged; a FIN counts as a byte."""

    __slots__ = ("_ack_at", "_alarm_at", "_backoff", "_below", "_buffer", "_congestion",
                 "_duplicates", "_echo", "_expected", "_fin", "_fin_acknowledged", "_head_at",
                 "_idle_at", "_is_probe", "_open_window", "_peer_window", "_probed",
                 "_recover", "_retransmit_at", "_retried_since", "_rtt", "_rtt_variance", "_sent",
                 "_skip", "_threshold", "_told_expected", "_top", "ends", "mss", "oldest", "rto_s")  # fmt: skip

    def __init__(self, below: Below, ends: bytes, initial: int) -> None:
        self._below = below
        self.ends = ends
        self.mss = MSS[len(ends)]
        self.oldest = initial & MASK
        """Sequence number of offset 0."""
        self._sent = 0
        """What has been sent, from offset 0 on; less than `_top` while it is sent again."""
        self._top = 0
        """What has ever been sent."""
        self._buffer = b""
        self._skip = 0
        """Bytes at the buffer's begin that are acknowledged already."""
        self._fin = 0
        self._fin_acknowledged = False
        self._expected = 0
        """The next sequence number of the other side."""
        self._told_expected = 0
        """The same, as the other side was told it last."""
        self._open_window = 0
        """Our window, as it stands in segments."""
        self._peer_window = 0
        self._congestion = WINDOW_INITIAL_SEGMENTS * self.mss
        self._threshold = HALF
        self._duplicates = 0
        self._recover = -1
        """While a loss is repaired: how much is to be acknowledged until it is. Otherwise -1."""
        self._rtt = -1.0
        self._rtt_variance = 0.0
        self.rto_s = RTO_INITIAL_S
        self._backoff = 0
        self._echo = 0
        """The other side's timestamp that goes back to it."""
        self._head_at = 0.0
        """When offset 0 was sent, or became the oldest."""
        self._is_probe = False
        """The timer is that of the loss probe."""
        self._probed = False
        self._retried_since = -1.0
        self._retransmit_at = self._ack_at = self._idle_at = self._alarm_at = inf

    @property
    def pending(self) -> int:
        """Bytes that the other side has not acknowledged, sent or not."""
        return len(self._buffer) - self._skip

    # -- segments out

    def _emit(self, flags: int, sequence: int, now: float, payload: bytes = b"") -> None:
        self._ack_at = inf
        self._told_expected = self._expected
        ends = self.ends
        if len(ends) == 12:
            head = pack_ipv4(0x4500, 52 + len(payload), 0x4000, 0x4006, 0, ends, sequence & MASK, self._expected,
                             WITH_OPTIONS | flags, self._open_window, 0, TIMESTAMPS, int(now * TICKS) & MASK,
                             self._echo)  # fmt: skip
        else:
            head = pack_ipv6(0x60000000, 32 + len(payload), 0x0640, ends, sequence & MASK, self._expected,
                             WITH_OPTIONS | flags, self._open_window, 0, TIMESTAMPS, int(now * TICKS) & MASK,
                             self._echo)  # fmt: skip
        self._below.send(head + payload if payload else head)

    def _transmit(self, offset: int, size: int, now: float) -> None:
        """One segment with so much from an offset on; what lies behind the data is the FIN."""
        waiting = len(self._buffer) - self._skip
        end, flags = offset + size, ACK
        if end > waiting:
            end, flags = waiting, ACK | FIN
        if end == waiting and end > offset:
            flags |= PSH
        self._emit(flags, self.oldest + offset, now, self._buffer[self._skip + offset : self._skip + end])

    def _add(self, data: bytes, now: float) -> None:
        """More to send."""
        size = len(data)
        if self._buffer or self._top or not 0 < size <= self.mss <= self._peer_window or size > self._congestion:
            self._buffer += data
            self._push(now)
            return
        self._buffer = data  # the common case: a message, and nothing before it is under way
        self._emit(ACK | PSH, self.oldest, now, data)
        self._sent = self._top = size
        self._sent_data(now)
        self._head_at, self._backoff = now, 0
        self._arm_retransmission(now)

    def _push(self, now: float) -> None:
        """Send what the windows let go."""
        waiting = len(self._buffer) - self._skip
        total = waiting + self._fin
        sent, top = self._sent, self._top
        if sent >= total:
            return
        room = self._congestion if self._congestion < self._peer_window else self._peer_window
        while sent < total:
            size = min(self.mss, waiting - sent)
            if sent + size > room:
                size = room - sent
                if sent or size <= 0:
                    break  # a full segment later rather than a small one now
            if sent + size == waiting:
                size += self._fin
            self._transmit(sent, size, now)
            sent += size
        self._sent = sent
        if sent > top:
            self._top = sent
            self._sent_data(now)
            if not top:
                self._head_at, self._backoff = now, 0
            if not top or self._is_probe:
                self._arm_retransmission(now)
        elif not top and self._retransmit_at == inf:
            self._retransmit_at = now + self._timeout()  # no window: ask for it
            self._alarm(self._retransmit_at)

    def _sent_data(self, now: float) -> None:
        """New data has been sent."""

    # -- acknowledgements

    def _acknowledged(self, number: int, echoed: int, now: float) -> None:
        """So much more has arrived; `echoed`: when we sent what made the other side say so."""
        flight = self._top
        self.oldest = (self.oldest + number) & MASK
        self._sent = self._sent - number if self._sent > number else 0
        self._top = flight - number
        waiting = len(self._buffer) - self._skip
        if number > waiting:
            self._fin, self._fin_acknowledged = 0, True
        if number >= waiting:
            self._buffer, self._skip = b"", 0
        else:
            self._skip += number
            if self._skip > TRIM_BYTES:
                self._buffer, self._skip = self._buffer[self._skip :], 0
        if echoed:
            self._measure((int(now * TICKS) - echoed & MASK) / TICKS)
        self._backoff = self._duplicates = 0
        self._retried_since = -1.0
        self._probed = False
        if self._recover >= 0:
            self._repair(number, now)
        elif flight * 2 > self._congestion:
            step = number if self._congestion < self._threshold else self.mss * number // self._congestion
            self._congestion += step
        if self._top:
            self._head_at = now
            self._arm_retransmission(now)
        else:
            self._retransmit_at = inf

    def _repair(self, number: int, now: float) -> None:
        """An acknowledgement while a loss is repaired: the end of it, or the next hole."""
        self._recover -= number
        if self._recover <= 0:
            self._recover = -1
            self._congestion = self._threshold
        elif self._sent >= self._top:  # by duplicates; after a timeout everything is sent again anyway
            self._congestion = max(self.mss, self._congestion - number + self.mss)
            self._transmit(0, min(self.mss, self._top), now)
        else:
            self._congestion += number

    def _duplicate(self, now: float) -> None:
        """The other side acknowledges the same again: something has arrived that is not the next."""
        self._duplicates += 1
        if self._recover >= 0:
            if self._sent >= self._top:
                self._congestion += self.mss
                self._push(now)
        elif self._duplicates == DUPLICATES or self._probed:
            self._recover = self._top
            self._threshold = self._congestion = max(self._top // 2, 2 * self.mss)
            self._transmit(0, min(self.mss, self._top), now)
            self._head_at = now
            self._arm_retransmission(now)

    def _measure(self, rtt: float) -> None:
        """RFC 6298 2.2 and 2.3."""
        if self._rtt < 0:
            self._rtt, self._rtt_variance = rtt, rtt / 2
        else:
            late = rtt - self._rtt
            self._rtt_variance += ((late if late > 0 else -late) - self._rtt_variance) / 4
            self._rtt += late / 8
        margin = 4 * self._rtt_variance
        rto_s = self._rtt + (margin if margin > RTO_MIN_S else RTO_MIN_S)
        self.rto_s = rto_s if rto_s < RTO_MAX_S else RTO_MAX_S

    # -- timers

    def _alarm(self, when: float) -> None:
        """Be woken then at the latest. A timer that is put off, or off, costs nothing until its old time."""
        if when < self._alarm_at:
            self._alarm_at = when
            self._below.arm(when, self)

    def _timeout(self) -> float:
        return min(RTO_MAX_S, self.rto_s * 2.0**self._backoff)

    def _arm_retransmission(self, now: float) -> None:
        when = self._head_at + (self._timeout() if self._backoff else self.rto_s)
        self._is_probe = self._rtt >= 0 and not (self._probed or self._backoff or self._recover >= 0)
        if self._is_probe:
            probe = now + 2 * self._rtt + (RTO_MIN_S if self._top <= self.mss else PROBE_MARGIN_S)
            if probe < when:
                when = probe
        self._retransmit_at = when
        if when < self._alarm_at:
            self._alarm_at = when
            self._below.arm(when, self)

    def _on_retransmission(self, now: float, give_up_s: float) -> bool:
        """The timer has fired; False: it has tried long enough."""
        if not self._top:
            return self._ask_for_window(now)
        if self._is_probe:
            self._probed = True
            size = min(self.mss, self._top)
            self._transmit(self._top - size, size, now)
            self._head_at = now
            self._arm_retransmission(now)
            return True
        if self._retried_since < 0:
            self._retried_since = now
        elif now - self._retried_since >= give_up_s:
            return False
        if not self._backoff:
            self._threshold = max(self._top // 2, 2 * self.mss)
        self._backoff += 1
        self._congestion, self._recover, self._duplicates = self.mss, self._top, 0
        self._sent = min(self.mss, self._top)
        self._transmit(0, self._sent, now)
        self._head_at = now
        self._arm_retransmission(now)
        return True

    def _ask_for_window(self, now: float) -> bool:
        """The other side takes nothing now: a segment that it must answer (RFC 9293 3.8.6.1)."""
        if self._sent >= self.pending + self._fin:
            self._retransmit_at = inf
            return True
        self._backoff += 1
        self._emit(ACK, self.oldest - 1, now)
        self._retransmit_at = now + self._timeout()
        self._alarm(self._retransmit_at)
        return True
