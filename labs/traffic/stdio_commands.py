"""A traffic process: commands as JSON lines on standard input, answers as JSON lines on standard output.

A command `{"id": 1, "do": "finish"}` is answered by `{"re": 1, "ok": true, "result": …}` or by
`{"re": 1, "ok": false, "error": "…"}`.
Commands run side by side, so that a report can be had while `finish` still waits. The process ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

LINE_MAX = 16 * 1024 * 1024
"""Bytes of one command or answer: the numbers of all sessions that a lab may have are some 100 kB."""

Command = Callable[..., Awaitable[Any]]


def say(line: dict[str, Any]) -> None:
    """Write one line of JSON to standard output."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def serve_commands(commands: dict[str, Command]) -> None:
    """Until standard input ends."""
    reader = asyncio.StreamReader(limit=LINE_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    running: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        request = json.loads(line)
        task = asyncio.create_task(_run(commands, request))
        running.add(task)
        task.add_done_callback(running.discard)


async def _run(commands: dict[str, Command], request: dict[str, Any]) -> None:
    number = request.pop("id", 0)
    name = request.pop("do", "")
    try:
        if name not in commands:
            raise ValueError(f"unknown command {name!r}; known: {', '.join(commands)}")
        result = await commands[name](**request)
    except Exception as error:
        say({"re": number, "ok": False, "error": f"{type(error).__name__}: {error}"})
    else:
        say({"re": number, "ok": True, "result": result})
