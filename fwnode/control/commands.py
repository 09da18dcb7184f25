"""What the control socket's commands do, and the figures that they show. One method a command.

Reads the member's parts; what changes something goes through the member's own methods, and is checked first: a bad
argument changes nothing. Pure: what is asked is answered as of the time that the member was told last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import fields
from itertools import islice
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field

from fwnode import split_brain_words
from fwnode.cluster.membership import ADMIN_DOWN, MemberState
from fwnode.cluster.sync_network import Reach, status_with, summary
from fwnode.control import compare
from fwnode.control.arguments import MemberCommand
from fwnode.control.conversation import Caller, Result
from fwnode.control.draft import Draft
from fwnode.control.protocol import RequestError
from fwnode.control.rows import expected_row, row
from fwnode.control.watching import log_line
from fwnode.core import Core
from fwnode.edges import DivertError
from fwnode.files import FileError
from fwnode.firewall.announced import AnnouncedConnection, AnnouncedConnections
from fwnode.firewall.connection import Connection
from fwnode.firewall.load import ENABLED
from fwnode.firewall.parameters import PARAMETERS, ParameterError, parse_value
from fwnode.firewall.table import ConnectionTable
from fwnode.firewall.verdict import DropReason, LogEntry
from fwnode.loaded_policy import installed_by_hand
from fwnode.policy_file import building
from syncproto.limits import SYNC_TICK_S

TABLE_ID = 8158
"""The product's number of the connections table."""
MODES = {
    "high-availability": "High Availability (Active Up)",
    "load-sharing-multicast": "Load Sharing (Multicast)",
    "load-sharing-unicast": "Load Sharing (Unicast)",
}
TABLE_ROWS_DEFAULT = 16
"""Rows that `tab` shows without `-u`; the product's default."""
TABLE_ROWS_MAX = 10_000_000
"""More than a table holds (`connections_limit`)."""
ROWS_A_PART = 64
"""Rows of one part of an answer: about a millisecond, and packets come between two parts."""
KEYS_A_PART = 512
"""Keys of one part: less is done for each."""

T = TypeVar("T")
ShortText = Annotated[str, Field(max_length=256)]
FileName = Annotated[str, Field(max_length=4096)]


class Commands:
    """`handle` is what the control server calls."""

    def __init__(self, member: Core) -> None:
        self._member = member
        self._reset_at, self._reset_by = member.edges.wall(), "start of the member"
        self._blocked_before = 0
        self._draft = Draft()

    def handle(self, command: str, arguments: dict[str, Any], caller: Caller) -> Result:
        """The answer, whole or in parts. Raises `RequestError`."""
        method = COMMANDS.get(command)
        if method is None:
            raise RequestError(f"unknown command {command[:64]!r}; known are {', '.join(COMMANDS)}")
        return cast(Result, method(self, caller, method.check(command, arguments)))

    # -- what is shown -------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Everything in one answer, for programs."""
        member = self._member
        firewall, table, cluster = member.firewall, member.firewall.connections, member.cluster
        edge = member.edges.figures()
        return {
            "ready": cluster.state is not MemberState.INITIALIZING,
            "member": member.config.member,
            "id": member.config.number,
            "release": member.config.release,
            "state": cluster.state.label,
            "reason": cluster.reason,
            "policy": firewall.policy.name,
            "policy_origin": member.policy_origin,
            "connections": len(table),
            "peak": table.peak,
            "learned": table.learned,
            "over_limit": table.over_limit,
            "created": firewall.counters.created,
            "synced_full": member.sync.synced["full"],
            "synced_delta": member.sync.synced["delta"],
            "sync": self._sync(),
            "full_sync": member.sync.full_sync,
            "drops": {reason.name: count for reason, count in firewall.counters.drops.items()},
            "packets": {
                "accepted": firewall.counters.accepted,
                "dropped": firewall.counters.dropped,
                "lost_queue": edge.lost_queue,
                "lost_socket": edge.lost_socket,
            },
            "records": self._records(),
            "counters": self._counters(),
            "blocking": self._blocking(),
            "holding": self._holding(),
            "healed": member.sync.joining.healed,
            "refused_messages": self._refused(),
            "failures": dict(member.guard.failures),
            "split_brains": split_brain_words.figures(cluster.split_brains, member.config.peers, member.now),
            "lab_time": member.lab_now,
            "uptime_s": member.now - member.started_at,
        }

    def _counters(self) -> dict[str, int]:
        """The engine's plain figures."""
        counters = self._member.sync.engine.counters()
        values = {field.name: getattr(counters, field.name) for field in fields(counters)}
        return {name: value for name, value in values.items() if not isinstance(value, Counter)}

    def _blocking(self) -> dict[str, Any]:
        """Whether new connections are refused because sync is under load, how often that was so, and how long."""
        firewall, load = self._member.firewall, self._member.firewall.load
        return {
            "enabled": self._member.parameters["fw_sync_block_new_conns"] == ENABLED,
            "heavy": load.heavy,
            "blocking": load.blocking,
            "threshold": load.threshold,
            "scenarios": load.episodes,
            "seconds": round(load.blocked_s(self._member.now), 3),
            "packets": firewall.counters.drops[DropReason.SYNC_LOAD] - self._blocked_before,
        }

    def _holding(self) -> dict[str, Any]:
        """Flush and ack: packets that waited for the other active members."""
        held = self._member.sync.held
        return {"pending": len(held), **{f.name: getattr(held.counters, f.name) for f in fields(held.counters)}}

    def _records(self) -> dict[str, dict[str, int]]:
        """Records of delta sync, by what they do."""
        counters = self._member.sync.engine.counters()
        ways = {"sent": counters.records_sent, "received": counters.records_received}
        return {way: {op.name: count for op, count in counter.items()} for way, counter in ways.items()}

    def _refused(self) -> dict[str, int]:
        """Messages that were refused: by the codec, and by a session."""
        return dict(self._member.messages.refused + self._member.sync.engine.counters().refused)

    def _sync(self) -> dict[str, Any]:
        """Sync with every peer; the whole is OK when it is with each that is there."""
        member = self._member
        peers = {}
        for number, name in member.config.peers.items():
            peer = member.cluster.peers[number]
            gate = member.sync.engine.gate(number)
            status, reach = member.sync.engine.status(number), member.cluster.sync_network.reach(number)
            if gate is None or gate.is_open:
                status = status_with(status, reach)
            peers[name] = {
                "state": member.cluster.visible_state(peer).label,
                "release": peer.heartbeat.release if peer.heartbeat else "",
                "status": status,
                "reach": str(reach),
                "exchange": gate.exchange.name.lower() if gate else "",
                "reason": gate.reason if gate else "",
            }
        there = {name: number for number, name in member.config.peers.items() if member.cluster.peers[number].alive}
        reaches = [member.cluster.sync_network.reach(number) for number in there.values()]
        return {
            "status": summary({name: peers[name]["status"] for name in there}, len(peers)),
            "reach": str(Reach(all(r.sends for r in reaches), all(r.receives for r in reaches))),
            "peers": peers,
        }

    def stat(self) -> dict[str, Any]:
        """The cluster as this member sees it."""
        member, cluster = self._member, self._member.cluster
        failover = cluster.failovers[-1] if cluster.failovers else None
        now, wall = member.now, member.edges.wall()
        names = {number: name for name, number in member.config.members.items()}
        return {
            "mode": MODES[member.config.cluster.mode],
            "members": [self._member_stat(name, number) for name, number in member.config.members.items()],
            "devices": [{"name": n, "problem": p} for n, p in cluster.devices.items()],
            "interfaces": [
                {
                    "name": i.name,
                    "up": cluster.interfaces.get(i.name, False),
                    "sync": i.sync,
                    "virtual": [str(v.ip) for v in i.virtual],
                    "broken": {names[n]: str(reach) for n, reach in cluster.user_networks.broken(i.name).items()},
                }
                for i in member.config.cluster.interfaces
            ],
            "policy": {"name": member.firewall.policy.name, "origin": member.policy_origin},
            "state": cluster.state.label,
            "reason": cluster.reason,
            "changed_at": wall - (now - cluster.changed_at),
            "failovers": cluster.failover_count,
            "split_brains": split_brain_words.figures(cluster.split_brains, member.config.peers, member.now),
            "last_failover": {
                "at": wall - (now - failover.at),
                "former": names.get(failover.former or 0, ""),
                "active": names[failover.active],
                "reason": failover.reason,
            }
            if failover
            else None,
            "sync": self._sync(),
            "full_sync": member.sync.full_sync,
            "over_limit": member.firewall.connections.over_limit,
        }

    def _member_stat(self, name: str, number: int) -> dict[str, Any]:
        config, cluster = self._member.config, self._member.cluster
        interface = config.sync_interface or config.cluster.interfaces[0]
        local = number == cluster.number
        state = cluster.state if local else cluster.visible_state(cluster.peers[number])
        heartbeat = None if local else cluster.peers[number].heartbeat
        return {
            "id": number,
            "local": local,
            "name": name,
            "address": str(interface.members[name][0].ip),
            "load": self._load_of(number, state),
            "state": state.label,
            "release": cluster.release if local else (heartbeat.release if heartbeat else ""),
        }

    def _load_of(self, number: int, state: MemberState) -> int:
        sharing = self._member.sharing
        return sharing.decision.share(number) if sharing is not None else 100 if state.forwards else 0

    def pstat(self) -> dict[str, Any]:
        """Packets, connections and sync packets."""
        member = self._member
        status = self.status()
        return {
            "connections": {k: status[k] for k in ("connections", "peak", "learned", "created")},
            "packets": status["packets"],
            "drops": status["drops"],
            "queue_buffer_bytes": member.edges.figures().queue_buffer_bytes,
            "sync": status["sync"],
            "saving": member.sync.engine.saving,
            "memory_bytes": member.sync.engine.memory_bytes(),
            "counters": self._counters(),
            "holding": self._holding(),
        }

    def syncstat(self) -> dict[str, Any]:
        """Delta sync in figures."""
        member, edge = self._member, self._member.edges.figures()
        return {
            "status": self._sync()["status"],
            "peers": self._sync()["peers"],
            "full_sync": member.sync.full_sync,
            "records": self._records(),
            "synced": dict(member.sync.synced),
            "counters": self._counters(),
            "blocking": self._blocking(),
            "holding": self._holding(),
            "over_limit": member.firewall.connections.over_limit,
            "healed": member.sync.joining.healed,
            "heals": bool(member.parameters["fwlab_sync_heal"]),
            "interval_ms": round(SYNC_TICK_S * 1000),
            "reset": {"at": self._reset_at, "by": self._reset_by},
            "active_peers": member.active_peers(),
            "bytes": {"sent": edge.sent_bytes, "received": edge.received_bytes},
            "refused_messages": self._refused(),
            "send_errors": dict(edge.send_errors),
        }

    def tab(
        self,
        table: ShortText = "connections",
        summary: bool = False,
        unlimited: bool = False,
        max: Annotated[int, Field(ge=0, le=TABLE_ROWS_MAX)] = TABLE_ROWS_DEFAULT,
    ) -> Iterator[dict[str, Any]]:
        """The connections table, the member's own connections (`local`), or announced data connections (`expected`)."""
        firewall = self._member.firewall
        expected = firewall.connections.expected
        tables: dict[str, ConnectionTable | AnnouncedConnections] = {
            "connections": firewall.connections, "local": firewall.local, "expected": expected
        }  # fmt: skip
        if table not in tables:
            raise RequestError(f"no table {table!r}; tables are {', '.join(tables)}")
        chosen = tables[table]
        yield {
            "name": table,
            "id": TABLE_ID,
            "values": len(chosen),
            "peak": chosen.peak,
            "links": len(chosen) if isinstance(chosen, ConnectionTable) else 0,
            "learned": chosen.learned if isinstance(chosen, ConnectionTable) else 0,
            "clearing": firewall.clearing.running,
            "cleared": firewall.clearing.cleared,
            "rows": [],
        }
        # A connections table bears a walk while it changes; announced connections are few.
        walk: Iterable[Connection | AnnouncedConnection]
        walk = chosen if isinstance(chosen, ConnectionTable) else list(chosen)
        for shown in _slices(islice(walk, 0 if summary else None if unlimited else max), ROWS_A_PART):
            now = self._member.lab_now
            audience = firewall.connections.audience
            yield {"rows": [row(c, now, audience) if isinstance(c, Connection) else expected_row(c, now, audience)
                            for c in shown]}  # fmt: skip

    def keys(self) -> Iterator[dict[str, Any]]:
        """All synchronised connections, for a comparison with the other members."""
        connections = self._member.firewall.connections
        for shown in _slices(connections, KEYS_A_PART):
            yield compare.pack(shown, self._member.lab_now)

    def drops(self, caller: Caller, follow: bool = False) -> Iterator[dict[str, Any]]:
        """Counts by reason and the last dropped packets; with `follow`, the next ones as they come."""
        counters = self._member.firewall.counters
        yield {"counts": {reason.name: count for reason, count in counters.drops.items()}, "entries": []}
        yield from self._log(caller, follow, [e for e in self._member.firewall.log if e.reason is not None])

    def log(self, caller: Caller, follow: bool = False) -> Iterator[dict[str, Any]]:
        """The log: drops, and what rules with `track: log` accepted."""
        return self._log(caller, follow, list(self._member.firewall.log))

    def _log(self, caller: Caller, follow: bool, entries: list[LogEntry]) -> Iterator[dict[str, Any]]:
        if follow:
            caller.follow("log", past=False)
        yield {"entries": []}
        for shown in _slices(entries, ROWS_A_PART):
            yield {"entries": [log_line(e, self._member.date) for e in shown]}

    def events(self, caller: Caller, follow: bool = False) -> Iterator[dict[str, Any]]:
        """What happened to this member. With `follow` the past ones come as events, then the next ones."""
        if follow:
            caller.follow("events", past=True)
        yield {"events": []}
        for shown in _slices([] if follow else list(self._member.events), ROWS_A_PART):
            yield {"events": shown}

    # -- what is changed -----------------------------------------------------------------------------------------

    def ctl_get(self, name: ShortText = "") -> dict[str, Any]:
        """One kernel parameter, or all of them with their legal values."""
        member = self._member
        try:
            names = [name] if name else list(PARAMETERS)
            return {
                n: {"value": member.parameters.get(n), "legal": PARAMETERS[n].legal, "meaning": PARAMETERS[n].meaning}
                for n in names
            }
        except ParameterError as error:
            raise RequestError(str(error)) from error

    def ctl_set(
        self, name: ShortText, value: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | ShortText
    ) -> dict[str, Any]:
        """Set a kernel parameter until the member stops."""
        member = self._member
        try:
            member.set_parameter(name, parse_value(name, str(value)))
        except ParameterError as error:
            raise RequestError(str(error)) from error
        return {name: member.parameters[name]}

    def policy_part(self, caller: Caller, part: dict[str, Any]) -> dict[str, Any]:
        """A piece of the rule base that this caller's next `policy_install` completes."""
        self._draft.add(caller, part)
        return {}

    def policy_install(
        self, caller: Caller, policy: dict[str, Any], file: FileName = "policy"
    ) -> Iterator[dict[str, Any]]:
        """Install a rule base; one with a problem changes nothing. Packets come between the steps of its reading."""
        member = self._member
        policy = self._draft.complete(caller, policy)
        try:
            built = yield from _in_parts(building(policy, file, frozenset(member.config.members)))
            member.install_policy(built)
        except (FileError, DivertError) as error:
            raise RequestError(str(error)) from error
        at, not_kept = member.edges.wall(), ""
        member.policy_origin = installed_by_hand(file, at)
        try:
            yield from _in_parts(member.edges.keep_policy(policy, file, at))
        except OSError as error:
            not_kept = error.strerror or str(error)
            member.event("policy", f"policy {built.name} will be lost at the next start: it cannot be kept: {not_kept}")
        yield {"policy": built.name, "rules": len(built.rules), "on_install": built.on_install.value,
               "not_kept": not_kept}  # fmt: skip

    def clear(self, learned: bool = False) -> dict[str, Any]:
        """`fw tab -t connections -x`: the connections (or the learned ones) are over, here and at the peers. It takes
        its time, and `tab` says whether it goes on."""
        member = self._member
        what = "learned connections" if learned else "all connections"
        member.event("policy", f"{what} are cleared by command, here and at the peers")
        member.firewall.clearing.begin(learned)
        return {"clearing": True}

    def reset(self) -> dict[str, Any]:
        """`cphaprob -reset syncstat`: the figures of synchronisation count from here."""
        member = self._member
        member.sync.engine.reset_counters()
        member.sync.held.reset()
        member.firewall.load.reset(member.now)
        self._blocked_before = member.firewall.counters.drops[DropReason.SYNC_LOAD]
        self._reset_at, self._reset_by = member.edges.wall(), "command"
        return {"reset": self._reset_at}

    def down(self) -> dict[str, Any]:
        """Administratively down; synchronisation goes on."""
        self._member.cluster.set_device(ADMIN_DOWN, "the administrator has put this member down", self._member.now)
        return {"state": self._member.cluster.state.label}

    def up(self) -> dict[str, Any]:
        """Ends `down`; no full sync follows."""
        self._member.cluster.unregister_device(ADMIN_DOWN, self._member.now)
        return {"state": self._member.cluster.state.label}

    def stop(self) -> dict[str, Any]:
        """End the process in good order; the connections table is gone with it."""
        self._member.stop_requested = True
        return {"stopping": True}


COMMANDS = {
    method.__name__: MemberCommand(method)
    for method in (
        Commands.status,
        Commands.stat,
        Commands.pstat,
        Commands.syncstat,
        Commands.tab,
        Commands.keys,
        Commands.clear,
        Commands.reset,
        Commands.drops,
        Commands.log,
        Commands.events,
        Commands.ctl_get,
        Commands.ctl_set,
        Commands.policy_part,
        Commands.policy_install,
        Commands.down,
        Commands.up,
        Commands.stop,
    )
}


def _in_parts(work: Generator[None, None, T]) -> Generator[dict[str, Any], None, T]:
    """Work that is done in steps, as an answer in empty parts; returns the work's result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast(T, end.value)
        yield {}


def _slices(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """A walk in parts; each is taken when it is asked for."""
    walk = iter(items)
    while part := list(islice(walk, size)):
        yield part
