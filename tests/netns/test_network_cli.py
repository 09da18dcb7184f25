"""`fwlab` from the outside: up, do, down; and that nothing of a lab outlives its first process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from network_ground import fwlab, lab_is_up, unique_name, up, users_of, wait_until

from labs.exit_codes import ExitCode
from labs.network import discovery
from labs.python import python_command


@pytest.fixture
def lab() -> Iterator[str]:
    with lab_is_up() as name:
        yield name


def test_up_ps_down(lab):
    infos = json.loads(fwlab("ps", "--json").stdout)
    info = next(info for info in infos if info["name"] == lab)
    assert {member: values["state"] for member, values in info["members"].items()} == {"fw1": "Active", "fw2": "Active"}
    assert info["nodes"]["client"]["interfaces"]["lan"] == ["192.0.2.100/24", "2001:db8:1::100/64"]
    users = users_of(info["pid"])
    assert len(users()) >= 4  # the first process, the supervisor, two members
    assert fwlab("down", lab).stdout == f"{lab}: down\n"
    assert users() == []
    assert lab not in discovery.names()
    again = fwlab("down", lab, check=False)
    assert again.returncode == ExitCode.USAGE
    assert f"no lab '{lab}' is running" in again.stderr


def test_two_labs_do_not_disturb_each_other(lab):
    other = unique_name()
    up(other)
    fwlab("do", "--lab", other, "cut", "lan")
    reach = ["client", "--", "ping", "-c", "1", "-W", "1", "192.0.2.11"]
    fwlab("exec", "--lab", lab, *reach)
    assert fwlab("exec", "--lab", other, *reach, check=False).returncode == 1
    which = fwlab("exec", "client", "--", "true", check=False)
    assert which.returncode == ExitCode.USAGE
    assert "several labs are running" in which.stderr
    fwlab("down", other)
    fwlab("exec", "--lab", lab, *reach)


def test_do(lab):
    refused = fwlab("do", "--lab", lab, "upgrade", "member=fw1", "release=R99", check=False)
    assert refused.returncode == ExitCode.USAGE
    assert "release 'R99' is unknown; known are: " in refused.stderr
    fwlab("do", "--lab", lab, "upgrade", "member=fw2", "release=R80.10")
    fwlab("do", "--lab", lab, "power_cut", "fw1")
    info = next(info for info in json.loads(fwlab("ps", "--json").stdout) if info["name"] == lab)
    assert {member: values["release"] for member, values in info["members"].items()} == {"fw1": "R77.30",
                                                                                         "fw2": "R80.10"}
    assert info["members"]["fw1"]["state"] == "off"
    assert not info["links"]["fw1-lan"]
    wrong = fwlab("do", "--lab", lab, "upgrade", "member=fw2", "colour=red", check=False)
    assert wrong.returncode == ExitCode.USAGE
    assert "unknown key colour; release is missing" in wrong.stderr
    assert "there is no step explode" in fwlab("do", "--lab", lab, "explode", check=False).stderr


@pytest.mark.parametrize("victim", ["first process", "supervisor", "unshare"])
def test_sigkill_leaves_nothing(lab, victim):
    interfaces = sorted(os.listdir("/sys/class/net"))  # noqa: PTH208
    found = discovery.choose(lab)
    fwlab("exec", "--lab", lab, "client", "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &")
    users = users_of(found.pid)
    assert len(users()) >= 5
    pid = {"first process": found.pid, "unshare": parent(found.pid),
           "supervisor": min(pid for pid in users() if parent(pid) == found.pid)}[victim]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: users() == [], "every process of the lab has ended")
    wait_until(lambda: lab not in discovery.names(), "the name is free")
    assert sorted(os.listdir("/sys/class/net")) == interfaces  # noqa: PTH208
    up(lab)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


FOREGROUND = """
import sys
from labs.network import supervisor
supervisor.STOP_GRACE_S = float(sys.argv[3])
sys.exit(supervisor.run_in_lab(sys.argv[1], sys.argv[2], sys.argv[4:]))
"""


def foreground_main(argv: list[str], name: str) -> int:
    """Runs inside a lab: says its name, then waits for the end."""
    import asyncio

    from network_ground import STAND_IN

    from labs.network.lab import Lab
    from labs.network.supervisor import run
    from labs.network.topology import load_topology

    async def play() -> None:
        async with Lab(load_topology(), name=name, member_command=STAND_IN) as lab:
            await lab.start_all()
            print(f"up {name}", flush=True)
            await asyncio.Event().wait()

    run(play())
    return 0


def slow_main(argv: list[str], name: str) -> int:
    """Runs inside a lab; told to end, it needs a file that a test makes."""
    import asyncio

    from labs.network.supervisor import run

    async def play() -> None:
        print(f"up {name}", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            print("ending", flush=True)
            while not Path(argv[0]).exists():
                await asyncio.sleep(0.01)
            print("ended in order", flush=True)

    run(play())
    return 0


def stubborn_main(argv: list[str], name: str) -> int:
    """Runs inside a lab, and does not end when it is told to."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    print(f"up {name}", flush=True)
    while True:
        signal.pause()


@contextlib.contextmanager
def foreground(name: str, main: str = "foreground_main", argument: str = "", grace_s: float = 60.0
               ) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """A command with a lab in the foreground, and the lab's name."""
    path = os.pathsep.join([*map(str, Path(__file__).parents[:2]), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, "-c", FOREGROUND, name, f"{__file__}:{main}", str(grace_s), argument]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": path}, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("up "), said
            yield process, said.split()[1]
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "to_group", "code"), [
    (signal.SIGINT, False, 130), (signal.SIGINT, True, 130), (signal.SIGTERM, False, 130), (signal.SIGKILL, False, -9)])
def test_foreground_lab_ends_with_the_command(number, to_group, code):
    with foreground(unique_name()) as (process, name):
        found = discovery.choose(name)
        users = users_of(found.pid)
        assert fwlab("exec", "--lab", name, "client", "--", "true").returncode == 0, "reachable while it runs"
        (os.killpg if to_group else os.kill)(process.pid, number)
        assert process.wait(timeout=30) == code
        wait_until(lambda: users() == [], "every process of the lab has ended")
        wait_until(lambda: name not in discovery.names(), "the name is free")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_does_not_break_off_the_end_of_a_lab(tmp_path, number):
    """As of a person who is impatient, and of a terminal that signals every process at once."""
    go = tmp_path / "go"
    with foreground(unique_name(), "slow_main", argument=str(go)) as (process, _):
        assert process.stdout is not None
        process.send_signal(number)
        assert process.stdout.readline() == "ending\n"
        os.killpg(process.pid, number)
        go.touch()
        assert process.stdout.read() == "ended in order\n"
        assert process.wait(timeout=30) == ExitCode.INTERRUPTED


def test_foreground_labs_number_themselves(lab):
    with foreground(lab) as (process, name):
        assert name == f"{lab}-2"
        process.terminate()
        assert process.wait(timeout=30) == ExitCode.INTERRUPTED


def test_a_lab_that_does_not_end_when_it_is_told_to_is_killed():
    with foreground(unique_name(), "stubborn_main", grace_s=0.5) as (process, name):
        users = users_of(discovery.choose(name).pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == ExitCode.INTERRUPTED
        assert process.stderr is not None and "it was killed" in process.stderr.read()
        wait_until(lambda: users() == [], "every process of the lab has ended")


QUICK = """
title: Two members and nothing else
shows: what stays
topology: pair
members:
  fw1: {release: R77.30}
  fw2: {release: R77.30}
policy: {name: open, rules: [{name: all, action: accept}]}
steps:
  - start: [fw1, fw2]
expect:
  - {that: members.fw1.connections, is: 0}
"""


@pytest.mark.parametrize(("enter", "code"), [(True, 0), (False, 130)])
def test_a_lab_that_is_kept_ends_by_enter_and_by_an_interrupt(tmp_path, enter, code):
    file = tmp_path / "kept.yaml"
    file.write_text(QUICK)
    line = python_command("labs.cli", "run", str(file), "--keep")
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            said = next(text for text in process.stdout if "stays until you press Enter" in text)
            name = said.split("the lab ")[1].split()[0]
            assert discovery.find(name) is not None
            if enter:
                process.stdin.write("\n")
                process.stdin.flush()
            else:
                process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert process.wait(timeout=30) == code
            wait_until(lambda: discovery.find(name) is None, "the lab is gone")
        finally:
            process.kill()


def test_member_that_does_not_start_is_told(tmp_path):
    name = unique_name()
    done = fwlab("up", "--name", name, "--member-command", "/bin/false", check=False)
    assert done.returncode == ExitCode.USAGE
    assert "fw1 ended with status 1 before it was ready" in done.stderr
    assert "Traceback" not in done.stderr
    assert name not in discovery.names()


def test_missing_kernel_feature_is_told(tmp_path):
    """An iptables that cannot do NFQUEUE, as on a kernel without the module."""
    fake = tmp_path / "iptables"
    fake.write_text("#!/bin/sh\necho 'iptables: No chain/target/match by that name.' >&2\nexit 1\n")
    fake.chmod(0o755)
    done = up(unique_name(), check=False, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert done.returncode == ExitCode.CANNOT_RUN
    assert "NFQUEUE (iptables) does not work (iptables: No chain/target/match by that name.)" in done.stderr
    assert "sudo apt-get install iptables" in done.stderr


def test_doctor():
    done = fwlab("doctor", "--json", check=False)
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    broken = [finding for finding in findings.values() if finding["state"] == "missing"]
    assert broken == [], broken
    assert done.returncode in (ExitCode.HELD, ExitCode.WARNINGS)
    assert findings["NFQUEUE (iptables)"]["state"] == "ok"


def test_down_without_a_name_means_only_what_up_started(lab):
    with foreground(unique_name()) as (_, other):
        refused = fwlab("down", check=False)
        assert refused.returncode == ExitCode.USAGE
        assert f"{lab} (started by fwlab up)" in refused.stderr
        assert f"{other} (in the foreground of another command)" in refused.stderr
        fwlab("down", lab)
        refused = fwlab("down", check=False)
        assert refused.returncode == ExitCode.USAGE
        assert f"{other} (in the foreground of another command)" in refused.stderr and lab not in refused.stderr
        assert discovery.find(other) is not None


