"""A TCP endpoint: segments, calls of its application and time go in; segments, and calls to its application, come out.

Pure: it stands on a `Below` (where packets go, and who wakes it) and tells an `Application` what happened. The order
and the kinds of its packets are those of Linux (6.6 and later): when an ACK goes out at once and when it waits for data
to ride on, a FIN that answers a FIN together with its ACK, the times of SYNs, what is said to what is unexpected
(RFC 9293, RFC 5961). Not there: selective acknowledgements, urgent data, simultaneous opening, options but for their
size.
"""

from __future__ import annotations

import errno
from enum import IntEnum
from math import inf

from labs.simulation.segments import (
    ACK,
    FIN,
    HALF,
    MASK,
    RST,
    SCALE,
    SYN,
    TICKS,
    bare_segment,
    read_segment,
    read_timestamps,
    syn_options,
)
from labs.simulation.tcp_receiver import ATO_MIN_S, WINDOW_BYTES, Application, TcpReceiver
from labs.simulation.tcp_sender import GIVE_UP_S, ORPHAN_GIVE_UP_S, RTO_INITIAL_S, Below

SYN_LINEAR = 4  # Linux (6.5 and later): tcp_syn_linear_timeouts; so many SYNs follow each other by a second
SYN_RETRIES = 6  # Linux: tcp_syn_retries, after the linear ones
SYN_ACK_RETRIES = 5  # Linux: tcp_synack_retries
SYN_WINDOW = 64_240
TIME_WAIT_S = 60.0  # Linux: TCP_TIMEWAIT_LEN, and tcp_fin_timeout
KEEPALIVE_IDLE_S = 7_200.0  # Linux: tcp_keepalive_time
KEEPALIVE_INTERVAL_S = 75.0
KEEPALIVE_PROBES = 9


class TcpState(IntEnum):
    """In such an order that ranges of it mean something."""

    SYN_SENT = 1
    SYN_RECEIVED = 2
    ESTABLISHED = 3
    FIN_WAIT_1 = 4
    FIN_WAIT_2 = 5
    CLOSE_WAIT = 6
    CLOSING = 7
    LAST_ACK = 8
    TIME_WAIT = 9
    CLOSED = 10


SYN_SENT, SYN_RECEIVED, ESTABLISHED = TcpState.SYN_SENT, TcpState.SYN_RECEIVED, TcpState.ESTABLISHED
FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT = TcpState.FIN_WAIT_1, TcpState.FIN_WAIT_2, TcpState.CLOSE_WAIT
CLOSING, LAST_ACK, TIME_WAIT, CLOSED = TcpState.CLOSING, TcpState.LAST_ACK, TcpState.TIME_WAIT, TcpState.CLOSED
OPENING = frozenset({SYN_SENT, SYN_RECEIVED})
HEARING = frozenset({ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2})


class TcpConnection(TcpReceiver):
    """One end. Made by `connect` or `answer`; the calls that may follow are those under "by the application"."""

    __slots__ = ("_hellos", "_keepalive", "_soft_error", "_told", "_tries", "orphan", "state", "tell_sent")

    def __init__(
        self, below: Below, ends: bytes, initial: int, state: TcpState, application: Application | None
    ) -> None:
        super().__init__(below, ends, initial)
        self.application = application
        self.state = state
        self.orphan = False
        """No process holds it any more."""
        self.tell_sent = False
        self._told = False
        """The end of the other side has been told to the application."""
        self._tries = 0
        """Of a handshake, or of keepalive."""
        self._hellos = 0
        """SYNs or SYN-ACKs that were sent."""
        self._soft_error = 0
        self._keepalive = False

    # -- opening

    @classmethod
    def connect(cls, below: Below, ends: bytes, initial: int, application: Application, now: float) -> TcpConnection:
        """A connection whose SYN has just been sent. `ends`: as of `segments.ends_of`, this side first; `initial`: the
        first sequence number."""
        self = cls(below, ends, initial, SYN_SENT, application)
        self._say_hello(now)
        return self

    @classmethod
    def answer(cls, below: Below, ends: bytes, initial: int, packet: bytes, at: int, now: float) -> TcpConnection:
        """The answer to a SYN; whoever listens sets `application` when it is `opened`."""
        self = cls(below, ends, initial, SYN_RECEIVED, None)
        sequence, _, bits, self._peer_window = read_segment(packet, at + 4)
        self._expected = self._told_expected = (sequence + 1) & MASK
        self._echo = _timestamps(packet, at, bits)[0]
        self._say_hello(now)
        return self

    def _say_hello(self, now: float) -> None:
        """SYN or SYN-ACK, at first and again."""
        waits = self._tries if self.state is SYN_RECEIVED else max(0, self._tries - SYN_LINEAR)
        self._send_hello(now)
        self._retransmit_at = now + RTO_INITIAL_S * 2.0**waits
        self._alarm(self._retransmit_at)

    def _send_hello(self, now: float) -> None:
        flags = SYN | ACK if self.state is SYN_RECEIVED else SYN
        options = syn_options(int(now * TICKS) & MASK, self._echo)
        self._below.send(bare_segment(self.ends, self.oldest, self._expected, flags, SYN_WINDOW, options))
        self._head_at = now
        self._hellos += 1

    def _establish(self, echoed: int, now: float) -> None:
        """The other side has acknowledged our SYN. Where there were several, what it echoes tells which one: an answer
        to the first that has come late, or been sent again, is a slow network, and makes the next timeouts long."""
        late = self._hellos > 1 and echoed
        self._measure((int(now * TICKS) - echoed & MASK) / TICKS if late else now - self._head_at)
        self.oldest = (self.oldest + 1) & MASK
        self._tries, self._retransmit_at = 0, inf
        self.state = ESTABLISHED
        if self._keepalive:
            self._alarm_idle(now, KEEPALIVE_IDLE_S)

    # -- by the application

    def write(self, data: bytes, now: float) -> None:
        """Send these bytes, when the windows let them go."""
        if self.state is ESTABLISHED or self.state is CLOSE_WAIT:
            self._add(data, now)

    def shut_down(self, now: float) -> None:
        """Nothing more will be written; reading goes on."""
        if self.state is ESTABLISHED or self.state is CLOSE_WAIT:
            self.state = FIN_WAIT_1 if self.state is ESTABLISHED else LAST_ACK
            self._fin = 1
            self._push(now)

    def close(self, now: float) -> None:
        """The process lets go of it: in order, unless it leaves something unread."""
        self.orphan = True
        self.application = None
        if self._inbox or self.state in OPENING:
            self.abort(now)
        else:
            self.shut_down(now)
            if self.state is FIN_WAIT_2:
                self._alarm_idle(now, TIME_WAIT_S)

    def abort(self, now: float) -> None:
        """As a process that is ended with SO_LINGER 0: one RST, and nothing is known any more."""
        if self.state not in (SYN_SENT, CLOSING, LAST_ACK, TIME_WAIT, CLOSED):
            self._emit(RST | ACK, self.oldest + self._top, now)
        self.application = None
        self._go()

    def pause_reading(self) -> None:
        """The application takes nothing for now; the window gets smaller."""
        self.reading = False

    def resume_reading(self, now: float) -> None:
        """The application takes data again, first what has come meanwhile."""
        if self.reading:
            return
        self.reading = True
        inbox, self._inbox, self._kept = self._inbox or [], None, 0
        was_narrow = self._open_window << SCALE < 2 * self.mss
        self._open_window = WINDOW_BYTES >> SCALE
        if was_narrow and self.state in HEARING:
            self._emit(ACK, self.oldest + self._top, now)
        for data in inbox:
            self._take(data)
        if self.state not in HEARING:
            self._tell_end()

    def keep_alive(self, now: float) -> None:
        """Ask the other side from time to time whether it is still there, as SO_KEEPALIVE does."""
        self._keepalive = True
        if self.state not in OPENING:
            self._alarm_idle(now, KEEPALIVE_IDLE_S)

    # -- by the network

    def receive(self, packet: bytes, at: int, now: float) -> None:
        """A segment; its TCP header begins at `at`."""
        sequence, acknowledgement, bits, window = read_segment(packet, at + 4)
        if bits & (RST | SYN) or not bits & ACK or self.state <= SYN_RECEIVED:
            if not self._receive_odd(packet, at, now):
                return
        elif self.state is TIME_WAIT:
            self._linger(sequence, now)
            return
        begin = at + (bits >> 12) * 4
        length = len(packet) - begin
        echoed = 0
        if bits >> 12 == 8:
            stamp, echoed = read_timestamps(packet, at + 24)
            if (sequence - self._told_expected - 1) & MASK >= HALF:  # the first since our last word (RFC 7323 4.3)
                self._echo = stamp
        number = (acknowledgement - self.oldest) & MASK
        if number and number <= self._top:
            self._peer_window = window << SCALE
            self._acknowledged(number, echoed, now)
            if self._fin_acknowledged and self._end_of_ours(now):
                return
            if self._buffer or self._fin:
                self._push(now)
            if self.tell_sent and self.application is not None:
                self.application.sent()
        elif number < HALF:
            if number > 0:
                self._acknowledge(now)  # of what was never sent
                return
            changed = window << SCALE != self._peer_window
            self._peer_window = window << SCALE
            if changed:
                self._push(now)
            elif self._top and not length and not bits & FIN:
                self._duplicate(now)
        if self._keepalive:
            self._tries = 0
            self._alarm_idle(now, KEEPALIVE_IDLE_S)
        if length or bits & FIN:
            self._receive_data(packet, begin, length, sequence, bits, now)
        elif (sequence - self._told_expected) & MASK >= HALF:
            self._acknowledge(now)  # a probe, or older than our last word

    def unreachable(self, error: int) -> None:
        """An ICMP error about one of our segments."""
        if self.state is SYN_SENT:
            self._fail(error)
        else:
            self._soft_error = error

    def _receive_odd(self, packet: bytes, at: int, now: float) -> bool:
        """A segment that opens or breaks off, or comes while that is under way; True: it may carry data, too."""
        sequence, _, bits, _ = read_segment(packet, at + 4)
        if self.state is SYN_SENT:
            self._receive_in_syn_sent(packet, at, now)
            return False
        if bits & RST:
            self._receive_reset(sequence, now)
            return False
        if self.state is SYN_RECEIVED:
            return self._receive_in_syn_received(packet, at, now)
        if bits & SYN:
            self._acknowledge(now)  # a challenge: whoever has forgotten us answers with a RST
        return False

    def _receive_in_syn_sent(self, packet: bytes, at: int, now: float) -> None:
        sequence, acknowledgement, bits, window = read_segment(packet, at + 4)
        fits = bits & ACK and acknowledgement == (self.oldest + 1) & MASK
        if bits & RST:
            if fits:
                self._fail(errno.ECONNREFUSED)
        elif bits & ACK and not fits:
            self._below.send(bare_segment(self.ends, acknowledgement, 0, RST))
        elif bits & SYN and bits & ACK:
            self._expected = (sequence + 1) & MASK
            self._peer_window = window
            self._echo, echoed = _timestamps(packet, at, bits)
            self._establish(echoed, now)
            self._acknowledge(now)
            if self.application is not None:
                self.application.opened()

    def _receive_in_syn_received(self, packet: bytes, at: int, now: float) -> bool:
        sequence, acknowledgement, bits, _ = read_segment(packet, at + 4)
        if bits & SYN:
            if not bits & ACK and (sequence + 1) & MASK == self._expected:
                self._send_hello(now)  # what it echoes stays, and the timer as well
            return False
        if not bits & ACK:
            return False
        if acknowledgement != (self.oldest + 1) & MASK:
            self._below.send(bare_segment(self.ends, acknowledgement, 0, RST))
            return False
        self._establish(_timestamps(packet, at, bits)[1], now)
        self._below.established(self)
        return self.state is ESTABLISHED

    def _receive_reset(self, sequence: int, now: float) -> None:
        """Only the very next number ends it; one within the window is challenged (RFC 5961)."""
        if sequence == self._expected:
            if self.state is TIME_WAIT or self.orphan:
                self._go()
            else:
                self._fail(errno.EPIPE if self.state is CLOSE_WAIT else errno.ECONNRESET)
        elif (sequence - self._expected) & MASK < WINDOW_BYTES:
            self._acknowledge(now)

    def _end_of_ours(self, now: float) -> bool:
        """Our FIN has arrived; True: that was the last thing to happen."""
        if self.state is FIN_WAIT_1:
            self.state = FIN_WAIT_2
            if self.orphan:
                self._alarm_idle(now, TIME_WAIT_S)
        elif self.state is CLOSING:
            self._wait(now)
        elif self.state is LAST_ACK:
            self._go()
            return True
        return False

    # -- data

    def _receive_data(self, packet: bytes, begin: int, length: int, sequence: int, bits: int, now: float) -> None:
        if not ESTABLISHED <= self.state <= FIN_WAIT_2:
            self._acknowledge(now)  # the other side has said its end already: sent again
            return
        if length and self.orphan:
            self.abort(now)  # nobody will read it
            return
        if self._ahead is not None or sequence != self._expected:
            if self._receive_unordered(packet[begin:], sequence, bool(bits & FIN), now) and self.state in HEARING:
                self._receive_end(now)
            return
        if length > self._open_window << SCALE:
            self._acknowledge(now)
            return
        if length:
            self._expected = (sequence + length) & MASK
            self._schedule(bits, now)
            self._take(packet[begin:])
        if bits & FIN and self.state in HEARING:
            self._receive_end(now)

    def _receive_end(self, now: float) -> None:
        self._expected = (self._expected + 1) & MASK
        self._ahead = None
        if self.state is ESTABLISHED:
            self.state = CLOSE_WAIT
            self._ping_pong = True  # our own FIN is likely to follow, and takes the ACK along
            self._delay_acknowledgement(now)
        else:
            self._acknowledge(now)
            if self.state is FIN_WAIT_1:
                self.state = CLOSING
            else:
                self._wait(now)
        if self.reading:
            self._tell_end()

    def _tell_end(self) -> None:
        if not self._told and self.application is not None:
            self._told = True
            self.application.ended()

    # -- time

    def on_wakeup(self, now: float) -> None:
        """One of the timers may be due. A wake-up that another one has overtaken is let pass."""
        if now < self._alarm_at:
            return
        self._alarm_at = inf
        if now >= self._ack_at:
            self._ping_pong, self._ato_s = False, ATO_MIN_S if self._ping_pong else min(2 * self._ato_s, self.rto_s)
            self._acknowledge(now)
        if now >= self._retransmit_at:
            self._retransmit(now)
        if now >= self._idle_at:
            self._idle(now)
        if self.state is not CLOSED:
            when = min(self._ack_at, self._retransmit_at, self._idle_at)
            if when < inf:
                self._alarm(when)

    def _retransmit(self, now: float) -> None:
        if self.state in OPENING:
            self._tries += 1
            last = SYN_ACK_RETRIES if self.state is SYN_RECEIVED else SYN_LINEAR + SYN_RETRIES
            if self._tries > last:
                self._fail(self._soft_error or errno.ETIMEDOUT)
            else:
                self._say_hello(now)
        elif not self._on_retransmission(now, ORPHAN_GIVE_UP_S if self.orphan else GIVE_UP_S):
            self._fail(self._soft_error or errno.ETIMEDOUT)

    def _alarm_idle(self, now: float, after_s: float) -> None:
        self._idle_at = now + after_s
        self._alarm(self._idle_at)

    def _idle(self, now: float) -> None:
        """Long enough in a state that ends by itself, or keepalive's time."""
        if self.state is TIME_WAIT or (self.state is FIN_WAIT_2 and self.orphan):
            self._go()
        elif self._tries >= KEEPALIVE_PROBES:
            self._emit(RST | ACK, self.oldest + self._top, now)
            self._fail(self._soft_error or errno.ETIMEDOUT)
        else:
            if not self._top:
                self._tries += 1
                self._emit(ACK, self.oldest - 1, now)
            self._alarm_idle(now, KEEPALIVE_INTERVAL_S)

    # -- the end

    def _wait(self, now: float) -> None:
        self.state = TIME_WAIT
        self._buffer, self._ahead, self._retransmit_at = b"", None, inf
        self._alarm_idle(now, TIME_WAIT_S)

    def _linger(self, sequence: int, now: float) -> None:
        """Something comes again after both ends: our last ACK was lost."""
        self._acknowledge(now)
        if sequence != self._expected:
            self._alarm_idle(now, TIME_WAIT_S)

    def _fail(self, error: int) -> None:
        application = self.application
        self._go()
        if application is not None:
            application.closed(error)

    def leave(self) -> None:
        """TIME_WAIT makes room for a new connection of the same ends."""
        self._go()

    def is_beyond(self, sequence: int) -> bool:
        """Whether a new connection may begin with this number (RFC 6191)."""
        return (sequence - self._expected) & MASK < HALF

    def _go(self) -> None:
        if self.state is CLOSED:
            return
        self.state = CLOSED
        self.application = None
        self._buffer, self._skip, self._ahead, self._inbox = b"", 0, None, None
        self._sent = self._top = self._fin = 0
        self._retransmit_at = self._ack_at = self._idle_at = self._alarm_at = inf
        self._below.gone(self)


def _timestamps(packet: bytes, at: int, bits: int) -> tuple[int, int]:
    """Own and echoed, of a segment with the options of Linux; zeros: it has none."""
    where = {8: 24, 10: 28}.get(bits >> 12)
    return (0, 0) if where is None else read_timestamps(packet, at + where)
