"""Steps and faults on a lab that runs, asked for over the supervisor's socket (`fwlab do`).

One table maps a step's name to what it does with a lab; `Lab` offers the deeds, this module names them and checks
what was asked. It must not know how a deed is done.
"""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

from fwnode.files import FILE_MAX
from labs.network.errors import LabError
from labs.quantities import Way, parse_delay, parse_rate, parse_service, parse_share
from labs.words import did_you_mean

if TYPE_CHECKING:
    from labs.network.lab import Lab

T = TypeVar("T")

REQUEST_MAX = FILE_MAX * 2
"""Bytes of one request line: the largest rule base that a file can hold fits."""


async def _start(lab: "Lab", member: str) -> None:
    await lab.start(member)


async def _stop(lab: "Lab", member: str) -> None:
    await lab.stop(member)


async def _kill(lab: "Lab", member: str) -> None:
    await lab.kill(member)


async def _power_cut(lab: "Lab", member: str) -> None:
    await lab.power_cut(member)


async def _power_on(lab: "Lab", member: str) -> None:
    await lab.power_on(member)


async def _upgrade(lab: "Lab", member: str, release: str) -> None:
    await lab.upgrade(member, release)


async def _pause(lab: "Lab", member: str) -> None:
    await lab.pause(member)


async def _resume(lab: "Lab", member: str) -> None:
    await lab.resume(member)


async def _cut(lab: "Lab", link: str, way: str = "both") -> None:
    await lab.cut(link, _way(way))


async def _restore(lab: "Lab", link: str) -> None:
    await lab.restore(link)


async def _limit(lab: "Lab", link: str, rate: str) -> None:
    await lab.limit(link, _read(parse_rate, rate))


async def _unlimit(lab: "Lab", link: str) -> None:
    await lab.unlimit(link)


async def _lose(lab: "Lab", link: str, share: str, way: str = "both") -> None:
    await lab.lose(link, _read(parse_share, share), _way(way))


async def _unlose(lab: "Lab", link: str) -> None:
    await lab.unlose(link)


async def _delay(lab: "Lab", link: str, by: str, way: str = "both") -> None:
    await lab.delay(link, _read(parse_delay, by), _way(way))


async def _undelay(lab: "Lab", link: str) -> None:
    await lab.undelay(link)


async def _block(lab: "Lab", between: str | list[str], service: str) -> None:
    await lab.block(_two(between), *_read(parse_service, service))


async def _unblock(lab: "Lab", between: str | list[str], service: str) -> None:
    await lab.unblock(_two(between), *_read(parse_service, service))


def _read(parse: Callable[[object], T], text: object) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise LabError(str(error)) from None


def _way(text: str) -> Way:
    if text not in get_args(Way):
        raise LabError(f"{text!r} is no way; write {', '.join(get_args(Way))}")
    return cast(Way, text)


def _two(between: str | list[str]) -> list[str]:
    members = between.split(",") if isinstance(between, str) else between
    if len(members) != 2:
        raise LabError("between: name two members, such as fw1,fw2")
    return members


async def _down(lab: "Lab", member: str) -> Any:
    return await lab.control(member, "down")


async def _up(lab: "Lab", member: str) -> Any:
    return await lab.control(member, "up")


async def _set(lab: "Lab", member: str, name: str, value: str | int) -> Any:
    return await lab.control(member, "ctl_set", name=name, value=value)


async def _policy(lab: "Lab", member: str, policy: Mapping[str, Any], file: str = "policy") -> Any:
    result = await lab.control(member, "policy_install", policy=dict(policy), file=file)
    # Only after the member took it: a refused policy must not come back at its next start.
    lab.members[member].policy = dict(policy)
    return result


Step = Callable[..., Awaitable[Any]]

STEPS: dict[str, Step] = {
    "start": _start,
    "stop": _stop,
    "kill": _kill,
    "power_cut": _power_cut,
    "power_on": _power_on,
    "upgrade": _upgrade,
    "pause": _pause,
    "resume": _resume,
    "cut": _cut,
    "restore": _restore,
    "limit": _limit,
    "unlimit": _unlimit,
    "lose": _lose,
    "unlose": _unlose,
    "delay": _delay,
    "undelay": _undelay,
    "block": _block,
    "unblock": _unblock,
    "down": _down,
    "up": _up,
    "set": _set,
    "policy": _policy,
}


def step_arguments(name: str, value: object) -> dict[str, Any]:
    """The arguments of a step by name; a bare value is its first argument. All problems in one error."""
    if name not in STEPS:
        raise LabError(f"there is no step {name}{did_you_mean(name, STEPS)}; steps: {', '.join(STEPS)}")
    parameters = list(inspect.signature(STEPS[name]).parameters.values())[1:]
    given = dict(value) if isinstance(value, Mapping) else {} if value is None else {parameters[0].name: value}
    legal = [parameter.name for parameter in parameters]
    problems = [f"unknown key {key}" for key in given if key not in legal]
    problems += [f"{parameter.name} is missing" for parameter in parameters
                 if parameter.default is parameter.empty and parameter.name not in given]
    if problems:
        raise LabError(f"{name}: {'; '.join(problems)}; it takes {', '.join(f'{key}=…' for key in legal)}")
    return given


async def perform(lab: "Lab", step: object) -> Any:
    """Do one step, given as `{name: arguments}`."""
    if not isinstance(step, Mapping) or len(step) != 1:
        raise LabError("a step is one name with its arguments, such as {\"cut\": {\"link\": \"sync\"}}")
    (name, value), = step.items()
    arguments = step_arguments(str(name), value)
    return await STEPS[str(name)](lab, **arguments)


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

    def __init__(self, lab: "Lab") -> None:
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
