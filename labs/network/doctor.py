"""What this machine has and lacks for a lab, and how to mend it.

Every finding comes from trying: in a throw-away private namespace (`labs.network.probe`), or by looking at the program
or limit itself. It changes nothing outside that namespace. It must not know labs or members.
"""

import importlib
import json
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labs.exit_codes import ExitCode
from labs.network.private import needs_user_namespace, system_path, try_namespaces, unshare_command
from labs.python import python_command

FILES_NEEDED = 12_000
"""Open files of one process: 10,000 connections of the largest lab, and room."""
RECEIVE_BUFFER_WANTED = 1024 * 1024
"""Bytes of net.core.rmem_max below which a burst can overrun a member's queue."""
PYTHON_OLDEST, PYTHON_NEWEST = (3, 11), (3, 14)
MODULES = ("scapy", "pyroute2", "netfilterqueue", "msgpack", "pydantic", "yaml", "typer", "rich", "pyftpdlib", "tftpy")
UTIL_LINUX = ("unshare", "nsenter", "setpriv")


class FindingState(StrEnum):
    """How a finding stands, from good to bad."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing is lost."""
    LACKING = "lacking"
    """Some labs or commands will not work."""
    MISSING = "missing"
    """No lab can run."""


@dataclass(frozen=True)
class Finding:
    """One line of doctor's table."""

    what: str
    state: FindingState
    meaning: str = ""
    mend: str = ""
    """Lines to copy into a shell, each a command; `#` says when or why."""

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "state": str(self.state)}


@dataclass(frozen=True)
class _Entry:
    """What a probe's failure means, and how to mend it."""

    meaning: str
    mend: str
    failed: FindingState = FindingState.MISSING


def _module(name: str) -> str:
    return (f"sudo modprobe {name}\n"
            f"sudo apt-get install linux-modules-extra-$(uname -r) && sudo modprobe {name}  # on Ubuntu, if missing")


def _divert_rule(tool: str) -> str:
    return ("sudo apt-get install iptables\n"
            "sudo modprobe xt_NFQUEUE\n"
            f"sudo update-alternatives --set {tool} /usr/sbin/{tool}-legacy  # where the nf_tables backend refuses")


PROBES: Mapping[str, _Entry] = {
    "NFQUEUE (iptables)": _Entry("members get every IPv4 packet by this rule", _divert_rule("iptables")),
    "NFQUEUE (ip6tables)": _Entry("members get every IPv6 packet by this rule", _divert_rule("ip6tables")),
    "packet queue": _Entry("a member reads its packets from it", "sudo modprobe nfnetlink_queue"),
    "bridge": _Entry("the switches", "sudo modprobe bridge"),
    "veth": _Entry("the wires", "sudo modprobe veth"),
    "tbf": _Entry("the step `limit`", _module("sch_tbf"), FindingState.LACKING),
    "statistic match": _Entry("the step `lose`", _module("xt_statistic"), FindingState.LACKING),
    "netem": _Entry("not used: many kernels lack it, so loss and delay are made without it", "", FindingState.NOTE),
    "nft queue": _Entry("not used: the divert rules are iptables' own", "", FindingState.NOTE),
}
TOOLS: Mapping[str, tuple[str, FindingState]] = {
    "tcpdump": ("filters of `fwlab capture`, and reading what it wrote", FindingState.LACKING),
    "nft": ("load sharing by multicast; it comes with nftables", FindingState.LACKING),
    "tc": ("the step `limit`; it comes with iproute2", FindingState.LACKING),
    "ping": ("workloads of kind ping; it comes with iputils-ping", FindingState.LACKING),
    "iperf3": ("`fwlab bench forward`", FindingState.LACKING),
    "nmap": ("only for trying it in a node", FindingState.NOTE),
    "curl": ("only for trying it in a node", FindingState.NOTE),
}

PACKAGES = {"nft": "nftables", "tc": "iproute2", "ping": "iputils-ping"}
"""Where the package is not named like its program."""


def examine() -> list[Finding]:
    """Every finding, in the order in which a reader wants them."""
    namespaces = _namespaces()
    usable = namespaces[-1].state != FindingState.MISSING
    return [*_python(), _util_linux(), *namespaces, _backend(), *_probed(usable), _files(), _receive_buffer(),
            *_tools()]


def exit_code(findings: Sequence[Finding]) -> ExitCode:
    """4 where no lab can run, 3 where something that matters is lacking, else 0."""
    states = {finding.state for finding in findings}
    if FindingState.MISSING in states:
        return ExitCode.CANNOT_RUN
    return ExitCode.WARNINGS if FindingState.LACKING in states else ExitCode.HELD


def print_table(findings: Sequence[Finding], console: Console) -> None:
    """The table, one sentence that sums it up, and what mends it: lines that no width and no pipe breaks."""
    colours = {FindingState.OK: "green", FindingState.NOTE: "cyan", FindingState.LACKING: "yellow",
               FindingState.MISSING: "red"}
    table = Table("WHAT", "STATE", "WHAT IT MEANS", box=None, pad_edge=False)
    for finding in findings:
        state = Text(finding.state, colours[finding.state])
        table.add_row(Text(finding.what), state, Text(finding.meaning, overflow="fold"))
    console.print(table)
    for finding in findings:
        if finding.mend and finding.state is not FindingState.OK:
            mend = f"\nto mend {finding.what}:\n" + "\n".join(f"  {line}" for line in finding.mend.splitlines())
            console.print(Text(mend), soft_wrap=True)
    console.print()
    console.print({ExitCode.HELD: "Labs can run here.", ExitCode.WARNINGS: "Labs can run here, with what is lacking.",
                   ExitCode.CANNOT_RUN: "Labs cannot run here until what is missing is mended."}[exit_code(findings)])


def namespace_complaint() -> str:
    """One line on why private namespaces cannot be made, or empty where they can."""
    found = [finding for finding in (_util_linux(), *_namespaces()) if finding.state == FindingState.MISSING]
    return f"this machine cannot run a lab: {_line(found[0])}" if found else ""


def required_complaint(complaints: Mapping[str, str]) -> str:
    """One line on what `probe.required` found."""
    what, said = next(iter(complaints.items()))
    entry = PROBES[what]
    return f"this machine cannot run a lab: {what} does not work ({said}); to mend it:{_indented(entry.mend)}"


def _line(finding: Finding) -> str:
    return f"{finding.what}: {finding.meaning}; to mend it:{_indented(finding.mend)}"


def _indented(mend: str) -> str:
    return "".join(f"\n  {line}" for line in mend.splitlines())


def _fwlab() -> str:
    """The command as sudo finds it: its PATH is another one."""
    return shlex.quote(str(Path(sys.executable).with_name("fwlab")))


def _provision() -> str:
    return f"sh {shlex.quote(str(Path(__file__).parents[1] / 'provision.sh'))}"


def _python() -> list[Finding]:
    version = sys.version_info[:2]
    known = PYTHON_OLDEST <= version <= PYTHON_NEWEST
    findings = [Finding(f"Python {platform.python_version()}", FindingState.OK if known else FindingState.NOTE,
                        "" if known else "tested with 3.11 to 3.14")]
    failures: list[str] = []
    for name in MODULES:
        try:
            importlib.import_module(name)
        except Exception as error:  # a compiled module fails in many ways
            failures.append(f"{name} ({error})")
    if failures:
        findings.append(Finding("Python modules", FindingState.MISSING, f"not importable: {', '.join(failures)}",
                                _provision()))
    else:
        findings.append(Finding("Python modules", FindingState.OK, ", ".join(MODULES)))
    return findings


def _util_linux() -> Finding:
    absent = [tool for tool in UTIL_LINUX if shutil.which(tool) is None]
    if absent:
        return Finding("util-linux", FindingState.MISSING,
                       f"no {', '.join(absent)}: they make and enter the namespaces", "sudo apt-get install util-linux")
    return Finding("util-linux", FindingState.OK, ", ".join(UTIL_LINUX))


def _namespaces() -> list[Finding]:
    """User namespaces, and whether private namespaces can be made at all."""
    what = "private namespaces"
    if os.geteuid() == 0:
        complaint = try_namespaces(user_namespace=False)
        if not complaint:
            return [Finding(what, FindingState.OK, "as root, without user namespaces")]
        complaint = try_namespaces(user_namespace=True)
        if not complaint:
            return [Finding(what, FindingState.OK, "in a user namespace: root here may not make the others by itself")]
        return [Finding(what, FindingState.MISSING, complaint,
                        "# in a container: give it CAP_SYS_ADMIN, or let it make user namespaces")]
    complaint = try_namespaces(user_namespace=True)
    if not complaint:
        return [Finding(what, FindingState.OK, "in a user namespace: no root is needed")]
    return [Finding(what, FindingState.MISSING, f"an ordinary user may not make them here ({complaint})",
                    _user_namespace_mend())]


def _user_namespace_mend() -> str:
    """The switch that refuses them: Debian's, Ubuntu's (24.04 lets them be made but strips them), or the limit."""
    with_sudo = f"sudo {_fwlab()} run LAB  # or run each lab as root"
    for name, wanted in (("kernel.unprivileged_userns_clone", "1"),
                         ("kernel.apparmor_restrict_unprivileged_userns", "0")):
        value = _sysctl(name)
        if value is not None and value != wanted:
            return f"sudo sysctl -w {name}={wanted}\n{with_sudo}"
    if _sysctl("user.max_user_namespaces") == "0":
        return f"sudo sysctl -w user.max_user_namespaces=10000\n{with_sudo}"
    return with_sudo


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name.replace(".", "/")).read_text().strip()
    except OSError:
        return None


def _backend() -> Finding:
    tool = shutil.which("iptables", path=system_path())
    if tool is None:
        return Finding("iptables backend", FindingState.MISSING, "there is no iptables",
                       "sudo apt-get install iptables")
    said = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return Finding("iptables backend", FindingState.OK, said)


def _probed(usable: bool) -> list[Finding]:
    if not usable:
        return [Finding(name, FindingState.NOTE, "not tried: there are no private namespaces to try it in")
                for name in PROBES]
    # tmpfs: iptables wants its lock file below /run, where an ordinary user may not write.
    script = 'mount -t tmpfs tmpfs /run && exec "$@"'
    command = [*unshare_command(needs_user_namespace()), "sh", "-c", script, "sh",
               *python_command("labs.network.probe")]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env={**os.environ, "PATH": system_path()})
    try:
        complaints: dict[str, str] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return [Finding("kernel features", FindingState.MISSING, f"the probe itself failed: {last}", _provision())]
    findings: list[Finding] = []
    for name, entry in PROBES.items():
        complaint = complaints.get(name, "not tried")
        if not complaint:
            findings.append(Finding(name, FindingState.OK, entry.meaning))
        else:
            findings.append(Finding(name, entry.failed, f"{entry.meaning} ({complaint})", entry.mend))
    return findings


def _files() -> Finding:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= FILES_NEEDED:
        limit = "none" if hard == resource.RLIM_INFINITY else hard
        return Finding("open files", FindingState.OK, f"hard limit {limit}")
    return Finding("open files", FindingState.LACKING,
                   f"hard limit {hard}: the lab with 10,000 connections needs {FILES_NEEDED} (full-sync-blocked)",
                   f"sudo prlimit --pid $$ --nofile={FILES_NEEDED}:{FILES_NEEDED}  # for this shell\n"
                   "echo '* hard nofile 20000' | sudo tee -a /etc/security/limits.conf  # from the next login on")


def _receive_buffer() -> Finding:
    value = int(_sysctl("net.core.rmem_max") or 0)
    if os.geteuid() == 0 or value >= RECEIVE_BUFFER_WANTED:
        return Finding("net.core.rmem_max", FindingState.OK, f"{value} bytes" + (
            "; root may go beyond it" if value < RECEIVE_BUFFER_WANTED else ""))
    return Finding("net.core.rmem_max", FindingState.NOTE,
                   f"{value} bytes: an ordinary user's queue overruns earlier under load; the loss is counted",
                   f"sudo sysctl -w net.core.rmem_max={8 * RECEIVE_BUFFER_WANTED}")


def _tools() -> list[Finding]:
    findings: list[Finding] = []
    for tool, (meaning, absent) in TOOLS.items():
        if shutil.which(tool, path=system_path()):
            findings.append(Finding(tool, FindingState.OK, meaning))
        else:
            findings.append(Finding(tool, absent, meaning, f"sudo apt-get install {PACKAGES.get(tool, tool)}"))
    return findings
