"""A machine's transport: its TCP connections and listeners, UDP sockets, pings, and what ICMP errors do to them.

It stands on the machine's `send_ip` and `register`. A segment of no connection is answered by a RST, a datagram for no
socket by "port unreachable", as a kernel does. The asyncio transports on top are in `labs.simulation.transports`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from labs.simulation.ip_packets import ICMP, ICMPV6, PORT_UNREACHABLE, TCP, UDP, icmp_message
from labs.simulation.machine import Machine
from labs.simulation.segments import ACK, HALF, RST, SYN, datagram, ends_of, read_segment, reset_for, turned
from labs.simulation.tcp_connection import TIME_WAIT, TcpConnection
from labs.simulation.tcp_receiver import Application

PORT_FIRST, PORT_LAST = 32_768, 60_999
"""A client's own ports (Linux: ip_local_port_range)."""
INITIAL_STEP = 64_013
"""Between the initial sequence numbers of two connections. Lab's own."""
PING_BYTES = 56
"""Data of an echo request, as `ping` sends it."""
ERRORS = {
    ICMP: {(3, 0): errno.ENETUNREACH, (3, 1): errno.EHOSTUNREACH, (3, 2): errno.ENOPROTOOPT, (3, 3): errno.ECONNREFUSED,
           (3, 9): errno.ENETUNREACH, (3, 10): errno.EHOSTUNREACH, (3, 13): errno.EHOSTUNREACH,
           (11, 0): errno.EHOSTUNREACH},
    ICMPV6: {(1, 0): errno.ENETUNREACH, (1, 1): errno.EACCES, (1, 3): errno.EHOSTUNREACH, (1, 4): errno.ECONNREFUSED,
             (3, 0): errno.EHOSTUNREACH},
}  # fmt: skip
"""What an application is told of an ICMP error (Linux: icmp_err_convert, icmpv6_err_convert)."""
_ECHO_REQUEST, _ECHO_REPLY = {4: 8, 16: 128}, {ICMP: 0, ICMPV6: 129}

Accept = Callable[[TcpConnection], Application]
DatagramHandler = Callable[[bytes, bytes, int], None]
"""Payload, and the sender's address and port."""
Pinged = Callable[[bool], object]
"""Called once: a reply came, or an error about the request."""


class Socket:
    """A UDP socket. Errors are heard only where it is connected to one peer, as in Linux."""

    __slots__ = ("_stack", "failed", "heard", "peer", "port")

    def __init__(self, stack: Stack, port: int, heard: DatagramHandler) -> None:
        self._stack = stack
        self.port = port
        self.heard = heard
        self.peer: tuple[bytes, int] | None = None
        self.failed: Callable[[int], None] | None = None

    def connect(self, address: bytes, port: int, failed: Callable[[int], None]) -> None:
        """From now on only this peer is heard, and errors about what is sent to it."""
        self.peer, self.failed = (address, port), failed

    def send(self, payload: bytes, address: bytes, port: int) -> None:
        """Send a datagram to the connected peer, or to this address and port."""
        machine = self._stack.machine
        machine.send_ip(datagram(ends_of(machine.source_for(address), address, self.port, port), payload))

    def close(self) -> None:
        """Nothing is heard any more."""
        self._stack.sockets.pop(self.port, None)


class Stack:
    """What stands on a machine; a `Below` of its connections. There is one for both families."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.world = machine.world
        self.send = machine.send_ip
        self.connections: dict[bytes, TcpConnection] = {}
        """By the ends as the other side writes them."""
        self.sockets: dict[int, Socket] = {}
        self.filters: list[Callable[[bytes], bool]] = []
        """See every TCP and UDP packet first; True: it goes no further."""
        self._listeners: dict[tuple[bytes, int], Accept] = {}
        self._pinged: dict[int, Pinged] = {}
        self._pings = 0
        self._ports: dict[bytes, int] = {}
        """Where the search for a free port begins, by destination."""
        self._udp_port = PORT_FIRST + self.world.random.randrange(PORT_LAST - PORT_FIRST)
        self._initial = self.world.random.randrange(HALF)
        machine.register(TCP, self._receive_segment)
        machine.register(UDP, self._receive_datagram)
        machine.register(ICMP, self.receive_icmp)
        machine.register(ICMPV6, self.receive_icmp)

    # -- TCP

    def connect(self, address: bytes, port: int, application: Application) -> TcpConnection:
        """A connection that is opening. Raises `OSError` where it cannot be begun."""
        source = self.machine.source_for(address)
        if not source:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        ends = self._free_ends(source, address, port)
        connection = TcpConnection.connect(self, ends, self._next_initial(), application, self.world.now)
        self.connections[turned(ends)] = connection
        return connection

    def listen(self, address: bytes, port: int, accept: Accept) -> None:
        """`accept` makes an application of a connection that is open. An address of zeros is any of its family.
        Raises `OSError`."""
        if (address, port) in self._listeners:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self._listeners[address, port] = accept

    def stop_listening(self, address: bytes, port: int) -> None:
        """Connections that are open stay."""
        self._listeners.pop((address, port), None)

    def free_port(self, address: bytes) -> int:
        """A port on which nobody listens."""
        port = PORT_FIRST + self.world.random.randrange(PORT_LAST - PORT_FIRST)
        while self._listener(address, port) is not None:
            port = port + 1 if port < PORT_LAST else PORT_FIRST
        return port

    def _listener(self, address: bytes, port: int) -> Accept | None:
        return self._listeners.get((address, port)) or self._listeners.get((bytes(len(address)), port))

    def _free_ends(self, source: bytes, address: bytes, port: int) -> bytes:
        """As Linux looks for a port: from a random one on every second, then the others."""
        where = address + port.to_bytes(2)
        span = PORT_LAST - PORT_FIRST + 1
        at = self._ports.get(where)
        if at is None:
            at = self.world.random.randrange(span // 2) * 2
        for _ in range(span):
            ends = ends_of(source, address, PORT_FIRST + at, port)
            at += 2
            if at >= span:
                at = (at + 1) % 2
            if turned(ends) not in self.connections:
                self._ports[where] = at
                return ends
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    def _next_initial(self) -> int:
        self._initial += INITIAL_STEP
        return self._initial

    def _receive_segment(self, packet: bytes) -> None:
        if self.filters and any(taken(packet) for taken in self.filters):
            return
        if packet[0] < 0x60:
            at = (packet[0] & 15) << 2
            key = packet[12:24] if at == 20 else packet[12:20] + packet[at : at + 4]
        else:
            at, key = 40, packet[8:44]
        connection = self.connections.get(key)
        if connection is None:
            self._receive_unknown(packet, at, key)
            return
        if connection.state is TIME_WAIT and self._begins_anew(connection, packet, at):
            connection.leave()
            self._receive_unknown(packet, at, key)
            return
        oldest = connection.oldest
        connection.receive(packet, at, self.world.now)
        if connection.oldest != oldest:
            self.machine.confirm(key[: (len(key) - 4) // 2])

    @staticmethod
    def _begins_anew(connection: TcpConnection, packet: bytes, at: int) -> bool:
        sequence, _, bits, _ = read_segment(packet, at + 4)
        return bool(bits & SYN) and not bits & ACK and connection.is_beyond(sequence)

    def _receive_unknown(self, packet: bytes, at: int, key: bytes) -> None:
        ends = turned(key)
        bits = read_segment(packet, at + 4)[2]
        size = (len(key) - 4) // 2
        if bits & SYN and not bits & (ACK | RST) and self._listener(ends[:size], int.from_bytes(key[-2:])) is not None:
            connection = TcpConnection.answer(self, ends, self._next_initial(), packet, at, self.world.now)
            self.connections[key] = connection
        elif reset := reset_for(packet, at, ends):
            self.machine.answer(reset)

    # -- a `Below`

    def arm(self, when: float, connection: TcpConnection) -> None:
        self.world.at(when, self._wake, connection)

    def _wake(self, connection: TcpConnection) -> None:
        connection.on_wakeup(self.world.now)

    def established(self, connection: TcpConnection) -> None:
        ends = connection.ends
        size = (len(ends) - 4) // 2
        accept = self._listener(ends[:size], int.from_bytes(ends[-4:-2]))
        if accept is None:
            connection.abort(self.world.now)  # nobody listens any more
        else:
            connection.application = accept(connection)
            connection.application.opened()

    def gone(self, connection: TcpConnection) -> None:
        self.connections.pop(turned(connection.ends), None)

    # -- UDP

    def socket(self, heard: DatagramHandler, port: int = 0) -> Socket:
        """A socket on this port, or on a free one. Raises `OSError`."""
        if not port:
            port = self._udp_port
            while port in self.sockets:
                port = port + 1 if port < PORT_LAST else PORT_FIRST
            self._udp_port = port + 1 if port < PORT_LAST else PORT_FIRST
        elif port in self.sockets:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        made = self.sockets[port] = Socket(self, port, heard)
        return made

    def _receive_datagram(self, packet: bytes) -> None:
        if self.filters and any(taken(packet) for taken in self.filters):
            return
        if packet[0] < 0x60:
            at, source = (packet[0] & 15) << 2, packet[12:16]
        else:
            at, source = 40, packet[8:24]
        socket = self.sockets.get(int.from_bytes(packet[at + 2 : at + 4]))
        sender = (source, int.from_bytes(packet[at : at + 2]))
        if socket is None or (socket.peer is not None and socket.peer != sender):
            self.machine.refuse(packet, PORT_UNREACHABLE)
        else:
            socket.heard(packet[at + 8 :], *sender)

    # -- ICMP

    def ping(self, address: bytes, pinged: Pinged) -> int:
        """One echo request; its identifier, with which it can be forgotten."""
        self._pings = self._pings % 0xFFFF + 1
        self._pinged[self._pings] = pinged
        body = self._pings.to_bytes(2) + b"\0\x01" + bytes(PING_BYTES)
        source = self.machine.source_for(address)
        self.machine.send_ip(icmp_message(source, address, _ECHO_REQUEST[len(address)], 0, body))
        return self._pings

    def forget_ping(self, identifier: int) -> None:
        self._pinged.pop(identifier, None)

    def receive_icmp(self, packet: bytes) -> None:
        """An echo reply, or an error."""
        protocol, at = (packet[9], (packet[0] & 15) << 2) if packet[0] < 0x60 else (packet[6], 40)
        kind, code = packet[at], packet[at + 1]
        if kind == _ECHO_REPLY[protocol]:
            pinged = self._pinged.pop(int.from_bytes(packet[at + 4 : at + 6]), None)
            if pinged is not None:
                pinged(True)
        elif error := ERRORS[protocol].get((kind, code)):
            self._receive_error(packet[at + 8 :], error)

    def _receive_error(self, quoted: bytes, error: int) -> None:
        """An error about a packet of ours."""
        if not quoted:
            return
        if quoted[0] < 0x60:
            at, protocol, addresses = (quoted[0] & 15) << 2, quoted[9:10], quoted[12:20]
        else:
            at, protocol, addresses = 40, quoted[6:7], quoted[8:40]
        ports = quoted[at : at + 4]
        if len(ports) < 4:
            return
        if protocol[0] == TCP:
            connection = self.connections.get(turned(addresses + ports))
            if connection is not None:
                connection.unreachable(error)
        elif protocol[0] == UDP:
            socket = self.sockets.get(int.from_bytes(ports[:2]))
            peer = (addresses[len(addresses) // 2 :], int.from_bytes(ports[2:]))
            if socket is not None and socket.peer == peer and socket.failed is not None:
                socket.failed(error)
        elif quoted[at] in _ECHO_REQUEST.values():
            pinged = self._pinged.pop(int.from_bytes(quoted[at + 4 : at + 6]), None)
            if pinged is not None:
                pinged(False)

    # -- the end of what stands on it

    def end(self) -> None:
        """The processes are gone, and their kernel closes what they leave; what they listened on is free again."""
        self._listeners.clear()
        self.sockets.clear()
        self._pinged.clear()
        for connection in list(self.connections.values()):
            connection.close(self.world.now)
