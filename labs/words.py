"""The words of a command line before the parser sees them, what somebody may have meant by a wrong one, and counts in
words."""

from collections.abc import Iterable
from difflib import get_close_matches

PASS_ON = ("exec", "do")
"""Commands that take options behind their first word for somebody else's: a program's in a node, or a step's."""


def lab_first(words: list[str]) -> list[str]:
    """`--lab NAME` may stand behind the node or the step as well; the parser wants it before them. What belongs to a
    program in a node is left alone: all from `--` on, or from the word behind the node on."""
    command, *rest = words or [""]
    if command not in PASS_ON:
        return words
    for index, word in enumerate(rest):
        length = 1 if word.startswith("--lab=") else 2 if word == "--lab" else 0
        if length:
            return [command, *rest[index : index + length], *rest[:index], *rest[index + length :]]
        if word == "--" or (command == "exec" and index > 0):
            break
    return words


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean x?`, or nothing where nothing is like it."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def counted(number: int, noun: str) -> str:
    """`1 session`, `2,000 sessions`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
