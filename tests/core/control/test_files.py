"""Files that people write, and those that somebody wrote to hurt."""

from __future__ import annotations

from pathlib import Path

import pytest

from fwnode.files import FileError, load_yaml


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("b: " + "[" * 1200, "is nested too deeply"),
        ("a: &x [1]\nb: *x\n", "aliases (*name) are not read"),
        ("a: [1\n", "expected ',' or ']'"),
        ("a: 2026-99-99\n", "a: '2026-99-99' is a date to YAML; put it in quotes"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises(FileError) as caught:
        load_yaml(file)
    assert problem in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read: No such file"):
        load_yaml(tmp_path / "none.yaml")
