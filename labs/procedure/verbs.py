"""The table of verbs: what a step can do, once, for the runner, `fwlab do`, the checker and both worlds.

To add a step: its arguments are a model in `labs.procedure.steps`, and its entry is here. It has a deed, which a
`Ground` does to each member or link that the step names, or a play, which the run itself does
(`labs.procedure.plays`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from labs.procedure import plays, steps
from labs.procedure.ground import Ground
from labs.procedure.plays import Run

Deed = Callable[[Ground, str, Any], Awaitable[Any]]
"""Done to a member or link by its name, with the step's arguments; returns what `fwlab do` prints."""
Play = Callable[[Run, Any], Awaitable[None]]


class Life(StrEnum):
    """What a member is, as the steps of a file have left it."""

    STOPPED = "stopped"
    RUNNING = "running"
    PAUSED = "paused"
    OFF = "without power"


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb: it has a `deed`, a `play`, or both."""

    model: type[steps.Arguments]
    short: str | None = None
    """The argument that a bare name or list fills."""
    deed: Deed | None = None
    """`fwlab do` offers the verbs that have one."""
    play: Play | None = None
    """Instead of the deed, in a run."""
    may_take_over: bool = False
    """Whether another member may become the active one by it."""
    wants: frozenset[Life] = frozenset()
    """What a member has to be; nothing: it is not done to members."""
    leaves: Life | None = None
    """What the member is afterwards; nothing: what it was."""
    ends_as: str = ""
    """Of a verb that ends a member's life: the member's state in the document."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """World -> why the verb does not work there."""

    def fill(self, value: Any) -> Any:
        """The arguments as a mapping, of what a file has behind the verb."""
        return self.model.filled(value, self.short)


class Step(BaseModel):
    """One step: a verb with its arguments, and what the runner tells the learner before it."""

    where: str
    verb: str
    what: Any  # an instance of the verb's model
    note: str = ""
    after: tuple[float, float] = (0.0, 0.0)
    """Seconds of lab time between the end of the step before it and this one: at least, at most."""

    def words(self) -> str:
        """The step in an operator's words."""
        return str(self.what.words(self.verb.replace("_", " ")))


async def _set(ground: Ground, member: str, what: steps.Set) -> Any:
    answers = [await ground.control(member, "ctl_set", name=name, value=value)
               for name, value in what.parameters.items()]
    return answers[0] if len(answers) == 1 else answers


_STOPPED, _RUNNING = frozenset({Life.STOPPED}), frozenset({Life.RUNNING})
_PAUSED, _OFF = frozenset({Life.PAUSED}), frozenset({Life.OFF})


def _to_members(deed: Callable[[Ground, str], Awaitable[Any]], **more: Any) -> Verb:
    return Verb(model=steps.Members, short="members", deed=lambda ground, member, _: deed(ground, member), **more)


def _undo(deed: Callable[[Ground, str], Awaitable[None]]) -> Verb:
    return Verb(model=steps.Links, short="links", deed=lambda ground, link, _: deed(ground, link))


def _of_workloads(play: Play) -> Verb:
    return Verb(model=steps.Workloads, short="workloads", play=play)


VERBS: dict[str, Verb] = {
    "start": _to_members(lambda ground, member: ground.start(member), wants=_STOPPED, leaves=Life.RUNNING),
    "stop": _to_members(lambda ground, member: ground.stop(member), wants=_RUNNING, leaves=Life.STOPPED,
                        ends_as="Stopped", may_take_over=True),
    "kill": _to_members(lambda ground, member: ground.kill(member), wants=_RUNNING | _PAUSED, leaves=Life.STOPPED,
                        ends_as="Killed", may_take_over=True),
    "power_cut": _to_members(lambda ground, member: ground.power_cut(member), wants=_STOPPED | _RUNNING | _PAUSED,
                             leaves=Life.OFF, ends_as="Power cut", may_take_over=True),
    "power_on": _to_members(lambda ground, member: ground.power_on(member), wants=_STOPPED | _OFF,
                            leaves=Life.RUNNING),
    "upgrade": Verb(model=steps.Upgrade, wants=_STOPPED | _RUNNING, leaves=Life.RUNNING, may_take_over=True,
                    deed=lambda ground, member, what: ground.upgrade(member, what.release)),
    "pause": _to_members(lambda ground, member: ground.pause(member), wants=_RUNNING, leaves=Life.PAUSED,
                         may_take_over=True),
    "resume": _to_members(lambda ground, member: ground.resume(member), wants=_PAUSED, leaves=Life.RUNNING),
    "cut": Verb(model=steps.OneWay, short="links", deed=lambda ground, link, what: ground.cut(link, way=what.way)),
    "restore": _undo(lambda ground, link: ground.restore(link)),
    "limit": Verb(model=steps.Limit, deed=lambda ground, link, what: ground.limit(link, what.rate)),
    "unlimit": _undo(lambda ground, link: ground.unlimit(link)),
    "lose": Verb(model=steps.Lose, deed=lambda ground, link, what: ground.lose(link, what.share, way=what.way)),
    "unlose": _undo(lambda ground, link: ground.unlose(link)),
    "delay": Verb(model=steps.Delay, deed=lambda ground, link, what: ground.delay(link, what.by, way=what.way)),
    "undelay": _undo(lambda ground, link: ground.undelay(link)),
    "block": Verb(model=steps.Block,
                  deed=lambda ground, _, what: ground.block(what.between, *what.protocol_and_port)),
    "unblock": Verb(model=steps.Block,
                    deed=lambda ground, _, what: ground.unblock(what.between, *what.protocol_and_port)),
    "down": _to_members(lambda ground, member: ground.control(member, "down"), wants=_RUNNING, may_take_over=True),
    "up": _to_members(lambda ground, member: ground.control(member, "up"), wants=_RUNNING),
    "set": Verb(model=steps.Set, wants=_RUNNING, deed=_set),
    "policy": Verb(model=steps.InstallPolicy, wants=_STOPPED | _RUNNING | _OFF, deed=plays.install, play=plays.policy),
    "failover": Verb(model=steps.Failover, short="member", wants=_RUNNING, may_take_over=True, play=plays.failover),
    "open": _of_workloads(plays.open_workloads),
    "speak": _of_workloads(plays.speak),
    "announce": _of_workloads(plays.announce),
    "transfer": Verb(model=steps.Transfer, short="workloads", play=plays.transfer),
    "reconnect": Verb(model=steps.Reconnect, play=plays.reconnect),
    "finish": _of_workloads(plays.finish),
    "wait": Verb(model=steps.Wait, short="duration", play=plays.wait),
    "until": Verb(model=steps.Await, play=plays.until),
    "check": Verb(model=steps.Check, short="expectations", play=plays.check),
}
