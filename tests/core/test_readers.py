"""Every file that an operator brings is read in one way: whatever is in it, the readers say what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from file_readers import ALL, Reader, told

from fwnode.files import FILE_MAX, LINE_MAX, FileError, load_yaml
from fwnode.yaml_reader import DEPTH_MAX


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


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: [x, 0x10, -1_000, 1.5, ~, no]\r\n")
    assert load_yaml(path) == {"a": 1, "b": ["x", 16, -1000, 1.5, None, False]}


