"""What a run's document becomes: the sentence for each shape of outcome, the terminal's tables, JUnit."""

import copy
import io
from typing import Any
from xml.etree import ElementTree

from rich.console import Console

from labs.procedure import catalog
from labs.procedure.document import EMPTY_STATUS, Entry
from labs.procedure.model import load
from labs.report import junit, terminal
from labs.report.sentence import sentence


def workload(kind: str = "sessions", **fates: int) -> dict[str, Any]:
    names = ("survived", "hung", "reset", "refused", "finished")
    return {"kind": kind, "sessions": sum(fates.values()), "open": 0, **dict.fromkeys(names, 0), **fates,
            "longest_silence_s": 1.25}  # fmt: skip


def member(release: str = "R77.30", **keys: Any) -> dict[str, Any]:
    return {"state": "Active", "release": release, "running": True, "connections": 0, "peak": 0, "learned": 0,
            "synced_full": 0, "synced_delta": 0, "full_sync": EMPTY_STATUS["full_sync"], "healed": 0,
            "blocking": EMPTY_STATUS["blocking"], "counters": EMPTY_STATUS["counters"], **keys}  # fmt: skip


def takeover(knew: int, had: int, sync: str = "OK", exchange: str = "full", release: str = "R77.30",
             full_sync: str = "") -> dict[str, Any]:  # fmt: skip
    return {"taker": "fw2", "former": "fw1", "release": release, "taker_connections": knew, "former_connections": had,
            "sync": sync, "exchange": exchange, "full_sync": full_sync}  # fmt: skip


def document(**keys: Any) -> dict[str, Any]:
    return {"lab": "x", "problem": "", "verdict": "pass", "seconds": 9.5, "workloads": {}, "takeovers": [],
            "members": {"fw1": member(), "fw2": member()}, "drops": {"fw1": {}, "fw2": {}}, "expectations": [],
            "differences": None, "comparisons": [],
            **keys}  # fmt: skip


def test_all_hang() -> None:
    text = sentence(
        document(
            workloads={"database": workload(hung=200), "new": workload("short", finished=40)},
            members={"fw1": member(), "fw2": member("R80.10")},
            takeovers=[takeover(0, 200, "Off - Release version mismatch", "nothing", "R80.10")],
            drops={"fw1": {}, "fw2": {"OUT_OF_STATE": 812}},
        )
    )
    assert text == (
        "All 200 sessions of `database` hung; fw2 (R80.10) took over knowing none of the 200 connections of fw1, "
        "because sync was off (Release version mismatch); fw2 dropped 812 packets as out of state without telling "
        "anyone; "
        "40 of 40 short connections of `new` worked."
    )


def test_a_member_that_took_over_with_part_of_a_table() -> None:
    took = "took 2,176 of 2,500 (87 %); 324 connections of fw1 are missing"
    text = sentence(document(takeovers=[takeover(2100, 2500, full_sync=took)]))
    assert text == (
        "Fw2 (R77.30) took over knowing 2,100 of the 2,500 connections of fw1, because its full sync did not bring the "
        "whole table: it took 2,176 of 2,500 (87 %); 324 connections of fw1 are missing."
    )
    failed = {"state": "failed", "reason": "Connection to remote member timed-out", "text": took}
    text = sentence(document(members={"fw1": member(), "fw2": member(full_sync=failed)}))
    assert text.startswith(
        "Full sync of fw2 failed (Connection to remote member timed-out) (it took 2,176 of 2,500 (87 %); 324 "
        "connections of fw1 are missing) while delta sync went on"
    )


def test_all_go_on() -> None:
    workloads = {"a": workload(survived=2), "b": workload(survived=1)}
    text = sentence(document(workloads=workloads, takeovers=[takeover(3, 3)]))
    assert text == (
        "All 2 sessions of `a` and the one session of `b` went on; fw2 (R77.30) took over knowing all of the 3 "
        "connections of fw1, because they were synchronised."
    )


def test_learned() -> None:
    text = sentence(
        document(
            workloads={"database": workload(survived=200), "idle": workload(hung=20)},
            members={"fw1": member(), "fw2": member(learned=200)},
            takeovers=[takeover(0, 220, "Off - Release version mismatch", "nothing")],
            drops={"fw1": {}, "fw2": {"OUT_OF_STATE": 1}},
        )
    )
    assert "All 200 sessions of `database` went on and all 20 sessions of `idle` hung" in text
    assert "fw2 learned 200 connections from packets that it would otherwise have dropped and dropped 1 packet" in text


def test_a_mixed_outcome() -> None:
    text = sentence(document(workloads={"a": workload(survived=5, hung=3, reset=1, refused=1)}))
    assert text.startswith("Of 10 sessions of `a` 5 went on, 3 hung, 1 were reset and 1 were refused")


def test_only_new_connections_cross() -> None:
    text = sentence(document(takeovers=[takeover(129, 329, "OK", "new_connections")]))
    assert "knowing 129 of the 329 connections of fw1, because only new connections cross" in text


def test_tables_differ() -> None:
    failed = {"state": "failed", "reason": "Connection to remote member timed-out"}
    members = {"fw1": member(connections=10000), "fw2": member(connections=5000, synced_delta=5000, full_sync=failed)}
    assert sentence(document(members=members)) == (
        "Full sync of fw2 failed (Connection to remote member timed-out) while delta sync went on with 5,000 records; "
        "the members' tables differ (fw1 10,000 and fw2 5,000 connections)."
    )


def test_sync_in_trouble() -> None:
    troubled = {**EMPTY_STATUS["counters"], "lost_updates": 1200, "received_rejects": 3}
    blocking = {**EMPTY_STATUS["blocking"], "scenarios": 2, "seconds": 8.25, "packets": 9001}
    members = {"fw1": member(blocking=blocking), "fw2": member(counters=troubled, healed=1)}
    comparisons = [{"lab_s": 31.0, "at_end": False, "different": 9120, "missing": {"fw1": 0, "fw2": 9120}},
                   {"lab_s": 50.0, "at_end": True, "different": 0, "missing": {"fw1": 0, "fw2": 0}}]  # fmt: skip
    found = document(members=members, comparisons=comparisons)
    assert sentence(found) == (
        "At 31s the members' tables differed in 9,120 connections (fw2 lacked 9,120); in the end the members' tables "
        "are equal; fw1 blocked new connections twice, for 8.2 s in all, and dropped 9,001 packets of them; fw2 lost "
        "1,200 updates of the others for good and mended its table by a full sync of its own accord once."
    )
    out = io.StringIO()
    terminal.report(found, Console(file=out, width=160))
    lines = {line.split()[0]: line.split()[1:] for line in out.getvalue().splitlines() if line.split()}
    assert lines["fw1"] == ["0", "0", "0", "0", "0", "2", "8.2", "9,001", "0"]
    assert lines["fw2"] == ["0", "0", "3", "1,200", "0", "0", "0.0", "0", "1"]
    assert lines["31s"] == ["9,120", "0", "9,120"]
    assert "Delta sync, where it was in trouble" not in terminal_text(document())


def terminal_text(found: dict[str, Any]) -> str:
    out = io.StringIO()
    terminal.report(found, Console(file=out, width=160))
    return out.getvalue()


def test_what_the_rule_base_dropped() -> None:
    drops = {"fw1": {}, "fw2": {"OUT_OF_STATE": 812, "POLICY": 1598, "REJECTED": 1, "FRAGMENT": 3}}
    text = sentence(document(workloads={"push": workload(hung=200)}, takeovers=[takeover(0, 200)], drops=drops))
    assert text.endswith(
        "fw2 dropped 812 packets as out of state and 1,598 packets by the rule base without telling anyone and "
        "rejected 1 packet by the rule base."
    )
    text = sentence(document(takeovers=[takeover(0, 200)], drops={"fw1": {}, "fw2": {"POLICY": 1}}))
    assert text.endswith("fw2 dropped 1 packet by the rule base without telling anyone.")


def counted(kind: str, fates: dict[str, int], **figures: float) -> dict[str, Any]:
    return {**workload(kind, **fates), **figures}


COUNTED = {
    "files": counted("ftp", {"finished": 3, "hung": 1}, transfers=4, transferred=3, failed=1),
    "boot": counted("tftp", {"finished": 1}, transfers=1, transferred=1, failed=0),
    "echo": counted("ping", {"finished": 9, "hung": 1}, sent=10, answered=9),
    "burst": counted("flood", {"finished": 27412, "refused": 2588}, offered=30000, arrived=27412, seconds=10.04),
    "small": counted("flood", {"finished": 20}, offered=20, arrived=20, seconds=1),
}


def test_transfers_pings_and_floods() -> None:
    assert sentence(document(workloads=COUNTED)) == (
        "Of 4 sessions of `files` 3 finished and 1 hung; 3 of 4 transfers of `files` were complete; the one transfer "
        "of `boot` was complete; 9 of 10 pings of `echo` were answered; 27,412 of 30,000 new connections of `burst` "
        "passed, 2,588 were refused; all 20 new connections of `small` passed."
    )
    complete = counted("ftp", {"finished": 2}, transfers=2, transferred=2, failed=0)
    assert sentence(document(workloads={"files": complete})) == "All 2 transfers of `files` were complete."


def test_what_is_counted_has_a_table_of_its_own() -> None:
    rows = [line.split() for line in printed(document(workloads=COUNTED)).splitlines() if line]
    assert ["burst", "flood", "30,000", "27,412", "2,588", "10.0"] in rows
    assert ["files", "ftp", "4", "3", "1"] in rows
    assert ["echo", "ping", "10", "9", "1"] in rows
    assert ["files", "4", "0", "1", "0", "0", "3", "0", "1.25", "s"] in rows, "its sessions"
    assert not any(row[:2] == ["burst", "30,000"] for row in rows), "a flood has no sessions"


def test_a_run_that_ended_early() -> None:
    members = {"fw1": member(connections=200), "fw2": member(connections=199)}
    text = sentence(document(problem="steps[2].kill: fw2 is not running:\nmore", members=members))
    assert text == "The run ended early (steps[2].kill: fw2 is not running)."


def test_nothing_at_all() -> None:
    assert sentence(document(members={"fw1": member(running=False)}, drops={"fw1": {}})) == "No workload ran."


EXPECTATIONS = [
    {"text": "all go on", "held": True, "seen": 3, "that": "a", "wanted": "is 3", "warn": False, "at": "the end"},
    {"text": "quickly", "held": False, "seen": 9, "that": "b", "wanted": "below 3", "warn": True, "at": "the end"},
    {"text": "no drops", "held": False, "seen": 4, "that": "c", "wanted": "is 0", "warn": False, "at": "5s"},
]


def test_junit() -> None:
    suite = ElementTree.fromstring(junit.render(document(expectations=EXPECTATIONS, problem="it broke")))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "1")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases][:2] == ["all go on (at the end)", "quickly (at the end)"]
    assert cases[1].find("failure") is None
    failure = cases[2].find("failure")
    assert failure is not None
    assert failure.get("message") == "c should be is 0; seen: 4"


def test_junit_survives_what_xml_cannot_say() -> None:
    suite = ElementTree.fromstring(junit.render(document(problem="a \x1b[1m <b> & \x00")))
    assert suite.get("errors") == "1"


def printed(what: dict[str, Any]) -> str:
    stream = io.StringIO()
    terminal.report(what, Console(file=stream, width=terminal.PIPE_WIDTH, highlight=False))
    return stream.getvalue()


def test_the_terminal_says_it_all_and_needs_no_colour() -> None:
    what = document(
        workloads={"database": workload(survived=1200, hung=3)}, expectations=EXPECTATIONS, verdict="fail",
        drops={"fw1": {"POLICY": 0}, "fw2": {"OUT_OF_STATE": 12}},
    )  # fmt: skip
    before = copy.deepcopy(what)
    text = printed(what)
    assert what == before
    assert "\x1b" not in text
    for part in (
        "database", "1,200", "slowest answer (wall)", "1.25 s", "OUT_OF_STATE", "held  all go on  (a: 3)",
        "warning  quickly", "FAILED  no drops  (c: 4, wanted is 0)", "FAIL: x, 9.5 s",
        "Of 1,203 sessions of `database`",
    ):  # fmt: skip
        assert part in text, text
    assert "POLICY" not in text  # a reason that nobody met is no column


def test_names_that_look_like_markup_are_names() -> None:
    """A closing tag without its opening one ended the report."""
    what = document(
        workloads={"[/x]": workload(survived=3), "[red]:smile:": {**workload("ping"), "sent": 1, "answered": 1}},
        members={"fw1": member("[/r]")}, drops={"fw1": {"OUT_OF_STATE": 1}}, takeovers=[],
        expectations=[{"text": "[/e]", "held": False, "warn": False, "that": "a", "seen": "[/s]", "wanted": "[/w]"}],
    )  # fmt: skip
    for out in (Console(file=io.StringIO(), width=200), Console(file=io.StringIO(), width=200, markup=False)):
        terminal.report(what, out)
        text = out.file.getvalue()  # type: ignore[attr-defined]
        for part in ("[/x]", "[red]:smile:", "[/r]", "[/e]", "[/s]", "[/w]", "PASS: x, 9.5 s"):
            assert part in text, text


def test_the_timeline_line_by_line() -> None:
    stream = io.StringIO()
    live = terminal.Live(Console(file=stream, width=terminal.PIPE_WIDTH, highlight=False))
    live.tell(Entry(1.0, 5400.0, "step", "stop fw1"))
    live.tell(Entry(1.1, 5500.0, "member", "fw2: Standby -> Active", "fw2"))
    live.tell(Entry(1.1, 5500.0, "note", "[why] it is done"))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert lines == ["    1h 30m  stop fw1", "    1h 31m    · fw2: Standby -> Active", "            [why] it is done"]


def test_a_labs_claims_are_explained():
    file = load(catalog.find("upgrade-hotfix"))
    out = io.StringIO()
    terminal.show(file, "", catalog.claims(), Console(file=out, width=100))
    assert "A10  Members that differ by a hotfix usually synchronise, but not always." in out.getvalue()
