"""Files as large as they may be: read, or refused, in seconds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from file_readers import ALL, GOOD, MEMBERS, Reader, told

from fwnode.files import PROBLEMS_SHOWN, load_yaml
from fwnode.policy_file import RULES_MAX, build_policy
from labs.procedure.model import load
from labs.procedure.problems import LabFileError


def test_a_hundred_thousand_rules_are_read(tmp_path: Path) -> None:
    rules = "".join(f"  - {{name: rule {n}, source: inside, destination: 198.51.{n >> 8 & 255}.{n & 255}, "
                    f"service: [http, https], action: accept, track: log}}\n" for n in range(RULES_MAX))  # fmt: skip
    path = tmp_path / "large.yaml"
    path.write_text(f"name: large\nnetworks: {{inside: [192.0.2.0/24]}}\nrules:\n{rules}")
    policy = build_policy(load_yaml(path), str(path), MEMBERS)
    assert len(policy.rules) == RULES_MAX
    assert policy.rules[-1].name == f"rule {RULES_MAX - 1}"


@pytest.mark.parametrize("section", ["expect", "steps"])
def test_a_hundred_thousand_wrong_lines_are_told_in_seconds(tmp_path: Path, section: str) -> None:
    wrong = {"expect": {"that": "workloads.databse.survved", "is": 3}, "steps": {"kil": "fw1"}}[section]
    path = tmp_path / "lab.yaml"
    path.write_text(json.dumps({**GOOD, section: [wrong] * 100_000}))
    with pytest.raises(LabFileError) as raised:
        load(path)
    assert len(raised.value.problems) >= 100_000
    assert len(str(raised.value)) < 20_000


@ALL
def test_of_very_many_problems_the_first_and_a_count_are_told(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    begun = time.process_time()
    lines = told(path, "".join(f"key{number}: 1\n" for number in range(100_000)), reader)
    assert len(lines) == PROBLEMS_SHOWN + 1
    assert lines[-1].startswith("… and ") and lines[-1].endswith(" more problems")
    assert len("\n".join(lines)) < 10_000
    assert time.process_time() - begun < 30  # minutes, where each word is compared with every legal one


@ALL
def test_two_megabytes_of_numbers_are_refused_in_seconds(reader: Reader, tmp_path: Path) -> None:
    begun = time.process_time()
    told(tmp_path / "numbers.yaml", "claims: [" + "1, " * 700_000 + "1]\n", reader)
    assert time.process_time() - begun < 15
