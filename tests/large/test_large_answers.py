"""Answers of any size, over the socket to the client that `fwctl` uses: whole, in parts, and packets come between."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from control_world import World
from member_world import alone

from fwnode.control import client, commands, compare, render
from fwnode.control.client import Control, MemberError
from fwnode.control.commands import Commands
from fwnode.control.protocol import PART_BYTES, REQUEST_MAX, encode, put_together, requests
from fwnode.firewall.connection import Connection
from fwnode.firewall.tcp_states import ConnectionState


@pytest.fixture
def member(tmp_path: Path) -> Iterator[tuple[Any, World]]:
    made = alone()
    world = World(tmp_path, Commands(made).handle)
    yield made, world
    world.close()


def fill(made: Any, count: int, begin: int = 0) -> None:
    table = made.firewall.connections
    for number in range(begin, begin + count):
        key = b"\x06" + b"\xc0\0\2\x64" + number.to_bytes(4) + b"\x9c\x41\x05\xf1"
        table.add(Connection(key, ConnectionState.ESTABLISHED, 3600.0, 3600.0, 0.0), made.lab_now)


def ask(world: World, question: Callable[[Control], Any], meanwhile: Callable[[], Any] = lambda: None) -> Any:
    """What the client gets in a thread of its own, while the member's loop makes its turns here."""
    outcome: list[Any] = []

    def run() -> None:
        control = Control(world.path)
        try:
            outcome.append(question(control))
        except MemberError as error:
            outcome.append(error)
        finally:
            control.close()

    asking = threading.Thread(target=run)
    asking.start()
    while asking.is_alive():
        world.selector.select(0.05)
        world.turn()
        meanwhile()
    asking.join()
    (result,) = outcome
    if isinstance(result, MemberError):
        raise result
    return result


def test_all_rows_of_a_large_table_arrive_while_it_changes(member: tuple[Any, World]) -> None:
    made, world = member
    fill(made, 100_000)
    table = made.firewall.connections
    parts = turns = 0

    def change() -> None:
        nonlocal turns
        turns += 1
        if turns <= 100:
            fill(made, 1, begin=1_000_000 + turns)
            table.remove(next(c for c in table if c.key[5:9] >= (50_000).to_bytes(4)))

    def question(control: Control) -> list[str]:
        nonlocal parts
        lines = []
        answer = control.parts("tab", unlimited=True)
        head = next(answer)

        def rows() -> Iterator[dict[str, Any]]:
            nonlocal parts
            for part in answer:
                parts += 1
                assert len(part.get("rows", ())) <= commands.ROWS_A_PART
                yield from part.get("rows", ())

        lines += render.tab({**head, "rows": rows()})
        return lines

    lines = ask(world, question, change)
    assert lines[0].startswith("connections: 100000 connections")
    assert 99_900 <= len(lines) - 1 <= 100_101
    assert parts >= 99_900 / commands.ROWS_A_PART, "packets come between two parts"
    assert len([line for line in lines[1:] if "192.0.2.100:40001" in line]) >= 99_900


def test_the_keys_of_two_hundred_thousand_connections_are_compared(member: tuple[Any, World]) -> None:
    made, world = member
    fill(made, 220_000)
    answer = ask(world, lambda control: control.ask("keys"))
    table = compare.unpack(answer)
    assert len(table) == 220_000 and compare.unsynchronised([answer]) == 0
    largest = max(len(encode(part)) for part in Commands.keys(Commands(made)))
    assert largest < 64 << 10
    lacking = dict(list(table.items())[:-3])
    seen = {"fw1": table, "fw2": lacking}
    assert compare.summary(seen, compare.differences(seen))["missing"] == {"fw1": 0, "fw2": 3}


@pytest.mark.parametrize(("arguments", "words"), [
    ({"max": -1}, "tab: max: should be greater than or equal to 0, not -1"),
    ({"max": 1.5}, "tab: max: should be a valid integer, not 1.5"),
    ({"max": 10**20}, "tab: max: should be less than or equal to 10000000, not 100000000000000000000"),
    ({"max": True}, "tab: max: should be a valid integer, not True"),
    ({"max": None}, "tab: max: should be a valid integer, not NoneType"),
    ({"max": "7"}, "tab: max: should be a valid integer, not '7'"),
    ({"summary": 1}, "tab: summary: should be a valid boolean, not 1"),
    ({"table": ["connections"]}, "tab: table: should be a valid string, not list"),
    ({"table": "x" * 1_000}, "tab: table: should have at most 256 characters, not 'xxx"),
    ({"rows": 3}, "tab: no argument 'rows'; it takes table, summary, unlimited, max"),
    ({"self": 1}, "tab: no argument 'self'"),
    ({"caller": 1}, "tab: no argument 'caller'"),
])  # fmt: skip
def test_a_wrong_argument_is_told_as_such(
    member: tuple[Any, World], caplog: pytest.LogCaptureFixture, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(MemberError) as error:
        ask(member[1], lambda control: control.request({"command": "tab", "arguments": arguments}))
    assert str(error.value).startswith(words)
    assert len(str(error.value)) < 200
    assert not caplog.records, "a caller's mistake is none of the member's"


@pytest.mark.parametrize("value", [10**30, "0x" + "f" * 50_000, "9" * 5_000, 1.5, None, [], True])
def test_a_parameter_takes_no_value_that_is_no_number_of_its_size(member: tuple[Any, World], value: Any) -> None:
    with pytest.raises(MemberError, match=r"ctl_set: value|legal is"):
        ask(member[1], lambda control: control.ask("ctl_set", name="tcp_end_timeout", value=value))


def test_a_type_error_inside_a_command_is_no_wrong_argument(
    member: tuple[Any, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise TypeError("f() got an unexpected keyword argument 'x'")

    member[0].cluster.set_device = broken
    with pytest.raises(MemberError, match="internal error in the member: TypeError"):
        ask(member[1], lambda control: control.ask("down"))


def test_a_member_whose_socket_is_full_is_busy_and_not_dead(
    member: tuple[Any, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, world = member
    with pytest.raises(BlockingIOError):  # nobody lets them in
        for _ in range(1_000):
            world.peer().connect()
    with pytest.raises(MemberError, match=r"fw1 does not answer within 0.2 s; its process is there"):
        Control(world.path, timeout_s=0.2)
    world.idle()
    Control(world.path).close()


def test_a_member_that_does_not_answer_is_told_from_one_that_has_ended(member: tuple[Any, World]) -> None:
    _, world = member
    control = Control(world.path, timeout_s=0.2)
    with pytest.raises(MemberError, match=r"fw1 does not answer within 0.2 s; its process is there"):
        control.ask("status")
    control.close()
    left = world.path.with_name("fw2.sock")
    with client.socket.socket(client.socket.AF_UNIX) as dead:
        dead.bind(str(left))
    with pytest.raises(MemberError, match="fw2 does not run: its process has ended"):
        Control(left)
    with pytest.raises(MemberError, match=r"fw3 does not run, or there is no such member: did you mean fw"):
        Control(world.path.with_name("fw3.sock"))


def test_a_large_rule_base_goes_in_pieces_that_a_request_can_hold() -> None:
    policy = {
        "name": "large", "networks": {f"net {n}": ["192.0.2.0/24"] for n in range(3_000)}, "hosts": {},
        "rules": [{"name": f"rule {n}", "source": f"net {n % 3_000}", "action": "drop"} for n in range(100_000)],
        "on_install": "keep",
    }  # fmt: skip
    *pieces, last = requests("policy_install", {"policy": policy, "file": "large.yaml"})
    assert max(len(encode(message)) for message in [*pieces, last]) < PART_BYTES + 2_000 < REQUEST_MAX
    assert {message["command"] for message in pieces} == {"policy_part"}
    together = put_together(iter([{"networks": {}, "rules": []}, *({k: v} for m in pieces
                                  for k, v in m["arguments"]["part"].items() if isinstance(v, list))]))  # fmt: skip
    assert together["rules"] == policy["rules"]
    assert last["arguments"] == {"policy": {"name": "large", "hosts": {}, "on_install": "keep"}, "file": "large.yaml"}
    small = {"policy": {"name": "small", "rules": []}, "file": "small.yaml"}
    assert list(requests("policy_install", small)) == [{"command": "policy_install", "arguments": small}]
    assert json.loads(encode(last)) == last


def test_a_rule_base_that_came_in_pieces_is_installed_whole_and_one_with_a_problem_changes_nothing(
    member: tuple[Any, World],
) -> None:
    made, world = member
    policy: dict[str, Any] = {
        "name": "large", "hosts": {f"h{n}": ["192.0.2.7"] for n in range(1_500)},
        "rules": [{"name": f"rule {n}", "source": f"h{n % 1_500}", "action": "drop"} for n in range(2_500)],
        "on_install": "keep",
    }  # fmt: skip
    bad = {**policy, "rules": [*policy["rules"], {"action": "drop", "source": "lost"}]}
    with pytest.raises(MemberError, match=r"large.yaml: rules\[2500\].source: no network or host 'lost'"):
        ask(world, lambda control: control.ask("policy_install", policy=bad, file="large.yaml"))
    assert made.firewall.policy.name == "standard"
    result = ask(world, lambda control: control.ask("policy_install", policy=policy, file="large.yaml"))
    assert (result["rules"], result["on_install"]) == (2_500, "keep")
    assert made.firewall.policy.rules[-1].name == "rule 2499"
    small = {"name": "small", "rules": []}
    ask(world, lambda control: control.ask("policy_install", policy=small, file="small.yaml"))
    assert not made.firewall.policy.rules, "nothing is left of what came before"


def test_a_second_rule_base_waits_until_the_first_is_there_or_given_up(member: tuple[Any, World]) -> None:
    _, world = member
    first, second = world.connected(2)
    first.ask("policy_part", part={"rules": []})
    world.idle()
    second.ask("policy_part", part={"rules": []})
    world.idle()
    assert [first.lines()[0]["ok"], second.lines()[0]["ok"]] == [True, False]
    first.close()
    world.idle()
    second.ask("policy_part", part={"rules": []})
    world.idle()
    assert second.lines()[0]["ok"]
