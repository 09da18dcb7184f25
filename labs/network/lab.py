"""A lab: nodes, switches and links that exist, members that run in them, and the faults that can be done to them.

Runs inside the private namespaces that `labs.network.supervisor` makes. Every process that is started through a lab
is ended with it. A fault is applied and read back; one that did not take is an error. It must not know lab files,
workloads or expectations.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from fwnode.configuration import load_releases
from fwnode.control.running import listens
from fwnode.files import FileError
from labs.network import control_client, namespaces
from labs.network.errors import ControlError, LabError
from labs.network.faults import WireFaults, pause_process, resume_process
from labs.network.members import RUN_DIRECTORY, MemberSettings, configuration_for_member, member_configuration
from labs.network.namespaces import Namespaces, node_sysctls
from labs.network.private import system_path
from labs.network.readiness import READY_POLL_MAX_S, READY_POLL_S, STOP_TIMEOUT_S, Readiness
from labs.network.topology import Topology, link_name
from labs.python import python_command
from labs.quantities import Way
from labs.words import did_you_mean
from syncproto.errors import SyncError

STATE_TIMEOUT_S = 2.0
"""Wall seconds for a member to tell its state in an overview; one that takes longer is shown as busy."""
LOG_TAIL_LINES = 15
DEFAULT_MEMBER_COMMAND = tuple(python_command("fwnode.node"))


class Lab:
    """One running lab. `build` makes the ground, `start` brings a member up, `close` ends everything."""

    def __init__(self, topology: Topology, members: Mapping[str, MemberSettings] | None = None, *, name: str = "lab",
                 rate: float = 1.0, releases: Path | None = None,
                 member_command: Sequence[str] = DEFAULT_MEMBER_COMMAND) -> None:
        unknown = set(members or {}) - set(topology.members)
        if unknown:
            raise LabError(f"members: {', '.join(sorted(unknown))} not in topology {topology.name}; "
                           f"it has {', '.join(topology.members)}")
        self.name = name
        self.topology = topology
        self.members = {member: (members or {}).get(member) or MemberSettings() for member in topology.members}
        self.rate = rate
        self.epoch = time.monotonic()
        """Lab time's zero: when the ground was built."""
        self.releases = releases
        self.directory = RUN_DIRECTORY
        self.member_command = list(member_command)
        self.started_at = time.monotonic()
        self._namespaces = Namespaces()
        self._built = False
        self.starting: dict[str, Readiness] = {}
        """Members that are waited for, and how far they are."""
        self._processes: set[asyncio.subprocess.Process] = set()
        self._members: dict[str, asyncio.subprocess.Process] = {}
        self._cut: set[str] = set()
        self._powered_off: set[str] = set()
        self._paused: set[str] = set()
        self._begun: set[str] = set()
        """Members whose process is being started and is not known yet."""
        self._been_ready: set[str] = set()
        self._faults = WireFaults(topology, self.spawn)
        self._links_lock = asyncio.Lock()

    # -- the ground ---------------------------------------------------------------------------------------------

    async def build(self) -> None:
        """Namespaces, switches, links, addresses, routes."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._built = True
        await asyncio.to_thread(self._build)
        self.epoch = time.monotonic()

    def _build(self) -> None:
        topology = self.topology
        self._namespaces.create({node: node_sysctls(node in topology.members) for node in topology.nodes})
        namespaces.name_nodes(self.directory, {
            node: [str(address.ip) for addresses in topology.interfaces(node).values() for address in addresses]
            for node in topology.nodes})
        namespaces.quiet_bridge_netfilter()
        namespaces.create_switches(topology.switches)
        namespaces.create_links((link_name(node, switch), switch, switch, self._namespaces.path(node))
                                for node in topology.nodes for switch in topology.interfaces(node))
        self._namespaces.configure({
            node: partial(namespaces.configure_node, topology.interfaces(node),
                          topology.gateways(node) if node in topology.hosts else [])
            for node in topology.nodes})
        self._namespaces.furnish()
        namespaces.await_links(dict.fromkeys(topology.links(), True))

    async def close(self) -> None:
        """End every process that was started through the lab, then take the ground away."""
        for process in list(self._processes):
            _kill_group(process)
        for process in list(self._processes):
            await process.wait()
        self._processes.clear()
        self._members.clear()
        self._paused.clear()
        self._faults = WireFaults(self.topology, self.spawn)  # they ended with the wires
        if self._built:
            self._built = False
            await asyncio.to_thread(namespaces.delete_links, [*self.topology.links(), *self.topology.switches])
            await asyncio.to_thread(self._namespaces.remove)

    async def __aenter__(self) -> "Lab":
        try:
            await self.build()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def world(self) -> Mapping[str, Any]:
        """What a run's document says of where it ran."""
        return {"world": "real"}

    def lab_time(self) -> float:
        """Lab seconds since the epoch."""
        return (time.monotonic() - self.epoch) * self.rate

    # -- processes ----------------------------------------------------------------------------------------------

    def environment(self, node: str) -> dict[str, str]:
        """The environment of a process in a node: the project's own commands are on PATH."""
        return {**os.environ, **node_environment(self.name, node)}

    def namespace(self, node: str) -> str:
        """Path by which a process may enter a node's network namespace."""
        return str(self._namespaces.path(node))

    async def spawn(self, node: str, argv: Sequence[str], **kw: Any) -> asyncio.subprocess.Process:
        """A process inside a node, in a session of its own (Ctrl-C in the terminal is not for it)."""
        if node not in self.topology.nodes:
            raise LabError(f"there is no node {node}; there are {', '.join(self.topology.nodes)}")
        kw.setdefault("env", self.environment(node))
        kw.setdefault("start_new_session", True)
        kw.setdefault("stdin", subprocess.DEVNULL)
        # nsenter forks only for a pid namespace; here it becomes the command, so the pid is the command's.
        process = await asyncio.create_subprocess_exec(
            "nsenter", f"--net={self._namespaces.path(node)}", "--", *argv, **kw)
        self._processes = {known for known in self._processes if known.returncode is None}
        self._processes.add(process)
        return process

    # -- members ------------------------------------------------------------------------------------------------

    def running(self, member: str) -> bool:
        """Whether the member's process is there."""
        process = self._members.get(self._known(member))
        return process is not None and process.returncode is None

    def pid(self, member: str) -> int:
        """Process id of the running member. `LabError` where it does not run."""
        return self._process(self._known(member)).pid

    def returncode(self, member: str) -> int | None:
        """How the member's last process ended; None where it runs or never ran."""
        process = self._members.get(self._known(member))
        return None if process is None else process.returncode

    def control_path(self, member: str) -> Path:
        """The member's control socket."""
        return self.directory / f"{self._known(member)}.sock"

    def log_path(self, member: str) -> Path:
        """Where the member's stderr is appended to, over all its starts."""
        return self.directory / f"{self._known(member)}.log"

    async def start(self, member: str) -> None:
        """Write the member's configuration, start its process, return when it says that it is ready.

        It is waited for as long as it gets on. `LabError` where nothing moves any more; it is left running."""
        settings = self.members[self._known(member)]
        await self._let_end(member)
        if self.running(member) or member in self._begun:
            raise LabError(f"{member} is running already")
        self._must_have_power(member)
        self._begun.add(member)
        try:
            process, log_begins = await self._spawn_member(member, settings)
        finally:
            self._begun.discard(member)
        self._members[member] = process
        self._paused.discard(member)
        self._been_ready.discard(member)
        if member in self._powered_off:  # meanwhile
            _kill_group(process)
        await self._wait_ready(member, process, log_begins)
        self._been_ready.add(member)

    async def _let_end(self, member: str) -> None:
        """Wait for a member that ends by itself: its control socket goes a little before its process."""
        process = self._members.get(member)
        if process is None or process.returncode is not None:
            return
        if member in self._been_ready and not listens(self.control_path(member)):
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                raise LabError(f"{member} has stopped answering and its process still runs after {STOP_TIMEOUT_S:g} s; "
                               f"`fwlab do kill member={member}` ends it") from None

    async def _spawn_member(self, member: str, settings: MemberSettings) -> tuple[asyncio.subprocess.Process, int]:
        """The member's new process, and where in its log this life begins."""
        configuration = member_configuration(self.topology, member, settings, rate=self.rate, epoch=self.epoch,
                                              releases=self.releases, directory=self.directory)
        path = self.directory / f"{member}.yaml"
        path.write_text(configuration_for_member(configuration), encoding="utf-8")
        # Left by a killed process, it would answer "refused" like a slow start: one case less without it.
        self.control_path(member).unlink(missing_ok=True)
        with self.log_path(member).open("ab") as log:
            begins = log.tell()
            process = await self.spawn(member, [*self.member_command, "--config", str(path)], stdout=log, stderr=log)
        return process, begins

    async def start_all(self) -> None:
        """Start, at the same time, every member whose settings say `started`."""
        wanted = [member for member, settings in self.members.items() if settings.started]
        outcomes = await asyncio.gather(*(self.start(member) for member in wanted), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if len(failures) > 1 and all(isinstance(failure, LabError) for failure in failures):
            raise LabError("\n".join(str(failure) for failure in failures))
        if failures:
            raise failures[0]

    async def _wait_ready(self, member: str, process: asyncio.subprocess.Process, log_begins: int) -> None:
        ended = asyncio.ensure_future(process.wait())
        readiness = self.starting[member] = Readiness(time.monotonic())
        pause = READY_POLL_S
        try:
            while left_s := readiness.left_s(time.monotonic()):
                if ended.done():
                    raise LabError(f"{member} ended with status {process.returncode} before it was ready"
                                   + self._log_tail(member, log_begins))
                with suppress(ControlError):
                    status = await control_client.request(
                        self.control_path(member), {"command": "status", "arguments": {}}, timeout_s=max(0.1, left_s)
                    )
                    if readiness.heard(status, time.monotonic()):
                        return
                await asyncio.wait({ended}, timeout=pause)
                pause = min(pause * 1.1, READY_POLL_MAX_S)
            raise LabError(readiness.complaint(member) + self._log_tail(member, log_begins))
        finally:
            del self.starting[member]
            ended.cancel()

    def _log_tail(self, member: str, begins: int) -> str:
        with self.log_path(member).open("rb") as log:
            log.seek(begins)
            lines = log.read().decode(errors="replace").strip().splitlines()[-LOG_TAIL_LINES:]
        if not lines:
            return "; it wrote nothing to its log"
        return f"; the end of {self.log_path(member)}:\n" + "\n".join(f"  {line}" for line in lines)

    async def stop(self, member: str) -> None:
        """Ask the member to stop and wait until its process has ended."""
        process = self._process(member)
        await self.control(member, "stop")
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            raise LabError(f"{member} agreed to stop but still runs after {STOP_TIMEOUT_S:g} s") from None

    async def kill(self, member: str) -> None:
        """SIGKILL of the member's process; its namespace's kernel goes on."""
        process = self._process(member)
        _kill_group(process)
        await process.wait()

    async def pause(self, member: str) -> None:
        """SIGSTOP: the process is there, answers nobody and reads nothing; its kernel goes on."""
        await pause_process(self._process(member).pid)
        self._paused.add(member)

    async def resume(self, member: str) -> None:
        """SIGCONT: it goes on where it was, however late it is."""
        process = self._process(member)
        if member not in self._paused:
            raise LabError(f"{member} is not paused")
        await resume_process(process.pid)
        self._paused.discard(member)

    async def power_cut(self, member: str) -> None:
        """Every wire that the member is on goes dark, then its process ends. In this order, and with the process frozen
        meanwhile: a machine without power tells nobody that it dies, and a kernel that is left behind would."""
        process = self._members.get(self._known(member))
        if process is not None and self.running(member):
            with suppress(ProcessLookupError, FileNotFoundError):  # it ended just now
                await pause_process(process.pid)
        self._powered_off.add(member)
        try:
            await self._apply_links()
        finally:
            if process is not None:
                _kill_group(process)
                await process.wait()

    async def power_on(self, member: str) -> None:
        """Its wires light up again (those that were not cut besides), then the member starts."""
        self._powered_off.discard(self._known(member))
        await self._apply_links()
        await self.start(member)

    async def upgrade(self, member: str, release: str) -> None:
        """Stop the member where it runs, change its release, start it. What cannot start again is not stopped."""
        self._must_have_power(self._known(member))
        self._must_be_release(release)
        if self.running(member):
            await self.stop(member)
        self.members[member].release = release
        await self.start(member)

    async def control(self, member: str, command: str, **arguments: Any) -> Any:
        """One request to the member's control socket."""
        path = self.control_path(member)
        if not self.running(member):
            raise ControlError(f"{member} is not running")
        if member in self._paused:
            raise ControlError(f"{member} is paused and answers nothing; resume it first")
        try:
            return await control_client.request(path, {"command": command, "arguments": arguments})
        except ControlError as error:
            raise type(error)(f"{member}: {error}") from None

    async def events(self, member: str) -> AsyncIterator[dict[str, Any]]:
        """The member's events, the remembered ones first; ends when the member does."""
        message = {"command": "events", "arguments": {"follow": True}}
        async for event in control_client.follow(self.control_path(member), message):
            yield event

    # -- wires --------------------------------------------------------------------------------------------------

    async def cut(self, link: str, way: Way = "both") -> None:
        """Take down a link (`fw1-sync`) or every port of a switch (`sync`) at the switch's side. One way: the link
        stays up, and nothing passes into its node (`in`), or out of it."""
        links = self._links_of(link, way)
        if way == "both":
            self._cut |= set(links)
            await self._apply_links()
        else:
            await self._faults.cut(links, way)

    async def restore(self, link: str) -> None:
        """Undo `cut`, whichever way, for a link or for every port of a switch."""
        links = self._links_of(link)
        self._cut -= set(links)
        await self._apply_links()
        for deed in ("cut in", "cut out"):
            await self._faults.undo(deed, links)

    async def limit(self, link: str, rate: int) -> None:
        """So many bits a second, in both directions; a short queue, then drops."""
        await self._faults.limit(self._links_of(link), rate)

    async def unlimit(self, link: str) -> None:
        """Undo `limit`."""
        await self._faults.unlimit(self._links_of(link))

    async def lose(self, link: str, share: float, way: Way = "both") -> None:
        """Lose packets at random. Over a switch by its name, each packet is lost with this probability once."""
        await self._faults.lose(self._links_of(link, way), share, way, link in self.topology.switches)

    async def unlose(self, link: str) -> None:
        """Undo `lose`."""
        await self._faults.undo("lose", self._links_of(link))

    async def delay(self, link: str, by: float, way: Way = "both") -> None:
        """Each packet comes `by` wall seconds later, in order."""
        await self._faults.delay(self._links_of(link, way), by, way, link in self.topology.switches)

    async def undelay(self, link: str) -> None:
        """Undo `delay`."""
        await self._faults.undelay(self._links_of(link))

    async def block(self, between: Sequence[str], protocol: str, port: int) -> None:
        """Drop, in both members, what the other one sends to or from this service."""
        await self._faults.block([self._known(member) for member in between], protocol, port)

    async def unblock(self, between: Sequence[str], protocol: str, port: int) -> None:
        """Undo `block`."""
        await self._faults.unblock([self._known(member) for member in between], protocol, port)

    async def links(self) -> dict[str, bool]:
        """Link -> up, as the kernel says it now."""
        seen = await asyncio.to_thread(namespaces.read_links)
        return {link: seen.get(link, False) for link in self.topology.links()}

    def _links_of(self, link: str, way: Way = "both") -> list[str]:
        if link not in self.topology.switches and link not in self.topology.links():
            raise LabError(f"there is no link or switch {link}; switches: {', '.join(self.topology.switches)}; "
                           f"links: {', '.join(self.topology.links())}")
        if way != "both" and link in self.topology.switches:
            raise LabError(f"{link} is a switch and has no way {way}; name a link, such as "
                           f"{self.topology.links(link)[-1]}")
        return self.topology.links(link)

    async def _apply_links(self) -> None:
        """Bring every port to what `_cut` and `_powered_off` say; set_links reads back."""
        async with self._links_lock:
            dark = self._cut | {link for member in self._powered_off for link in self.topology.links(member)}
            wanted = {link: link not in dark for link in self.topology.links()}
            seen = await self.links()
            await asyncio.to_thread(namespaces.set_links, {k: up for k, up in wanted.items() if seen[k] is not up})

    # -- what the lab says of itself ----------------------------------------------------------------------------

    async def info(self) -> dict[str, Any]:
        """Name, nodes with addresses, links, members: what `fwlab ps` and `fwctl` ask for."""
        topology = self.topology
        states = await asyncio.gather(*(self._state(member) for member in topology.members))
        return {
            "name": self.name,
            "topology": topology.name,
            "pid": os.getpid(),
            "up_s": time.monotonic() - self.started_at,
            "rate": self.rate,
            "lab_time": self.lab_time(),
            "nodes": {node: {"kind": "member" if node in topology.members else "host",
                             "interfaces": {name: [str(address) for address in addresses]
                                            for name, addresses in topology.interfaces(node).items()}}
                      for node in topology.nodes},
            "virtual": {name: [str(address) for address in switch.virtual]
                        for name, switch in topology.switches.items() if switch.virtual},
            "switches": list(topology.switches),
            "links": await self.links(),
            "faults": self._faults.active(),
            "members": dict(zip(topology.members, states, strict=True)),
            "starting": {member: readiness.doing for member, readiness in self.starting.items()},
        }

    async def _state(self, member: str) -> dict[str, Any]:
        state = "off" if member in self._powered_off else "stopped"
        if self.running(member):
            state = "paused" if member in self._paused else "busy" if member in self._been_ready else "starting"
        if state in ("busy", "starting"):
            with suppress(ControlError):
                status = await control_client.request(self.control_path(member), {"command": "status", "arguments": {}},
                                            STATE_TIMEOUT_S)
                state = str(status.get("state"))
        return {"release": self.members[member].release, "running": self.running(member), "state": state}

    def _known(self, member: str) -> str:
        if member not in self.members:
            raise LabError(f"there is no member {member}{did_you_mean(member, self.members)}; "
                           f"there are {', '.join(self.members)}")
        return member

    def _must_have_power(self, member: str) -> None:
        if member in self._powered_off:
            raise LabError(f"{member} is without power; power_on brings it back")

    def _must_be_release(self, release: str) -> None:
        try:
            load_releases(str(self.releases or "")).release(release)
        except (FileError, SyncError) as error:
            raise LabError(str(error)) from None

    def _process(self, member: str) -> asyncio.subprocess.Process:
        if not self.running(member):
            raise LabError(f"{member} is not running")
        return self._members[member]


def node_environment(lab: str, node: str) -> dict[str, str]:
    """What a process in a node gets on top of the environment it was started from."""
    path = f"{Path(sys.executable).parent}:{system_path()}"
    return {"PATH": path, "FWPAIR_LAB": lab, "FWPAIR_NODE": node}


def _kill_group(process: asyncio.subprocess.Process) -> None:
    """SIGKILL to the process and whatever it started in its session."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
            return
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
