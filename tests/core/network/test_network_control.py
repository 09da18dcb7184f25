"""What a lab hears over a member's control socket."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fwnode.control.protocol import encode
from labs.network import control_client
from labs.network.errors import ControlError


async def served(path: Path, answers: Sequence[Any]) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        for message in answers:
            writer.write(encode(message))
        writer.close()

    return await asyncio.start_unix_server(answer, path=str(path))


def test_events_that_were_lost_are_told_where_they_are_missing(tmp_path: Path) -> None:
    async def heard() -> list[dict[str, Any]]:
        path = tmp_path / "fw1.sock"
        first, later = {"kind": "state", "text": "a", "lab_time": 1.0}, {"kind": "peer", "text": "b", "lab_time": 9.0}
        lines = [{"ok": True, "result": {}}, {"event": first}, {"dropped": 3}, {"dropped": 2}, {"event": later}]
        async with await served(path, lines):
            request = {"command": "events", "arguments": {"follow": True}}
            return [event async for event in control_client.follow(path, request)]

    first, lost, later = asyncio.run(heard())
    assert (first["text"], later["text"]) == ("a", "b")
    assert (lost["text"], lost["lab_time"]) == ("5 events came faster than they were read here", 9.0)


def test_an_answer_in_parts_is_put_together_and_one_that_breaks_off_is_none(tmp_path: Path) -> None:
    async def asked(name: str, *lines: Any) -> Any:
        async with await served(tmp_path / name, lines):
            return await control_client.request(tmp_path / name, {"command": "tab", "arguments": {}})

    head, rows, end = ({"ok": True, "result": {"values": 2, "rows": []}, "more": True},
                       {"ok": True, "result": {"rows": [1, 2]}, "more": True}, {"ok": True, "result": {}})  # fmt: skip
    assert asyncio.run(asked("a", head, rows, rows, end)) == {"values": 2, "rows": [1, 2, 1, 2]}
    with pytest.raises(ControlError, match="closed the control socket"):
        asyncio.run(asked("b", head, rows))
    with pytest.raises(ControlError, match="not now"):
        asyncio.run(asked("c", head, rows, {"ok": False, "error": "not now"}))
