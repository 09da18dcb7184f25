"""Fixtures for tests on real packets.

What a failed test leaves for the reader (logs, tables, rules, a lab's output) goes to the folder `evidence/`.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from harness import EVIDENCE, UpLab

Document = dict[str, Any]
_numbers = itertools.count(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.when == "call" and report.failed:  # type: ignore[attr-defined]
        lab = getattr(item, "funcargs", {}).get("pair")
        if isinstance(lab, UpLab):
            lab.keep_evidence(EVIDENCE / item.name)
    return report


@pytest.fixture
def start_pair() -> Iterator[Callable[..., UpLab]]:
    """Starts pairs with options of `fwlab up`; they go when the test is over."""
    labs: list[UpLab] = []

    def start(*arguments: str) -> UpLab:
        lab = UpLab(f"test-{os.getpid()}-{next(_numbers)}")
        lab.fwlab("up", "--name", lab.name, *arguments)
        labs.append(lab)
        return lab

    yield start
    for lab in labs:
        lab.close()


@pytest.fixture
def pair(start_pair: Callable[..., UpLab]) -> UpLab:
    """fw1 Active, fw2 Standby, both R77.30, the standard policy."""
    return start_pair()


@pytest.fixture(scope="session")
def run_lab(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Document]:
    """`fwlab run LAB --json`: its document. Each lab runs once a session, as a learner would run it."""

    @cache
    def run(lab: str) -> Document:
        file = tmp_path_factory.mktemp("labs") / f"{lab}.json"
        line = [sys.executable, "-m", "labs.cli", "run", lab, "--json", str(file)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
        said = done.stdout + done.stderr
        if done.returncode != 0:
            EVIDENCE.mkdir(exist_ok=True)
            (EVIDENCE / f"{lab}.txt").write_text(said)
        assert done.returncode == 0, f"fwlab run {lab} ended with {done.returncode}:\n{said[-4000:]}"
        document: Document = json.loads(file.read_text())
        return document

    return run
