"""The netfilter queue: packets' headers in (and of inspected control connections, their payload), verdicts out.

The `netfilterqueue` package reads packets; it is opened on a netlink socket of our own, because the same socket must
also do what the package has no call for: set the GSO flag (a segment of 64 KiB arrives as one packet) and send batch
verdicts (one message accepts every packet up to an id). A dropped or held packet ends a batch, and while a packet is
held, others are accepted one by one: a batch would let it go.

The queue is fail-closed: with no member listening, the kernel drops.
"""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from struct import Struct, pack
from typing import NamedTuple

from netfilterqueue import COPY_PACKET, NetfilterQueue, Packet

from fwnode.firewall.verdict import ACCEPT, Verdict

QUEUE_LENGTH_MAX = 16_384
"""Packets that the kernel keeps for us; about 0.1 s at the rate a busy member reaches."""
HEADER_BYTES = 192
"""Copied of each packet: IPv6 with extension headers, or an ICMP error with what it quotes."""
PAYLOAD_BYTES = 4_016
"""Copied of a packet of an inspected service: what fits the package's receive buffer of 4,096 bytes."""
SOCKET_BUFFER_BYTES = 32 << 20
"""Asked for; an ordinary user gets `net.core.rmem_max`."""
BATCH_MAX = 32
"""Accepted packets in one verdict message; measured: more brings nothing."""
TURN_MAX = 512
"""Packets in a row before the loop may look at its timers and other sockets."""

_NETLINK_NETFILTER = 12
_NLM_F_REQUEST = 1
_MSG_VERDICT, _MSG_CONFIG, _MSG_VERDICT_BATCH = 0x0301, 0x0302, 0x0303
_ATTRIBUTE_VERDICT_HEADER = 2
_CONFIG_MASK, _CONFIG_FLAGS = 4, 5
_FLAG_GSO = 1 << 2
_NF_DROP, _NF_ACCEPT = 0, 1
_PACKET_ID = Struct("!I").pack


_UNDECIDED = Verdict(False)


class Overruns(NamedTuple):
    """Packets that the kernel dropped because we were slow: the queue was full, or the socket's buffer."""

    queue: int
    socket: int


class _TurnOver(Exception):
    """Ends `NetfilterQueue.run`, which would otherwise go on for as long as packets come."""


class PacketQueue:
    """Binds queue `number`. `decide(data, hook, now)` gives verdicts, `clock()` the lab time, read once a batch, after
    the decisions and before they are carried out: it may find that they come too late, and call `refuse_waiting`.
    `reply(packet)` sends what a reject answers with, `hold(queue, id)` says whether a packet is to wait for `release`,
    `failed(error)` hears of a decision that could not be made: such a packet is dropped. `copied` bytes of each packet
    are looked at.
    Raises `OSError` when the kernel refuses the queue."""

    def __init__(
        self,
        number: int,
        decide: Callable[[bytes, int, float], Verdict],
        clock: Callable[[], float],
        reply: Callable[[bytes], None],
        hold: Callable[[PacketQueue, int], bool],
        failed: Callable[[Exception], None],
        copied: int = HEADER_BYTES,
    ) -> None:
        self.number = number
        self._decide = decide
        self._clock = clock
        self._reply = reply
        self._hold = hold
        self._failed = failed
        self._held = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._queue = NetfilterQueue(sockfd=self._socket.fileno())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a smaller buffer than asked for; `buffer_bytes` tells
            self._queue.bind(
                number,
                self._receive,
                max_len=QUEUE_LENGTH_MAX,
                mode=COPY_PACKET,
                range=copied,
                sock_len=SOCKET_BUFFER_BYTES,
            )
        kinds = (_MSG_VERDICT, _MSG_VERDICT_BATCH)
        self._accept_one, self._accept_batch = (self._verdict(kind, _NF_ACCEPT) for kind in kinds)
        self._drop_one, self._drop_batch = (self._verdict(kind, _NF_DROP) for kind in kinds)
        self._set_flags(_FLAG_GSO)
        self._now = clock()
        self._accepted_id = 0
        self._waiting = 0
        self._batch = 1
        self._left = 0

    @property
    def buffer_bytes(self) -> int:
        """The socket's receive buffer, as the kernel grants it."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def fileno(self) -> int:
        """For the selector."""
        return int(self._queue.get_fd())

    def run(self) -> None:
        """Give verdicts on what is waiting, at most `TURN_MAX` packets."""
        self._now = self._clock()
        self._left = TURN_MAX
        self._batch = 1  # whether a second packet waits takes a system call to learn: the first does not wait for that
        try:
            self._queue.run(block=False)
        except _TurnOver:
            pass
        finally:
            self._flush()

    def _receive(self, packet: Packet) -> None:
        try:
            verdict = self._decide(packet.get_payload(), packet.hook, self._now)
        except Exception as error:
            verdict = _UNDECIDED
            self._failed(error)
        if verdict is ACCEPT and not self._held:
            self._accepted_id = packet.id
            self._waiting += 1
            if self._waiting >= self._batch:
                self._flush()
                self._batch = BATCH_MAX
        else:
            self._flush()  # a batch accepts everything up to its id, so it must end before this one
            self._settle(packet, verdict)
        self._left -= 1
        if not self._left:
            raise _TurnOver

    def _settle(self, packet: Packet, verdict: Verdict) -> None:
        """A packet that has a verdict, or a hold, of its own."""
        if verdict.hold and self._hold(self, packet.id):
            self._held += 1
        elif verdict.accept:
            if verdict.mark:
                packet.set_mark(verdict.mark)
            packet.accept()
        else:
            packet.drop()
            if verdict.reply:
                self._reply(verdict.reply)

    def release(self, packet_id: int) -> None:
        """Accept a packet that was held."""
        self._held -= 1
        self._socket.send(self._accept_one + _PACKET_ID(packet_id))

    def refuse(self, packet_id: int) -> None:
        """Drop a packet that was held."""
        self._held -= 1
        self._socket.send(self._drop_one + _PACKET_ID(packet_id))

    def refuse_waiting(self) -> None:
        """Drop what was accepted and has not been let go yet: the member does not forward any more."""
        if self._waiting:
            self._socket.send(self._drop_batch + _PACKET_ID(self._accepted_id))
            self._waiting = 0

    def _flush(self) -> None:
        if self._waiting:
            self._now = self._clock()
        if self._waiting:
            self._socket.send(self._accept_batch + _PACKET_ID(self._accepted_id))
            self._waiting = 0

    def _verdict(self, kind: int, verdict: int) -> bytes:
        """A message that gives this verdict, but for the packet's id, with which it ends."""
        return self._message(kind, pack("=HH", 12, _ATTRIBUTE_VERDICT_HEADER) + pack("!II", verdict, 0))[:-4]

    def _set_flags(self, flags: int) -> None:
        attributes = pack("=HH", 8, _CONFIG_MASK) + pack("!I", flags)
        attributes += pack("=HH", 8, _CONFIG_FLAGS) + pack("!I", flags)
        self._socket.send(self._message(_MSG_CONFIG, attributes))

    def _message(self, kind: int, attributes: bytes) -> bytes:
        body = pack("=BB", socket.AF_UNSPEC, 0) + pack("!H", self.number) + attributes
        return pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST, 0, 0) + body

    def overruns(self) -> Overruns:
        """What the kernel counted for this queue; `/proc` is the only place where it says so."""
        for line in Path("/proc/net/netfilter/nfnetlink_queue").read_text().splitlines():
            fields = line.split()
            if fields and int(fields[0]) == self.number:
                return Overruns(queue=int(fields[5]), socket=int(fields[6]))
        return Overruns(0, 0)

    def close(self) -> None:
        """The kernel drops what comes from now on."""
        self._queue.unbind()
        self._socket.close()
