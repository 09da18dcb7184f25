"""A lab that is up, for tests on real packets: commands are typed as a person would type them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVIDENCE = Path(__file__).parents[1] / "evidence"
TALK = Path(__file__).with_name("talk.py")


def until(condition: Callable[[], Any], what: str, timeout_s: float = 10.0) -> Any:
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

    def ask(self, text: str = "hello", patience_s: float = 2.0) -> str:
        """What came back: the text itself, `silence`, `reset`, `closed` or `refused`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{patience_s} {text}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()


class UpLab:
    """A running pair. Commands raise nothing; their exit codes and words are the caller's to judge."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._background: list[subprocess.Popen[str]] = []

    def fwlab(self, *arguments: str, check: bool = True, **kw: Any) -> subprocess.CompletedProcess[str]:
        done = command("labs.cli", *arguments, **kw)
        assert not check or done.returncode == 0, f"fwlab {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done

    def exec(self, node: str, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        return self.fwlab("exec", "--lab", self.name, node, "--", *command, check=check)

    def background(self, node: str, *command: str) -> subprocess.Popen[str]:
        """A program that runs in a node until the lab goes."""
        line = [sys.executable, "-m", "labs.cli", "exec", "--lab", self.name, node, "--", *command]
        process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._background.append(process)
        return process

    def do(self, step: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.fwlab("do", "--lab", self.name, step, *arguments, check=check)

    def fwctl(self, member: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = command("fwnode.control", "--lab", self.name, member, *arguments)
        assert not check or done.returncode == 0, f"fwctl {member} {' '.join(arguments)}: {done.stderr}"
        return done

    def ask(self, member: str, *arguments: str) -> Any:
        """What `fwctl MEMBER … --json` prints."""
        return json.loads(self.fwctl(member, *arguments, "--json").stdout)

    def status(self, member: str) -> dict[str, Any]:
        return dict(self.ask(member, "status"))

    def wait_for_state(self, member: str, state: str, timeout_s: float = 10.0) -> None:
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
            for what in ("status", "events", "log", "tab"):
                done = self.fwctl(member, what, check=False)
                (folder / f"{member}-{what}.txt").write_text(done.stdout + done.stderr)
            (folder / f"{member}-rules.txt").write_text(self.exec(member, "iptables-save", "-c").stdout)
            (folder / f"{member}.log").write_text(self.exec(member, "cat", f"/run/fwpair/{member}.log").stdout)


def command(module: str, *arguments: str, **kw: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", module, *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, **kw)
