"""The rule base that a member has, and where it comes from. Pure; what keeps it across restarts is `kept_policy`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fwnode.explain import shown
from fwnode.firewall.policy import Policy

CONFIGURED = "from the configuration"


@dataclass(frozen=True)
class Loaded:
    """The rule base that a member starts with, where it comes from, and what was wrong with the kept one."""

    policy: Policy
    origin: str = CONFIGURED
    problem: str = ""


def installed_by_hand(file: str, at: float) -> str:
    """The origin of a rule base that was installed by hand, for people."""
    return f"installed by hand from {shown(file)} on {datetime.fromtimestamp(at).strftime('%a %b %d %H:%M:%S %Y')}"
