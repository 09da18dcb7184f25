"""A member as a process: its command line, how many files it may open, and when Python collects garbage."""

from __future__ import annotations

import argparse
import contextlib
import gc
import resource
from pathlib import Path

_NEVER = 1 << 30


def arguments() -> argparse.Namespace:
    """The command line of `fwnode`, parsed."""
    parser = argparse.ArgumentParser(prog="fwnode", description="One member of the firewall cluster.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the member's configuration (YAML)")
    parser.add_argument(
        "--state", type=Path, metavar="DIRECTORY",
        help="where a rule base that is installed by hand is kept for the next start (else beside the control socket)",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="check the configuration and end")
    parser.add_argument(
        "--remove-rules", action="store_true", help="take the divert rules of a stopped member out of iptables, and end"
    )
    return parser.parse_args()


def raise_file_limit() -> None:
    """Allow as many open files as the hard limit does: one a connection, and the usual 1,024 are too few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def spare_what_lives_long() -> None:
    """What is there now lives as long as the process, and what has survived two collections is a table's: looking
    through all of it would hold packets up for a quarter of a second at a million connections."""
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], _NEVER)
