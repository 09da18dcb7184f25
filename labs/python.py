"""The command line of every Python process that a lab starts: members, workloads, helpers, the supervisor itself.

In one place, because of one option: without `-P` Python looks for modules in the current directory first, so that a
`random.py` that lies there, or another checkout of this project, would run instead of what is installed.
"""

import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable

Spawn = Callable[..., Awaitable[Process]]
"""Starts a program in a node: `spawn(node, argv, …)`, and then what asyncio takes for the process."""


def python_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs an installed module, whatever lies in the current directory."""
    return [sys.executable, "-P", "-m", module, *arguments]
