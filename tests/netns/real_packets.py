"""Plays the lab of `tests/packet_story.py` on real packets, and keeps what passes its links.

Run inside a lab by `test_packets_agree`: its file and the result's are arguments. The switches' ends of all links are
in the namespace that this runs in.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from packet_story import LINKS

from labs.network import supervisor
from labs.network.capture import open_socket
from labs.network.lab import Lab
from labs.procedure.model import CLIENT, SERVER, load
from labs.procedure.playing import play
from labs.procedure.runner import Runner
from labs.procedure.step_server import answering
from labs.traffic.driver import Traffic, spawned


def main(argv: list[str], lab_name: str) -> int:
    return supervisor.run(run(Path(argv[0]), Path(argv[1]), lab_name))


async def run(path: Path, result: Path, lab_name: str) -> int:
    file = load(path)
    lab = Lab(file.topology, file.settings(), name=lab_name)
    frames: dict[str, list[str]] = {link: [] for link in LINKS}

    def load_of(name: str) -> Traffic:
        workload = file.workloads[name]
        return Traffic(name, workload, begin=spawned(lab.spawn), client=CLIENT, server=SERVER,
                       address=file.server_address(workload), rate=lab.rate, epoch=lab.epoch)  # fmt: skip

    def read(link: str, through: socket.socket) -> None:
        try:
            while True:
                frames[link].append(through.recv(65_535).hex())
        except OSError:  # nothing more, or the link went down
            return

    loop = asyncio.get_running_loop()
    async with answering(lab):
        for link in LINKS:
            through = open_socket(link, "")
            through.setblocking(False)
            loop.add_reader(through, read, link, through)
        runner = Runner(file, lab, load_of, lambda _: None, loop.time, 1)
        document, _ = await play(runner)
        result.write_text(json.dumps({"document": document, "frames": frames}))
        await runner.close()
    return 0
