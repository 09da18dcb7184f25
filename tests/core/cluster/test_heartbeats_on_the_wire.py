"""A member's messages as bytes: a heartbeat that comes over every network."""

from __future__ import annotations

import pytest

from fwnode.messages import Messages
from syncproto import codec
from syncproto.message import Ack, Heartbeat


def messages(number: int, key: bytes | None = None) -> Messages:
    return Messages(1, number, 7, key, lambda text: None)


def heartbeat(number: int) -> Heartbeat:
    return Heartbeat(state=1, release="R77.30", policy="p", problems=[], sees=[1], leaving=False, number=number,
                     hears_on_sync=[1], failovers=0, active=[], accepted=0, cluster_time=0.0)  # fmt: skip


def test_it_is_decoded_once_however_many_networks_it_comes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    decode = codec.decode
    monkeypatch.setattr(codec, "decode", lambda data, **how: decoded.append(data) or decode(data, **how))
    speaker, hearer = messages(2), messages(1)
    first, second = (speaker.encode(heartbeat(number)) for number in (1, 2))
    for data in (first, first, first, second, first):
        read = hearer.read(data, 2, sync=False)
        assert read is not None and speaker.encode(read.message) == data
    assert decoded == [first, second, first]


def test_what_is_refused_is_refused_again_and_what_is_no_heartbeat_only_passes_on_the_sync_network() -> None:
    speaker, hearer = messages(2, b"theirs"), messages(1, b"ours")
    data = speaker.encode(heartbeat(1))
    assert [hearer.read(data, 2, sync=True) for _ in range(2)] == [None, None]
    own = messages(2, b"ours")
    data, other = own.encode(heartbeat(1)), own.encode(Ack(1, 5))
    assert hearer.read(data, 3, sync=True) is None, "it is another member's"
    assert hearer.read(data, 2, sync=True) is not None
    assert hearer.read(other, 2, sync=False) is None
    assert hearer.read(other, 2, sync=True) is not None
