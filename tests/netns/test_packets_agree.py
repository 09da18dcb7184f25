"""The two worlds send the same packets: kinds and order, of each workload, of an upgrade without state, of a session
that is learned and one that is not, and between the members."""

from __future__ import annotations

import json
import os
from difflib import unified_diff
from pathlib import Path
from typing import Any

from packet_story import LAB, LINKS, story

from labs.network.supervisor import run_in_lab
from labs.procedure.model import load
from labs.simulation.run import Simulation
from labs.simulation.wires import IP, Frame

TRIES = 6
"""On a busy machine a process may be so late that something is sent once more; not every time."""
Frames = dict[str, list[bytes]]


def really(file: Path, number: int) -> tuple[dict[str, Any], Frames]:
    result = file.with_name(f"real-{number}.json")
    main = f"{Path(__file__).with_name('real_packets.py')}:main"
    assert run_in_lab(f"test-{os.getpid()}-packets-{number}", main, [str(file), str(result)]) == 0
    found = json.loads(result.read_text())
    return found["document"], {link: [bytes.fromhex(frame) for frame in found["frames"][link]] for link in LINKS}


def simulated(file: Path) -> tuple[dict[str, Any], Frames]:
    simulation = Simulation(load(file), 1)
    seen: dict[str, list[tuple[float, bytes]]] = {link: [] for link in LINKS}

    def watch(name: str) -> None:
        link = simulation.ground.network.links[name]
        send, receive = link.send, link.receive

        def sent(frame: Frame, when: float) -> None:
            seen[name].append((when, _ethernet(frame)))
            send(frame, when)

        def came(frame: Frame) -> None:
            seen[name].append((simulation.world.now, _ethernet(frame)))
            receive(frame)

        link.send, link.receive = sent, came  # type: ignore[method-assign]

    for name in LINKS:
        watch(name)
    document, _ = simulation.run()
    return document, {link: [frame for _, frame in sorted(seen[link], key=lambda one: one[0])] for link in LINKS}


def _ethernet(frame: Frame) -> bytes:
    to, sender, kind, what = frame
    if kind == IP:
        return to + sender + b"\x08\x00" + bytes(what)
    if len(what.wanted) != 4:
        return to + sender + b"\x86\xdd"
    head = to + sender + b"\x08\x06" + b"\x00\x01\x08\x00\x06\x04" + (1 if what.is_request else 2).to_bytes(2)
    return head + what.mac + (what.sender or bytes(4)) + bytes(6) + what.wanted


def test_the_same_packets_in_the_same_order(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(json.dumps(LAB))
    document, frames = simulated(file)
    assert document["verdict"] == "pass", document["problem"]
    expected = story(frames)
    for number in range(TRIES):
        document, frames = really(file, number)
        assert document["verdict"] == "pass", document["problem"]
        found = story(frames)
        if found == expected:
            break
    differences = [
        f"{link}: {line}"
        for link, words in expected.items()
        for line in unified_diff(words, found.get(link, []), "simulated", "real", lineterm="", n=1)
    ]
    assert found == expected, "\n".join(differences)
