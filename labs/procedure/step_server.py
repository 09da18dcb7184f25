"""The socket on which a lab that runs is asked for steps, faults and what it is (`fwlab do`, `fwlab ps`).

It must not know what a step is or how it is done.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fwnode.files import FILE_MAX
from labs.network.errors import LabError
from labs.network.lab import Lab
from labs.procedure.asked import perform

REQUEST_MAX = FILE_MAX * 2
"""Bytes of one request line: the largest rule base that a file can hold fits."""


def _request(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except RecursionError:
        raise LabError("not a JSON object: it is nested too deeply") from None
    except ValueError as error:
        raise LabError(f"not a JSON object: {error}") from None
    if not isinstance(message, dict) or not ({"step", "info"} & set(message)):
        raise LabError("a request is {\"step\": {…}} or {\"info\": {}}")
    return message


def _refusal(text: str) -> dict[str, Any]:
    return {"ok": False, "error": text}


async def _send(writer: asyncio.StreamWriter, answer: Mapping[str, Any]) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()


class StepServer:
    """The supervisor's socket: JSON lines, `{"step": …}` or `{"info": {}}`; one answer a line."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, path: Path) -> None:
        """Listen on `path`."""
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path=str(path), limit=REQUEST_MAX)

    async def stop(self) -> None:
        """Stop listening and end open conversations."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._open):
            writer.close()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(OSError):  # the other side went away: this conversation ends, the lab goes on
                await self._converse(reader, writer)
        finally:
            self._open.discard(writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                await _send(writer, await self._answer(line))
        except ValueError:  # a line over the limit: where the next one begins is not known
            await _send(writer, _refusal(f"a request has at most {REQUEST_MAX} bytes"))

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            message = _request(line)
            result = await (self._lab.info() if "info" in message else perform(self._lab, message["step"]))
            return {"ok": True, "result": result}
        except LabError as error:
            return _refusal(str(error))
        except Exception as error:  # whatever was asked has an answer, and the lab goes on
            return _refusal(f"the request failed: {type(error).__name__}: {error}")


@asynccontextmanager
async def answering(lab: Lab) -> AsyncIterator[Lab]:
    """The lab, built, for a block of code; meanwhile it answers on its supervisor socket."""
    async with lab:
        server = StepServer(lab)
        await server.start(lab.directory / "supervisor.sock")
        try:
            yield lab
        finally:
            await server.stop()
