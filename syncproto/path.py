"""What the way to one peer bears: whole datagrams, or only fragments of them.

A path whose middle bears less than its ends (a switch or an interface with a smaller MTU) loses large datagrams without
a word and lets small ones through. What shows it is a peer that asks again and again for the very update that it lacks
first, although that was sent to it every time: its small requests come, our large datagrams do not get there. From then
on an update goes in fragments, and now and then one goes whole, to find out whether the path bears it again.

Driven by `delta`; knows nothing of queues, acknowledgements of other peers, or bytes on the wire.
"""

from __future__ import annotations

from math import inf

from syncproto.limits import FRAGMENT_BODY_MAX, PATH_TRIAL_MAX_S, PATH_TRIAL_S, PATH_TRIES_MAX
from syncproto.message import Delta, Fragment
from syncproto.record import split


def fragments_of(delta: Delta) -> list[Delta | Fragment]:
    """The same updates in small datagrams; one that is small already stays as it is."""
    bodies = split(delta.body, FRAGMENT_BODY_MAX) if len(delta.body) > FRAGMENT_BODY_MAX else [delta.body]
    if len(bodies) == 1:
        return [delta]
    number, schema, parts, age_ms = delta.sequence, delta.schema, len(bodies), delta.age_ms
    return [Fragment(number, schema, body, part, parts, age_ms=age_ms) for part, body in enumerate(bodies)]


class Path:
    """The way to one peer. The methods that tell it something return whether `whole` has changed."""

    def __init__(self) -> None:
        self.whole = True
        self._vain = 0
        self._trial: int | None = None
        self._trial_at = inf
        self._trial_interval_s = PATH_TRIAL_S

    def fit(self, delta: Delta, now: float) -> list[Delta | Fragment]:
        """The datagrams in which this update goes to the peer: itself, or its fragments."""
        if self.whole:
            return [delta]
        if now >= self._trial_at and len(delta.body) > FRAGMENT_BODY_MAX:
            self._trial, self._trial_at = delta.sequence, inf
            return [delta]
        return fragments_of(delta)

    def asked(self, first: int, count: int, lacked_first: bool, now: float) -> bool:
        """The peer asks for these updates again. `lacked_first`: the first of them is a large one, and the first that
        it lacks at all."""
        if self._trial is not None and first <= self._trial < first + count:
            self._trial = None
            self._trial_interval_s = min(self._trial_interval_s * 2, PATH_TRIAL_MAX_S)
            self._trial_at = now + self._trial_interval_s
        if not self.whole or not lacked_first:
            return False
        self._vain += 1
        if self._vain < PATH_TRIES_MAX:
            return False
        self.whole, self._trial, self._trial_interval_s = False, None, PATH_TRIAL_S
        self._trial_at = now + PATH_TRIAL_S
        return True

    def acknowledged(self, sequence: int) -> bool:
        """The peer has everything up to this number, and did not have it before."""
        self._vain = 0
        if self._trial is None or sequence < self._trial:
            return False
        self.whole, self._trial = True, None
        return True
