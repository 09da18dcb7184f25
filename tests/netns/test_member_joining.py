"""A member that joins, and what may happen meanwhile: its source stops, dies, goes down, or the sync link goes dark.

The sync link is slow, so that a full sync lasts long enough to be interfered with.
"""

from __future__ import annotations

import pytest
from harness import sharing_lab
from joins import CONNECTIONS, SLOW, becomes, fill, keep_udp, starting, told, under_way


@pytest.fixture
def three(tmp_path):
    with sharing_lab("load-sharing-multicast", 3, tmp_path) as lab:
        keep_udp(lab, "fw1", "fw2", "fw3")
        yield lab


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fate", ["down", "kill"])
def test_the_source_goes_while_a_third_member_joins(three, fate):
    """fw3 is not active before it has a whole table, from whomever."""
    three.do("stop", "member=fw3")
    fill(three, "fw1", "fw2")
    three.do("limit", "link=sync", SLOW)
    with starting(three, "fw3"):
        under_way(three, "fw3")
        if fate == "down":
            three.fwctl("fw1", "down")
        else:
            three.do("kill", "member=fw1")
        active = becomes(three, "fw3", "Active")
    assert active["connections"] >= CONNECTIONS
    assert active["full_sync"]["state"] == "done"
    assert told(three, "fw3").count("Initializing -> Active: it takes its share") == 1


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fate", ["stop", "kill", "power_cut"])
def test_the_only_source_goes_while_the_other_member_joins(pair, fate):
    """Availability wins, and what is missing is said."""
    pair.do("stop", "member=fw2")
    fill(pair, "fw1")
    pair.do("limit", "link=sync", SLOW)
    with starting(pair, "fw2"):
        under_way(pair, "fw2")
        running = pair.status("fw2")["full_sync"]
        pair.do(fate, "member=fw1")
        status = becomes(pair, "fw2", "Active")
    assert running["state"] == "running" and running["expected"] == CONNECTIONS
    assert running["percent"] == running["records"] * 100 // CONNECTIONS
    full = status["full_sync"]
    assert full["state"] == "failed" and 0 < full["records"] < CONNECTIONS
    missing = CONNECTIONS - full["records"]
    words = f"took {full['records']:,} of 1,500 ({full['percent']} %); {missing:,} connections of fw1 are missing"
    assert full["text"] == words
    assert words in pair.fwctl("fw2", "stat").stdout
    logged = [event for event in pair.events("fw2") if event["kind"] == "log"]
    assert any(words in event["text"] for event in logged)


@pytest.mark.timeout(240)
def test_the_sync_link_goes_dark_while_a_member_joins(pair):
    """The active member goes on; the joiner gives up, says what it lacks, and stands by when the link is back."""
    pair.do("stop", "member=fw2")
    fill(pair, "fw1")
    pair.do("limit", "link=sync", SLOW)
    with starting(pair, "fw2"):
        under_way(pair, "fw2")
        pair.do("cut", "link=sync")
        becomes(pair, "fw2", "Down")
    assert "connections of fw1 are missing" in pair.fwctl("fw2", "stat").stdout
    pair.do("restore", "link=sync")
    pair.wait_for_state("fw2", "Standby")
    pair.wait_for_state("fw1", "Active")
    assert "connections of fw1 are missing" in pair.fwctl("fw2", "stat").stdout


@pytest.mark.timeout(240)
def test_the_joiner_dies_and_comes_back_while_it_joins(pair):
    pair.do("stop", "member=fw2")
    fill(pair, "fw1")
    pair.do("limit", "link=sync", SLOW)
    with starting(pair, "fw2"):
        under_way(pair, "fw2")
        pair.do("kill", "member=fw2")
    pair.do("unlimit", "link=sync")
    pair.do("start", "member=fw2")
    assert pair.status("fw2")["full_sync"]["records"] == CONNECTIONS
    assert pair.status("fw1")["state"] == "Active"


@pytest.mark.timeout(300)
def test_a_start_waits_as_long_as_the_full_sync_goes_on(pair):
    """Longer than one is waited for in which nothing moves (30 s). What it does meanwhile is said."""
    pair.do("stop", "member=fw2")
    fill(pair, "fw1", count=2 * CONNECTIONS)
    pair.do("limit", "link=sync", "rate=32kbit")
    with starting(pair, "fw2") as process:
        under_way(pair, "fw2")
        said = process.communicate(timeout=200)[1]
        assert process.returncode == 0, said
    assert "fw2: its state is Initializing, its full sync from fw1 took " in said
    assert pair.status("fw2")["state"] == "Standby"
    assert pair.status("fw2")["uptime_s"] > 30
    assert pair.status("fw2")["full_sync"]["records"] == 2 * CONNECTIONS
