"""The provisioning script, as far as it goes without changing the machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "labs" / "provision.sh"


def provision(*arguments, **environment):
    return subprocess.run(["sh", str(SCRIPT), *arguments], capture_output=True, text=True, check=False, timeout=240,
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
    assert "is no Python 3.11 to 3.14 with venv" in done.stderr
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


LACKING = "for last; do :; done; case $last in nmap|curl) exit 1;; esac; printf installed"
"""A dpkg-query on whose machine two packages are missing."""


@pytest.fixture
def lacking(tmp_path):
    """A machine that lacks nmap and curl, whose user is nobody special, with a sudo that says what it was asked for;
    where the packages end, an unsuitable Python ends the script."""
    fake(tmp_path, "dpkg-query", LACKING)
    fake(tmp_path, "id", "echo 1000")
    fake(tmp_path, "sudo", f'echo "$@" >>{tmp_path}/asked')
    fake(tmp_path, "old-python", "exit 1")

    def run():
        done = provision("--venv", str(tmp_path / "venv"), PATH=f"{tmp_path}:/usr/bin:/bin",
                         FWPAIR_PYTHON=str(tmp_path / "old-python"))
        asked = (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []
        return done, [line for line in asked if "apt-get" in line]

    return run


def verbs(asked):
    return ["update" if "update" in line else "install" for line in asked]


def test_missing_packages_with_sudo_ask_for_root_there_alone(lacking):
    done, asked = lacking()
    assert verbs(asked) == ["update", "install"]
    assert asked[1].endswith("--no-install-recommends nmap curl")
    assert "is no Python 3.11" in done.stderr, "it went on after the packages"


def test_a_stale_source_does_not_keep_the_others_from_installing(lacking, tmp_path):
    fake(tmp_path, "sudo", f'echo "$@" >>{tmp_path}/asked; case "$*" in *update*) exit 100;; esac')
    done, asked = lacking()
    assert verbs(asked) == ["update", "install"]
    assert "apt-get update complained" in done.stdout
    assert "is no Python 3.11" in done.stderr, "it went on after the packages"


def test_a_refused_sudo_names_the_packages(lacking, tmp_path):
    fake(tmp_path, "sudo", "echo 'user is not in the sudoers file' >&2; exit 1")
    done, asked = lacking()
    assert done.returncode == 4 and asked == []
    assert done.stderr.strip().endswith("sudo was refused; as root: apt-get install nmap curl")


def test_an_install_that_fails_says_what_may_be_wrong(lacking, tmp_path):
    fake(tmp_path, "sudo", 'case "$*" in *install*) exit 100;; esac')
    done, _ = lacking()
    assert done.returncode == 4
    assert "is this machine offline" in done.stderr
    assert done.stderr.strip().endswith("as root: apt-get install nmap curl")


@pytest.fixture
def environment(tmp_path):
    """An environment whose Python only notes what it is asked for; `run` gives the requests to pip."""
    fake(tmp_path, "dpkg-query", "printf installed")
    venv = tmp_path / "with space" / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").touch()
    fake(venv / "bin", "fwlab", "exit 0")
    fake(venv / "bin", "python", f'case "$*" in *"-m pip"*) echo "$@" >>{tmp_path}/asked;; esac')

    def run(*arguments):
        (tmp_path / "asked").write_text("")
        done = provision("--venv", str(venv), *arguments, PATH=f"{tmp_path}:/usr/bin:/bin")
        assert done.returncode == 0, done.stderr
        return done, (tmp_path / "asked").read_text().splitlines()

    return run


def test_the_tools_are_installed_for_those_who_test_alone(environment):
    done, asked = environment()
    assert len(asked) == 1 and asked[0].endswith(f"-e {SCRIPT.parents[1]}")
    assert "pip; this takes about half a minute" in done.stdout, "nobody waits in silence"
    assert "--quiet" not in asked[0]
    assert environment()[1] == [], "nothing is done twice"
    assert environment("--dev")[1][0].endswith(f"-e {SCRIPT.parents[1]}[dev]")
    assert environment("--dev")[1] == []
    assert environment()[1] == [], "more than is needed is enough"


def test_a_pip_that_reaches_nothing_is_told_at_once(tmp_path):
    fake(tmp_path, "dpkg-query", "printf installed")
    done = provision("--venv", str(tmp_path / "venv"), PATH=f"{tmp_path}:/usr/bin:/bin", PIP_CONFIG_FILE="/dev/null",
                     PIP_INDEX_URL="http://127.0.0.1:1/simple")
    assert done.returncode == 4
    assert "is this machine offline?" in done.stderr
    assert not (tmp_path / "venv" / ".provisioned").exists()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck():
    done = subprocess.run(["shellcheck", str(SCRIPT), str(SCRIPT.parents[1] / ".ci" / "run")], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout


def fake(folder, name, body):
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)
