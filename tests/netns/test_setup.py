"""What the Makefile promises of a clone."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && cd "$1" && ! touch written && make check'


def test_a_read_only_clone_can_be_checked():
    done = subprocess.run(["unshare", "-rm", "sh", "-c", READ_ONLY, "sh", str(ROOT)], capture_output=True, text=True,
                          timeout=240, check=False)
    assert "Read-only file system" in done.stderr, "the clone was not read-only"
    assert done.returncode == 0, done.stdout + done.stderr
