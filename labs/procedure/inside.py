"""A run's part inside the private namespaces: the network, the runner, the steps shown as they happen.

Called by the supervisor as `main(argv, lab_name)`; the document goes to a descriptor that the caller reads afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labs.exit_codes import ExitCode
from labs.network import supervisor
from labs.network.lab import Lab
from labs.procedure.model import CLIENT, SERVER, LabFile
from labs.procedure.playing import play
from labs.procedure.runner import Runner
from labs.procedure.settings import load_set
from labs.procedure.step_server import answering
from labs.report.terminal import Live
from labs.traffic.driver import Traffic, spawned


def main(argv: list[str], lab_name: str) -> int:
    path, evidence, keep, asked, result = Path(argv[0]), argv[1], argv[2] == "keep", json.loads(argv[3]), int(argv[4])
    file = load_set(path, asked["settings"], lab_name)

    def deliver(document: dict[str, Any]) -> None:
        with os.fdopen(result, "w", encoding="utf-8") as out:
            out.write(json.dumps(document))

    folder = Path(evidence) if evidence else None
    return supervisor.run(run(file, asked["seed"], lab_name, folder, keep, deliver))


async def run(file: LabFile, seed: int, lab_name: str, evidence: Path | None, keep: bool,
              deliver: Callable[[dict[str, Any]], None]) -> ExitCode:  # fmt: skip
    """Play the lab and deliver its document as soon as it is there: whatever goes wrong later, it is kept."""
    releases = (file.path.parent / file.header.releases).resolve() if file.header.releases else None
    live = Live()
    live.title(file)
    lab = Lab(file.topology, file.settings(), name=lab_name, rate=file.header.clock.rate, releases=releases)
    async with answering(lab):

        def load_of(name: str) -> Traffic:
            workload = file.workloads[name]
            return Traffic(name, workload, begin=spawned(lab.spawn), client=CLIENT, server=SERVER,
                           address=file.server_address(workload), rate=lab.rate, epoch=lab.epoch)

        runner = Runner(file, lab, load_of, live.tell, asyncio.get_running_loop().time, seed)
        document, code = await play(runner)
        deliver(document)
        if keep:
            live.say(f"the lab {lab_name} stays until you press Enter; look at it with fwctl from another terminal")
            await _line_of_input()
        await runner.close()
        if evidence is not None and not _keep_logs(lab, evidence):
            code = code or ExitCode.NOT_WRITTEN
        return code


def _keep_logs(lab: Lab, evidence: Path) -> bool:
    try:
        for path in map(lab.log_path, lab.members):
            if path.exists():
                (evidence / path.name).write_bytes(path.read_bytes())
    except OSError as error:
        print(f"fwlab: {error.filename}: cannot be written: {error.strerror}", file=sys.stderr)
        return False
    return True


async def _line_of_input() -> None:
    """Until a line, or the end of the input. In a thread that nobody waits for: who interrupts does not press Enter."""
    loop, come = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        sys.stdin.readline()
        loop.call_soon_threadsafe(come.set)

    threading.Thread(target=wait, name="input", daemon=True).start()
    await come.wait()
