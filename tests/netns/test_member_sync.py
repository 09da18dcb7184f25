"""Delta sync over a bad link, and what is not synchronised: real packets, real faults."""

from __future__ import annotations

from harness import UpLab, until

SERVER = "198.51.100.100"


def equal(pair: UpLab) -> bool:
    return "The tables are equal." in pair.fwctl("fw1", "sync", "compare", check=False).stdout


def test_loss_both_ways_costs_retransmissions_and_nothing_else(pair):
    """20 % of everything on the sync network, each way."""
    pair.do("lose", "link=sync", "share=20%")
    opener = pair.udp()
    for _ in range(50):
        opener.open(100)
    until(lambda: pair.control("fw1")["connections"] == 5000, "fw1 has them all")
    until(lambda: pair.control("fw2")["connections"] == 5000, "and fw2 learns of all of them", 60)
    assert equal(pair)
    counters = pair.control("fw2")["counters"]
    assert counters["lost_updates"] == 0 < counters["sent_retransmission_requests"]
    assert pair.control("fw1")["counters"]["sent_retransmission_updates"] > 0


def test_a_cut_shorter_than_the_queue_is_made_up_for(pair):
    """Both ends keep their links up: nobody is Down, only nothing arrives."""
    pair.do("lose", "link=sync", "share=100%")
    opener = pair.udp()
    for number in range(1, 31):
        opener.open(10)
        until(lambda number=number: pair.control("fw1")["connections"] == 10 * number, "fw1 has them")
    assert pair.control("fw2")["connections"] == 0
    difference = pair.fwctl("fw1", "sync", "compare", check=False)
    assert difference.returncode == 1
    assert "The tables differ in 300 connections: fw2 lacks 300." in difference.stdout
    pair.do("unlose", "link=sync")
    until(lambda: pair.control("fw2")["connections"] == 300, "fw2 knows them without anybody's help")
    assert equal(pair)
    assert pair.control("fw2")["counters"]["lost_updates"] == 0


def test_lost_updates_stay_lost_until_healing_is_switched_on(pair):
    """More updates than the sending queue keeps are cut off: as the product does, then mended."""
    pair.do("lose", "link=sync", "share=100%")
    opener = pair.udp()
    while pair.control("fw1")["counters"]["generated_updates"] < 560:
        opener.open(300)
        until(lambda: pair.control("fw1")["counters"]["backlog"] == 0, "they are on their way")
    pair.do("unlose", "link=sync")
    until(lambda: pair.control("fw2")["counters"]["lost_updates"], "fw2 has noticed")
    until(lambda: pair.control("fw1")["counters"]["unacknowledged"] == 0, "what can come has come")
    assert not equal(pair)
    assert pair.control("fw1")["connections"] > pair.control("fw2")["connections"] > 0
    before = pair.control("fw2")["drops"]
    pair.fwctl("fw2", "ctl", "set", "int", "fwlab_sync_heal", "1")
    until(lambda: pair.control("fw2")["healed"] == 1, "fw2 takes the whole table of its own accord")
    assert equal(pair)
    assert pair.control("fw2")["drops"] == before


def test_services_may_be_left_out_of_synchronisation_or_join_it_later(pair, tmp_path):
    policy = {
        "name": "selective",
        "services": {
            "names": {"protocol": "udp", "port": 9000, "synchronise": False},
            "slow": {"protocol": "tcp", "port": 8080, "synchronise_after": "3s"},
        },
        "rules": [{"service": ["names", "slow", "oracle"], "action": "accept"}],
    }
    for member in ("fw1", "fw2"):
        pair.install(member, tmp_path, policy)
    for port in (8080, 1521):
        pair.serve(port)
    pair.udp().open(5)
    late = pair.talk(8080)
    assert late.ask() == "hello"
    began = pair.control("fw1")["lab_time"]
    assert pair.talk(1521).ask() == "hello"

    def ports(member: str) -> set[int]:
        return {row["destination_port"] for row in pair.control(member, "tab", unlimited=True)["rows"]}

    until(lambda: 1521 in ports("fw2"), "an ordinary service is synchronised")
    assert ports("fw1") == {9000, 8080, 1521}
    if pair.control("fw2")["lab_time"] < began + 2:
        assert 8080 not in ports("fw2")
    until(lambda: 8080 in ports("fw2"), "after three seconds the delayed one is")
    assert pair.control("fw2")["lab_time"] >= began + 2.5
    assert 9000 not in ports("fw2")
    compared = pair.fwctl("fw1", "sync", "compare").stdout
    assert "5 more are not synchronised, by their service" in compared
    assert late.ask("goes on") == "goes on"


def test_the_figures_can_be_reset_as_in_the_product(pair):
    pair.exec("client", "ping", "-n", "-c", "1", SERVER, check=True)
    until(lambda: pair.control("fw1")["counters"]["generated_updates"], "an update was sent")
    assert pair.exec("fw1", "cphaprob", "-reset", "syncstat").returncode == 0
    assert pair.control("fw1")["counters"]["generated_updates"] == 0
    shown = pair.exec("fw1", "cphaprob", "syncstat").stdout
    assert "(triggered by command)." in shown
    assert "Total generated sync messages................ 0\n" in shown


def test_a_member_that_is_stopped_tells_everything_it_knows_first(pair):
    """More waits to be sent than one burst holds, and acknowledgements come late."""
    pair.do("delay", "link=sync", "by=200ms")
    opener = pair.udp()
    for _ in range(40):
        opener.open(200)
    until(lambda: pair.control("fw1")["connections"] == 8000, "fw1 has them all")
    pair.control("fw1", "stop")
    pair.wait_for_state("fw2", "Active")
    assert pair.control("fw2")["connections"] == 8000
