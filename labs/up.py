"""The lab of `fwlab up`, inside its namespaces: it is built, its members start, and it stays until it is told to end.

Started by `labs.network.background`.
"""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from labs.exit_codes import ExitCode
from labs.network.errors import LabError
from labs.network.lab import DEFAULT_MEMBER_COMMAND, Lab
from labs.network.members import MemberSettings
from labs.network.topology import parse_topology
from labs.procedure.step_server import answering


def up_main(argv: Sequence[str], name: str, tell: Callable[[Mapping[str, Any]], None]) -> int:
    """The supervisor of `fwlab up`: build, start every member, say so, then wait to be told to end."""
    arguments = json.loads(argv[0])
    return asyncio.run(_up(arguments, name, tell))


async def _up(arguments: Mapping[str, Any], name: str, tell: Callable[[Mapping[str, Any]], None]) -> int:
    end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    _end_without_the_starter(arguments["stay_fd"], end)
    try:
        topology = parse_topology(arguments["topology"], "topology")
        lab = Lab(topology, {member: MemberSettings(**settings) for member, settings in arguments["members"].items()},
                  name=name, rate=arguments.get("rate", 1.0),
                  releases=Path(arguments["releases"]) if arguments.get("releases") else None,
                  member_command=arguments.get("member_command") or DEFAULT_MEMBER_COMMAND)
        async with answering(lab):
            starting = asyncio.create_task(lab.start_all())
            ending = asyncio.create_task(end.wait())
            await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
            if end.is_set():
                starting.cancel()
                await asyncio.wait({starting})
                return ExitCode.INTERRUPTED
            await starting
            tell({"info": await lab.info()})
            await ending
            return ExitCode.HELD
    except LabError as error:
        tell({"error": str(error), "exit": int(error.exit_code)})
        return error.exit_code


def _end_without_the_starter(stay_fd: int, end: asyncio.Event) -> None:
    """`fwlab up` holds the other end of this pipe, and writes to it when the lab shall stay. If it is gone before that,
    however it ended, so is the lab."""
    loop = asyncio.get_running_loop()

    def heard() -> None:
        loop.remove_reader(stay_fd)
        if not os.read(stay_fd, 8):
            end.set()
        os.close(stay_fd)

    os.set_inheritable(stay_fd, False)
    loop.add_reader(stay_fd, heard)
