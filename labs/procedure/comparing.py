"""How the connections tables of running members differ, asked of them while a lab runs: what `fwctl sync compare` says.

Whoever runs the lab says how a member is asked; what a difference is, is `fwnode.control.compare`'s business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fwnode.control import compare
from labs.network.errors import LabError

Ask = Callable[[str, str], Awaitable[Any]]
"""Member and command -> its answer."""


async def compare_tables(ask: Ask, members: Iterable[str]) -> dict[str, Any]:
    """What differs at two looks, a few sync ticks apart; LabError where there are not two members to compare."""
    members = list(members)
    if len(members) < 2:
        there = members[0] if members else "none"
        raise LabError(f"differences: two running members are needed to compare tables, and there is {there}")
    first, unsynchronised = await _look(ask, members)
    differences = compare.differences(first)
    second = first
    if differences:
        await asyncio.sleep(compare.LOOKS_APART_S)
        second, unsynchronised = await _look(ask, members)
        differences &= compare.differences(second)
    return compare.summary(second, differences, unsynchronised)


async def _look(ask: Ask, members: list[str]) -> tuple[dict[str, compare.StatesByKey], int]:
    answers = await asyncio.gather(*(ask(member, "keys") for member in members))
    tables = {member: compare.unpack(answer) for member, answer in zip(members, answers, strict=True)}
    return tables, compare.unsynchronised(answers)
