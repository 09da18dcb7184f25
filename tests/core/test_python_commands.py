"""No process of a lab looks for its code in the directory that the person happens to stand in."""

import ast
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for package in ("fwnode", "labs", "syncproto") for path in (ROOT / package).rglob("*.py"))
SAFE = {"-P", "-I"}
"""Options without which Python puts the current directory, or the script's, first."""


def unsafe_commands(source: str) -> list[int]:
    """Lines of the lists and tuples that begin a Python command line without one of the safe options behind it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.List | ast.Tuple):
            for word, following in zip_longest(node.elts, node.elts[1:]):
                option = following.value if isinstance(following, ast.Constant) else None
                if ast.unparse(word) == "sys.executable" and option not in SAFE:
                    found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_is_started_without_the_current_directory(path):
    assert unsafe_commands(path.read_text()) == [], "use labs.python.python_command"


def test_this_test_sees_what_it_looks_for():
    assert unsafe_commands('x = [sys.executable, "-m", "labs.cli"]') == [1]
    assert unsafe_commands('x = ["env", sys.executable, "-P", "-m", "labs.cli"]') == []
