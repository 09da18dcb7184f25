"""What the standby says of a session's time, and what it makes of it when the active member is killed."""

from __future__ import annotations

import time
from typing import Any

from harness import UpLab, until

PORT = 1521


def policy(timeout_s: int) -> dict[str, Any]:
    service = {"protocol": "tcp", "port": PORT, "session_timeout": f"{timeout_s}s"}
    return {"name": "short", "services": {"short": service}, "rules": [{"service": "short", "action": "accept"}]}


def rows(lab: UpLab, member: str) -> list[dict[str, Any]]:
    found = lab.control(member, "tab", unlimited=True)["rows"]
    return [row for row in found if row["destination_port"] == PORT]


def ends(lab: UpLab) -> list[float]:
    """When the session ends by each member's table, in lab time."""
    found = []
    for member in ("fw1", "fw2"):
        asked = lab.control(member)["lab_time"]
        found += [asked + row["ttl_s"] for row in rows(lab, member)]
    assert len(found) == 2
    return found


def test_active_and_standby_show_the_same_time_left(pair, tmp_path):
    """Where the active said 13 of 20 seconds the standby said 20 of 20."""
    for member in ("fw1", "fw2"):
        pair.install(member, tmp_path, policy(20))
    pair.serve(PORT)
    talk = pair.talk(PORT)
    for pause_s in (0.0, 0.4, 2.5):  # the last within the third of the timeout in which a packet announces nothing
        time.sleep(pause_s)
        assert talk.ask() == "hello"
    until(lambda: abs(ends(pair)[0] - ends(pair)[1]) < 1.0, "the standby hears of the last packet", 10)
    until(lambda: rows(pair, "fw1")[0]["ttl_s"] < 13.5, "the session has been idle for a while")
    until(lambda: abs(ends(pair)[0] - ends(pair)[1]) < 1.0, "both say the same, when asked at the same time", 4)
    assert [row["timeout_s"] for member in ("fw1", "fw2") for row in rows(pair, member)] == [20.0, 20.0]


def test_a_failover_does_not_begin_the_idle_time_anew(pair, tmp_path):
    """Idle for 12 s, a session with a timeout of 10 s passed after the active member was killed."""
    for member in ("fw1", "fw2"):
        pair.install(member, tmp_path, policy(10))
    pair.serve(PORT)
    talk = pair.talk(PORT)
    for pause_s in (0.0, 2.5):
        time.sleep(pause_s)
        assert talk.ask() == "hello"
    until(lambda: abs(ends(pair)[0] - ends(pair)[1]) < 1.0, "the standby hears of the last packet", 6)
    end, _ = ends(pair)
    pair.do("kill", "member=fw1")
    pair.wait_for_state("fw2", "Active")
    for row in rows(pair, "fw2"):
        assert pair.control("fw2")["lab_time"] + row["ttl_s"] < end + 1.0 or row["past_end_s"]
    until(lambda: pair.control("fw2")["lab_time"] > end + 2.0, "it has been idle for 12 s")
    assert talk.ask(patience_s=3.0) == "silence"
    assert pair.control("fw2")["drops"]["OUT_OF_STATE"] > 0
