"""`fwctl` without a member: help, hints, and what of a name reaches the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from fwnode.control import cli, render
from fwnode.printable import printable


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: list(words))
    code = ended.value.code
    seen = capsys.readouterr()
    return code if isinstance(code, int) else 0, seen.out + seen.err


@pytest.mark.parametrize(("words", "shown"), [
    (["sync", "--help"], "compare"),
    (["sync"], "compare"),
    (["sync", "compare", "-h"], "0: equal; 1: they differ"),
    (["ctl", "--help"], "Kernel parameters"),
    (["policy", "install", "--help"], "a bad file changes nothing"),
    (["tab", "--help"], "The connections table"),
    (["--lab", "a", "sync", "--help"], "compare"),
    (["fw1", "sync", "--help"], "compare"),
])  # fmt: skip
def test_help_of_a_command_is_its_own_with_or_without_a_member(
    capsys: pytest.CaptureFixture[str], words: list[str], shown: str
) -> None:
    code, text = said(capsys, *words)
    assert code in (0, 2) and shown in text
    assert "Ask a firewall member, or tell it what to do." not in text


@pytest.mark.parametrize(("words", "shown"), [
    (["stat"], "name the member first: `fwctl fw1 stat`"),
    (["ctl", "get"], "name the member first: `fwctl fw1 ctl get`"),
    (["fw1", "ctl", "get", "tcp_end_timeout"], "write `ctl get int tcp_end_timeout`"),
    (["fw1", "ctl", "get", "string", "tcp_end_timeout"], "write `ctl get int tcp_end_timeout`"),
    (["fw1", "ctl", "set", "tcp_end_timeout", "5", "6"], "write `ctl set int tcp_end_timeout VALUE`"),
    (["fw1", "stta"], "Did you mean 'stat'"),
])  # fmt: skip
def test_a_slip_is_told_with_what_to_write(capsys: pytest.CaptureFixture[str], words: list[str], shown: str) -> None:
    code, text = said(capsys, *words)
    assert code == 2
    assert shown in " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize(("text", "shown"), [("", "is nothing"), ("# rules", "is nothing"), ("[]", "is []")])
def test_a_file_that_is_no_rule_base_is_told_by_its_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, shown: str
) -> None:
    (file := tmp_path / "rules.yaml").write_text(text)
    code, told = said(capsys, "fw1", "policy", "install", str(file))
    assert (code, told) == (2, f"fwctl: {file}: must be a mapping of keys to values, {shown}\n")


def test_what_steers_a_terminal_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("ä standard – name") == "ä standard – name"
    assert printable("a\x1b[2J\x9b\r\n\ud800\u202e") == r"a\x1b[2J\x9b\r\n\ud800\u202e"
    cli._print({"name": "\x1b]0;owned\x07"}, False, render.status)
    assert capsys.readouterr().out == "name: \\x1b]0;owned\\x07\n"
    said_, text = said(capsys, "fw1\x1b[31m", "stat", "--lab", "none\x1b[0m")
    assert said_ == 2 and "\x1b" not in text


def test_the_status_is_a_line_for_each_figure() -> None:
    data = {"ready": True, "state": "Active", "reason": "", "uptime_s": 1.23456, "full_sync": {"state": "none", "n": 0},
            "peers": {"fw2": {"status": "OK"}}, "refused_messages": {}, "list": [1, 2]}  # fmt: skip
    assert list(render.status(data)) == [
        "ready: yes", "state: Active", "reason: -", "uptime_s: 1.235", "full_sync:", "    state: none", "    n: 0",
        "peers:", "    fw2:", "        status: OK", "refused_messages: none", "list: 1, 2",
    ]  # fmt: skip


def test_the_summary_of_a_large_table_keeps_its_columns_apart() -> None:
    data = {"name": "connections", "id": 8158, "values": 1_000_000, "peak": 1_234_567, "links": 10_000_000}
    header, values = render.tab_summary(data)
    assert values.split() == ["localhost", "connections", "8158", "1000000", "1234567", "10000000"]
    assert header.split() == ["HOST", "NAME", "ID", "#VALS", "#PEAK", "#SLINKS"]
