"""Any bytes and any structure as a file: the readers read it or say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from file_readers import ALL, Reader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from properties import examples

from fwnode.files import LINE_MAX, FileError
from fwnode.policy_file import build_policy
from fwnode.yaml_reader import read

WORDS = st.sampled_from([
    "name", "rules", "members", "fw1", "fw2", "switches", "hosts", "networks", "source", "service", "services",
    "action", "accept", "title", "shows", "steps", "start", "wait", "until", "that", "is", "workloads", "kind",
    "sessions", "port", "count", "policy", "releases", "version", "R80.10", "schema", "between", "exchange",
    "cluster", "interfaces", "member", "release", "clock", "rate", "parameters", "base", "pair", "192.0.2.0/24",
    "25s", "topology", "expect", "virtual", "defaults", "control", "tcp_session_timeout", "key", "limit", "links",
    "set", "check", "seconds", "at_least",
])  # fmt: skip
PLAIN = (st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS | st.binary(max_size=4)
         | st.dates() | st.sampled_from([10**400, "9" * 5000, "\ud800", "[/x]", "\x1b[0m", -1, 0, "a" * 200]))
TREES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | PLAIN, inner, max_size=5), max_leaves=25
)
DOCUMENTS = st.dictionaries(WORDS | st.text(max_size=4), TREES, max_size=8) | TREES
QUICK = settings(examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])


def must_read_or_say(reader: Reader, path: Path) -> None:
    try:
        reader(path)
    except FileError as error:
        assert error.problems
        lines = str(error).splitlines()
        assert lines and all(line.isprintable() and len(line) <= LINE_MAX for line in lines)
        assert all(line.startswith((f"{path}: ", "… and ")) for line in lines), lines


@ALL
@QUICK
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="replace")))
def test_any_bytes_are_read_or_refused(reader: Reader, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(data)
    must_read_or_say(reader, path)


@ALL
@QUICK
@given(document=DOCUMENTS)
def test_any_structure_is_read_or_refused(reader: Reader, tmp_path: Path, document: Any) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(yaml.dump(document, sort_keys=False).encode(errors="replace"))
    must_read_or_say(reader, path)


@QUICK
@given(document=DOCUMENTS)
def test_any_object_that_a_socket_brings_is_a_policy_or_refused(document: Any) -> None:
    """JSON carries what the reader of files keeps out: surrogates, numbers that are not finite, huge ones."""
    try:
        build_policy(document, "rules.yaml")
    except FileError as error:
        assert all(line.isprintable() for line in str(error).splitlines())


@examples(200)
@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc _:#'\"-", max_size=6), inner, max_size=4),
    max_leaves=20,
))  # fmt: skip
def test_what_is_written_is_read(document: Any) -> None:
    assert read(yaml.safe_dump(document, allow_unicode=True).encode()) == document
