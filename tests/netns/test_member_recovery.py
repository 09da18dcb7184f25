"""A client that has forgotten its connection opens it anew from the same port, while the server still remembers it."""

from __future__ import annotations

import sys

import pytest
from harness import UpLab, until

PORT, CLIENT_PORT = 9100, 40100
RECONNECT = f"""
import socket, struct, subprocess, sys
address, command = sys.argv[1], sys.argv[2]

def connect():
    link = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    link.bind(("", {CLIENT_PORT}))
    link.settimeout(20)
    link.connect((address, int(sys.argv[4])))
    link.sendall(b"hello")
    assert link.recv(9) == b"hello"
    return link

def silent(verb):  # no reset leaves this machine: it dies without a word
    subprocess.run([command, "-w", verb, "OUTPUT", "-p", "tcp", "--tcp-flags", "RST", "RST", "-j", "DROP"], check=True)

link = connect()
if sys.argv[3] == "silent":
    silent("-I")
link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
link.close()
if sys.argv[3] == "silent":
    silent("-D")
print("gone", flush=True)
sys.stdin.readline()
connect()
print("connected again", flush=True)
"""


def rows(pair: UpLab, member: str):
    return pair.ask(member, "tab", "-u")["rows"]


def crashed(pair: UpLab, family: int, way: str, port: int = PORT):
    """A client whose connection through the pair is gone, without the server's knowledge."""
    address, command = ("198.51.100.100", "iptables") if family == 4 else ("2001:db8:2::100", "ip6tables")
    client = pair.background("client", sys.executable, "-c", RECONNECT, address, command, way, str(port))
    assert client.stdout.readline() == "gone\n"
    return client


def connects_again(client) -> bool:
    """Without the server's challenge every SYN would go unanswered, for all of the 20 s that the client tries."""
    client.stdin.write("\n")
    client.stdin.flush()
    return client.stdout.readline() == "connected again\n"


@pytest.mark.parametrize("family", [4, 6])
def test_a_client_reconnects_while_its_old_connection_is_ending_at_the_firewall_alone(shared_pair, family):
    pair = shared_pair
    if family == 4:
        pair.serve(PORT)
    deaf = ("INPUT", "-p", "tcp", "--tcp-flags", "RST", "RST", "-j", "DROP")
    command = "iptables" if family == 4 else "ip6tables"
    pair.exec("server", command, "-w", "-I", *deaf, check=True)  # the reset passes the firewall and is lost behind it
    client = crashed(pair, family, "with a reset")
    pair.exec("server", command, "-w", "-D", *deaf, check=True)
    own = [row for row in rows(pair, "fw1") if row["source_port"] == CLIENT_PORT]
    assert [row["state"] for row in own if (":" in row["source"]) == (family == 6)] == ["CLOSING"]
    assert connects_again(client)


@pytest.mark.parametrize("family", [4, 6])
def test_a_client_reconnects_after_the_firewall_has_forgotten_its_connection(shared_pair, family):
    pair = shared_pair
    if family == 4:
        pair.serve(PORT + 1)
    client = crashed(pair, family, "silent", PORT + 1)
    pair.fwctl("fw1", "tab", "-t", "connections", "-x", "-y")
    for member in ("fw1", "fw2"):
        until(lambda member=member: not any(r["source_port"] == CLIENT_PORT for r in rows(pair, member)), "forgotten")
    assert connects_again(client)
