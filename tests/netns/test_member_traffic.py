"""One pair, real packets: what passes, what does not, and what is said about it."""

from __future__ import annotations

import sys

import pytest
from harness import command, until

from labs.python import python_command

SERVER, SERVER6 = "198.51.100.100", "2001:db8:2::100"

ONLY_DATABASE = {
    "name": "only-database",
    "networks": {"inside": ["192.0.2.0/24", "2001:db8:1::/64"], "outside": ["198.51.100.0/24", "2001:db8:2::/64"]},
    "rules": [
        {"name": "database", "source": "inside", "destination": "outside", "service": "oracle", "action": "accept"},
        {"name": "web", "source": "inside", "destination": "outside", "service": "http", "action": "reject"},
        {"name": "cleanup", "action": "drop", "track": "log"},
    ],
}


@pytest.mark.parametrize("address", [SERVER, SERVER6, "192.0.2.1", "2001:db8:1::1", "192.0.2.11"])
def test_ping_reaches_hosts_the_virtual_address_and_the_member(shared_pair, address):
    done = shared_pair.exec("client", "ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", address)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("address", [SERVER, SERVER6])
def test_a_connection_passes_and_is_in_both_tables(pair, address):
    pair.serve(1521)
    talk = pair.talk(1521, address)
    assert talk.ask("hello") == "hello"
    row = pair.ask("fw1", "tab", "-t", "connections")["rows"][0]
    assert (row["destination"], row["destination_port"], row["state"]) == (address, 1521, "ESTABLISHED")
    assert row["service"] == "oracle"
    rows = until(lambda: pair.ask("fw2", "tab")["rows"], "fw2 has the connection")
    assert rows[0]["synchronised"]
    until(lambda: pair.ask("fw1", "tab")["rows"][0]["synchronised"], "fw1 says that fw2 has it, too")
    pair.do("stop", "member=fw2")
    until(lambda: not pair.ask("fw1", "tab")["rows"][0]["synchronised"], "nobody else has it any more")
    talk.close()


def test_fragments_follow_their_first(shared_pair):
    for address in (SERVER, SERVER6):
        done = shared_pair.exec("client", "ping", "-n", "-c", "1", "-s", "4000", "-W", "2", address)
        assert done.returncode == 0, done.stdout
    drops = shared_pair.status("fw1")["drops"]
    assert drops["FRAGMENT"] == 0


def test_an_icmp_error_about_a_connection_passes_and_others_do_not(shared_pair):
    # Nobody listens on the UDP port: the server's "port unreachable" must reach the client, as ECONNREFUSED.
    assert "ConnectionRefusedError" in shared_pair.ask_udp(SERVER, 9)
    stray = (
        "from scapy.all import IP,ICMP,UDP,send; "
        f"send(IP(dst='192.0.2.100')/ICMP(type=3,code=3)/IP(src='192.0.2.100',dst='{SERVER}')/UDP(sport=7,dport=7),verbose=0)"
    )
    before = shared_pair.status("fw1")["drops"]["OUT_OF_STATE"]
    assert shared_pair.exec("server", sys.executable, "-c", stray).returncode == 0
    entries = shared_pair.ask("fw1", "drops")["entries"]
    assert shared_pair.status("fw1")["drops"]["OUT_OF_STATE"] == before + 1
    assert entries[-1]["text"] == "ICMP error about no known connection; icmp_type: 3"


def test_a_policy_drops_silently_or_rejects_as_its_rules_say(pair, tmp_path):
    pair.serve(1521)
    said = pair.install("fw1", tmp_path, ONLY_DATABASE)
    assert "policy only-database installed on fw1: 3 rules" in said
    assert pair.talk(1521).ask() == "hello"
    assert pair.talk(80).ask() == "refused"  # reject: a RST in the server's name
    assert pair.talk(80, SERVER6).ask() == "refused"
    assert pair.talk(81).ask(patience_s=1) == "silence"  # drop: not a word
    entry = pair.ask("fw1", "drops")["entries"][-1]
    assert (entry["reason"], entry["rule"]) == ("POLICY", 3)
    assert f"{SERVER}:81" in entry["connection"]


def test_a_bad_policy_changes_nothing_and_all_its_problems_are_told(shared_pair, tmp_path):
    bad = {
        "name": "bad",
        "rules": [
            {"name": "a", "source": "nowhere", "action": "accept"},
            {"name": "b", "service": "nothing", "action": "permit"},
        ],
        "colour": "red",
    }
    before = shared_pair.status("fw1")["policy"]
    said = shared_pair.install("fw1", tmp_path, bad, check=False)
    for problem in ("rules[0].source", "nowhere", "rules[1].service", "nothing", "rules[1].action",
                    "colour: unknown key"):  # fmt: skip
        assert problem in said
    assert shared_pair.status("fw1")["policy"] == before
    (tmp_path / "broken.yaml").write_text("rules: [\n")
    done = shared_pair.fwctl("fw1", "policy", "install", str(tmp_path / "broken.yaml"), check=False)
    assert done.returncode == 2
    assert "broken.yaml: line 2" in done.stderr


def test_after_an_install_connections_are_matched_again_or_kept(pair, tmp_path):
    pair.serve(80)
    talk = pair.talk(80)
    assert talk.ask() == "hello"
    pair.install("fw1", tmp_path, {**ONLY_DATABASE, "on_install": "keep"})
    assert talk.ask("kept") == "kept"
    pair.install("fw1", tmp_path, {**ONLY_DATABASE, "rules": ONLY_DATABASE["rules"][2:]})
    assert talk.ask("gone", patience_s=1) == "silence"
    assert pair.status("fw1")["connections"] == 0


def test_parameters_are_checked(shared_pair):
    before = shared_pair.fwctl("fw1", "ctl", "get", "int", "tcp_end_timeout").stdout.split()[-1]
    done = shared_pair.fwctl("fw1", "ctl", "set", "int", "fw_allow_out_of_state_tcp", "7", check=False)
    assert (done.returncode, "legal is 0 or 1" in done.stderr) == (2, True)
    done = shared_pair.fwctl("fw1", "ctl", "set", "int", "fw_allow_out_of_stat_tcp", "1", check=False)
    assert "did you mean fw_allow_out_of_state_tcp" in done.stderr
    shared_pair.fwctl("fw1", "ctl", "set", "int", "tcp_end_timeout", "5")
    assert shared_pair.fwctl("fw1", "ctl", "get", "int", "tcp_end_timeout").stdout == "tcp_end_timeout = 5\n"
    shared_pair.fwctl("fw1", "ctl", "set", "int", "tcp_end_timeout", before)


def test_the_summary_is_the_products(pair):
    pair.exec("client", "ping", "-n", "-c", "1", SERVER, check=True)
    header, values = pair.fwctl("fw1", "tab", "-t", "connections", "-s").stdout.splitlines()
    assert header.split() == ["HOST", "NAME", "ID", "#VALS", "#PEAK", "#SLINKS"]
    assert values.split() == ["localhost", "connections", "8158", "1", "1", "1"]


def test_the_lab_may_be_named_anywhere_on_the_line(shared_pair):
    name = shared_pair.name
    for line in (["--lab", name, "fw1", "stat"], ["fw1", f"--lab={name}", "stat"], ["fw1", "stat", "--lab", name]):
        assert "Cluster Mode" in command("fwnode.control", *line).stdout
    stranger = command("fwnode.control", "fw9", "stat", "--lab", name)
    assert stranger.returncode == 2
    assert "no such member: did you mean fw2? There are: fw1, fw2" in stranger.stderr


def test_drops_can_be_followed(shared_pair):
    follower = shared_pair.background("fw1", *python_command("fwnode.control", "fw1", "drops", "--follow"))
    shared_pair.exec("client", "nmap", "-n", "-Pn", "-sA", "-p", "99", "--max-retries", "0", SERVER)
    assert follower.stdout is not None
    line = next(line for line in follower.stdout if "OUT_OF_STATE" in line and ":99" in line)
    assert "First packet isn't SYN; tcp_flags: ACK" in line


def test_a_malformed_packet_is_counted_and_the_member_goes_on(shared_pair):
    junk = (
        "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW); "
        "h=bytes([0x45,0,0,24,0,1,0,0,64,6,0,0])+socket.inet_aton('192.0.2.100')+socket.inet_aton('198.51.100.100'); "
        "s.sendto(h+b'abcd', ('198.51.100.100', 0))"
    )
    before = shared_pair.status("fw1")["drops"]["MALFORMED"]
    shared_pair.exec("client", sys.executable, "-c", junk, check=True)
    assert shared_pair.status("fw1")["drops"]["MALFORMED"] == before + 1
    assert shared_pair.exec("client", "ping", "-n", "-c", "1", SERVER).returncode == 0


def test_nodes_know_each_other_by_name(shared_pair):
    assert shared_pair.exec("client", "ping", "-c", "1", "-W", "2", "server").returncode == 0
    assert shared_pair.exec("client", "getent", "hosts", "www.example.com").returncode != 0


def test_any_program_runs_in_a_node(shared_pair):
    shared_pair.background("server", sys.executable, "-m", "http.server", "80", "--bind", SERVER)
    ask = ("curl", "-sS", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}", f"http://{SERVER}/")
    until(lambda: shared_pair.exec("client", *ask).stdout == "200", "the web server answers")


@pytest.mark.parametrize(
    ("line", "shows"),
    [
        ("cphaprob state", "1 (local)  203.0.113.1      100%            ACTIVE            fw1"),
        ("cphaprob -l list", "Device Name: Interface Active Check\nCurrent state: OK"),
        ("cphaprob syncstat", "Sync status: OK"),
        ("cphaprob -a if", "lan       192.0.2.1"),
        ("fw tab -t connections -s", "localhost             connections"),
        ("fw ctl pstat", "Able to Send/Receive sync packets"),
        ("fw ctl set int udp_timeout 41", "udp_timeout = 41"),
        ("fw ctl get int udp_timeout", "udp_timeout = 41"),
        ("clusterXL_admin up", "fw1 is Active"),
    ],
)
def test_a_members_shell_knows_the_products_commands(shared_pair, line, shows):
    done = shared_pair.exec("fw1", *line.split())
    assert shows in done.stdout, done.stdout + done.stderr


def test_a_command_of_the_product_that_is_not_modelled_is_refused(shared_pair):
    done = shared_pair.exec("fw1", "fw", "fetch", "localhost")
    assert done.returncode == 2
    assert "is not modelled; there are: fw tab" in done.stderr
