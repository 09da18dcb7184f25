"""A lab that is up, for tests on real packets: commands are typed as a person would type them.

What is asked again and again goes straight to the control sockets, and programs in nodes straight into the nodes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import warm

from fwnode.control.client import Control, run_directory
from labs.network import discovery
from labs.network.lab import node_environment
from labs.python import python_command

EVIDENCE = Path(__file__).parents[1] / "evidence"
TALK = Path(__file__).with_name("talk.py")
UDP = Path(__file__).with_name("udp.py")
UP_TRIES = 5
GATEWAY = "192.0.2.1"
"""The cluster's virtual address on the clients' side."""


def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """The condition's first true value; fails with `what` when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)
    return value


class Talk:
    """One application: a TCP connection through the firewall that asks and waits for its answer."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, text: str = "hello", patience_s: float = 20.0) -> str:
        """What came back: the text itself, `silence`, `reset`, `closed` or `refused`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{patience_s} {text}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


class Opener:
    """UDP connections, each from a source port of its own."""

    def __init__(self, sender: subprocess.Popen[str], receiver: subprocess.Popen[str]) -> None:
        self._sender, self._receiver = sender, receiver
        self.next = 10_000

    def open(self, count: int = 1) -> None:
        """So many new connections."""
        self.again(self.next, count)
        self.next += count

    def again(self, first: int, count: int = 1) -> None:
        """One more datagram of each of these connections."""
        _say(self._sender, f"{first} {count}")

    @property
    def newest(self) -> int:
        """Source port of the newest connection."""
        return self.next - 1

    def arrived(self, source_port: int) -> bool:
        """Whether the server has heard of this connection."""
        return _say(self._receiver, str(source_port)).strip() == "yes"


def _say(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline()


def time_passes(lab: UpLab, seconds: float) -> None:
    """Both members have run for so long: expiry, heartbeats and sync ticks have had their turns."""
    for member in ("fw1", "fw2"):
        begin = lab.control(member)["lab_time"]
        until(lambda m=member, b=begin: lab.control(m)["lab_time"] >= b + seconds, f"time passes at {member}")


QUESTIONS: dict[tuple[str, ...], tuple[str, dict[str, Any], str]] = {
    ("stat",): ("stat", {}, ""),
    ("pstat",): ("pstat", {}, ""),
    ("syncstat",): ("syncstat", {}, ""),
    ("status",): ("status", {}, ""),
    ("tab",): ("tab", {"table": "connections", "summary": False, "unlimited": False, "max": 16}, ""),
    ("events",): ("events", {}, "events"),
}
"""Commands whose JSON is the member's answer as it came, or a part of it: nothing has to be started for them."""


class UpLab:
    """A running pair. Commands raise nothing; their exit codes and words are the caller's to judge."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._background: list[subprocess.Popen[str]] = []

    def up(self, *arguments: str) -> None:
        """fw1 Active, fw2 Standby. On a busy machine fw2 may be there first, and stays active: then once more."""
        for _ in range(UP_TRIES):
            self.fwlab("up", *arguments, "--name", self.name)
            until(lambda: {self.status(m)["state"] for m in ("fw1", "fw2")} == {"Active", "Standby"}, "roles are found")
            if self.status("fw1")["state"] == "Active":
                return
            self.fwlab("down", self.name)
        raise AssertionError(f"fw1 was not the first in {UP_TRIES} tries")

    def fwlab(self, *arguments: str, check: bool = True, **kw: Any) -> subprocess.CompletedProcess[str]:
        done = command("labs.cli", *arguments, **kw)
        assert not check or done.returncode == 0, f"fwlab {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done

    def exec(self, node: str, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """A program in a node, as `fwlab exec` enters it."""
        line, environment = self._in_node(node, command)
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert not check or done.returncode == 0, f"{' '.join(command)} in {node}: {done.stderr}{done.stdout}"
        return done

    def background(self, node: str, *command: str) -> subprocess.Popen[str]:
        """A program that runs in a node until the lab goes."""
        line, environment = self._in_node(node, command)
        process = subprocess.Popen(line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._background.append(process)
        return process

    def _in_node(self, node: str, command: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
        line = discovery.choose(self.name).enter(node, list(command))
        return line, {**os.environ, **node_environment(self.name, node)}

    def do(self, step: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.fwlab("do", "--lab", self.name, step, *arguments, check=check)

    def fwctl(self, member: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = command("fwnode.control", "--lab", self.name, member, *arguments)
        assert not check or done.returncode == 0, f"fwctl {member} {' '.join(arguments)}: {done.stderr}"
        return done

    def ask(self, member: str, *arguments: str) -> Any:
        """What `fwctl MEMBER … --json` prints."""
        if arguments in QUESTIONS:
            command, questions, part = QUESTIONS[arguments]
            answer = self.control(member, command, **questions)
            return answer[part] if part else answer
        return json.loads(self.fwctl(member, *arguments, "--json").stdout)

    def status(self, member: str) -> dict[str, Any]:
        return dict(self.control(member))

    def wait_for_state(self, member: str, state: str, timeout_s: float = 60.0) -> None:
        until(lambda: self.status(member)["state"] == state, f"{member} is {state}", timeout_s)

    def install(self, member: str, folder: Path, policy: dict[str, Any], check: bool = True) -> str:
        """`fwctl MEMBER policy install`; returns what it said."""
        file = folder / "policy.json"  # JSON is YAML
        file.write_text(json.dumps(policy))
        done = self.fwctl(member, "policy", "install", str(file), check=check)
        return done.stdout + done.stderr

    def serve(self, port: int, node: str = "server") -> None:
        """A TCP server in a node that answers what it is asked, over IPv4 and IPv6."""
        process = self.background(node, sys.executable, str(TALK), "serve", str(port))
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"

    def talk(self, port: int, address: str = "198.51.100.100", node: str = "client") -> Talk:
        """An application in a node with one connection."""
        return Talk(self.background(node, sys.executable, str(TALK), "ask", address, str(port)))

    def udp(self, port: int = 9000, address: str = "198.51.100.100") -> Opener:
        """A client that opens UDP connections, and a server that says which of them arrive."""
        # A kernel keeps some 250 small datagrams while it asks for a neighbour's address and forgets the oldest of a
        # larger burst. So it asks now, by a ping of the gateway, which the rule base may answer or not.
        self.exec("client", "ping", "-n", "-c", "1", "-W", "1", GATEWAY)
        receiver = self.background("server", sys.executable, str(UDP), "receive", str(port))
        assert receiver.stdout is not None
        assert receiver.stdout.readline().strip() == "ready"
        return Opener(self.background("client", sys.executable, str(UDP), "send", address, str(port)), receiver)

    def control(self, member: str, command: str = "status", **arguments: Any) -> Any:
        """As `fwctl`, without starting a program: for questions that are asked again and again."""
        control = Control(run_directory(self.name) / f"{member}.sock")
        try:
            return control.ask(command, **arguments)
        finally:
            control.close()

    def events(self, member: str) -> list[dict[str, Any]]:
        """What happened to a member so far."""
        return list(self.control(member, "events")["events"])

    def ask_udp(self, address: str, port: int) -> str:
        """Send a datagram from the client and wait for an answer: what Python says when there is none."""
        ask = (
            "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(3); "
            f"s.connect(('{address}', {port})); s.send(b'x'); s.recv(9)"
        )
        return self.exec("client", sys.executable, "-c", ask).stderr

    def close(self) -> None:
        for process in self._background:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self.fwlab("down", self.name, check=False)

    def keep_evidence(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for member in ("fw1", "fw2"):
            self.do("resume", member, check=False)  # a paused member answers nobody
        for member in ("fw1", "fw2"):
            for what in ("status", "events", "log", "tab"):
                done = self.fwctl(member, what, check=False)
                (folder / f"{member}-{what}.txt").write_text(done.stdout + done.stderr)
            (folder / f"{member}-rules.txt").write_text(self.exec(member, "iptables-save", "-c").stdout)
            (folder / f"{member}.log").write_text(self.exec(member, "cat", f"/run/fwpair/{member}.log").stdout)


def command(module: str, *arguments: str, **kw: Any) -> subprocess.CompletedProcess[str]:
    """Run `fwlab` (`labs.cli`) or `fwctl` (`fwnode.control`)."""
    if not kw:
        return warm.run(module, arguments)
    line = python_command(module, *arguments)
    return subprocess.run(line, capture_output=True, text=True, timeout=240, check=False, **kw)


@contextlib.contextmanager
def sharing_lab(mode: str, members: int, folder: Path, **settings: str) -> Iterator[UpLab]:
    """A cluster in load sharing that is up, every member active and with a share."""
    file = folder / "topology.yaml"
    cluster = {"mode": mode, **settings}
    file.write_text(json.dumps({"base": "pair", "name": "shared", "members": members, "cluster": cluster}))
    lab = UpLab(f"test-{os.getpid()}-{mode}")
    lab.fwlab("up", str(file), "--name", lab.name)
    try:
        for number in range(1, members + 1):
            lab.wait_for_state(f"fw{number}", "Active")
        until(lambda: sum(m["load"] > 0 for m in lab.ask("fw1", "stat")["members"]) == members, "all have a share")
        yield lab
    finally:
        lab.close()


@contextlib.contextmanager
def captured(lab: UpLab, switch: str, file: Path, *expression: str) -> Iterator[list[Any]]:
    """The packets seen on a switch meanwhile; the list is filled at the end."""
    from scapy.all import rdpcap

    line = python_command("labs.cli", "capture", "--lab", lab.name, switch, "-w", str(file), *expression)
    process = subprocess.Popen(line, stderr=subprocess.PIPE)
    until(lambda: file.exists() and file.stat().st_size >= 24, "the capture has begun")
    packets: list[Any] = []
    try:
        yield packets
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    packets += rdpcap(str(file))


def wan_macs(lab: UpLab) -> dict[str, str]:
    """MAC on wan -> member: whose packets these are."""
    found = {}
    for member in (m["name"] for m in lab.ask("fw1", "stat")["members"]):
        shown = lab.exec(member, "ip", "-j", "link", "show", "wan", check=True).stdout
        found[json.loads(shown)[0]["address"]] = member
    return found
