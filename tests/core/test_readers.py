"""Every file that an operator brings is read in one way: whatever is in it, the readers say what is wrong with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from properties import examples

from fwnode.configuration import load as load_configuration
from fwnode.configuration import load_releases
from fwnode.files import FILE_MAX, LINE_MAX, PROBLEMS_SHOWN, FileError, load_yaml
from fwnode.policy_file import build_policy
from fwnode.yaml_reader import DEPTH_MAX, read
from labs.network.topology import load_topology
from labs.procedure.model import load as load_lab

Reader = Callable[[Path], object]

READERS: dict[str, Reader] = {
    "lab": load_lab,
    "policy": lambda path: build_policy(load_yaml(path), str(path), frozenset({"fw1", "fw2"})),
    "topology": load_topology,
    "releases": lambda path: load_releases(str(path)),
    "configuration": load_configuration,
}
ALL = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)


def told(path: Path, text: str | bytes, reader: Reader) -> list[str]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileError) as error:
        reader(path)
    return str(error.value).splitlines()


@ALL
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nname: b\n", "line 2, column 1: the key 'name' is written twice; remove one"),
        ("a:\n  - {b: 1, c: 2, b: 3}\n", "line 2, column 18: a[0]: the key 'b' is written twice; remove one"),
        ("rules: []\n'rules': []\n", "line 2, column 1: the key 'rules' is written twice"),
        ("when: 2026-01-31\n", "line 1, column 7: when: '2026-01-31' is a date to YAML; put it in quotes"),
        ("a: !!set {b, c}\n", "line 1, column 4: a: tags ('!!set') are not read; remove it"),
        ("a: !!binary aGVsbG8=\n", "line 1, column 4: a: tags ('!!binary') are not read"),
        ("a: !!python/object:os.system x\n", "tags ('!!python/object:os.system') are not read"),
        ("a: .nan\n", "line 1, column 4: a: '.nan' is no finite number; write one"),
        ("a: -.inf\n", "a: '-.inf' is no finite number"),
        ("a: 1.0e+999\n", "a: '1.0e+999' is no finite number"),
        ("a: 0x_\n", "a: '0x_' is no finite number"),
        ("a: " + "9" * 20_000, "is a number of 20,000 digits; write at most 18"),
        ("a: 12:30\n", "a: '12:30' is a number to the base of sixty to YAML; put it in quotes"),
        ("a: 0777\n", "a: '0777' is an octal number to YAML"),
        ("1: a\n", "line 1, column 1: the key '1' is not text; put it in quotes"),
        ("on: a\n", "the key 'on' is not text; put it in quotes"),
        ("? [a]\n: b\n", "is not text; put it in quotes"),
        ("a: &x [1]\nb: *x\n", "line 2, column 4: b: aliases (*name) are not read: write it out"),
        ("<<: {a: 1}\n", "merge keys (<<) are not read"),
        ('a: "\\e[31mred"\n', "line 1, column 4: a: the text has the control character '\\x1b'; remove it"),
        ('a: "\\0"\n', "the text has the control character '\\x00'"),
        ("a: \x1b[31mred\n", "line 1, column 4: the control character '\\x1b'; remove it"),
        (b"a: \x00\n", "the control character '\\x00'"),
        (b"a: \xff\n", "is not text: byte 3 is not UTF-8; save the file as UTF-8"),
        ("a: 1\n".encode("utf-16"), "is not text: byte 0 is not UTF-8"),
        (b'a: "\\ud800"\n', "line 1, column 7: found invalid Unicode character escape code"),
        (b"a: \xed\xa0\x80\n", "is not text"),
        ("a: " + "[" * (DEPTH_MAX + 1), f"is nested too deeply, over {DEPTH_MAX} levels"),
        ("a: 1\n---\nb: 2\n", "a second document begins; a file holds one"),
        ("a: [1\n", "line 2, column 1: did not find expected ',' or ']'"),
        ("", ""),
        ("- a\n", ""),
        ("text\n", ""),
    ],
)
def test_a_broken_file_is_told_by_place_key_and_remedy(reader: Reader, text: str | bytes, words: str,
                                                       tmp_path: Path) -> None:  # fmt: skip
    path = tmp_path / "broken.yaml"
    lines = told(path, text, reader)
    assert all(line.startswith(f"{path}: ") for line in lines), lines
    assert any(words in line for line in lines), lines
    assert max(map(len, lines)) <= LINE_MAX


@ALL
def test_what_is_no_file_is_told_at_once(reader: Reader, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(FILE_MAX + 1)
    for path, words in {
        tmp_path: "is a folder; name a file",
        tmp_path / "pipe.yaml": "is no regular file",
        Path("/dev/zero"): "is no regular file",
        tmp_path / "none.yaml": "cannot be read: No such file",
        tmp_path / ("x" * 300): "cannot be read: File name too long",
        Path("no\0file.yaml"): "cannot be read: no file can have this name",
        large: f"has more than {FILE_MAX:,} bytes",
    }.items():
        with pytest.raises(FileError) as error:
            reader(path)
        assert words in str(error.value), (path, str(error.value))


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


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: [x, 0x10, -1_000, 1.5, ~, no]\r\n")
    assert load_yaml(path) == {"a": 1, "b": ["x", 16, -1000, 1.5, None, False]}


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
