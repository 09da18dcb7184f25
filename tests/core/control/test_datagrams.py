"""What the kernel says of datagrams between members is counted, whatever it is."""

from __future__ import annotations

import errno
import socket
from typing import Any, cast

import pytest

from fwnode.links.datagrams import Datagrams, PeerSocket


class Refusing:
    """A socket on which nothing works."""

    def __init__(self, number: int) -> None:
        self._number = number

    def send(self, _data: bytes) -> int:
        raise OSError(self._number, "no")

    def recv(self, _longest: int) -> bytes:
        raise OSError(self._number, "no")


@pytest.mark.parametrize("name", ["EMSGSIZE", "ENETUNREACH", "ENOBUFS", "EHOSTUNREACH", "EPERM"])
def test_an_error_of_a_wire_is_counted_by_its_name(name: str) -> None:
    datagrams = Datagrams({}, "sync")
    wire = PeerSocket(2, "sync", True, cast(socket.socket, Refusing(getattr(errno, name))))
    datagrams.wires.append(wire)
    datagrams._ways[2, "sync"] = wire
    refused: list[Any] = []
    datagrams.send(2, "sync", b"x", refused.append)
    assert list(datagrams.receive(wire, refused.append)) == []
    assert datagrams.errors == {f"sync: {name}": 2}
    assert datagrams.sent_bytes == 0 and refused == []
