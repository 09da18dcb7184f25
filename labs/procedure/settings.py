"""Keys of a lab file set to other values: `members.fw2.release=R80.10`, `steps.6.wait=4s`, `members=3`.

A key is written with dots. Steps count from 0, as in the messages of `fwlab check`; `steps[6].wait` is the same key. It
is one that the file has, or one that it could have there; any other is refused, with what may have been meant. Values
are read as YAML.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fwnode.explain import listed, shown
from fwnode.files import FileError, load_yaml
from fwnode.firewall.parameters import PARAMETERS
from fwnode.yaml_reader import ReadError, read
from labs.network.topology import TopologyCluster, load_topology
from labs.procedure.model import BESIDE_A_VERB, Clock, Header, LabFile, LabFileMember, Reading
from labs.procedure.problems import LabFileError
from labs.procedure.verbs import VERBS
from labs.traffic.workload import KINDS, AnyWorkload

MEMBERS = "members"
"""As a key with a number: so many members. Those that come to it have the last one's settings, and a step that names
every member names them, too."""

Settings = Mapping[str, Any]
Tree = dict[str, Any]
_INDEX = re.compile(r"\[([0-9]+)\]")
_WORKLOADS: dict[str, type[BaseModel]] = dict(zip(KINDS, AnyWorkload.__args__, strict=True))


class KeyProblem(ValueError):
    """A key that a lab file cannot have, or a value that cannot be read; the text says what to write."""


def parse(setting: str) -> tuple[str, list[Any]]:
    """`key=v1,v2`: the key, and its values. A value with a comma in it is put in quotes or brackets, as in YAML."""
    key, equals, text = setting.partition("=")
    if not equals or not key or not text.strip():
        raise KeyProblem(f"{setting}: write a key, = and a value, such as members.fw2.release=R80.10")
    try:
        values = read(f"[{text}]".encode())
    except ReadError as error:
        raise KeyProblem(f"{key}: {error.problems[0].partition(': ')[2] or error.problems[0]}") from None
    if not isinstance(values, list):
        raise KeyProblem(f"{key}: {shown(text)} is no value; put it in quotes")
    return key, values


def written(settings: Settings) -> list[str]:
    """As they are written on a command line, one a key."""
    return [f"{key}={value if isinstance(value, str) and _is_plain(value) else json.dumps(value)}"
            for key, value in settings.items()]  # fmt: skip


def load_set(path: Path, settings: Settings, name: str | None = None) -> LabFile:
    """The lab of a file with these settings; FileError tells all that is wrong with it."""
    return Reading(path, name).lab(alter(load_yaml(path), path, settings))


def alter(data: Any, path: Path, settings: Settings) -> Any:
    """A lab file's data with these settings, which needs no other files but its table of releases."""
    if not settings or not isinstance(data, dict):
        return data
    data = enclose(data, path.parent)
    problems = []
    for key, value in settings.items():
        try:
            if key == MEMBERS and not isinstance(value, Mapping):
                data = _count_members(data, value)
            else:
                _put(data, find(data, key), value)
        except KeyProblem as problem:
            problems.append(str(problem))
    if problems:
        raise LabFileError(str(path), problems)
    return enclose(data, path.parent)


def enclose(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same lab in one file, its steps in their long form. What cannot be read is left for the check to tell."""
    data = copy.deepcopy(data)
    policy, topology = data.get("policy"), data.get("topology", Header.model_fields["topology"].default)
    if isinstance(policy, str):
        data["policy"] = _read(folder / policy, policy)
    if isinstance(topology, str):
        is_file = topology.endswith((".yaml", ".yml"))
        data["topology"] = _read(folder / topology, topology) if is_file else {"base": topology}
    data["steps"] = [_long(step, folder) for step in _listed(data.get("steps"))]
    return data


def _long(step: Any, folder: Path) -> Any:
    step = {step: None} if isinstance(step, str) else step
    if not isinstance(step, dict):
        return step
    step = {key: VERBS[key].fill(value) if key in VERBS else value for key, value in step.items()}
    policy = step.get("policy")
    for key in (key for key in ("file", "policy") if isinstance(_mapping(policy).get(key), str)):
        policy["rules"] = _read(folder / policy[key], policy.pop(key))
    return step


def _read(file: Path, otherwise: str) -> Any:
    try:
        return load_yaml(file)
    except FileError:
        return otherwise


# -- keys


def find(data: Mapping[str, Any], key: str) -> list[str]:
    """The parts of a key that this lab can have; KeyProblem for another one."""
    here, gone = settable(data), list[str]()
    for part in _INDEX.sub(r".\1", key).split("."):
        if part not in here:
            raise KeyProblem(_unknown(data, gone, part, here))
        here = here[part]
        gone.append(part)
    return gone


def settable(data: Mapping[str, Any]) -> Tree:
    """Everything that can be set in a lab that was enclosed: what it has, and what its models would take."""
    tree = _branches(data)
    _grow(tree, Header)
    _grow(tree["clock"], Clock)
    tree["topology"].setdefault("members", {})
    _grow(tree["topology"].setdefault("cluster", {}), TopologyCluster)
    for member in tree.setdefault("members", {}).values():
        _grow(member, LabFileMember)
        member["parameters"].update({name: {} for name in PARAMETERS if name not in member["parameters"]})
    for name, workload in _mapping(data.get("workloads")).items():
        kind = _mapping(workload).get("kind")
        if kind in _WORKLOADS:
            _grow(tree["workloads"][name], _WORKLOADS[kind])
    for step in tree["steps"].values():
        for verb in VERBS.keys() & step.keys():
            _grow(step[verb], VERBS[verb].model)
        step.update({key: {} for key in BESIDE_A_VERB if key not in step})
    return tree


def _branches(value: Any) -> Tree:
    if isinstance(value, Mapping):
        return {str(key): _branches(beneath) for key, beneath in value.items()}
    return {str(index): _branches(beneath) for index, beneath in enumerate(_listed(value))}


def _grow(tree: Tree, model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        tree.setdefault(field.alias or name, {})


def _unknown(data: Mapping[str, Any], gone: list[str], part: str, known: Tree) -> str:
    key = ".".join([*gone, part])
    if len(gone) == 2 and gone[0] == "steps":
        places = [f"steps.{index}.{part}" for index, step in enumerate(data["steps"]) if part in _mapping(step)]
        has = " and ".join(verb for verb in data["steps"][int(gone[1])] if verb in VERBS)
        if places:
            return f"{key}: this step is {has}; did you mean {_alternatives(places)}?"
    if gone == ["steps"]:
        return f"{key}: there is no such step; they count from 0 to {len(known) - 1}"
    near = difflib.get_close_matches(part, known, 1)
    if near:
        return f"{key}: there is no such key; did you mean {'.'.join([*gone, near[0]])}?"
    there = ".".join(gone) or "a lab file"
    return f"{key}: {there} has " + (f"no key {part!r}; known: {listed(known)}" if known else "no keys beneath it")


def _alternatives(keys: list[str]) -> str:
    shown_keys = keys[:5]
    return shown_keys[0] if len(keys) == 1 else f"{', '.join(shown_keys[:-1])} or {shown_keys[-1]}"


def _put(data: dict[str, Any], parts: list[str], value: Any) -> None:
    """What lies on the way and is not there yet is made."""
    here: Any = data
    for part in parts[:-1]:
        if isinstance(here, list):
            here = here[int(part)]
            continue
        if here.get(part) is None:
            here[part] = {}
        here = here[part]
    here[int(parts[-1]) if isinstance(here, list) else parts[-1]] = copy.deepcopy(value)


def _count_members(data: dict[str, Any], count: Any) -> dict[str, Any]:
    topology = {**_mapping(data["topology"]), "members": count}
    try:
        names = load_topology(topology).members
    except FileError as error:
        raise KeyProblem("\n".join(error.problems)) from None
    old = list(_mapping(data.get("members")))
    last = data["members"][old[-1]] if old else {}
    members = {name: copy.deepcopy(data["members"].get(name, last)) for name in names}
    steps = [{verb: _for_all(verb, what, old, names) for verb, what in step.items()} for step in data["steps"]]
    return {**data, "topology": topology, "members": members, "steps": steps}


def _for_all(verb: str, what: Any, old: Iterable[str], new: list[str]) -> Any:
    """A step that names every member names every one of the new ones."""
    if verb not in VERBS or not isinstance(what, dict):
        return what
    every = {key for key in ("member", "members") if sorted(map(str, _listed(what.get(key)))) == sorted(old)}
    return {key: list(new) if key in every else value for key, value in what.items()}


def _is_plain(text: str) -> bool:
    """Whether it reads as the same text without quotes."""
    try:
        return bool(read(f"[{text}]".encode()) == [text])
    except ReadError:
        return False


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
