"""Text that may hold anything, as a line of a terminal or a log: what steers a terminal, or does not show, becomes an
escape. Pure."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text on one line, with `\\x1b` for an escape character and the like."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
