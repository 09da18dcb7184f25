"""The machine that figures come from, and the versions of what they were measured against."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

_VERSIONS = {
    "conntrackd": ["conntrackd", "-v"],
    "iperf3": ["iperf3", "--version"],
    "keepalived": ["keepalived", "--version"],
}


def machine() -> dict[str, Any]:
    """Processor, cores, memory (GiB), kernel, Python, and the peers that are installed."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "peers": {name: version(name) for name in _VERSIONS if shutil.which(name)},
    }


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    return found[1].strip() if found else platform.processor()


def version(program: str) -> str:
    """The first number with dots in what the program says of its version; empty when it says none."""
    done = subprocess.run(_VERSIONS[program], capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else ""
