"""What the control socket answers can be sent: every figure is JSON, whatever has been counted."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from fwnode.clock import LabClock
from fwnode.cluster.membership import Cluster
from fwnode.configuration import MemberConfig, load_releases
from fwnode.control import render
from fwnode.control.commands import Commands
from fwnode.control.conversation import Caller
from fwnode.control.protocol import ControlError, put_together
from fwnode.control.streams import Stream
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.holding import HeldPackets
from fwnode.firewall.parameters import Parameters
from fwnode.firewall.verdict import Hook
from fwnode.kept_policy import CONFIGURED
from fwnode.policy_file import build_policy
from syncproto.engine import SyncEngine
from syncproto.joining import NO_FULL_SYNC, Joining
from syncproto.record import Op, Record, Update


def node() -> Any:
    """A member without its edges: everything that the commands look at."""
    members = {"fw1": ["203.0.113.1/24"], "fw2": ["203.0.113.2/24"]}
    policy: dict[str, Any] = {"name": "standard", "rules": [{"action": "accept"}]}
    config = MemberConfig.model_validate(
        {"member": "fw1", "release": "R77.30", "policy": policy,
         "cluster": {"interfaces": [{"name": "sync", "sync": True, "members": members}]}}
    )  # fmt: skip
    releases = load_releases("")
    parameters = Parameters()
    made = SimpleNamespace(
        config=config,
        clock=LabClock(),
        parameters=parameters,
        firewall=Firewall("fw1", build_policy(policy, "policy"), parameters),
        cluster=Cluster(1, config.peers, "R77.30", releases.newer, now=0.0),
        sync=SimpleNamespace(
            engine=SyncEngine(member=1, incarnation=1, release="R77.30", compatibility=releases, peers=[2], now=0.0),
            synced={"full": 0, "delta": 0},
            full_sync=NO_FULL_SYNC,
            held=HeldPackets(),
            joining=Joining(),
        ),
        queues=[SimpleNamespace(buffer_bytes=0)],
        overruns=lambda: SimpleNamespace(queue=0, socket=0),
        datagrams=SimpleNamespace(sent_bytes=0, received_bytes=0, errors=Counter[str]()),
        messages=SimpleNamespace(refused=Counter[str]()),
        guard=SimpleNamespace(failures=Counter[str]()),
        started_at=0.0,
        events=[],
        event=lambda *_, **__: None,
        kept=SimpleNamespace(writing=lambda *_: iter(())),
        policy_origin=CONFIGURED,
    )
    made.firewall.forwarding = True
    made.sharing = None
    made.active_peers = lambda: []
    made.set_parameter = parameters.set_running
    return made


def busy_node() -> Any:
    made = node()
    key = b"\x11" + bytes([192, 0, 2, 100, 198, 51, 100, 100]) + b"\x9c\x41\x00\x35"
    record = Record(key, 0, 40.0, 40.0, 1, "dns", 0, 1.0, 1)
    made.sync.engine.send_updates([Update(Op.SET, key, record)], 0.1)
    made.sync.engine._counters.records_sent[Op.SET] += 1
    made.sync.engine._counters.refused["malformed"] += 1
    made.firewall.decide(b"\x45", Hook.FORWARD, 0.0)
    made.firewall.connections.apply(Update(Op.SET, key, record), 0.0)
    return made


def ask(commands: Commands, command: str, **arguments: Any) -> Any:
    """The whole answer."""
    caller = Caller(commands.handle, {"events": Stream(deque(), int, dict), "log": Stream(deque(), int, dict)})
    answer = commands.handle(command, arguments, caller)
    return answer if isinstance(answer, Mapping) else put_together(answer)


@pytest.mark.parametrize("state", [node, busy_node])
@pytest.mark.parametrize("command", ["status", "stat", "pstat", "syncstat", "tab", "drops", "log", "events", "ctl_get"])
def test_every_answer_can_be_sent_and_shown(state: Any, command: str) -> None:
    answer = json.loads(json.dumps(ask(Commands(state()), command)))
    show = getattr(render, command, None)
    if show is not None:
        assert all(isinstance(line, str) for line in show(answer))


def test_a_parameter_is_set_by_name_and_a_wrong_one_is_refused_with_the_legal_values() -> None:
    made = node()
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
        with pytest.raises(ControlError, match=words):
            ask(commands, command, **arguments)
    assert made.parameters["fw_allow_out_of_state_tcp"] == 1


def test_a_bad_policy_changes_nothing_and_is_told_with_all_its_problems() -> None:
    made = node()
    made.install_policy = lambda policy: made.firewall.install(policy)
    commands = Commands(made)
    bad = {"name": "x", "rules": [{"source": "lost", "action": "accept"}, {"service": "none-such", "action": "drop"}]}
    with pytest.raises(ControlError) as error:
        ask(commands, "policy_install", policy=bad, file="new.yaml")
    assert [line.partition(": no ")[0] for line in str(error.value).splitlines()] == [
        "new.yaml: rules[0].source",
        "new.yaml: rules[1].service",
    ]
    assert (made.firewall.policy.name, made.firewall.generation) == ("standard", 0)
    good = {"name": "better", "rules": []}
    ask(commands, "policy_install", policy=good, file="new.yaml")
    assert made.firewall.policy.name == "better"
