"""Requests over a unix socket, one JSON object a line: to a member's control socket or to a supervisor.

Knows the protocol (`fwnode.control.protocol`) and nothing of the commands inside it.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from fwnode.control import protocol
from labs.network.errors import BusyError, ControlError

REQUEST_TIMEOUT_S = 30.0
"""Wall seconds; installing a large policy matches every connection again before it answers."""
TELL_S = 2.0
"""Wall seconds after which a step that still goes on is asked about, and again."""
CONNECT_POLL_S = 0.05
LINE_MAX = 64 * 1024 * 1024
"""Bytes of one line of an answer."""


async def request(path: Path, message: Mapping[str, Any], timeout_s: float | None = REQUEST_TIMEOUT_S) -> Any:
    """Send one request and return its `result`; ControlError where it is refused or nobody answers."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await _connect(path)
            try:
                if "command" not in message:
                    return await _ask(reader, writer, message)
                result = None
                for part in protocol.requests(str(message["command"]), message.get("arguments") or {}):
                    result = await _ask(reader, writer, part)
                return result
            finally:
                writer.close()
    except TimeoutError:
        raise BusyError(f"{path.name}: no answer within {timeout_s:g} s") from None
    except (OSError, ValueError) as error:
        raise ControlError(f"{path.name}: {error}") from None


async def perform(supervisor: Path, step: Mapping[str, Any], tell: Callable[[str], None]) -> Any:
    """Ask a supervisor for a step and return its result, however long it takes, as long as the supervisor itself
    answers. `tell` hears what members do that are waited for, whenever that changes."""
    deed = asyncio.ensure_future(request(supervisor, {"step": dict(step)}, None))
    said: dict[str, str] = {}
    try:
        while not (await asyncio.wait({deed}, timeout=TELL_S))[0]:
            starting = (await request(supervisor, {"info": {}}))["starting"]
            for member, doing in starting.items():
                if said.get(member) != doing:
                    tell(f"{member}: {doing}")
            said = starting
        return deed.result()
    finally:
        deed.cancel()


async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, again and again while the queue of the socket is full: whoever owns it lives. (asyncio takes such a
    refusal for a connection that is under way.)"""
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(str(path))
            return await asyncio.open_unix_connection(sock=connection, limit=LINE_MAX)
        except BlockingIOError:
            connection.close()
        except BaseException:
            connection.close()
            raise
        await asyncio.sleep(CONNECT_POLL_S)


async def follow(path: Path, message: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Send a following request; yield what comes as `{"event": …}` until the other side ends. Events that were lost
    because they came too fast are an event, too."""
    try:
        reader, writer = await _connect(path)
    except OSError as error:
        raise ControlError(f"{path.name}: {error}") from None
    try:
        await _ask(reader, writer, message)
        lost = 0
        while line := await reader.readline():
            heard = json.loads(line)
            lost += int(heard.get("dropped", 0))
            event = heard.get("event")
            if isinstance(event, dict):
                if lost:
                    yield {**event, "kind": "control", "text": f"{lost} events came faster than they were read here"}
                    lost = 0
                yield event
    except (OSError, ValueError) as error:
        raise ControlError(f"{path.name}: {error}") from None
    finally:
        writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: Mapping[str, Any]) -> Any:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()
    parts = []
    while True:
        line = await reader.readline()
        if not line:
            raise ControlError("the other side closed the control socket without an answer")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ControlError("the answer is not a JSON object")
        if not answer.get("ok"):
            raise ControlError(str(answer.get("error", "refused without a reason")))
        parts.append(answer.get("result"))
        if not answer.get("more"):
            return protocol.put_together(iter(parts))
