"""Fixtures for tests on real packets, and the order in which all tests run side by side.

What a failed test leaves for the reader (logs, tables, rules, a lab's output) goes to the folder `evidence/`.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from harness import EVIDENCE, UpLab
from hypothesis import settings
from properties import examples

from labs.python import python_command

# A shell that runs us in the background lets us ignore Ctrl-C and Ctrl-\, and every program that a test starts would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

settings.register_profile("suite", examples())
settings.load_profile("suite")

Document = dict[str, Any]
BUSY = ("test_bench_small.py", "test_bench_wire.py", "test_member_load.py", "test_large_policies.py")
"""Modules whose tests take a whole processor: one after the other, so that they do not starve the rest."""
TESTS = Path(__file__).parent
REAL = ("claims", "netns")
"""Folders of tests on real packets."""
_numbers = itertools.count(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.when == "call" and report.failed:  # type: ignore[attr-defined]
        for lab in getattr(item, "funcargs", {}).values():
            if isinstance(lab, UpLab):
                lab.keep_evidence(EVIDENCE / item.name)
    return report


@contextmanager
def _running_pair() -> Iterator[UpLab]:
    lab = UpLab(f"test-{os.getpid()}-{next(_numbers)}")
    try:
        lab.up()
        yield lab
    finally:
        lab.close()


@pytest.fixture
def pair() -> Iterator[UpLab]:
    """fw1 Active, fw2 Standby, both R77.30, the standard policy; for one test alone."""
    with _running_pair() as lab:
        yield lab


@pytest.fixture(scope="module")
def shared_pair() -> Iterator[UpLab]:
    """The same for tests of a module that leave it as they found it."""
    with _running_pair() as lab:
        yield lab


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for members and what computes take turns, so that there is always something to compute. What runs
    longest begins first; the short tests of `tests/core` fill the end."""
    waiting = sorted((item for item in items if _folder(item) in REAL), key=_rank)
    computing = [item for item in items if _folder(item) not in {*REAL, "core"}]
    place = {item: number / len(group) for group in (waiting, computing) for number, item in enumerate(group)}
    items[:] = [*sorted(place, key=place.__getitem__), *(item for item in items if _folder(item) == "core")]


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).parts[0]


def _rank(item: pytest.Item) -> int:
    return 0 if item.path.name in BUSY else 1 if "run_lab" in getattr(item, "fixturenames", []) else 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers: what shares a lab runs in one of them, and so do the short tests of a module."""
    from xdist.scheduler import LoadScopeScheduling

    class ByLab(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _together(nodeid)

    return ByLab(config, log)


def _together(nodeid: str) -> str:
    """Tests with the same answer run one after the other, in one worker."""
    path, _, test = nodeid.partition("::")
    if Path(path).name in BUSY:
        return "busy"
    if "/core/" in path or "/sweep/" in path:
        return path
    name, _, parameter = test.partition("[")
    text = _text(path)
    if any(word in text for word in ("shared_pair", 'scope="module"')):
        return path
    body = re.search(rf"^def {name}\(.*?(?=^def |\Z)", text, re.MULTILINE | re.DOTALL)
    if body is not None and (lab := re.search(r'run_lab\((?:"([^"]+)"|lab)\)', body[0])):
        return f"lab {lab[1] or parameter.rstrip(']')}"
    return nodeid


@cache
def _text(path: str) -> str:
    return (Path(__file__).parents[1] / path).read_text()


@pytest.fixture(scope="session")
def run_lab(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Document]:
    """`fwlab run LAB --json`: its document. Each lab runs once, as a learner would run it, for all who ask; and once
    more for who asks for another run of it, by `which`."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    @cache
    def run(lab: str, which: int = 1) -> Document:
        file = shared / f"lab-{lab}-{which}.json"
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                _run(lab, file)
        document: Document = json.loads(file.read_text())
        return document

    return run


def _run(lab: str, file: Path) -> None:
    result = file.with_suffix(".new")
    line = python_command("labs.cli", "run", lab, "--json", str(result))
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    if done.returncode != 0:
        EVIDENCE.mkdir(exist_ok=True)
        (EVIDENCE / f"{lab}.txt").write_text(said)
    assert done.returncode == 0, f"fwlab run {lab} ended with {done.returncode}:\n{said[-4000:]}"
    result.replace(file)
