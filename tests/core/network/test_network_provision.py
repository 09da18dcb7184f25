"""The provisioning script, as far as it goes without changing the machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "labs" / "provision.sh"


def provision(*arguments, **environment):
    return subprocess.run(["sh", str(SCRIPT), *arguments], capture_output=True, text=True, check=False, timeout=30,
                          env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment})


@pytest.mark.parametrize(("arguments", "problem"), [
    (["--nonsense"], "unknown argument --nonsense"),
    (["--venv"], "--venv needs a directory"),
    (["--vm"], "--vm needs 'lab' or the name of a node"),
    (["--vm", "../etc"], "--vm ../etc: 'lab' or the name of a node"),
])
def test_usage(arguments, problem):
    done = provision(*arguments)
    assert done.returncode == 2
    assert problem in done.stderr
    assert "usage: provision.sh" in done.stderr


def test_help_is_the_head_of_the_script():
    done = provision("--help")
    assert done.returncode == 0
    assert "provision.sh --vm NODE" in done.stdout


def test_an_unsuitable_python_is_refused(tmp_path):
    """With every system package there (as a fake dpkg-query says), the interpreter is looked at next."""
    fake(tmp_path, "dpkg-query", "printf installed")
    fake(tmp_path, "old-python", "exit 1")
    done = provision("--venv", str(tmp_path / "venv"), PATH=f"{tmp_path}:/usr/bin:/bin",
                     FWPAIR_PYTHON=str(tmp_path / "old-python"))
    assert done.returncode == 4
    assert "is no Python 3.11 to 3.13 with venv" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path):
    fake(tmp_path, "dpkg-query", "printf installed")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    done = provision("--venv", str(tmp_path / "precious"), PATH=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 4
    assert "is no virtual environment" in done.stderr
    assert (tmp_path / "precious" / "thesis.txt").exists()


def test_missing_packages_without_sudo(tmp_path):
    """An ordinary user on a machine without sudo is told what root has to install."""
    fake(tmp_path, "dpkg-query", "for last; do :; done; [ $last = nmap ] && exit 1; printf installed")
    fake(tmp_path, "id", "echo 1000")
    for tool in ("sh", "dirname", "cat", "cut", "sha256sum", "env"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    done = provision(PATH=str(tmp_path))
    assert done.returncode == 4
    assert done.stderr.strip().endswith("there is no sudo; as root: apt-get install nmap")


def test_missing_packages_with_sudo_ask_for_root_there_alone(tmp_path):
    fake(tmp_path, "dpkg-query", "for last; do :; done; case $last in nmap|curl) exit 1;; esac; printf installed")
    fake(tmp_path, "id", "echo 1000")
    fake(tmp_path, "sudo", f'echo "$@" >>{tmp_path}/asked')
    fake(tmp_path, "old-python", "exit 1")
    provision(PATH=f"{tmp_path}:/usr/bin:/bin", FWPAIR_PYTHON=str(tmp_path / "old-python"))
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split("apt-get ")[1].split()[0] for line in asked] == ["update", "install"]
    assert asked[1].endswith("--no-install-recommends nmap curl")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck():
    done = subprocess.run(["shellcheck", str(SCRIPT), str(SCRIPT.parents[1] / ".ci" / "run")], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout


def fake(folder, name, body):
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)
