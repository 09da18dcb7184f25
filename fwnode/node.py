"""The edge to the kernel: one member process.

Reads the configuration, opens queues, sockets and the control socket, and runs one loop, in which the member
(`fwnode.member`) is given what comes and the time. Implements what the member asks of the world (`fwnode.edges`).
Decides nothing.
"""

from __future__ import annotations

import logging
import os
import select
import selectors
import signal
import sys
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, cast

from fwnode import node_process
from fwnode.clock import wall_now, wire_now
from fwnode.configuration import MemberConfig, load, load_releases
from fwnode.control.server import ControlServer
from fwnode.datapath import sharing_rules
from fwnode.datapath.address_keeper import VirtualAddress, place_on_loopback, prepare_kernel
from fwnode.datapath.interfaces import LinkStates
from fwnode.datapath.queue import HEADER_BYTES, PAYLOAD_BYTES, Overruns, PacketQueue
from fwnode.datapath.replies import Replies
from fwnode.datapath.rules import INSPECTION_QUEUE_NUMBER, QUEUE_NUMBER, divert, remove
from fwnode.datapath.virtual_addresses import VirtualAddresses
from fwnode.edges import DivertError, EdgeFigures, FullSyncEnd
from fwnode.files import FileError
from fwnode.firewall.parameters import ParameterError
from fwnode.firewall.policy import Policy
from fwnode.firewall.verdict import Verdict
from fwnode.kept_policy import KeptPolicy
from fwnode.lab_clock import LabClock
from fwnode.links.datagrams import Datagrams, PeerSocket
from fwnode.links.full_sync_streams import FullSyncStreams
from fwnode.member import Member
from fwnode.printable import printable
from syncproto.errors import SyncError

LOOK_S = 0.1
"""Wire seconds between two looks at link states, which are not told when they change, and at sources that failed."""

log = logging.getLogger("fwnode")


class Node:
    """One member. Raises `FileError`, `DivertError` or `OSError` when it cannot start."""

    def __init__(self, config: MemberConfig, directory: Path, state: Path | None = None) -> None:
        self.config = config
        if problem := LabClock(config.clock.rate, config.clock.epoch).problem(wire_now()):
            raise FileError([f"clock.epoch: {problem}"])
        compatibility = load_releases(config.releases, directory)
        try:
            self._release = compatibility.release(config.release)
        except SyncError as error:
            raise FileError([f"release: {error}"]) from error
        self._kept = KeptPolicy((state or config.control_path.parent) / f"{config.member}.policy", config, directory)
        # A number that grows from start to start, whatever the wall clock says; a machine that boots has been silent
        # for longer than peers need to believe a smaller one.
        incarnation = time.monotonic_ns()
        self.member = Member(config, compatibility, self._kept.load(), self, now=wire_now(), incarnation=incarnation)
        self._resting: list[int] = []
        """Sources that failed; they are looked at again after a while."""
        self._next_look = self.member.now
        self._selector = selectors.EpollSelector()
        self._poll = select.epoll()
        """The packets' queues, and the selector of everything else, which costs more: a packet does not wait for it."""
        self._open()

    def _open(self) -> None:
        member, interfaces, sync = self.member, self.config.cluster.interfaces, self.config.sync_interface
        prepare_kernel([i.kernel_name for i in interfaces])
        self._replies = Replies()
        self.divert(member.firewall.policy)
        place_on_loopback([VirtualAddress(i.kernel_name, v) for i in interfaces for v in i.virtual])
        self._queues = [
            self._open_queue(QUEUE_NUMBER, member.decide, HEADER_BYTES),
            self._open_queue(INSPECTION_QUEUE_NUMBER, member.decide_inspected, PAYLOAD_BYTES),
        ]
        macs = sharing_rules.prepare(self.config)
        if member.sharing is not None and member.sharing.hands_on:
            whose = member.sharing.decide_whose
            self._queues.append(self._open_queue(sharing_rules.SHARING_QUEUE_NUMBER, whose, HEADER_BYTES))
        self._poll.register(self._selector, select.EPOLLIN)
        self._neighbours = VirtualAddresses(interfaces, macs, self._selector)
        self._datagrams = Datagrams(self.config.wires(), sync.name if sync else "")
        for wire in self._datagrams.wires:
            self._selector.register(wire.socket, selectors.EVENT_READ, partial(self._receive_datagrams, wire))
        self._links = LinkStates()
        tell = partial(member.event, "control")
        self._control = ControlServer(self.config.control_path, self._selector, member.handle, member.streams(), tell)
        self._streams = FullSyncStreams(
            self._selector, wire_now, member.accept_stream, member.stream_ended, member.full_sync_pause
        )
        if sync:
            self._streams.listen(str(self.config.own_addresses(sync)[0].ip), self._release.full_sync_port)

    def _open_queue(self, number: int, decide: Callable[[bytes, int, float], Verdict], copied: int) -> PacketQueue:
        queue = PacketQueue(number, decide, self._packet_time, self._replies.send, self._hold,
                            partial(self.member.guard.failed, "a decision about a packet"), copied)  # fmt: skip
        self._poll.register(queue, select.EPOLLIN)
        return queue

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until a stop was requested and is done."""
        guard, wakeup = self.member.guard, self._next_look
        # The last guard: what could not be done is tried again after a while, and packets are served meanwhile.
        while not guard.run("a turn of the loop", self._serve, wakeup):
            wakeup = wire_now() + LOOK_S
        guard.run("the end", self._close)

    def _serve(self, wakeup: float) -> None:
        """The loop: wait for packets and others, at first until `wakeup`."""
        queues = {queue.fileno(): queue.run for queue in self._queues}
        member, held, look_at_time = self.member, self.member.sync.held, self.member.look_at_time
        now = wire_now()
        while not (member.stop_requested and member.stop(now)):
            only_packets = True
            ready = self._poll.poll(max(0.0, wakeup - now))
            for descriptor, _ in ready:
                run_queue = queues.get(descriptor)
                if run_queue is not None:
                    try:
                        run_queue()
                    except Exception as error:
                        self._rest(descriptor, "a packet queue", error)
                    continue
                only_packets = False
                self._serve_others(descriptor)
            if ready and only_packets:
                now = member.now  # a queue has read the clock in this turn, and acted on it
            else:
                now = wire_now()
                look_at_time(now)
            if only_packets and now < wakeup and not held.unflushed:
                continue  # the next packet may wait already, and nothing else has happened
            if now >= self._next_look:
                self._look(now)
            member.advance(now)
            self._streams.advance(now)
            wakeup, now = self._next_wakeup(), wire_now()

    def _serve_others(self, descriptor: int) -> None:
        """Everybody but the packets."""
        self.member.look_at_time(wire_now())
        for key, mask in self._selector.select(0):
            try:
                key.data(mask)
            except Exception as error:
                self._rest(descriptor, "an answer to the network or the control socket", error)

    def _rest(self, descriptor: int, what: str, error: Exception) -> None:
        """It may fail again at once, and for ever: it has to wait until the next look."""
        self.member.guard.failed(what, error)
        if descriptor not in self._resting:
            self._poll.unregister(descriptor)
            self._resting.append(descriptor)

    def _packet_time(self) -> float:
        """Lab time for the decisions on a batch of packets."""
        member = self.member
        member.now = now = wire_now()
        if now >= member.cluster.overdue_at:  # asked here: it is one call less for each packet
            member.look_at_time(now)
        return member.clock.at(now)

    def _next_wakeup(self) -> float:
        wakeup = min(self._next_look, self.member.next_wakeup())
        resume_at = self._streams.next_wakeup()
        return wakeup if resume_at is None else min(wakeup, resume_at)

    def _look(self, now: float) -> None:
        self._next_look = now + LOOK_S
        while self._resting:
            self._poll.register(self._resting.pop(), select.EPOLLIN)
        run = self.member.guard.run
        for interface in self.config.cluster.interfaces:
            is_up = self._links.is_up(interface.kernel_name)
            run("the check of an interface", self.member.set_interface, interface.name, is_up, now)
        run("the control socket", self._control.on_tick)

    # -- what comes in -------------------------------------------------------------------------------------------

    def _hold(self, queue: PacketQueue, packet_id: int) -> bool:
        return self.member.hold((queue, packet_id), wire_now())

    def _receive_datagrams(self, wire: PeerSocket, _mask: int) -> None:
        now = wire_now()
        for data in self._datagrams.receive(wire, self._peer_refused):
            self.member.receive_datagram(wire.peer, wire.interface, data, now)

    def _peer_refused(self, peer: int) -> None:
        self.member.peer_refused(peer, wire_now())

    # -- what the member asks for (`fwnode.edges.Edges`) ---------------------------------------------------------

    def wall(self) -> float:
        return wall_now()

    def send(self, peer: int, interface: str, data: bytes) -> None:
        self._datagrams.send(peer, interface, data, self._peer_refused)

    def answer(self, answering: bool) -> None:
        self._neighbours.answer(answering)

    def announce(self) -> None:
        self._neighbours.announce()

    def divert(self, policy: Policy) -> None:
        interfaces = self.config.cluster.interfaces
        peers = [str(i.members[peer][0].ip) for i in interfaces for peer in self.config.peers.values()]
        divert([i.kernel_name for i in interfaces], peers, list(policy.inspected.values()))

    def restore_sharing(self) -> None:
        sharing_rules.restore_routes(self.config)

    def open_stream(self, peer: int, port: int, end: FullSyncEnd) -> None:
        interface = self.config.sync_interface
        assert interface is not None
        own, other = self.config.own_addresses(interface)[0].ip, interface.members[self.config.peers[peer]][0].ip
        self._streams.open(str(own), str(other), port, end)

    def drains(self, end: FullSyncEnd) -> bool:
        return self._streams.drains(end)

    def refuse_waiting(self, now: float) -> None:
        for queue in self._queues:
            queue.refuse_waiting()
        self._streams.refuse_waiting()
        for wire in self._datagrams.wires:
            for data in self._datagrams.receive_all(wire):
                self.member.receive_datagram(wire.peer, wire.interface, data, now, stale=True)

    def release(self, packet: object, accept: bool) -> None:
        queue, packet_id = cast(tuple[PacketQueue, int], packet)
        if accept:
            queue.release(packet_id)
        else:
            queue.refuse(packet_id)

    def keep_policy(self, policy: dict[str, Any], file: str, at: float) -> Generator[None, None, None]:
        return self._kept.writing(policy, file, at)

    def figures(self) -> EdgeFigures:
        overruns = Overruns(*map(sum, zip(*(queue.overruns() for queue in self._queues), strict=True)))
        return EdgeFigures(
            lost_queue=overruns.queue,
            lost_socket=overruns.socket,
            queue_buffer_bytes=self._queues[0].buffer_bytes,
            sent_bytes=self._datagrams.sent_bytes,
            received_bytes=self._datagrams.received_bytes,
            send_errors=self._datagrams.errors,
        )

    def tell(self, event: dict[str, Any]) -> None:
        log.info("%s: %s", event["kind"], printable(event["text"]))

    def _close(self) -> None:
        self._control.close()
        for queue in self._queues:
            queue.close()
        self._neighbours.close()
        self._datagrams.close()
        self._streams.close()
        self._replies.close()
        self._links.close()


def main() -> None:
    """`fwnode --config FILE`: run one member until SIGTERM. Exit 2: the configuration; 4: the machine."""
    options = node_process.arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if options.remove_rules:
        remove()
        sharing_rules.undo()
        return
    try:
        config = load(options.config)
        if options.check:
            config.load_policy(options.config.parent)
            load_releases(config.releases, options.config.parent).release(config.release)
            return
        node_process.raise_file_limit()
        node = Node(config, options.config.parent, options.state)
    except (FileError, ParameterError, SyncError) as error:
        print(f"fwnode: {error}", file=sys.stderr)
        sys.exit(2)
    except (DivertError, OSError) as error:
        print(f"fwnode: cannot start: {error}. It needs CAP_NET_ADMIN and NFQUEUE; see `fwlab doctor`", file=sys.stderr)
        sys.exit(4)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(node.member, "stop_requested", True))
    node_process.spare_what_lives_long()
    node.run()


if __name__ == "__main__":
    os.umask(0o077)
    main()
