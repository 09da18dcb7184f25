"""Data connections with real servers and clients: what was announced passes, through either member, nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from harness import UpLab, until

DATA_TALK = Path(__file__).parents[1] / "data_talk.py"
CLIENT, SERVER = {4: "192.0.2.100", 6: "2001:db8:1::100"}, {4: "198.51.100.100", 6: "2001:db8:2::100"}

ONLY_CONTROL = {
    "name": "only-control",
    "networks": {"inside": ["192.0.2.0/24", "2001:db8:1::/64"], "outside": ["198.51.100.0/24", "2001:db8:2::/64"]},
    "rules": [
        {"name": "control", "source": "inside", "destination": "outside", "service": ["ftp", "tftp", "sip"],
         "action": "accept"},
        {"name": "cleanup", "action": "drop", "track": "log"},
    ],
}  # fmt: skip


class Ftp:
    """An FTP client in the lab that does what it is told."""

    def __init__(self, pair: UpLab, family: int = 4, port: int = 21) -> None:
        line = (sys.executable, str(DATA_TALK), "ftp", SERVER[family], str(port))
        self._pair = pair
        self._process = pair.background("client", *line)
        self._control = f":{int(self.said())} -> "

    def said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def do(self, text: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        return self.said()

    def rows(self, member: str, table: str = "connections") -> list[dict[str, object]]:
        """Its data connections in a member's table."""
        return [r for r in self._pair.ask(member, "tab", "-t", table, "-u")["rows"] if self._control in r["data_of"]]


def serve(pair: UpLab, *program: str) -> None:
    process = pair.background("server", sys.executable, str(DATA_TALK), *program)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"


def install_everywhere(pair: UpLab, folder: Path) -> UpLab:
    """The rule base accepts control connections alone."""
    for member in ("fw1", "fw2"):
        pair.install(member, folder, ONLY_CONTROL)
    return pair


@pytest.fixture
def inspecting(pair: UpLab, tmp_path: Path) -> UpLab:
    return install_everywhere(pair, tmp_path)


@pytest.fixture(scope="module")
def shared(shared_pair: UpLab, tmp_path_factory: pytest.TempPathFactory) -> UpLab:
    for server in ("ftp-server", "tftp-server", "sip-server"):
        serve(shared_pair, server)
    return install_everywhere(shared_pair, tmp_path_factory.mktemp("policy"))


@pytest.mark.parametrize("family", [4, 6])
def test_ftp_active_and_passive(shared, family):
    client = Ftp(shared, family)
    for way in ("passive", "active"):
        assert client.do(way).startswith("port ")
        assert client.do("fetch") == "begun", way
        assert client.said() == "1000000 bytes"
    found = client.rows("fw1")
    assert [(row["source"], row["rule"], row["service"]) for row in found] == [
        (CLIENT[family], 1, "ftp-data"), (SERVER[family], 1, "ftp-data"),
    ]  # fmt: skip
    until(lambda: len(client.rows("fw2")) == 2, "fw2 knows the data connections")
    assert "data of tcp " in shared.fwctl("fw2", "tab").stdout


def test_ftp_only_what_was_announced_passes(shared):
    client = Ftp(shared)
    port = int(client.do("passive").split()[1])
    assert client.do(f"connect {port + 1}") == "silence"
    (row,) = client.rows("fw1", "expected")
    assert (row["source"], row["source_port"], row["destination_port"]) == (CLIENT[4], 0, port)
    assert client.do(f"connect {port}") == "connected"
    assert client.do(f"connect {port}") == "silence", "used once"
    assert client.rows("fw1", "expected") == []


@pytest.mark.parametrize(("command", "words"), [
    ("PORT 203,0,113,9,156,65", "announces a third host"), ("PORT 192,0,2,100,0,80", "announces port 80"),
])  # fmt: skip
def test_ftp_an_announcement_that_may_not_be_is_refused_and_logged(shared, command, words):
    client = Ftp(shared)
    assert client.do(f"raw {command}") == "silence"
    entry = [e for e in shared.ask("fw1", "drops")["entries"] if e["reason"] == "ANNOUNCEMENT"][-1]
    assert entry["rule"] == 1
    assert command in entry["text"] and words in entry["text"]
    assert client.rows("fw1", "expected") == []


def test_tftp_with_a_real_server(shared):
    for _ in range(2):
        done = shared.exec("client", "curl", "-sS", "-m", "20", "-o", "/dev/null", "-w", "%{size_download}",
                           f"tftp://{SERVER[4]}/file")  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "1000000"), done.stderr
    found = [row for row in shared.ask("fw1", "tab", "-u")["rows"] if row["service"] == "tftp-data"]
    assert {row["source"] for row in found} == {SERVER[4]}, "the answer is the first packet, from a new port"


@pytest.mark.parametrize("family", [4, 6])
def test_a_call_with_its_voice_and_reports(shared, family):
    line = (sys.executable, str(DATA_TALK), "sip", SERVER[family], CLIENT[family])
    done = shared.exec("client", *line)
    assert done.stdout.splitlines() == ["SIP/2.0 200 OK", "voice report"], done.stderr
    rows = shared.ask("fw1", "tab", "-u")["rows"]
    call = [row["service"] for row in rows if CLIENT[family] in (row["source"], row["destination"])]
    assert {"rtcp", "rtp", "sip"} <= set(call)
    dropped = [entry["connection"] for entry in shared.ask("fw1", "drops")["entries"]]
    assert any("50008" in connection for connection in dropped), "what was not announced is dropped"


@pytest.mark.parametrize("way", ["passive", "active"])
def test_ftp_announced_on_one_member_opened_through_the_other(inspecting, way):
    serve(inspecting, "ftp-server")
    client = Ftp(inspecting)
    assert client.do(way).startswith("port ")
    # This server opens the data connection of the active way at once, before anything is asked for.
    table = "expected" if way == "passive" else "connections"
    until(lambda: client.rows("fw2", table), "fw2 knows what is announced")
    inspecting.do("kill", "member=fw1")
    inspecting.wait_for_state("fw2", "Active")
    assert client.do("fetch") == "begun"
    assert client.said() == "1000000 bytes"
    assert client.rows("fw2", "expected") == []
    # And what is announced from now on is understood here.
    assert client.do(way).startswith("port ")
    assert client.do("fetch") == "begun"
    assert client.said() == "1000000 bytes"


def test_ftp_a_member_that_joins_learns_what_is_announced(inspecting):
    serve(inspecting, "ftp-server")
    inspecting.do("stop", "member=fw2")
    client = Ftp(inspecting, 6)
    assert client.do("passive").startswith("port ")
    inspecting.do("start", "member=fw2")
    inspecting.wait_for_state("fw2", "Standby")
    (row,) = client.rows("fw2", "expected")
    assert row["synchronised"]


@pytest.mark.parametrize("way", ["passive", "active"])
def test_ftp_a_transfer_goes_on_through_a_failover(inspecting, way):
    serve(inspecting, "ftp-server", "250000")
    client = Ftp(inspecting)
    client.do(way)
    assert client.do("fetch") == "begun"
    until(lambda: client.rows("fw2"), "fw2 knows the data connection")
    inspecting.do("kill", "member=fw1")
    assert client.said() == "1000000 bytes"
    assert [row["copy"] for row in client.rows("fw2")] == [False], "fw2 carried it"
    assert inspecting.status("fw2")["drops"]["OUT_OF_STATE"] == 0


def test_the_ports_that_are_inspected_follow_the_policy(inspecting, tmp_path):
    serve(inspecting, "ftp-server")
    upload = {"services": {"upload": {"protocol": "tcp", "port": 2121, "inspect": "ftp"}}}
    rule = {"name": "upload", "service": "upload", "action": "accept"}
    inspecting.install("fw1", tmp_path, {**ONLY_CONTROL, **upload, "rules": [rule]})
    for command in ("iptables-save", "ip6tables-save"):
        diverted = [line for line in inspecting.exec("fw1", command).stdout.splitlines() if "queue-num 1" in line]
        assert sorted(line.split()[-6] for line in diverted) == ["--dport", "--sport"]
        assert all(" 2121 " in line for line in diverted)
    client = Ftp(inspecting, port=2121)
    for way in ("passive", "active"):
        client.do(way)
        assert client.do("fetch") == "begun"
        assert client.said() == "1000000 bytes"
