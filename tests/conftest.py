"""Fixtures for tests on real packets.

What a failed test leaves for the reader (logs, tables, rules, a lab's output) goes to the folder `evidence/`.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from harness import EVIDENCE, UpLab

from labs.python import python_command

# A shell that runs us in the background lets us ignore Ctrl-C, and every program that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

Document = dict[str, Any]
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
    lab.fwlab("up", "--name", lab.name)
    try:
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


@pytest.fixture(scope="session")
def run_lab(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Document]:
    """`fwlab run LAB --json`: its document. Each lab runs once a session, as a learner would run it."""

    @cache
    def run(lab: str) -> Document:
        file = tmp_path_factory.mktemp("labs") / f"{lab}.json"
        line = python_command("labs.cli", "run", lab, "--json", str(file))
        done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
        said = done.stdout + done.stderr
        if done.returncode != 0:
            EVIDENCE.mkdir(exist_ok=True)
            (EVIDENCE / f"{lab}.txt").write_text(said)
        assert done.returncode == 0, f"fwlab run {lab} ended with {done.returncode}:\n{said[-4000:]}"
        document: Document = json.loads(file.read_text())
        return document

    return run
