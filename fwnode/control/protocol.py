"""The control socket's protocol, for both of its ends: JSON, one object a line; blank lines mean nothing. Pure.

    request   {"command": "stat", "arguments": {…}}        at most `REQUEST_MAX` bytes
    answer    {"ok": true, "result": {…}}
              {"ok": true, "result": {…}, "more": true}    a part of the answer; the next line is another part
              {"ok": false, "error": "…"}                  refused; what came of the answer before is void
    event     {"event": {…}}                               of what the caller follows; comes after the answer
              {"dropped": 12}                              so many events came faster than the caller read

Parts of an answer are put together key by key: lists one behind the other, of everything else the last one counts.

A caller's next request is read when the last one is answered, so there may be several on the way. A rule base that
exceeds a request comes in advance, in pieces: any number of `policy_part`, then `policy_install` with the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

REQUEST_MAX = 128 << 10
"""Bytes of one request. Twice a piece of a rule base: one rule or service of this size is still taken."""
PART_BYTES = 48 << 10
"""Bytes of a piece of a rule base, some 500 rules: a member reads and checks them in a few milliseconds."""
POLICY_MAX = 64 << 20
"""Bytes of a whole rule base as it is sent; 100,000 rules are some 15 MB."""


class RequestError(Exception):
    """A request that cannot be done; the message goes to the operator."""


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as its line."""
    return json.dumps(message).encode() + b"\n"


def parse_request(line: bytes) -> tuple[str, dict[str, Any]]:
    """Command and arguments of a request. Raises `RequestError` where the line is not a request."""
    try:
        request = json.loads(line, parse_constant=_refuse)
        command, arguments = request["command"], request.get("arguments") or {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        command, arguments = None, {}
    if not isinstance(command, str) or not isinstance(arguments, dict):
        raise RequestError('not a request: send {"command": "…", "arguments": {…}} on one line')
    return command, arguments


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def put_together(parts: Iterator[Any]) -> Any:
    """The whole result of an answer that came in parts."""
    whole: Any = next(parts, None)
    for part in parts:
        for key, value in part.items():
            if isinstance(value, list) and isinstance(whole.get(key), list):
                whole[key].extend(value)
            else:
                whole[key] = value
    return whole


def requests(command: str, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What to send for this: one request, or for a large rule base several, each answered; the last answer counts."""
    policy = arguments.get("policy")
    if command == "policy_install" and isinstance(policy, dict) and len(json.dumps(policy)) > PART_BYTES:
        for part in pieces(policy):
            yield {"command": "policy_part", "arguments": {"part": part}}
        arguments = {**arguments, "policy": remainder(policy)}
    yield {"command": command, "arguments": dict(arguments)}


def _divisible(section: Any) -> bool:
    return isinstance(section, (list, dict))


def remainder(policy: Mapping[str, Any]) -> dict[str, Any]:
    """What of a rule base is in none of its `pieces`."""
    return {name: section for name, section in policy.items() if not (_divisible(section) and section)}


def add_piece(policy: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Add a piece to what has come so far: the entries of a list are appended, the names of a mapping are added."""
    for name, section in piece.items():
        there = policy.get(name)
        if isinstance(there, list) and isinstance(section, list):
            there.extend(section)
        elif isinstance(there, dict) and isinstance(section, dict):
            there.update(section)
        else:
            policy[name] = section


def pieces(policy: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The sections of a rule base, in pieces of `PART_BYTES`, or of one entry where that is larger."""
    for name, section in policy.items():
        if not _divisible(section):
            continue
        piece: list[Any] = []
        size = 0
        for entry in section.items() if isinstance(section, dict) else section:
            length = len(json.dumps(entry))
            if piece and size + length > PART_BYTES:
                yield {name: type(section)(piece)}
                piece, size = [], 0
            piece.append(entry)
            size += length
        if piece:
            yield {name: type(section)(piece)}
