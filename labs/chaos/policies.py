"""Policies that a chaos lab installs, as patches of its own one. Pure."""

from __future__ import annotations

from typing import Any

from labs.chaos.choices import pick
from labs.chaos.script import Script


def changed(script: Script, members: list[str]) -> dict[str, Any]:
    """A policy for these members: the same rules again, fewer, or other settings."""
    kind = pick(script.random, {"same": 2, "fewer": 4, "learn": 4, "control": 1, "keep": 1})
    if kind == "learn":
        return {"out_of_state": {"drop_tcp": True, "exceptions": members}}
    if kind == "control":
        return {"implied_rules": {"control_connections": False}}
    if kind == "fewer":
        return stricter(script)
    return {"name": "again", **({"on_install": "keep"} if kind == "keep" else {})}


def stricter(script: Script) -> dict[str, Any]:
    """A service that was accepted is not any more; now and then packets out of state are learned from besides."""
    accepting, cleanup = script.lab["policy"]["rules"][0], script.lab["policy"]["rules"][-1]
    opened = [name for name in script.opened() if name in accepting["service"]]
    dropped = script.random.choice(opened or accepting["service"])
    rule = {"name": "dropped", "service": dropped, "action": script.random.choice(["drop", "reject"])}
    patch: dict[str, Any] = {"name": "stricter", "rules": [rule, accepting, cleanup]}
    if script.random.random() < 0.4:
        patch["out_of_state"] = {"drop_tcp": False}
    return patch
