"""The supervisor's socket, and steps that are refused before they touch anything: no namespaces, no members."""

import asyncio
import json
from pathlib import Path

import pytest

from labs.network.errors import LabError
from labs.network.lab import Lab
from labs.network.topology import load_topology
from labs.procedure import step_server
from labs.procedure.step_server import StepServer


def answers(lab: Lab, socket: Path, *lines: bytes) -> list[dict[str, object]]:
    """What the supervisor of `lab` answers to these lines, in one conversation."""
    async def talk() -> list[dict[str, object]]:
        server = StepServer(lab)
        await server.start(socket)
        reader, writer = await asyncio.open_unix_connection(str(socket))
        writer.write(b"".join(line + b"\n" for line in lines))
        try:
            async with asyncio.timeout(10):
                return [json.loads(await reader.readline()) for _ in lines]
        finally:
            writer.close()
            await server.stop()

    return asyncio.run(talk())


@pytest.mark.parametrize(("line", "problem"), [
    (b'{"step": {"wait": 1}}', "there is no step wait; steps: start"),
    (b"[" * 100_000, "not a JSON object: it is nested too deeply"),
    (b"{", "not a JSON object: "),
    (b"[]", "a request is "),
    (b'{"step": []}', "a step is one name with its arguments"),
    (b'{"step": {"kill": {"member": ["fw1"]}}}', "fw1 is not running"),
    (b'{"step": {"kill": {"member": 1}}}', "kill: "),
    (b'{"step": {"kill": {"node": "fw1"}}}', "kill: "),
    (b'{"step": {"kill": "fw1"}}', "fw1 is not running"),
    (b'{"step": {"set": {"member": "fw1", "name": "udp_timeout", "value": "--5"}}}',
     "set: udp_timeout: '--5' is not legal; legal is 1 to 86400"),
    (b'{"step": {"set": {"member": "fw1", "name": "udp_timeout", "value": "5"}}}', "fw1 is not running"),
    (b'{"step": {"limit": {"link": "sync", "rate": "100bit"}}}', "limit: rate: '100bit' is no rate that a link"),
    (b'{"step": {"limit": {"link": "sync", "rate": "%s"}}}' % (b"9" * 400 + b"mbit"), "limit: rate: '99999"),
    (b'{"step": {"delay": {"link": "sync", "by": "61s"}}}', "delay: by: '61s' is no delay of a link; write 1ms to 60s"),
    (b'{"step": {"delay": {"link": "sync", "by": "%s"}}}' % (b"9" * 400 + b"d"), "delay: by: '99999"),
    (b'{"step": {"delay": {"link": "sync", "by": "0s"}}}', "delay: by: '0s' is no delay of a link"),
    (b'{"step": {"lose": {"link": "sync", "share": 1%s}}}' % (b"0" * 400), "lose: share: a number of very many"),
    (b'{"step": {"lose": {"link": "sync", "share": NaN}}}', "lose: share: nan is no share; write one from 0.0001%"),
])
def test_every_request_has_an_answer(tmp_path, line, problem):
    first, second = answers(Lab(load_topology()), tmp_path / "s.sock", line, b"{}")
    assert first["ok"] is False
    assert str(first["error"]).startswith(problem)
    assert second["ok"] is False, "and the conversation goes on"


def test_a_request_that_is_too_long_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(step_server, "REQUEST_MAX", 1000)
    answer, = answers(Lab(load_topology()), tmp_path / "s.sock", b" " * 5000)
    assert answer == {"ok": False, "error": "a request has at most 1000 bytes"}


class Recording(Lab):
    """A lab whose members seem to run; it writes down what would be done to them."""

    deeds: tuple[str, ...] = ()

    def running(self, member: str) -> bool:
        return True

    async def stop(self, member: str) -> None:
        self.deeds += ("stop",)

    async def start(self, member: str) -> None:
        self.deeds += (f"start with {self.members[member].release}",)


def test_an_upgrade_to_an_unknown_release_touches_nothing(tmp_path):
    table = tmp_path / "releases.yaml"
    table.write_text("releases: {R99: {version: R99, schema: 3}}\n")
    lab = Recording(load_topology())
    with pytest.raises(LabError, match=r"release 'R99' is unknown; known are: .*R80\.10"):
        asyncio.run(lab.upgrade("fw1", "R99"))
    with pytest.raises(LabError, match="there is no member fw9"):
        asyncio.run(lab.upgrade("fw9", "R80.10"))
    assert (lab.deeds, lab.members["fw1"].release) == ((), "R77.30")
    lab.releases = table
    asyncio.run(lab.upgrade("fw1", "R99"))
    assert lab.deeds == ("stop", "start with R99")


def test_an_upgrade_of_a_member_without_power_is_refused():
    lab = Recording(load_topology())
    lab._powered_off.add("fw1")
    with pytest.raises(LabError, match="fw1 is without power"):
        asyncio.run(lab.upgrade("fw1", "R80.10"))
    assert lab.members["fw1"].release == "R77.30"
