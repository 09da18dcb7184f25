"""The composition root: one member process.

Reads the configuration, wires firewall, cluster and sync engine to the queue, the wires and the control socket, and
runs one loop. Decides nothing itself: packets go to `Firewall.decide`, heartbeats to `Cluster`, sync messages to
`SyncEngine`; what they answer is carried out here.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import logging
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fwnode.clock import LabClock, wire_now
from fwnode.cluster.membership import Cluster, Join, MemberState, PeerChanged, StateChanged
from fwnode.configuration import MemberConfig, load, load_releases
from fwnode.control.commands import Commands, log_line
from fwnode.control.server import ControlServer
from fwnode.datapath.addresses import (
    ANNOUNCEMENTS,
    AddressKeeper,
    VirtualAddress,
    place_on_loopback,
    prepare_kernel,
)
from fwnode.datapath.queue import PacketQueue
from fwnode.datapath.rules import OWN_MARK, QUEUE_NUMBER, DivertError, divert, remove
from fwnode.files import FileError
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.parameters import ParameterError, Parameters
from fwnode.firewall.policy import Policy
from fwnode.links.datagrams import Datagrams, Wire
from fwnode.links.stream import Stream, connect, listen
from syncproto import codec, engine
from syncproto.errors import SyncError
from syncproto.limits import SYNC_TICK_S
from syncproto.message import Heartbeat

EVENTS_MAX = 1_000
"""Events that a member remembers for those who ask later."""
GATE_WAIT_S = 3.0
"""A joining member waits this long for a peer's release before it goes on without a full sync (the lab's choice)."""

_SIOCGIFFLAGS = 0x8913
_IFF_RUNNING = 0x40

log = logging.getLogger("fwnode")


class Node:
    """One member. Raises `FileError`, `DivertError` or `OSError` when it cannot start."""

    def __init__(self, config: MemberConfig, directory: Path) -> None:
        self.config = config
        self.directory = directory
        self.started_at = wire_now()
        self.clock = LabClock(config.clock.rate, config.clock.epoch)
        self.compatibility = load_releases(config.releases, directory)
        try:
            self.release = self.compatibility.release(config.release)
        except SyncError as error:
            raise FileError([f"release: {error}"]) from error
        policy = config.load_policy(directory)
        self.parameters = Parameters(self.release.defaults)
        for name, value in config.parameters.items():
            self.parameters.set(name, value)
        self.firewall = Firewall(
            config.member,
            policy,
            self.parameters,
            control_addresses=frozenset(
                a.ip.packed for i in config.cluster.interfaces for own in i.members.values() for a in own
            ),
            virtual_addresses=frozenset(v.ip.packed for i in config.cluster.interfaces for v in i.virtual),
            timer_floor=self.clock.floor,
            bucket_width=max(1.0, self.clock.floor / 10),
        )
        now = wire_now()
        self.cluster = Cluster(
            config.number,
            config.peers,
            config.release,
            self.compatibility.newer,
            now=now,
            heartbeat_s=self.parameters["fwha_heartbeat_ms"] / 1000,
            dead_timeout_s=self.parameters["fwha_dead_timeout_ms"] / 1000,
        )
        self.cluster.policy_name = policy.name
        self.key = config.key.encode() or None
        self.incarnation = time.time_ns() // 1_000_000
        self.engine = engine.SyncEngine(
            member=config.number,
            incarnation=self.incarnation,
            release=config.release,
            compatibility=self.compatibility,
            peers=config.peers,
            now=now,
            cluster=config.cluster.id,
            key=self.key,
        )
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS_MAX)
        self.full_sync: dict[str, Any] = {"state": "none", "records": 0, "reason": ""}
        self.synced = {"full": 0, "delta": 0}
        self.refused_messages: Counter[str] = Counter()
        self._join: tuple[int, float] | None = None
        self._announcements = 0
        self._next_tick = now
        self._log_sent = 0
        self._stopping = False
        self.stop_requested = False
        """Set by a signal; looked at once a turn, so that nothing is interrupted half-way."""
        self._selector = selectors.DefaultSelector()
        self._streams: list[Stream] = []
        self._open_edges()

    # -- the edges -----------------------------------------------------------------------------------------------

    def _open_edges(self) -> None:
        interfaces = self.config.cluster.interfaces
        names = [i.kernel_name for i in interfaces]
        sync = self.config.sync_interface
        prepare_kernel(names)
        divert(names, [str(i.members[peer][0].ip) for i in interfaces for peer in self.config.peers.values()])
        place_on_loopback([VirtualAddress(i.kernel_name, v) for i in interfaces for v in i.virtual])
        self.queue = PacketQueue(QUEUE_NUMBER, self.firewall.decide, self.clock.now, self._send_reply)
        self._watch(self.queue, lambda _mask: self.queue.run())
        self.keepers = [AddressKeeper(i.kernel_name, i.virtual) for i in interfaces if i.virtual]
        for keeper in self.keepers:
            for link in keeper.sockets:
                self._watch(link, partial(self._answer_neighbours, keeper, link))
        self.datagrams = Datagrams(
            {
                i.name: (
                    str(self.config.own_addresses(i)[0].ip),
                    {number: str(i.members[name][0].ip) for number, name in self.config.peers.items()},
                )
                for i in interfaces
            },
            sync.name if sync else "",
        )
        for wire in self.datagrams.wires:
            self._watch(wire.socket, partial(self._receive_datagrams, wire))
        self._raw = {
            4: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
            6: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW),
        }
        for raw in self._raw.values():
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, OWN_MARK)
        self._listener = None
        if sync:
            self._listener = listen(str(self.config.own_addresses(sync)[0].ip), self.release.full_sync_port)
            self._watch(self._listener, lambda _mask: self._accept_full_sync())
        self._flags_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.control = ControlServer(self.config.control_path, self._selector, Commands(self).handle)

    def _watch(self, source: Any, callback: Callable[[int], None], events: int = selectors.EVENT_READ) -> None:
        self._selector.register(source, events, callback)

    def _send_reply(self, packet: bytes) -> None:
        version = packet[0] >> 4
        if version == 4:
            where: Any = (socket.inet_ntop(socket.AF_INET, packet[16:20]), 0)
        else:
            where = (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0)
        with contextlib.suppress(OSError):  # no route to the sender: it will have to time out
            self._raw[version].sendto(packet, where)

    @staticmethod
    def _answer_neighbours(keeper: AddressKeeper, link: socket.socket, _mask: int) -> None:
        keeper.answer(link)

    def _interface_is_up(self, device: str) -> bool:
        """Link state as the kernel has it; a device that is not there is down."""
        request = struct.pack("16sh14x", device.encode(), 0)
        try:
            answer = fcntl.ioctl(self._flags_socket, _SIOCGIFFLAGS, request)
        except OSError:
            return False
        return bool(struct.unpack("16sh14x", answer)[1] & _IFF_RUNNING)

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop` is called."""
        while not self._stopping:
            if self.stop_requested:
                self.stop()
                break
            timeout = max(0.0, self._next_wakeup() - wire_now())
            for key, mask in self._selector.select(timeout):
                key.data(mask)
            now = wire_now()
            if now >= self._next_tick:
                self._tick(now)
            self._advance(now)
        self._close()

    def stop(self) -> None:
        """In good order: the peers are told, and the loop ends."""
        farewell = self.cluster.leave(wire_now())
        self._drain_cluster(wire_now())
        self._flush_updates(wire_now())
        self._send_heartbeat(farewell)
        self._stopping = True

    def _next_wakeup(self) -> float:
        wakeups: list[float | None] = [self._next_tick, self.cluster.next_wakeup(), self.engine.next_wakeup()]
        wakeups += [s.end.next_wakeup() for s in self._streams]
        return min(w for w in wakeups if w is not None)

    def _tick(self, now: float) -> None:
        """Every sync tick: what changed goes out, what is over goes away."""
        self._next_tick = now + SYNC_TICK_S
        for interface in self.config.cluster.interfaces:
            self.cluster.set_interface(interface.name, self._interface_is_up(interface.kernel_name), now)
        self.firewall.expire(self.clock.now())
        self._flush_updates(now)
        if self._announcements:
            self._announcements -= 1
            for keeper in self.keepers:
                keeper.announce()
        self._publish_log()

    def _flush_updates(self, now: float) -> None:
        updates = self.firewall.connections.take_updates(self.clock.now())
        if updates and self.config.peers:
            self.engine.send_updates(updates, now)
            self._send_sync(now)

    def _advance(self, now: float) -> None:
        """Give every protocol object the time, and carry out what they want."""
        self.cluster.on_wakeup(now)
        wakeup = self.engine.next_wakeup()
        if wakeup is not None and now >= wakeup:
            self.engine.on_wakeup(now)
        self._drain_engine(now)
        self._drain_cluster(now)
        heartbeat = self.cluster.outgoing(now)
        if heartbeat is not None:
            self._send_heartbeat(heartbeat)
        if self._join is not None and now >= self._join[1]:
            self._end_join("failed", "Could not start a connection to remote member")
        self._send_sync(now)
        for stream in list(self._streams):
            self._serve_stream(stream, now)

    # -- cluster -------------------------------------------------------------------------------------------------

    def _send_heartbeat(self, heartbeat: Heartbeat) -> None:
        self.datagrams.send_everywhere(self._encode(heartbeat), self._peer_refused)

    def _peer_refused(self, peer: int) -> None:
        self.cluster.peer_refused(peer, wire_now())

    def _encode(self, message: Any) -> bytes:
        return codec.encode(
            message,
            cluster=self.config.cluster.id,
            sender=self.config.number,
            incarnation=self.incarnation,
            key=self.key,
        )

    def _receive_datagrams(self, wire: Wire, _mask: int) -> None:
        now = wire_now()
        for data in self.datagrams.receive(wire, self._peer_refused):
            try:
                envelope = codec.decode(data, cluster=self.config.cluster.id, key=self.key)
            except SyncError as error:
                self._refuse(error)
                continue
            if envelope.sender != wire.peer:
                self.refused_messages["WRONG_SENDER"] += 1
            elif isinstance(envelope.message, Heartbeat):
                self.cluster.receive_heartbeat(envelope.sender, envelope.message, wire.interface, now)
            else:
                self.engine.receive_message(envelope, now)

    def _refuse(self, error: SyncError) -> None:
        reason = error.reason.name
        self.refused_messages[reason] += 1
        if self.refused_messages[reason] == 1:
            self.event("sync", f"a message was refused: {error} (only the first of its kind is shown)")

    def _drain_cluster(self, now: float) -> None:
        while (event := self.cluster.next_event()) is not None:
            if isinstance(event, StateChanged):
                self._state_changed(event)
            elif isinstance(event, PeerChanged):
                self._peer_changed(event, now)
            elif isinstance(event, Join):
                self._join = (event.peer, now + GATE_WAIT_S)
                self._try_to_join(now)

    def _state_changed(self, event: StateChanged) -> None:
        self.event("state", f"{event.old.label} -> {event.new.label}: {event.reason}", state=event.new.label)
        # State first, then address: what peers sent was applied before this; now neighbours may send packets here.
        self.firewall.forwarding = event.new.forwards
        for keeper in self.keepers:
            keeper.answering = event.new.forwards
            if event.new.forwards:
                keeper.announce()
        self._announcements = ANNOUNCEMENTS - 1 if event.new.forwards else 0

    def _peer_changed(self, event: PeerChanged, now: float) -> None:
        name = self.config.peers[event.peer]
        reason = f": {event.reason}" if event.reason else ""
        self.event("peer", f"{name} is {event.new.label}{reason}", peer=name, state=event.new.label)
        if event.new is MemberState.LOST:
            self.engine.peer_lost(event.peer, now)
        elif event.old is MemberState.LOST:
            self.engine.peer_found(event.peer, now)

    # -- sync ----------------------------------------------------------------------------------------------------

    def _send_sync(self, now: float) -> None:
        encoded: dict[int, bytes] = {}
        for peer, message in self.engine.outgoing(now):
            data = encoded.get(id(message))
            if data is None:
                data = encoded[id(message)] = self._encode(message)
            self.datagrams.send_sync(peer, data, self._peer_refused)

    def _drain_engine(self, now: float) -> None:
        while (event := self.engine.next_event()) is not None:
            if isinstance(event, engine.Updates):
                self._apply(event)
            elif isinstance(event, engine.GateDecided):
                name = self.config.peers[event.peer]
                word = event.gate.exchange.name.lower().replace("_", " ")
                reason = f" ({event.gate.reason})" if event.gate.reason else ""
                self.event("sync", f"with {name}: {word}{reason}", peer=name)
                self._try_to_join(now)
            elif isinstance(event, engine.FullSyncDone):
                self._end_join("done", "", event.records)
            elif isinstance(event, engine.FullSyncFailed):
                self._end_join("refused" if event.refused else "failed", event.reason)
            elif isinstance(event, engine.Risk):
                self.event("log", event.text)
            elif isinstance(event, engine.LostUpdates):
                self.event("sync", f"{event.count} updates of {self.config.peers[event.peer]} are lost for good")
            elif isinstance(event, engine.PeerUnreachable):
                self.event("sync", f"sync with {self.config.peers[event.peer]} is off: {event.reason}")
            elif isinstance(event, engine.PeerRestarted):
                self.event("sync", f"{self.config.peers[event.peer]} has started anew")

    def _apply(self, event: engine.Updates) -> None:
        lab_now = self.clock.now()
        table, generation = self.firewall.connections, self.firewall.generation
        applied = sum(table.apply(update, lab_now, generation) for update in event.updates)
        self.synced[event.source] += applied

    def _try_to_join(self, now: float) -> None:
        """Ask the active member for its table, as soon as the gate says whether that is allowed."""
        if self._join is None:
            return
        peer = self._join[0]
        gate = self.engine.gate(peer)
        if gate is None:
            return
        if not gate.allows_full_sync:
            self._end_join("refused", gate.reason)
            return
        sync = self.config.sync_interface
        if sync is None:
            self._end_join("failed", "no sync interface is configured")
            return
        self._join = None
        name = self.config.peers[peer]
        self.event("sync", f"full sync from {name} begins", peer=name)
        own, other = self.config.own_addresses(sync)[0].ip, sync.members[name][0].ip
        port = self.compatibility.release(self._peer_release(peer)).full_sync_port
        sink = self.engine.begin_full_sync(peer, now)
        self._add_stream(Stream(connect(str(own), str(other), port), sink, peer))

    def _peer_release(self, peer: int) -> str:
        heartbeat = self.cluster.peers[peer].heartbeat
        return heartbeat.release if heartbeat else self.config.release

    def _end_join(self, state: str, reason: str, records: int = 0) -> None:
        self._join = None
        self.full_sync = {"state": state, "records": records, "reason": reason}
        if state == "done":
            self.event("sync", f"full sync is complete: {records} connections")
        elif state == "failed":
            self.event("sync", f"full sync failed: {reason}. Delta sync goes on: only new and changed connections")
        else:
            self.event("sync", f"no full sync: {reason}")
        self.cluster.full_sync_ended(wire_now())

    def _accept_full_sync(self) -> None:
        assert self._listener is not None
        try:
            connection, address = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        sync = self.config.sync_interface
        assert sync is not None
        names = {str(sync.members[name][0].ip): number for number, name in self.config.peers.items()}
        peer = names.get(address[0], 0)
        table = self.firewall.connections
        source = self.engine.accept_full_sync(lambda: table.snapshot(self.clock.now()), len(table), wire_now())
        self._add_stream(Stream(connection, source, peer))

    def _add_stream(self, stream: Stream) -> None:
        self._streams.append(stream)
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        self._watch(stream.socket, lambda mask: self._on_stream(stream, mask), both)

    def _on_stream(self, stream: Stream, mask: int) -> None:
        now = wire_now()
        if mask & selectors.EVENT_READ:
            stream.on_readable(now)
        self._serve_stream(stream, now)

    def _serve_stream(self, stream: Stream, now: float) -> None:
        if stream not in self._streams:
            return
        wakeup = stream.end.next_wakeup()
        if wakeup is not None and now >= wakeup:
            stream.end.on_wakeup(now)
        full = stream.pump(now)
        if stream.over:
            self._selector.unregister(stream.socket)
            stream.close()
            self._streams.remove(stream)
            self._drain_engine(now)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if full else 0)
        key = self._selector.get_key(stream.socket)
        if key.events != wanted:
            self._selector.modify(stream.socket, wanted, key.data)

    # -- operator ------------------------------------------------------------------------------------------------

    def install_policy(self, policy: Policy) -> None:
        self.firewall.install(policy)
        self.cluster.policy_name = policy.name
        self.event("policy", f"policy {policy.name} installed: {len(policy.rules)} rules")

    def event(self, kind: str, text: str, **details: Any) -> None:
        """Something that an operator would want to know; kept, logged, and sent to those who follow."""
        event = {
            "at": time.time(),
            "lab_time": self.clock.now(),
            "member": self.config.member,
            "kind": kind,
            "text": text,
            **details,
        }
        self.events.append(event)
        log.info("%s: %s", kind, text)
        if hasattr(self, "control"):
            self.control.publish("events", event)

    def _publish_log(self) -> None:
        """New log entries to those who follow; nobody pays when nobody does."""
        if any("log" in client.following for client in self.control.clients):
            for entry in [e for e in self.firewall.log if e.number > self._log_sent]:
                self.control.publish("log", log_line(entry, self.clock))
        self._log_sent = self.firewall.log_number

    def _close(self) -> None:
        self.control.close()
        self.queue.close()
        for keeper in self.keepers:
            keeper.close()
        self.datagrams.close()
        for stream in self._streams:
            stream.close()
        if self._listener:
            self._listener.close()
        for raw in self._raw.values():
            raw.close()
        self._flags_socket.close()


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """`fwnode --config FILE`: run one member until SIGTERM. Exit 2: the configuration; 4: the machine."""
    parser = argparse.ArgumentParser(prog="fwnode", description="One member of the firewall cluster.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the member's configuration (YAML)")
    parser.add_argument("--check", action="store_true", help="check the configuration and end")
    parser.add_argument(
        "--remove-rules", action="store_true", help="take the divert rules of a stopped member out of iptables, and end"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if options.remove_rules:
        remove()
        return
    try:
        config = load(options.config)
        if options.check:
            config.load_policy(options.config.parent)
            load_releases(config.releases, options.config.parent).release(config.release)
            return
        _raise_file_limit()
        node = Node(config, options.config.parent)
    except (FileError, ParameterError, SyncError) as error:
        print(f"fwnode: {error}", file=sys.stderr)
        sys.exit(2)
    except (DivertError, OSError) as error:
        print(f"fwnode: cannot start: {error}. It needs CAP_NET_ADMIN and NFQUEUE; see `fwlab doctor`", file=sys.stderr)
        sys.exit(4)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(node, "stop_requested", True))
    gc.freeze()  # what is there now lives as long as the process
    node.run()


if __name__ == "__main__":
    os.umask(0o077)
    main()
