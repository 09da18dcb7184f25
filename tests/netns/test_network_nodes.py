"""What `fwlab` does in a lab that is up and leaves as it was: exec, shell, capture."""

import os
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from network_ground import fwlab, lab_is_up, up, wait_until

from labs.exit_codes import ExitCode
from labs.network import discovery
from labs.python import python_command


@pytest.fixture(scope="module")
def lab() -> Iterator[str]:
    with lab_is_up() as name:
        yield name


def test_exec_is_the_command(lab, tmp_path):
    done = fwlab("exec", "--lab", lab, "client", "--", "sh", "-c", "pwd; ip -o -4 address show lan; exit 7",
                 check=False, cwd=tmp_path)
    assert done.returncode == 7
    assert done.stdout.startswith(f"{tmp_path}\n")
    assert "192.0.2.100/24" in done.stdout
    assert fwlab("exec", "--lab", lab, "fw1", "--", "cat", input="through\n").stdout == "through\n"
    assert fwlab("exec", "--lab", lab, "fw1", "--", "/no/such/program", check=False).returncode == 127
    which = fwlab("exec", "--lab", lab, "fw1", "--", "sh", "-c", "command -v python").stdout.strip()
    assert which == str(Path(sys.executable).parent / "python"), "the project's own commands are on PATH"
    stranger = fwlab("exec", "--lab", lab, "fw9", "--", "true", check=False)
    assert stranger.returncode == ExitCode.USAGE
    assert "no node fw9" in stranger.stderr
    assert "client, fw1, fw2, server" in stranger.stderr


def test_exec_ends_with_its_terminal(lab):
    found = discovery.choose(lab)
    process = subprocess.Popen(python_command("labs.cli", "exec", "--lab", lab, "client", "--",
                                "sh", "-c", "echo $$; exec sleep 1000"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    inner = process.stdout.readline().strip()
    assert (found.root / "proc" / inner).exists()
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: not (found.root / "proc" / inner).exists(), "the command in the node has ended")


def test_same_name_is_refused(lab):
    before = discovery.choose(lab)
    second = up(lab, check=False)
    assert second.returncode == ExitCode.USAGE
    assert f"a lab named '{lab}' is running already" in second.stderr
    assert discovery.choose(lab) == before
    fwlab("exec", "--lab", lab, "client", "--", "ping", "-c", "1", "192.0.2.11")


def test_a_node_sees_its_own_interfaces(lab):
    for node, interfaces in (("client", ["lan", "lo"]), ("fw1", ["lan", "lo", "sync", "wan"])):
        shown = fwlab("exec", "--lab", lab, node, "--", "ls", "/sys/class/net").stdout.split()
        assert [name for name in shown if name in ("lan", "lo", "wan", "sync") or "-" in name] == interfaces
        mac = fwlab("exec", "--lab", lab, node, "--", "cat", "/sys/class/net/lan/address").stdout
        assert mac in fwlab("exec", "--lab", lab, node, "--", "ip", "link", "show", "lan").stdout.replace(" brd", "\n")


def test_a_node_has_a_run_of_its_own(lab):
    """As services need it: their directory is there, what they write stays, and no other node sees it."""
    leave = "set -e; test -d /run/sshd -a -d /run/lock -a -w /var/run; mkdir /run/service; echo 7 > /run/service/pid"
    fwlab("exec", "--lab", lab, "server", "--", "sh", "-c", leave)
    assert fwlab("exec", "--lab", lab, "server", "--", "cat", "/run/service/pid").stdout == "7\n"
    assert fwlab("exec", "--lab", lab, "client", "--", "cat", "/run/service/pid", check=False).returncode == 1
    assert not Path("/run/service").exists()
    # The lab's own part of /run is there as well: a member's shell talks to its socket.
    sockets = fwlab("exec", "--lab", lab, "fw1", "--", "ls", "/run/fwpair").stdout.split()
    assert {"fw1.sock", "supervisor.sock"} <= set(sockets)
    assert fwlab("exec", "--lab", lab, "fw1", "--", "ping", "-c", "1", "fw2").returncode == 0
    assert fwlab("exec", "--lab", lab, "fw1", "--", "iptables", "-w", "-L").returncode == 0


def test_a_shell_without_a_terminal_is_a_script(lab):
    done = fwlab("shell", "--lab", lab, "client", input="echo through; pwd; exit 5\n", check=False)
    assert (done.returncode, done.stderr) == (5, "")
    assert done.stdout.startswith("through\n")


@pytest.mark.parametrize("program", ["--version", "A=b", "-x"])
def test_any_name_is_a_program(lab, program, tmp_path):
    """The program's name is never an option, nor an assignment, of what starts it."""
    absent = fwlab("exec", "--lab", lab, "client", "--", program, check=False)
    assert absent.returncode == 127
    assert absent.stdout == ""
    assert program in absent.stderr
    file = tmp_path / program
    file.write_text('#!/bin/sh\necho "this is $0 $*"\n')
    file.chmod(0o755)
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = fwlab("exec", "--lab", lab, "client", "--", program, "--lab", "x", env=path)
    assert done.stdout == f"this is {file} --lab x\n"


def pcap_packets(data: bytes) -> list[bytes]:
    magic, = struct.unpack_from("=I", data)
    assert magic == 0xA1B23C4D
    found: list[bytes] = []
    offset = 24
    while offset < len(data):
        length, = struct.unpack_from("=I", data, offset + 8)
        found.append(data[offset + 16:offset + 16 + length])
        offset += 16 + length
    return found


def capture_while(lab: str, link: str, *arguments: str, argv: list[str]) -> "subprocess.Popen[str]":
    """Start a capture, and run `argv` in the client once it listens."""
    process = subprocess.Popen(python_command("labs.cli", "capture", "--lab", lab, link, *arguments),
                               stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == f"capturing on {link}\n"
    fwlab("exec", "--lab", lab, "client", "--", *argv)
    return process


@pytest.mark.parametrize("link", ["lan", "fw1-lan"])
def test_capture(lab, link, tmp_path):
    file = tmp_path / "x.pcap"
    argv = ["ping", "-c", "1", "192.0.2.11"]
    process = capture_while(lab, link, "-w", str(file), "--count", "2", "icmp", argv=argv)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert said.startswith("2 packets captured")
    request, reply = pcap_packets(file.read_bytes())
    assert (request[23], request[34], reply[34]) == (1, 8, 0)  # ICMP; echo request, echo reply
    assert file.stat().st_uid == os.getuid()
    assert stat.S_ISREG(file.stat().st_mode)


def test_capture_ends_on_interrupt(lab, tmp_path):
    file = tmp_path / "x.pcap"
    process = capture_while(lab, "lan", "-w", str(file), argv=["ping", "-c", "3", "-i", "0.05", "192.0.2.11"])
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert len(pcap_packets(file.read_bytes())) >= 6
    assert "dropped by the kernel" in said


def test_capture_refuses(lab, tmp_path):
    unknown = fwlab("capture", "--lab", lab, "dmz", "-w", str(tmp_path / "x"), check=False)
    assert (unknown.returncode, list(tmp_path.iterdir())) == (ExitCode.USAGE, [])
    assert "there is no link or switch dmz; there are lan, wan, sync, client-lan" in unknown.stderr
    bad = fwlab("capture", "--lab", lab, "lan", "-w", str(tmp_path / "x"), "no such filter", check=False)
    assert (bad.returncode, list(tmp_path.iterdir())) == (ExitCode.USAGE, [])
    nowhere = fwlab("capture", "--lab", lab, "lan", "-w", str(tmp_path / "no" / "x"), check=False)
    assert nowhere.returncode == ExitCode.USAGE
