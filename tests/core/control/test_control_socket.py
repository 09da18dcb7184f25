"""Whatever callers do to the control socket, a turn of the loop does a bounded piece of work for them."""

from __future__ import annotations

import logging
import resource
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from control_world import Peer, World
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from fwnode.control import conversation, server
from fwnode.control.conversation import Caller
from fwnode.control.protocol import REQUEST_MAX, RequestError, encode
from fwnode.control.streams import Stream

MakeWorld = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeWorld]:
    made: list[World] = []

    def start(handle: Any, **given: Any) -> World:
        made.append(World(tmp_path, handle, **given))
        return made[-1]

    yield start
    for world in made:
        world.close()


def echo(command: str, arguments: dict[str, Any], _caller: Any) -> Any:
    if command == "refuse":
        raise RequestError("no")
    if command == "break":
        raise ZeroDivisionError("a mistake " + "x" * 100_000)
    return {"said": arguments.get("n")}


def many_rows(_command: str, arguments: dict[str, Any], _caller: Any) -> Any:
    return ({"rows": [{"text": "x" * 100}] * 100} for _ in range(arguments.get("parts", 10)))


def test_newlines_cost_nothing_and_are_no_requests(make: MakeWorld) -> None:
    world = make(echo)
    (peer,) = world.connected()
    peer.send(b"\n" * (64 << 10))
    peer.ask("say", n=1)
    assert world.idle() < 10
    assert peer.lines() == [{"ok": True, "result": {"said": 1}}]


def test_a_caller_that_sends_many_requests_at_once_gets_a_few_answers_a_turn(make: MakeWorld) -> None:
    world = make(many_rows)
    (peer,) = world.connected()
    request = encode({"command": "tab", "arguments": {"parts": 2}})
    count = (64 << 10) // len(request)
    peer.send(request * count)
    begun = [world.turn() for _ in range(300)]
    assert max(begun) <= server.TURN_STEPS_MAX
    assert 0 < world.requests < 40, "who does not read is asked no further, and its requests wait in the kernel"
    assert not world.turn()
    answers: list[Any] = []
    while len(answers) < 3 * count:
        read = peer.lines()
        assert read, "it goes on as soon as the caller reads"
        answers += read
        world.idle()
    assert world.requests == count
    assert all(a["ok"] for a in answers) and sum(len(a["result"].get("rows", ())) for a in answers) == 200 * count


def test_many_callers_with_many_requests_are_served_in_turn(make: MakeWorld) -> None:
    world = make(echo)
    peers = world.connected(300)
    served, refused = peers[: server.CALLERS_MAX], peers[server.CALLERS_MAX :]
    for peer in refused:
        (line,) = peer.lines()
        assert not line["ok"] and "try again later" in line["error"] and peer.closed
    asked = 40
    for peer in served:
        for n in range(asked):
            peer.ask("say", n=n)
    got: dict[Peer, int] = dict.fromkeys(served, 0)
    while min(got.values()) < asked:
        assert world.turn() <= server.TURN_STEPS_MAX
        for peer in served:
            for line in peer.lines():
                assert line == {"ok": True, "result": {"said": got[peer]}}
                got[peer] += 1
        assert max(got.values()) - min(got.values()) <= 2, "nobody is served twice while another waits"


def test_followers_that_never_read_cost_no_memory_and_are_told_what_they_missed(make: MakeWorld) -> None:
    entries: deque[dict[str, Any]] = deque(maxlen=1_000)
    number = 0

    def follow(_command: str, _arguments: Any, caller: Any) -> Any:
        caller.follow("events", past=True)
        return {}

    world = make(follow, streams={"events": Stream(entries, lambda: number, dict)})
    peers = world.connected(1_000)
    for peer in peers:
        if not peer.lines():
            peer.ask("events")
    world.idle()
    tracemalloc.start()
    for _ in range(20):
        for _ in range(500):
            number += 1
            entries.append({"number": number, "text": "x" * 200})
        world.server.on_tick()
        for _ in range(200):
            world.turn()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 256 followers; without a bound each would hold 10,000 events of 200 bytes, 500 MB in all
    assert grown < 30 << 20
    first = peers[0]
    assert first.lines()[0] == {"ok": True, "result": {}}
    got, dropped = 0, 0
    with closing(first):
        seen: list[int] = []
        for _ in range(100):
            world.idle()
            for line in first.lines():
                dropped += line.get("dropped", 0)
                seen += [line["event"]["number"]] if "event" in line else []
        got = len(seen)
    assert dropped and seen[-1] == number and seen == sorted(set(seen))
    assert got < number


def test_a_follower_misses_nothing_while_it_reads_and_is_told_the_number_when_it_does_not() -> None:
    entries: deque[int] = deque(maxlen=5)
    total = 0
    stream = Stream(entries, lambda: total, lambda n: {"n": n})
    caller = Caller(echo, {"log": stream})
    caller.follow("log", past=True)
    said = b""
    for burst in (3, 2, 9, 5, 6):
        for _ in range(burst):
            total += 1
            entries.append(total)
        caller.step()
        said += bytes(caller.unsent)
        caller.unsent.clear()
        assert not caller.busy
    assert said.count(b"event") == 3 + 2 + 5 + 5 + 5
    assert [line for line in said.split(b"\n") if b"dropped" in line] == [b'{"dropped": 4}', b'{"dropped": 1}']


def test_what_happens_while_a_request_is_done_comes_after_its_answer(make: MakeWorld) -> None:
    entries: deque[dict[str, Any]] = deque([{"n": 1}], maxlen=10)

    def stop(_command: str, _arguments: Any, caller: Any) -> Any:
        caller.follow("events", past=True)
        entries.append({"n": 2})
        world.server.on_tick()
        return {"stopping": True}

    world = make(stop, streams={"events": Stream(entries, lambda: len(entries), dict)})
    (peer,) = world.connected()
    peer.ask("stop")
    world.turn()
    world.server.close()
    assert peer.lines() == [{"ok": True, "result": {"stopping": True}}, {"event": {"n": 1}}, {"event": {"n": 2}}]
    world.server = world.__class__(world.path.parent, echo).server  # for the fixture to close


def test_no_room_for_another_descriptor_is_told_once_and_the_member_goes_on(make: MakeWorld) -> None:
    told: list[str] = []
    world = make(echo, tell=told.append)
    (first,) = world.connected()
    waiting = [world.peer() for _ in range(20)]
    spare = Peer(world.path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = spare.socket.fileno()
    spare.close()  # its number is the next free one
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        for peer in waiting:
            peer.connect()
        first.ask("say", n=1)
        world.idle(at_most=20)  # it does not spin on a socket that stays ready
        assert first.lines() == [{"ok": True, "result": {"said": 1}}]
        for _ in range(3):
            world.server.on_tick()
            world.idle(at_most=20)
        assert len(told) <= 3 and "cannot be let in: Too many open files" in told[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    world.server.on_tick()
    waiting[-1].ask("say", n=2)
    world.idle()
    assert waiting[-1].lines() == [{"ok": True, "result": {"said": 2}}]


def test_a_place_that_is_free_again_is_given_to_the_next(make: MakeWorld) -> None:
    world = make(echo)
    peers = world.connected(server.CALLERS_MAX)
    peers[7].close()
    world.idle()
    (late,) = world.connected()
    late.ask("say", n=3)
    world.idle()
    assert late.lines() == [{"ok": True, "result": {"said": 3}}]


def test_a_long_answer_comes_in_parts_and_waits_for_who_reads_slowly(make: MakeWorld) -> None:
    made = 0

    def rows(_command: str, _arguments: Any, _caller: Any) -> Any:
        nonlocal made
        for _ in range(1_000):
            made += 1
            yield {"rows": ["x" * 10_000]}

    world = make(rows)
    slow, quick = world.connected(2)
    slow.ask("tab")
    for _ in range(500):
        before = made
        world.turn()
        assert made - before <= server.TURN_STEPS_MAX
    assert made < 100, "nothing is made in advance of what the caller takes"
    quick.ask("tab")
    world.turn()
    assert quick.lines()
    parts = slow.lines()
    while parts[-1].get("more"):
        world.turn()
        quick.lines()
        parts += slow.lines()
    assert [len(part["result"].get("rows", ())) for part in parts] == [1] * 1_000 + [0]


def test_an_answer_that_nobody_waits_for_is_let_go(make: MakeWorld) -> None:
    ended = []

    def rows(_command: str, _arguments: Any, _caller: Any) -> Any:
        try:
            while True:
                yield {"rows": ["x" * 10_000]}
        finally:
            ended.append(True)

    world = make(rows)
    (peer,) = world.connected()
    peer.ask("tab")
    world.turn()
    peer.close()
    world.idle()
    assert ended == [True]


def test_what_is_no_request_is_told_and_the_next_one_is_answered(make: MakeWorld) -> None:
    world = make(echo)
    (peer,) = world.connected()
    for line in (b"x", b"[]", b"3", b'{"command": 3}', b'{"command": "say", "arguments": [1]}', b"[" * 60_000,
                 b'"\xff"', b'{"command": "say", "arguments": {"n": NaN}}'):  # fmt: skip
        peer.send(line + b"\n")
        world.idle()
        (answer,) = peer.lines()
        assert not answer["ok"] and answer["error"].startswith("not a request")
    peer.ask("refuse")
    peer.ask("say", n=5)
    world.idle()
    assert peer.lines() == [{"ok": False, "error": "no"}, {"ok": True, "result": {"said": 5}}]


def test_a_request_that_does_not_end_is_refused_with_a_readable_line(make: MakeWorld) -> None:
    world = make(echo)
    (peer,) = world.connected()
    for _ in range(4):
        peer.send(b"x" * (REQUEST_MAX // 3))
        world.idle()
        if peer.lines() == [{"ok": False, "error": f"a request has at most {REQUEST_MAX} bytes"}]:
            break
    else:
        pytest.fail("it was read without end")
    assert not peer.lines() and peer.closed


def test_a_mistake_of_the_member_is_told_and_logged_in_a_few_lines(
    make: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world = make(echo)
    (peer,) = world.connected()
    with caplog.at_level(logging.ERROR):
        peer.ask("break", words="y" * 60_000)
        world.idle()
    (answer,) = peer.lines()
    assert answer["error"].startswith("internal error in the member: ZeroDivisionError")
    assert len(answer["error"]) < 400
    assert sum(len(record.getMessage()) for record in caplog.records) < conversation.TRACEBACK_MAX + 1_000


LINES = st.lists(
    st.one_of(
        st.integers(0, 99).map(lambda n: encode({"command": "say", "arguments": {"n": n}})),
        st.sampled_from([b"\n", b"  \r\n", b"junk\n", encode({"command": "refuse"})]),
        st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"") + b"\n"),
    ),
    max_size=30,
)


@given(LINES, st.lists(st.integers(1, 200), max_size=40))
@examples()
def test_answers_do_not_depend_on_how_the_bytes_arrive(lines: list[bytes], cuts: list[int]) -> None:
    sent = b"".join(lines)
    caller, said, at = Caller(echo, {}), b"", 0
    for length in [*cuts, len(sent)]:
        caller.receive(sent[at : at + length])
        at += length
        while caller.busy:
            caller.step()
            said += bytes(caller.unsent)
            caller.unsent.clear()
    alone = b""
    for line in lines:
        one = Caller(echo, {})
        one.receive(line)
        one.step()
        alone += bytes(one.unsent)
    assert said == alone
