"""Load sharing on real packets: every member forwards its share, once, and what it leaves behind goes on."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter

import pytest
from harness import captured, sharing_lab, until, wan_macs

SERVER, SERVER6 = "198.51.100.100", "2001:db8:2::100"
SESSIONS = 16


@pytest.mark.parametrize(("mode", "members"), [("load-sharing-multicast", 3), ("load-sharing-unicast", 2)])
@pytest.mark.timeout(180)
def test_members_share_the_load_and_lose_no_session(mode, members, tmp_path):
    from scapy.all import IP, TCP, IPv6

    with sharing_lab(mode, members, tmp_path) as lab:
        lab.serve(1521)
        with captured(lab, "wan", tmp_path / "wan.pcap", "tcp dst port 1521") as packets:
            talks = [lab.talk(1521, SERVER if n % 2 else SERVER6) for n in range(SESSIONS)]
            assert [talk.ask("there?") for talk in talks] == ["there?"] * SESSIONS
        # Each packet was forwarded once, by a member that its source MAC names; every member had some.
        by = wan_macs(lab)
        forwarded = Counter(by[packet.src] for packet in packets)
        assert set(forwarded) == set(by.values())
        syns = [p for p in packets if p[TCP].flags == "S"]
        starts = Counter((p[IPv6].src if IPv6 in p else p[IP].src, p[TCP].sport) for p in syns)
        assert set(starts.values()) == {1} and len(starts) == SESSIONS
        names = [f"fw{number}" for number in range(1, members + 1)]
        until(lambda: all(lab.status(name)["connections"] == SESSIONS for name in names), "all know all sessions")
        load = {m["name"]: m["load"] for m in lab.ask("fw1", "stat")["members"]}
        assert sum(load.values()) == 100 and all(load.values())
        # The pivot dies, and another member takes its share (and its part).
        lab.do("kill", "member=fw1")
        until(lambda: lab.ask("fw2", "stat")["members"][0]["load"] == 0, "the share of fw1 has moved")
        assert [talk.ask("still?") for talk in talks] == ["still?"] * SESSIONS
        lab.do("start", "member=fw1")
        until(lambda: lab.ask("fw2", "stat")["members"][0]["load"] > 0, "fw1 has its share again")
        assert [talk.ask("again?") for talk in talks] == ["again?"] * SESSIONS
        for name in names:
            assert lab.status(name)["drops"]["OUT_OF_STATE"] == 0
        for address in ("192.0.2.1", "2001:db8:1::1", SERVER, SERVER6):
            done = lab.exec("client", "ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", address)
            assert "3 received" in done.stdout and "duplicates" not in done.stdout, done.stdout


@pytest.mark.parametrize("mode", ["load-sharing-multicast", "load-sharing-unicast"])
def test_large_segments_and_fragments_pass(mode, tmp_path):
    with sharing_lab(mode, 2, tmp_path) as lab:
        big = tmp_path / "big"
        big.write_bytes(os.urandom(3_000_000))
        lab.background("server", sys.executable, "-m", "http.server", "80", "-d", str(tmp_path), "--bind", "::")
        for number in range(6):
            got = tmp_path / f"got{number}"
            ask = ("curl", "-sS", "-m", "20", "--retry", "20", "--retry-connrefused", "-o", str(got))
            done = lab.exec("client", *ask, f"http://{SERVER if number % 2 else f'[{SERVER6}]'}/big")
            assert done.returncode == 0, done.stderr
            assert got.read_bytes() == big.read_bytes()
        for address in (SERVER, SERVER6):
            done = lab.exec("client", "ping", "-n", "-c", "2", "-i", "0.2", "-s", "4000", "-W", "2", address)
            assert "2 received" in done.stdout, done.stdout


def test_the_cluster_answers_with_a_multicast_mac(tmp_path):
    with sharing_lab("load-sharing-multicast", 2, tmp_path) as lab:
        lab.exec("client", "ping", "-n", "-c", "1", "-W", "2", "192.0.2.1", check=True)
        found = json.loads(lab.exec("client", "ip", "-j", "neigh", "show", "192.0.2.1").stdout)
        assert found[0]["lladdr"] == "01:00:5e:00:02:01"
        assert "Cluster Mode:   Load Sharing (Multicast)" in lab.fwctl("fw1", "stat").stdout
