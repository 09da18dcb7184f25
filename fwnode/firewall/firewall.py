"""`Firewall.decide`: from bytes to a verdict.

    parse -> may this member process it? -> connection known? -> yes: state check, refresh, ACCEPT
                                                              no: SYN or stateless? no -> out of state: drop, or learn
                                                                  yes -> policy -> create, ACCEPT

Deterministic: no socket, no clock. `now` is lab time in seconds. Established traffic takes the short way at the top
of `decide`: one slice, one look-up (two for an answer), one comparison, one store.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from syncproto.limits import SYNC_TICK_S
from syncproto.record import Op

from .announcements import AnnouncementRefused
from .clearing import Clearing
from .connection import NEXT_PACKET, Connection
from .data_connections import NotInspectable, find_announced, inspect
from .fragments import FRAGMENT_TIMEOUT_S, AcceptedFragments
from .icmp import LINK_ONLY, objection, runs_that_way
from .load import SyncLoad, kind_of
from .packet import (
    ACK,
    ECHO_REPLY,
    ECHO_REQUEST,
    FIN,
    ICMP,
    ICMP_ERRORS,
    ICMPV6,
    RST,
    SYN,
    TCP,
    UDP,
    MalformedPacket,
    Packet,
    is_well_formed,
    parse,
    reverse_key,
    split_key,
)
from .parameters import Parameters
from .policy import FW1, Action, Implied, Match, OnInstall, Policy
from .reject import rejection
from .sharing_key import SharingKeys
from .table import ConnectionTable
from .tcp_states import (
    INITIATOR,
    RESPONDER,
    SEGMENT_KINDS,
    SIGNS_OF_NO_LIFE,
    START_STATES,
    TABLE,
    ConnectionState,
    SegmentKind,
)
from .verdict import ACCEPT, DROP, HOLD, DropReason, FirewallCounters, Hook, LogEntry, Verdict

LOG_MAX = 2_000
"""Log entries that a member keeps; older ones make room."""


class Shares(Protocol):
    """The decision function of load sharing (`fwnode.cluster.decision_function`)."""

    @property
    def all_receive(self) -> bool: ...
    def is_mine(self, key: bytes) -> bool: ...


class Firewall:
    """One member's packet decisions.

    `forwarding` says whether the member processes traffic for the virtual addresses; the cluster sets it.
    `control_addresses` are the members' own addresses (packed), between which the FW1 control connections run.
    """

    def __init__(
        self,
        member: str,
        policy: Policy,
        parameters: Parameters,
        *,
        control_addresses: frozenset[bytes] = frozenset(),
        virtual_addresses: frozenset[bytes] = frozenset(),
        timer_floor: float = 0.0,
        bucket_width: float = 1.0,
        tick_s: float = SYNC_TICK_S,
        number: int = 0,
    ) -> None:
        self.member = member
        self.policy = policy
        self.parameters = parameters
        self.connections = ConnectionTable(
            timer_floor, bucket_width, self._timeout_in, number, lambda: parameters["connections_limit"], tick_s
        )
        self.clearing = Clearing(self.connections)
        self.local = ConnectionTable(timer_floor, bucket_width)
        """The member's own connections (full sync, ping to it): not forwarded, not synchronised."""
        self.load = SyncLoad(parameters)
        self.forwarding = False
        self._sharing_keys = SharingKeys()
        self.sharing: Shares | None = None
        """In load sharing: which packets are this member's."""
        self.counters = FirewallCounters()
        self.log: deque[LogEntry] = deque(maxlen=LOG_MAX)
        self.log_number = 0
        self._control_addresses = control_addresses
        self._virtual_addresses = virtual_addresses
        self._generation = 0
        self._floor = timer_floor
        self._changed_table = False
        self._fragments = AcceptedFragments()

    # -- the way of a packet -------------------------------------------------------------------------------------

    def decide(self, data: bytes, hook: int, now: float) -> Verdict:
        """The verdict for one packet; `data` holds at least its headers. Never raises on what the network sends."""
        # The short ways: a whole IPv4 or IPv6 packet without options, with 8 bytes behind its header, of a connection
        # that has nothing special due, or of TCP or UDP and another member's.
        if hook == _FORWARD and self.forwarding and len(data) >= 28:
            first = data[0]
            entries = self.connections.entries
            if first == 0x45 and not data[6] & 0x3F and not data[7]:
                at, length_at, rest = 20, 2, 20
                key = data[9:10] + data[12:24]
            elif first >> 4 == 6 and len(data) >= 48:
                at, length_at, rest = 40, 4, 0
                key = data[6:7] + data[8:44]
            else:
                key = b""
            if self.sharing is not None and key and not self.sharing.is_mine(key):
                if is_well_formed(data, at, key):
                    self.counters.dropped += 1
                    self.counters.drops[_OTHERS] += 1
                    return _DROP_OTHERS
                return self.decide_inspected(data, hook, now)
            connection = entries.get(key)
            if connection is None and key:  # an answer, or new
                connection = entries.get(reverse_key(key))
            if connection is not None and now < connection.refresh_at:
                protocol = connection.key[0]
                if (
                    protocol == TCP
                    and connection.state is _ESTABLISHED
                    and len(data) >= at + 20
                    and data[at + 12] >= 0x50
                    and len(data) >= at + (data[at + 12] >> 4 << 2)
                    and data[at + 13] & _STATE_FLAGS == ACK
                ) or (
                    # Its length is the rest of the packet's: total length less the header, or payload length.
                    protocol == UDP
                    and (data[at + 4] << 8 | data[at + 5]) + rest == data[length_at] << 8 | data[length_at + 1]
                ):
                    timeout = connection.timeout
                    connection.expires = now + (timeout if timeout > self._floor else self._floor)
                    self.counters.accepted += 1
                    return ACCEPT
        return self.decide_inspected(data, hook, now)

    def decide_inspected(self, data: bytes, hook: int, now: float) -> Verdict:
        """As `decide`, for packets of inspected services, which come with their payload: there is no short way."""
        self._changed_table = False
        verdict = self._decide_slowly(data, hook, now)
        if hook != Hook.FORWARD:
            self.counters.local += 1
        if verdict.accept:
            self.counters.accepted += 1
            if self._changed_table and self.parameters["fwlab_sync_flush_and_ack"]:
                return HOLD
        else:
            self.counters.dropped += 1
            if verdict.reason is not None:
                self.counters.drops[verdict.reason] += 1
        return verdict

    def _decide_slowly(self, data: bytes, hook: int, now: float) -> Verdict:
        try:
            packet = parse(data)
        except MalformedPacket as error:
            self._log(now, DropReason.MALFORMED, hook, None, 0, str(error))
            return DROP[DropReason.MALFORMED]
        if not self._may_process(packet, hook):
            self._log(now, DropReason.NOT_ACTIVE, hook, packet, 0, DropReason.NOT_ACTIVE.value)
            return DROP[DropReason.NOT_ACTIVE]
        if self.sharing is not None and self._is_others(packet, hook, self.sharing, now):
            return DROP[DropReason.OTHER_MEMBER]
        if packet.fragment:
            return self._decide_fragment(packet, data, hook, now)
        return self._decide_whole(packet, data, hook, now)

    def _may_process(self, packet: Packet, hook: int) -> bool:
        if self.forwarding:
            return True
        # Its own addresses a member always defends itself; the virtual ones only who is active.
        return hook != Hook.FORWARD and not (hook == Hook.INPUT and packet.destination in self._virtual_addresses)

    def _is_others(self, packet: Packet, hook: int, sharing: Shares, now: float) -> bool:
        """Whether another member processes it. Its own traffic is each member's own, but for two kinds of packets that
        come of every member's receiving every packet: those to the virtual address, and the kernels' ICMP errors."""
        if hook == Hook.FORWARD:
            if sharing.all_receive and packet.destination in self._control_addresses:
                return True  # the member whose address it is has received it, too
            if not packet.first_fragment and self._fragments.passes(packet.fragment, now):
                return False  # whatever has made others forget whose it is
            return not sharing.is_mine(self._sharing_keys.of(packet))
        if not sharing.all_receive:
            return False
        if hook == Hook.INPUT:
            to_all = packet.destination in self._virtual_addresses
        else:  # an error about a packet to the member's own address is its own: nobody else says it
            to_all = bool(packet.about) and split_key(packet.about)[2] not in self._control_addresses
        return to_all and not sharing.is_mine(self._sharing_keys.of(packet))

    def _decide_fragment(self, packet: Packet, data: bytes, hook: int, now: float) -> Verdict:
        """A fragment follows the verdict of its first fragment."""
        if packet.first_fragment:
            verdict = self._decide_whole(packet, data, hook, now)
            if verdict.accept:
                self._fragments.accept(packet.fragment, now + self.connections.lifetime(FRAGMENT_TIMEOUT_S))
            return verdict
        if self._fragments.passes(packet.fragment, now):
            return ACCEPT
        return self._drop_fragment(packet, hook, now, DropReason.FRAGMENT.value)

    def _drop_fragment(self, packet: Packet, hook: int, now: float, text: str) -> Verdict:
        self._log(now, DropReason.FRAGMENT, hook, packet, 0, text)
        return DROP[DropReason.FRAGMENT]

    def _decide_whole(self, packet: Packet, data: bytes, hook: int, now: float) -> Verdict:
        table = self.connections if hook == Hook.FORWARD else self.local
        if packet.icmp_type >= 0:
            if packet.icmp_type in LINK_ONLY[packet.protocol] and hook != Hook.OUTPUT:
                return self._drop_out_of_state(packet, hook, now, "ICMP that is for its own link alone")
            if packet.icmp_type in ICMP_ERRORS[packet.protocol]:
                return self._decide_icmp_error(packet, hook, now)
            if packet.icmp_type not in (ECHO_REQUEST[packet.protocol], ECHO_REPLY[packet.protocol]):
                # Neither an exchange nor an error: nothing to remember, the rule base alone decides.
                return self._judge(self._match(packet.key, packet.icmp_type, hook), packet, data, hook, now)
        connection = table.find(packet.key)
        verdict = None
        if connection is not None and runs_that_way(connection.key, packet.key, packet.icmp_type):
            verdict = self._decide_known(connection, packet, data, table, hook, now)
        if verdict is None:
            verdict = self._decide_unknown(packet, data, table, hook, now)
        if verdict.accept and table is self.connections:
            try:
                if inspect(table, self.policy, packet, data, now):
                    self._changed_table = True
            except NotInspectable as error:
                return self._drop_fragment(packet, hook, now, str(error))
            except AnnouncementRefused as error:
                known = table.find(packet.key)
                self._log(now, DropReason.ANNOUNCEMENT, hook, packet, known.rule if known else 0, str(error))
                return DROP[DropReason.ANNOUNCEMENT]
        return verdict

    def _decide_icmp_error(self, packet: Packet, hook: int, now: float) -> Verdict:
        """An error passes to who has sent the packet of a known connection that it is about (and the policy wants
        that)."""
        text = objection(packet, (self.connections, self.local), now)
        if not text and not self.policy.icmp_errors:
            text = "ICMP errors are switched off in the policy"
        # The kernel looks at TTL and MTU before we see a packet, so our own error may be about one that we never saw.
        own = hook == Hook.OUTPUT and self.policy.outgoing
        if not text or own or self.parameters["fw_allow_out_of_state_icmp_error"]:
            return ACCEPT
        self._log(now, DropReason.OUT_OF_STATE, hook, packet, 0, text)
        return DROP[DropReason.OUT_OF_STATE]

    # -- a connection that is known ------------------------------------------------------------------------------

    def _decide_known(
        self, connection: Connection, packet: Packet, data: bytes, table: ConnectionTable, hook: int, now: float
    ) -> Verdict | None:
        """None: the connection is over and the packet starts a new one."""
        if now >= connection.expires and table.is_over(connection, now):
            table.remove(connection)
            return None
        direction = INITIATOR if packet.key == connection.key else RESPONDER
        if connection.generation != self._generation and hook == Hook.FORWARD:
            verdict = self._match_again(connection, packet, data, hook, now)
            if verdict is not None:
                return verdict
        if connection.refresh_at == NEXT_PACKET:
            connection.refresh_at = 0.0
        state = connection.state
        if packet.protocol == TCP:
            segment = SEGMENT_KINDS[packet.flags]
            following = TABLE.get((state, direction, segment))
            if following is None:
                if segment is SegmentKind.SYN and state is ConnectionState.CLOSING:
                    return None
                if not connection.owned and segment is SegmentKind.ACK and state in START_STATES:
                    # The copy may be one sync tick behind the handshake that the former owner saw.
                    following = ConnectionState.ESTABLISHED
                else:
                    return self._refuse_segment(connection, packet, segment, hook, now)
            if following is not state:
                self._change_state(connection, following, table, now)
                return ACCEPT
            if (state, direction, segment) in SIGNS_OF_NO_LIFE:
                return ACCEPT
        if now >= connection.refresh_at:
            self._take_over(connection)
            table.announce(connection, Op.REFRESH)
        table.refresh(connection, now)
        return ACCEPT

    def _take_over(self, connection: Connection) -> None:
        """From here on this member announces the connection's changes and its end."""
        if not connection.owned:
            connection.owned = True
            connection.timeout = self._timeout_in(connection.state, connection.session_timeout)

    def _change_state(self, connection: Connection, state: ConnectionState, table: ConnectionTable, now: float) -> None:
        connection.owned = True
        connection.state = state
        connection.timeout = self._timeout_in(state, connection.session_timeout)
        table.refresh(connection, now)
        table.announce(connection, Op.MODIFY)
        self._changed_table = table is self.connections

    def _timeout_in(self, state: ConnectionState, session_timeout: float) -> float:
        if state in START_STATES:
            return self.parameters["tcp_start_timeout"]
        if state is ConnectionState.CLOSING:
            return self.parameters["tcp_end_timeout"]
        return session_timeout

    def _refuse_segment(
        self, connection: Connection, packet: Packet, segment: SegmentKind, hook: int, now: float
    ) -> Verdict:
        reason = DropReason.SYN_ON_ESTABLISHED if segment is SegmentKind.SYN else DropReason.OUT_OF_STATE
        text = reason.value if segment is SegmentKind.SYN else f"TCP packet out of state in {connection.state.name}"
        self._log(now, reason, hook, packet, connection.rule, text)
        return DROP[reason]

    def _match_again(
        self, connection: Connection, packet: Packet, data: bytes, hook: int, now: float
    ) -> Verdict | None:
        """After a policy install: what the new rules do not accept is dropped, and its entry deleted."""
        connection.generation = self._generation
        if self.policy.on_install is OnInstall.KEEP:
            return None
        # A data connection fits no rule; it stays while its control connection would.
        match = self.policy.match(connection.parent or connection.key, ECHO_REQUEST.get(packet.protocol, -1))
        if match.action is Action.ACCEPT:
            connection.rule = match.rule
            return None
        self._take_over(connection)  # who forwarded it before gets no more of its packets, and tells of no end
        self.connections.remove(connection)
        return self._judge(match, packet, data, hook, now)

    # -- a connection that is not --------------------------------------------------------------------------------

    def _decide_unknown(
        self, packet: Packet, data: bytes, table: ConnectionTable, hook: int, now: float
    ) -> Verdict:
        learn = False
        if packet.protocol == TCP and SEGMENT_KINDS[packet.flags] is not SegmentKind.SYN:
            if SEGMENT_KINDS[packet.flags] is SegmentKind.INVALID:
                return self._drop_out_of_state(packet, hook, now, "TCP flags that no TCP sends")
            if hook != Hook.FORWARD or not self.allows_out_of_state:
                return self._drop_out_of_state(packet, hook, now, "TCP packet out of state: First packet isn't SYN")
            learn = True
        elif packet.icmp_type >= 0 and packet.icmp_type == ECHO_REPLY[packet.protocol]:
            return self._drop_out_of_state(packet, hook, now, "ICMP reply without a request")
        announced = None
        if not learn and table is self.connections:
            announced = find_announced(table, self.policy, packet, now)
        match = announced.match if announced else self._match(packet.key, packet.icmp_type, hook)
        if match.action is not Action.ACCEPT or (learn and packet.flags & RST):
            # A RST ends what it is about: there is nothing left to learn.
            return self._judge(match, packet, data, hook, now)
        if len(table) >= self.parameters["connections_limit"] and packet.key not in table:
            self._log(now, DropReason.TABLE_FULL, hook, packet, match.rule, DropReason.TABLE_FULL.value)
            return DROP[DropReason.TABLE_FULL]
        if (
            self.load.blocking
            and hook == Hook.FORWARD
            and self.load.refuses(kind_of(packet.protocol, announced is not None))
        ):
            self._log(now, DropReason.SYNC_LOAD, hook, packet, match.rule, DropReason.SYNC_LOAD.value)
            return DROP[DropReason.SYNC_LOAD]
        connection = self._create(packet, match, table, learn, now)
        if announced:
            connection.parent = announced.by.parent
            table.expected.use(announced.by)
        return self._judge(match, packet, data, hook, now)  # not sooner: the log must not say that it was accepted

    @property
    def allows_out_of_state(self) -> bool:
        """By kernel parameter or by the policy's property, which can except single members."""
        return bool(self.parameters["fw_allow_out_of_state_tcp"]) or self.policy.allows_out_of_state(self.member)

    def _drop_out_of_state(self, packet: Packet, hook: int, now: float, text: str) -> Verdict:
        if packet.protocol != TCP or self.parameters["fw_log_out_of_state_tcp"]:
            self._log(now, DropReason.OUT_OF_STATE, hook, packet, 0, text)
        return DROP[DropReason.OUT_OF_STATE]

    def _create(
        self, packet: Packet, match: Match, table: ConnectionTable, learned: bool, now: float
    ) -> Connection:
        session_timeout = match.session_timeout or self._protocol_timeout(packet.protocol)
        state = ConnectionState.NONE
        if packet.protocol == TCP:
            state = ConnectionState.SYN_SENT
            if learned:
                state = ConnectionState.FIN_WAIT_INITIATOR if packet.flags & FIN else ConnectionState.ESTABLISHED
        born = table.cluster_time.at(now)
        connection = Connection(packet.key, state, self._timeout_in(state, session_timeout), session_timeout, born)
        connection.rule = match.rule
        connection.service = match.service
        connection.learned = learned
        connection.generation = self._generation
        if match.sync_after:
            connection.sync_at = now + match.sync_after
        # Until it is announced at the next sync tick there is nothing more to tell.
        connection.refresh_at = now + table.lifetime(connection.timeout)
        table.add(connection, now)
        if table is self.connections:
            self._changed_table = True
            self.counters.created += 1
            self.counters.learned += learned
        return connection

    def _protocol_timeout(self, protocol: int) -> float:
        return float(self.parameters[_SESSION_TIMEOUTS.get(protocol, "other_timeout")])

    # -- the rule base -------------------------------------------------------------------------------------------

    def _match(self, key: bytes, icmp_type: int, hook: int) -> Match:
        if hook != Hook.FORWARD:
            implied = self._implied(key, hook)
            if implied is not None:
                return implied
        return self.policy.match(key, icmp_type)

    def _implied(self, key: bytes, hook: int) -> Match | None:
        """What the implied rules say of the member's own traffic."""
        size = (len(key) - 5) // 2
        source, destination = key[1 : 1 + size], key[1 + size : 1 + 2 * size]
        between_members = source in self._control_addresses and destination in self._control_addresses
        if between_members and self.policy.control_connections:
            port = key[-2] << 8 | key[-1]
            if FW1.covers(key[0], port, -1):
                return Match(Action.ACCEPT, Implied.CONTROL_CONNECTIONS, "control connections", FW1.name, None, False)
        if hook == Hook.OUTPUT and self.policy.outgoing:
            return Match(Action.ACCEPT, Implied.OUTGOING, "outgoing", "", None, False)
        return None

    def _judge(self, match: Match, packet: Packet, data: bytes, hook: int, now: float) -> Verdict:
        if match.action is Action.ACCEPT:
            if match.log:
                self._log(now, None, hook, packet, match.rule, match.rule_name)
            return ACCEPT
        text = f"rule {match.rule} ({match.rule_name})" if match.rule > 0 else match.rule_name
        reason = DropReason.REJECTED if match.action is Action.REJECT else DropReason.POLICY
        self._log(now, reason, hook, packet, match.rule, text)
        if reason is DropReason.REJECTED:
            return Verdict(False, reason, rejection(packet, data))
        return DROP[reason]

    # -- changes from outside ------------------------------------------------------------------------------------

    def install(self, policy: Policy) -> None:
        """The new rule base decides from the next packet on; known connections are matched again, or kept."""
        self.policy = policy
        self._generation += 1
        self._fragments.forget()
        self.connections.visit_all()

    @property
    def generation(self) -> int:
        """How often a policy was installed; connections matched before are matched again."""
        return self._generation

    def expire(self, now: float) -> bool:
        """End what has been idle for too long, or is to be cleared, but not too much at once. True: call again soon."""
        more = self.connections.expire(now)
        if not self.load.heavy:
            more = self.clearing.go_on() or more
        return self.local.expire(now) or more

    def _log(
        self, now: float, reason: DropReason | None, hook: int, packet: Packet | None, rule: int, text: str
    ) -> None:
        self.log_number += 1
        key, detail = (packet.key, packet.detail) if packet else (b"", 0)
        self.log.append(LogEntry(self.log_number, now, reason, hook, key, detail, rule, text))


# Plain names: an attribute of an enumeration is looked up slowly.
_ESTABLISHED, _FORWARD = ConnectionState.ESTABLISHED, Hook.FORWARD
_OTHERS = DropReason.OTHER_MEMBER
_DROP_OTHERS = DROP[_OTHERS]
_STATE_FLAGS = SYN | FIN | RST | ACK
_SESSION_TIMEOUTS = {
    TCP: "tcp_session_timeout", UDP: "udp_timeout", ICMP: "icmp_timeout", ICMPV6: "icmp_timeout",
}  # fmt: skip
