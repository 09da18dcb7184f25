"""A started member is waited for as long as it gets on: the clock is the test's."""

from labs.network.readiness import NO_PROGRESS_S, Readiness


def status(records: int, state: str = "Initializing", ready: bool = False) -> dict[str, object]:
    full = {"state": "running", "peer": "fw1", "attempt": 1, "records": records,
            "text": f"took {records} of 2,500 ({records // 25} %)"}  # fmt: skip
    return {"ready": ready, "state": state, "full_sync": full}


def test_a_full_sync_that_gets_on_is_waited_for_however_long_it_takes():
    now = 100.0
    readiness = Readiness(now)
    for records in range(0, 2500, 128):
        now += NO_PROGRESS_S - 1
        assert readiness.left_s(now) > 0
        assert not readiness.heard(status(records), now)
    assert readiness.doing == "its state is Initializing, its full sync from fw1 took 2432 of 2,500 (97 %)"
    assert readiness.heard(status(2500, "Standby", ready=True), now + 1)


def test_one_in_which_nothing_moves_is_given_up():
    readiness = Readiness(0.0)
    readiness.heard(status(128), 1.0)
    readiness.heard(status(128), NO_PROGRESS_S)
    assert readiness.left_s(NO_PROGRESS_S) == 1.0
    assert readiness.left_s(NO_PROGRESS_S + 1.0) == 0.0
    assert readiness.complaint("fw2") == (
        "fw2 is not ready, and nothing has moved for 30 s: its state is Initializing, its full sync from fw1 took 128 "
        "of 2,500 (5 %). It was left running: `fwctl fw2 stat` says how it goes on, `fwlab do kill member=fw2` ends it"
    )


def test_one_that_never_answers_is_given_up():
    readiness = Readiness(0.0)
    assert readiness.left_s(NO_PROGRESS_S) == 0.0
    assert "its control socket does not answer" in readiness.complaint("fw2")


def test_a_change_of_state_is_progress_without_a_full_sync():
    readiness = Readiness(0.0)
    readiness.heard({"ready": False, "state": "Initializing"}, 5.0)
    assert readiness.doing == "its state is Initializing"
    assert readiness.left_s(5.0) == NO_PROGRESS_S
