"""The traffic processes on the loopback: real sockets, small counts, every kind and every command."""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest

from labs.traffic.driver import Traffic, TrafficError, _SpawnedProcess, spawned
from labs.traffic.fates import Fate, Tally
from labs.traffic.workload import SESSIONS_MAX, AnyWorkload, Sessions, Short

RATE = 20.0


PORTS = count(10_000 + os.getpid() % 200 * 100)
"""Below those that the kernel gives to clients, and others for each process: tests run side by side."""


def free_port() -> int:
    for port in PORTS:
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError


async def spawn(_node: str, argv: list[str], **kw: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(*argv, **kw)


def play(workload: AnyWorkload, story: Callable[[Traffic], Awaitable[Tally]], address: str = "127.0.0.1") -> Tally:
    async def run() -> Tally:
        traffic = Traffic("load", workload, begin=spawned(spawn), client="c", server="s", address=address, rate=RATE,
                          epoch=time.monotonic())  # fmt: skip
        try:
            await traffic.start()
            return await asyncio.wait_for(story(traffic), 20)
        finally:
            await traffic.close()

    return asyncio.run(run())


def sessions(**keys: Any) -> Sessions:
    return Sessions.model_validate({"kind": "sessions", "count": 20, "port": free_port(), "think": "1s..2s", **keys})


@pytest.mark.parametrize("asks", ["client", "server"])
def test_sessions_survive_where_nothing_happens(asks: str) -> None:
    async def story(traffic: Traffic) -> Tally:
        assert await traffic.open() == {"opened": 20, "failed": 0}
        await asyncio.sleep(0.3)
        assert (await traffic.report()).open == 20
        return await traffic.finish()

    tally = play(sessions(speaks_first=asks), story)
    assert tally.fates[Fate.SURVIVED] == tally.sessions == 20
    assert tally.answers >= 60


def test_short_connections_by_number_can_be_opened_again() -> None:
    async def story(traffic: Traffic) -> Tally:
        await traffic.open()
        assert (await traffic.finish()).fates[Fate.FINISHED] == 3
        await traffic.open()
        return await traffic.finish()

    tally = play(Short.model_validate({"kind": "short", "port": free_port(), "rate": 100, "count": 3}), story)
    assert (tally.sessions, tally.fates[Fate.FINISHED]) == (6, 6)


def test_idle_sessions_speak_when_told() -> None:
    async def story(traffic: Traffic) -> Tally:
        await traffic.open()
        await asyncio.sleep(0.3)
        assert (await traffic.report()).answers == 20  # the opening exchange alone
        assert await traffic.speak() == {"spoke": 20, "answered": 20, "failed": 0}
        return await traffic.finish()

    assert play(sessions(idle=True), story).answers == 60


def test_over_ipv6() -> None:
    async def story(traffic: Traffic) -> Tally:
        await traffic.open()
        return await traffic.finish()

    assert play(sessions(family="ipv6", count=3), story, "::1").fates[Fate.SURVIVED] == 3


def test_reconnecting_ends_in_order_and_opens_anew() -> None:
    async def story(traffic: Traffic) -> Tally:
        await traffic.open()
        assert await traffic.reconnect("all", 0.5) == {"opened": 10, "failed": 0}
        assert await traffic.reconnect("ended", 1.0) == {"opened": 0, "failed": 0}  # none of them failed
        return await traffic.finish()

    tally = play(sessions(idle=True), story)
    assert (tally.sessions, tally.fates[Fate.FINISHED], tally.fates[Fate.SURVIVED]) == (30, 10, 20)


@pytest.mark.parametrize("hold", ["0s", "4s..10s"])
def test_short_connections_finish(hold: str) -> None:
    async def story(traffic: Traffic) -> Tally:
        await traffic.open()
        await asyncio.sleep(0.5)
        return await traffic.finish()

    tally = play(Short.model_validate({"kind": "short", "port": free_port(), "rate": 40, "hold": hold}), story)
    assert tally.fates[Fate.FINISHED] == tally.sessions >= 10
    assert tally.open == 0


def test_a_server_that_dies_resets_and_then_refuses() -> None:
    async def story(traffic: Traffic) -> Tally:
        await traffic.open()
        server = traffic._server
        assert server is not None
        server._process.kill()
        await server._process.wait()
        await asyncio.sleep(0.1)
        await traffic.reconnect("ended", 0.5)
        return await traffic.finish()

    tally = play(sessions(), story)
    assert (tally.sessions, tally.fates[Fate.RESET], tally.fates[Fate.REFUSED]) == (30, 20, 10)


def test_a_server_that_says_nothing_hangs_them() -> None:
    async def story(traffic: Traffic) -> Tally:
        await traffic.open()
        server = traffic._server
        assert server is not None
        server._process.send_signal(19)  # SIGSTOP: its kernel acknowledges, nobody answers
        try:
            return await traffic.finish()
        finally:
            server._process.kill()

    tally = play(sessions(patience="20s"), story)
    assert tally.fates[Fate.HUNG] == 20
    assert tally.longest_silence_s > 0.9  # its patience, not less; a slow machine may take longer


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]

        async def story(traffic: Traffic) -> Tally:
            raise AssertionError("did not start")

        with pytest.raises(TrafficError, match=f"cannot listen on port {port}"):
            play(sessions(port=port), story)


ECHO = """
import asyncio, sys
from labs.traffic.stdio_commands import say, serve_commands
async def report(**told): return {"unopened": told}
async def nonsense(): print("what is no JSON", flush=True)
say({"milestone": "ready"})
asyncio.run(serve_commands({"report": report, "nonsense": nonsense}))
"""


async def started(program: str) -> _SpawnedProcess:
    async def spawn_program(_node: str, _argv: list[str], **kw: Any) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(sys.executable, "-P", "-c", program, **kw)

    return await _SpawnedProcess.start(spawn_program, "client", "the program", "load", {})


def test_lines_may_be_as_long_as_all_sessions_of_a_lab() -> None:
    """Of 14,000 sessions whose opening failed the client tells the numbers, and the server is told them."""
    numbers = list(range(SESSIONS_MAX))

    async def run() -> None:
        process = await started(ECHO)
        try:
            answer = await asyncio.wait_for(process.command("report", without=numbers), 20)
            assert answer == {"unopened": {"without": numbers}}
        finally:
            await process.close()

    asyncio.run(run())


@pytest.mark.parametrize(("do", "why"), [("nonsense", "said what cannot be read"), ("exit", "has ended")])
def test_who_waits_for_a_process_is_told_how_it_ended(do: str, why: str) -> None:
    program = ECHO.replace('"nonsense": nonsense', '"nonsense": nonsense, "exit": lambda: sys.exit(1)')

    async def run() -> None:
        process = await started(program)
        try:
            for _ in range(2):  # the second time it is known already
                with pytest.raises(TrafficError, match=why):
                    await asyncio.wait_for(process.command(do), 20)
        finally:
            await process.close()

    asyncio.run(run())
