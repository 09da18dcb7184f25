"""What the control socket answers can be sent: every figure is JSON, whatever has been counted."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import pytest
from member_world import alone

from fwnode.control import render
from fwnode.control.commands import Commands
from fwnode.control.conversation import Caller
from fwnode.control.protocol import RequestError, put_together
from fwnode.control.streams import Stream
from fwnode.firewall.verdict import Hook
from fwnode.member import Member
from syncproto.record import Op, Record, Update


def busy_member() -> Member:
    made = alone()
    key = b"\x11" + bytes([192, 0, 2, 100, 198, 51, 100, 100]) + b"\x9c\x41\x00\x35"
    record = Record(key, 0, 40.0, 40.0, 1, "dns", 0, 1.0, 1)
    made.engine.send_updates([Update(Op.SET, key, record)], made.now)
    made.engine._counters.records_sent[Op.SET] += 1
    made.engine._counters.refused["malformed"] += 1
    made.firewall.decide(b"\x45", Hook.FORWARD, made.lab_now)
    made.firewall.connections.apply(Update(Op.SET, key, record), made.lab_now)
    return made


def ask(commands: Commands, command: str, **arguments: Any) -> Any:
    """The whole answer."""
    caller = Caller(commands.handle, {"events": Stream(deque(), int, dict), "log": Stream(deque(), int, dict)})
    answer = commands.handle(command, arguments, caller)
    return answer if isinstance(answer, Mapping) else put_together(answer)


@pytest.mark.parametrize("state", [alone, busy_member])
@pytest.mark.parametrize("command", ["status", "stat", "pstat", "syncstat", "tab", "drops", "log", "events", "ctl_get"])
def test_every_answer_can_be_sent_and_shown(state: Any, command: str) -> None:
    answer = json.loads(json.dumps(ask(Commands(state()), command)))
    show = getattr(render, command, None)
    if show is not None:
        assert all(isinstance(line, str) for line in show(answer))


def test_a_parameter_is_set_by_name_and_a_wrong_one_is_refused_with_the_legal_values() -> None:
    made = alone()
    commands = Commands(made)
    assert ask(commands, "ctl_set", name="fw_allow_out_of_state_tcp", value=1) == {"fw_allow_out_of_state_tcp": 1}
    assert made.firewall.allows_out_of_state
    for command, arguments, words in (
        ("ctl_set", {"name": "fw_allow_out_of_state_tcp", "value": 2}, "legal is 0 or 1"),
        ("ctl_set", {"name": "fw_allow", "value": 1}, "unknown kernel parameter"),
        ("ctl_get", {"name": "fw_allow"}, "unknown kernel parameter"),
        ("ctl_set", {"nam": "x"}, "ctl_set: no argument 'nam'; it takes name, value\n.*argument 'name' is missing"),
        ("tab", {"table": "nat"}, "no table 'nat'; tables are connections, local"),
        ("reboot", {}, "unknown command 'reboot'; known are status"),
    ):
        with pytest.raises(RequestError, match=words):
            ask(commands, command, **arguments)
    assert made.parameters["fw_allow_out_of_state_tcp"] == 1


def test_a_bad_policy_changes_nothing_and_is_told_with_all_its_problems() -> None:
    made = alone()
    commands = Commands(made)
    bad = {"name": "x", "rules": [{"source": "lost", "action": "accept"}, {"service": "none-such", "action": "drop"}]}
    with pytest.raises(RequestError) as error:
        ask(commands, "policy_install", policy=bad, file="new.yaml")
    assert [line.partition(": no ")[0] for line in str(error.value).splitlines()] == [
        "new.yaml: rules[0].source",
        "new.yaml: rules[1].service",
    ]
    assert (made.firewall.policy.name, made.firewall.generation) == ("standard", 0)
    good = {"name": "better", "rules": []}
    ask(commands, "policy_install", policy=good, file="new.yaml")
    assert made.firewall.policy.name == "better"
