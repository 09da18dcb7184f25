"""The lab of an upgrade with very many connections, and what it takes to simulate it.

Steps and expectations are those of the catalogue's `upgrade-out-of-state`, with other numbers: each session asks once
or twice a day, and no workload has more sessions than a client address has ports for. It is made here and lies in no
folder, for it is meant for the simulated world, and a lab of the catalogue is run on real packets, too.

`python -m labs.bench.large_upgrade CONNECTIONS [SEED]` says what it took, as JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from copy import deepcopy
from time import perf_counter
from typing import Any, NamedTuple

from fwnode.files import load_yaml
from labs.network.errors import LabError
from labs.network.private import die_with_parent
from labs.procedure.catalog import find
from labs.procedure.model import LabFile, Reading
from labs.python import python_command
from labs.simulation.run import simulate
from labs.traffic.workload import SESSIONS_MAX

LAB = "upgrade-out-of-state"
SPEAKING, SILENT = "database", "idle"
SILENT_PART = 20
"""One session in so many keeps silent."""
FIRST_PORT = 20_000
CHANGED = {"think": "8h..20h", "open_rate": 1000}
"""All speak on the day on which they may be learned, and are opened within seconds."""
KIBIBYTE = 1024


def large_upgrade(connections: int) -> LabFile:
    """The lab with so many connections in all. Raises `LabFileError` for less than one that keeps silent."""
    path = find(LAB)
    data = load_yaml(path)
    silent = connections // SILENT_PART
    names = _names(connections - silent)
    model = data["workloads"][SPEAKING]
    ports = {name: FIRST_PORT + number for number, name in enumerate(names)}
    workloads = {name: {**model, **CHANGED, "port": ports[name], "count": count} for name, count in names.items()}
    workloads[SILENT] = {**data["workloads"][SILENT], "count": silent}
    services = data["policy"]["services"]
    services |= {name: {**services["archive"], "port": port} for name, port in ports.items()}
    for rule in data["policy"]["rules"]:
        if "service" in rule:
            rule["service"] = [*rule["service"], *names]
    data["workloads"] = workloads
    for step in data["steps"]:
        if "open" in step:
            step["open"] = [*names, SILENT]
        if "check" in step:
            step["check"] = [told for each in step["check"] for told in _of_all(each, names, silent)]
    data["expect"] = [told for each in data["expect"] for told in _of_all(each, names, silent)]
    return Reading(path).lab(data)


def _names(speaking: int) -> dict[str, int]:
    """Workloads that speak, and how many sessions each has."""
    number = -(-speaking // SESSIONS_MAX)
    return {f"{SPEAKING}{n + 1}": speaking // number + (n < speaking % number) for n in range(number)}


def _of_all(expectation: dict[str, Any], names: dict[str, int], silent: int) -> list[dict[str, Any]]:
    """What is expected of the one workload that speaks, of each of these; and the numbers of this lab."""
    that = expectation["that"]
    if that.startswith(f"workloads.{SPEAKING}."):
        figure = that.rpartition(".")[2]
        return [{**expectation, "that": f"workloads.{name}.{figure}", **({"is": count} if expectation["is"] else {})}
                for name, count in names.items()]  # fmt: skip
    changed = deepcopy(expectation)
    if that.endswith(".learned"):
        changed["is"] = sum(names.values())
    elif that.startswith(f"workloads.{SILENT}.") and changed["is"]:
        changed["is"] = silent
    elif that.endswith(".OUT_OF_STATE") and "at_least" in changed:
        changed["at_least"] = silent
    return [changed]


class Taken(NamedTuple):
    """What it took to simulate the lab."""

    seconds: float
    """From its first step to its report, by the clock on the wall,"""
    processor_s: float
    """and of a processor, with the start of Python."""
    bytes: int
    """Memory of the process at its peak."""
    verdict: str
    failed: list[str]
    """What was expected and did not hold."""


def taken(connections: int, seed: int) -> Taken:
    """By this process: of what it did before, memory counts too."""
    file = large_upgrade(connections)
    begin = perf_counter()
    document = simulate(file, seed)
    seconds, used = perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
    failed = [str(each["text"]) for each in document["expectations"] if not each["held"]]
    return Taken(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * KIBIBYTE, document["verdict"], failed)


def by_a_process(connections: int, seed: int = 1) -> Taken:
    """By a new one. Raises `LabError` where the lab did not pass."""
    command = python_command("labs.bench.large_upgrade", str(connections), str(seed))
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=die_with_parent())
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        raise LabError(f"{LAB} with {connections:,} connections was not simulated: {said}")
    found = Taken(**json.loads(done.stdout))
    if found.verdict != "pass":
        raise LabError(f"{LAB} with {connections:,} connections, simulated with seed {seed}, ended with "
                       f"{found.verdict}: {'; '.join(found.failed)}")  # fmt: skip
    return found


def main() -> None:
    connections, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    print(json.dumps(taken(connections, seed)._asdict()))


if __name__ == "__main__":
    main()
