"""How the running members' tables differ, as a lab asks for it: only when it asks, and what its report tells of it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from lab_world import World

from fwnode.control import compare
from fwnode.firewall.connection import Connection, ConnectionState
from fwnode.firewall.packet import TCP, UDP
from labs.report.sentence import sentence

START: dict[str, Any] = {"start": ["fw1", "fw2"]}
DIFFERENT = {"that": "differences.different", "is": 1}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "LOOKS_APART_S", 0.001)


def connection(port: int, protocol: int = TCP) -> Connection:
    addresses = bytes([192, 0, 2, 100, 198, 51, 100, 100])
    key = bytes([protocol]) + addresses + port.to_bytes(2) + (1521).to_bytes(2)
    state = ConnectionState.ESTABLISHED if protocol == TCP else ConnectionState.NONE
    return Connection(key, state, 3600.0, 3600.0, 0.0)


def world(folder: Path, steps: list[Any], expect: list[Any] | None = None) -> World:
    made = World(folder, [START, *steps], expect)
    made.ground.tables = {"fw1": [connection(1), connection(2)], "fw2": [connection(1)]}
    return made


def test_what_is_missing_where(tmp_path: Path) -> None:
    expect = [
        DIFFERENT, {"that": "differences.equal", "is": False}, {"that": "differences.missing.fw2", "is": 1},
        {"that": "differences.missing.fw1", "is": 0}, {"that": "differences.kinds.TCP.fw2.missing", "is": 1},
        {"that": "differences.kinds.UDP.fw2.missing", "is": 0, "says": "a kind that no table holds"},
    ]  # fmt: skip
    document = world(tmp_path, [], expect).run()
    assert [e["text"] for e in document["expectations"] if not e["held"]] == []
    assert document["comparisons"][0]["missing"] == {"fw1": 0, "fw2": 1}
    assert "The members' tables differ in 1 connection (fw2 lacks 1)" in sentence(document)


def test_tables_are_not_asked_for_when_nobody_wants_to_know(tmp_path: Path) -> None:
    made = world(tmp_path, [{"check": {"that": "members.fw1.running", "is": True}}])
    asked = made.ground.control

    async def control(member: str, command: str, **arguments: Any) -> Any:
        assert command != "keys"
        return await asked(member, command, **arguments)

    made.ground.control = control  # type: ignore[method-assign]
    document = made.run()
    assert (document["problem"], document["differences"], document["comparisons"]) == ("", None, [])


def test_what_is_on_its_way_is_no_difference(tmp_path: Path) -> None:
    made = world(tmp_path, [], [{"that": "differences.equal", "is": True}])
    looks: list[str] = []
    asked = made.ground.control

    async def control(member: str, command: str, **arguments: Any) -> Any:
        answer = await asked(member, command, **arguments)
        if command == "keys":
            looks.append(member)
            if len(looks) == 2:  # after the first look it arrives
                made.ground.tables["fw2"].append(connection(2))
        return answer

    made.ground.control = control  # type: ignore[method-assign]
    assert made.run()["verdict"] == "pass"
    assert sorted(looks) == ["fw1", "fw1", "fw2", "fw2"]


def test_an_until_is_told_once_and_an_earlier_difference_stays_told(tmp_path: Path) -> None:
    equal = {"until": {"that": "differences.equal", "is": True, "within": "100h"}}
    made = world(tmp_path, [{"check": DIFFERENT}, {"note": "mended", "wait": "1s"}, equal])

    async def mend() -> None:
        await asyncio.sleep(0.15)
        made.ground.tables["fw2"].append(connection(2))

    start = made.ground.start

    async def start_and_mend(member: str) -> None:
        await start(member)
        if member == "fw2":
            made.mending = asyncio.create_task(mend())  # type: ignore[attr-defined]

    made.ground.start = start_and_mend  # type: ignore[method-assign]
    document = made.run()
    assert [c["different"] for c in document["comparisons"]] == [1, 0]
    said = sentence(document)
    assert "the members' tables differed in 1 connection (fw2 lacked 1)" in said
    assert "the members' tables were equal when they were last compared" in said


def test_one_member_alone_cannot_be_compared(tmp_path: Path) -> None:
    document = world(tmp_path, [{"pause": "fw2"}, {"check": DIFFERENT}]).run()
    assert document["problem"] == (
        "steps[2].check: differences: two running members are needed to compare tables, and there is fw1"
    )


def test_kinds(tmp_path: Path) -> None:
    made = world(tmp_path, [], [{"that": "differences.kinds.UDP.fw1.missing", "is": 1}])
    made.ground.tables["fw2"].append(connection(9, UDP))
    assert made.run()["verdict"] == "pass"
