"""The member's synchronisation where the kernel says no: the loop goes on, and the next source is asked."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from sync_world import COMPATIBILITY, World

from fwnode import sync as edge
from fwnode.clock import LabClock
from fwnode.configuration import MemberConfig
from fwnode.firewall.firewall import Firewall
from fwnode.firewall.parameters import Parameters
from fwnode.links.stream import Stream
from fwnode.policy_file import build_policy
from labs.network.members import MemberSettings, member_configuration
from labs.network.topology import load_topology
from syncproto.joining import Joining, Sources


class Owner:
    """What the node does; it only listens."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.ended = 0

    def event(self, kind: str, text: str, **details: Any) -> None:
        self.told.append(f"{kind}: {text}")

    def full_sync_ended(self) -> None:
        self.ended += 1

    def active_peers(self) -> list[int]:
        return []

    def encode(self, message: object) -> bytes:
        return b""

    def peer_refused(self, peer: int) -> None: ...


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EMFILE])
def test_a_connection_that_cannot_be_made_ends_the_attempt_and_not_the_member(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The sync interface lost its address, or no descriptor is left."""

    def refuses(*_: object) -> None:
        raise OSError(number, "the kernel says no")

    monkeypatch.setattr(edge, "listen", lambda *_: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(edge, "connect", refuses)
    shape = load_topology("pair")
    config = MemberConfig.model_validate(member_configuration(shape, "fw2", MemberSettings()))
    policy = build_policy({"name": "x", "rules": []}, "x")
    selector = SimpleNamespace(register=lambda *_: None)
    owner, joining, world = Owner(), Joining(), World({1: "R77.30", 2: "R77.30"})
    world.run(1)
    sync = edge.Synchroniser(
        owner, config, COMPATIBILITY, Firewall("fw2", policy, Parameters({})), LabClock(1.0, 0.0),
        selector, joining, incarnation=1, key=None, now=world.now,  # type: ignore[arg-type]
    )  # fmt: skip
    sync.engine = world.nodes[2].engine
    joining.receive_event(Sources((1,)), world.now)
    for _ in range(3):
        sync.advance(world.now, SimpleNamespace(send_sync=lambda *_: None, path_blocked=lambda: []))  # type: ignore[arg-type]
    assert joining.over and owner.ended == 1
    assert any("Could not start a connection to remote member: [Errno" in text for text in owner.told)
    assert sync.full_sync["state"] == "failed"


def test_what_the_kernel_still_sends_counts_as_moving() -> None:
    """Its buffer is full: nothing can be given to it, and yet the other side gets on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
    with sender, receiver:
        sender.setblocking(False)
        stream = Stream(sender, SimpleNamespace(), 1)  # type: ignore[arg-type]
        assert not stream.drains()
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.send(bytes(65536))
        assert stream.drains()
        while stream.drains():
            select.select([], [], [], 0.05)  # what is under way arrives; then the receiver takes nothing
        while not stream.drains():
            receiver.recv(1 << 20)
