"""Decisions are pure and packages point one way, read from the sources: an import inside a function counts too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE = ("syncproto", "fwnode/firewall", "fwnode/cluster")
IMPURE = {"socket", "selectors", "select", "time", "random", "asyncio", "threading", "os", "subprocess", "scapy"}
MEMBER = "fwnode.member"
READERS = {"fwnode.files"}
"""What reads people's files for the configuration, whose model the member knows."""
ALLOWED = {"syncproto": set[str](), "fwnode": {"syncproto"}, "labs": {"fwnode", "syncproto"}}
"""Packages of ours that a package may import besides itself."""
ALIKE = {
    "cli": "the commands of a room, which its package names",
    "errors": "the exceptions of a package; syncproto's alone are raised by a pure room",
    "firewall": "the room, and the class that it is about",
    "simulation": "the room, and its figures: a module of labs.bench has the name of what it measures",
}
"""Names that two modules or packages may share, and why."""


def imports(source: str) -> Iterator[str]:
    """Top-level names of the modules that a source imports, wherever in it, by statement or by name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "import_module",
                                                                      "importlib.import_module"):  # fmt: skip
            yield from (str(a.value).partition(".")[0] for a in node.args[:1] if isinstance(a, ast.Constant))


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"{folder} has no sources: has it moved?"
    return found


@pytest.mark.parametrize("folder", PURE)
def test_decisions_touch_no_socket_clock_chance_or_thread(folder: str) -> None:
    impure = {str(p.relative_to(ROOT)): sorted(IMPURE & set(imports(p.read_text()))) for p in sources(folder)}
    assert {path: names for path, names in impure.items() if names} == {}


def test_a_simulated_world_has_no_clock_thread_socket_or_process_of_the_machine() -> None:
    """Its one source of chance is `random.Random(seed)`, and asyncio runs on its own loop."""
    machine = {"time", "threading", "socket", "subprocess", "selectors", "select", "multiprocessing", "secrets"}
    used = {p.name: sorted(machine & set(imports(p.read_text()))) for p in sources("labs/simulation")}
    assert {path: names for path, names in used.items() if names} == {}


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_point_one_way(package: str) -> None:
    forbidden = set(ALLOWED) | {"tests"}
    forbidden -= ALLOWED[package] | {package}
    against = {str(p.relative_to(ROOT)): sorted(forbidden & set(imports(p.read_text()))) for p in sources(package)}
    assert {path: names for path, names in against.items() if names} == {}


def test_the_pure_rooms_of_the_member_know_nothing_of_its_edges() -> None:
    allowed = ("fwnode.firewall", "fwnode.cluster", "syncproto")
    for folder in PURE[1:]:
        for path in sources(folder):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    module = node.module or ""
                    assert node.level < 2, f"{path}: reaches out of its room"
                    assert not module.startswith("fwnode") or module.startswith(allowed), f"{path}: imports {module}"


def ours(path: Path) -> Iterator[str]:
    """Our own modules that a module imports, wherever in it; under `TYPE_CHECKING`, too."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
            names = [name if module_path(name) else module for name in names]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in ALLOWED and module_path(name))


def module_path(name: str) -> Path | None:
    stem = ROOT.joinpath(*name.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.exists()), None)


@cache
def graph() -> dict[str, frozenset[str]]:
    """Each of our modules, and those that it imports."""
    found = {}
    for package in ALLOWED:
        for path in sources(package):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = frozenset(ours(path)) - {name}
    return found


def reached(start: str) -> set[str]:
    """The modules that come with this one, and itself."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph()[name]
    return seen


def test_the_member_and_all_that_comes_with_it_is_pure() -> None:
    names = reached(MEMBER) - READERS
    assert {"fwnode.core", "fwnode.edges", "fwnode.synchronising", "fwnode.control.commands"} <= names
    rooms = {name for name in names if name.startswith(("fwnode.datapath", "fwnode.links", "fwnode.control.server"))}
    assert rooms == set()
    impure = {name: IMPURE & set(imports(path.read_text())) for name in names if (path := module_path(name))}
    assert {name: found for name, found in impure.items() if found} == {}


def test_no_modules_import_one_another_in_a_circle() -> None:
    """Also for types alone: what needs the other's types cannot be read, moved or tested without it."""
    reach = {name: set[str]().union(*(reached(other) for other in imported)) for name, imported in graph().items()}
    circles = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph()} - {frozenset()}
    assert {", ".join(sorted(circle)) for circle in circles} == set()


def public_names(source: str) -> Iterator[str]:
    """Classes and types that a module defines for others."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name[0].isupper() and not name.isupper():
                yield name


def test_a_name_stands_for_one_thing() -> None:
    """In an import, a traceback or a sentence nothing else tells which `State` or which `tcp.py` is meant."""
    modules: dict[str, list[str]] = {}
    types: dict[str, list[str]] = {}
    for module in graph():
        modules.setdefault(module.rpartition(".")[2], []).append(module)
        path = module_path(module)
        assert path is not None
        for name in public_names(path.read_text()):
            if not name.startswith("_"):
                types.setdefault(name, []).append(module)
    assert {name: which for name, which in modules.items() if len(which) > 1 and name not in ALIKE} == {}
    assert {name: which for name, which in types.items() if len(which) > 1 and len(name) > 1} == {}
    assert {name for name in ALIKE if len(modules[name]) < 2} == set()


def test_the_reader_of_imports_sees_them_wherever_they_hide() -> None:
    text = """
import os.path as p
from scapy.all import IP
from . import time
def f():
    import socket
    if True:
        from random import choice
        __import__("threading")
        importlib.import_module("asyncio.events")
"""
    assert set(imports(text)) == {"os", "scapy", "socket", "random", "threading", "asyncio"}
