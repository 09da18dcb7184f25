"""Control connections announce data connections: exactly those pass, whatever way the words take."""

from __future__ import annotations

from itertools import pairwise

import pytest
from control_wire import FtpControl, control_firewall, datagram, invite, sent
from firewall_wire import CLIENT, SERVER, address, answer, ip, unreachable
from hypothesis import example, given
from hypothesis import strategies as st
from properties import examples
from scapy.layers.inet import TCP

from fwnode.firewall.announcements import (
    Announcement,
    AnnouncementRefused,
    ftp_command,
    ftp_reply,
    sip_message,
    tftp_request,
)
from fwnode.firewall.inspection import FtpInspector
from fwnode.firewall.packet import parse
from fwnode.firewall.verdict import Hook
from fwnode.policy_file import build_policy
from syncproto.record import Op, Record, Update

ENDS = {family: (address(CLIENT[family]), address(SERVER[family])) for family in (4, 6)}
PASSIVE = b"227 Entering Passive Mode (198,51,100,100,156,65)\r\n"

ACTIVE_WAYS = [
    (4, b"PORT 192,0,2,100,156,65\r\n"),
    (4, b"port 192,0,2,100,156,65 \n"),
    (4, b"EPRT |1|192.0.2.100|40001|\r\n"),
    (6, b"EPRT |2|2001:db8:1::100|40001|\r\n"),
    (6, b"eprt !2!2001:0db8:0001::0100!40001!\r\n"),
]
PASSIVE_WAYS = [
    (4, b"PASV\r\n", PASSIVE),
    (4, b"pasv\r\n", b"227 =198,51,100,100,156,65\r\n"),
    (4, b"PASV\r\n", b"227-So be it\r\n227 Entering Passive Mode. 198,51,100,100,156,65.\r\n"),
    (4, b"EPSV\r\n", b"229 Entering Extended Passive Mode (|||40001|)\r\n"),
    (6, b"EPSV 2\r\n", b"229 Entering Extended Passive Mode (!!!40001!)\r\n"),
]


# -- FTP: what passes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "command"), ACTIVE_WAYS)
def test_active_the_server_may_open_the_announced_connection_once(family: int, command: bytes) -> None:
    control = FtpControl(control_firewall(), family)
    assert control.open("<", 40001) == "POLICY"
    assert control.say(">", command) == "ACCEPT"
    assert control.open("<", 40002) == "POLICY", "another port"
    assert control.open(">", 40001) == "POLICY", "another direction"
    assert control.open("<", 40001, source_port=20) == "ACCEPT"
    assert control.open("<", 40001, source_port=21_000) == "POLICY", "a second one"


@pytest.mark.parametrize(("family", "command", "reply"), PASSIVE_WAYS)
def test_passive_the_client_may_open_the_announced_connection_once(family: int, command: bytes, reply: bytes) -> None:
    control = FtpControl(control_firewall(), family)
    assert control.say(">", command) == "ACCEPT"
    assert control.say("<", reply) == "ACCEPT"
    assert control.expected() == [(control.client, control.server, 40001)]
    assert control.open("<", 40001) == "POLICY"
    assert control.open(">", 40001) == "ACCEPT"
    assert control.open(">", 40001, source_port=20_001) == "POLICY"


def test_a_data_connection_belongs_to_its_control_connection() -> None:
    control = FtpControl(control_firewall(), port=2121)
    control.say(">", ACTIVE_WAYS[0][1])
    control.open("<", 40001)
    parent, data = control.fw.connections
    assert (data.parent, data.rule, data.service) == (parent.key, 1, "ftp-data")
    assert data.key[1:5] == control.server, "its direction is that of its first packet"
    assert data.timeout == 25.0, "a TCP connection like any other"
    back = ip(CLIENT, SERVER) / TCP(sport=40001, dport=20_000, flags="SA")
    assert sent(control.fw, unreachable(bytes(back), "<")) == "ACCEPT"
    assert sent(control.fw, back) == "ACCEPT"


def test_an_announcement_is_for_a_connection_that_begins() -> None:
    control = FtpControl(control_firewall(fw_allow_out_of_state_tcp=1))
    control.say(">", ACTIVE_WAYS[0][1])
    amid = ip(SERVER, CLIENT) / TCP(sport=20_000, dport=40001, flags="PA")
    assert sent(control.fw, amid) == "POLICY", "learning out of state asks the rule base"
    assert control.open("<", 40001) == "ACCEPT"


def test_the_control_connection_needs_its_rule() -> None:
    fw = control_firewall()
    packet = ip(SERVER, CLIENT) / TCP(sport=40001, dport=21, flags="S")
    assert sent(fw, packet) == "POLICY"


def test_a_service_is_inspected_only_where_a_rule_accepts_it() -> None:
    by_port = {"name": "p", "rules": [{"service": "tcp", "action": "accept"}, {"service": "ftp", "action": "drop"}]}
    assert not build_policy(by_port, "p").inspected
    by_any = build_policy({"name": "p", "rules": [{"action": "accept"}]}, "p")
    assert set(by_any.inspected) == {"ftp", "tftp", "sip"}
    own = {"services": {"up": {"protocol": "tcp", "port": 2121, "inspect": "ftp"}}}
    named = build_policy({"name": "p", **own, "rules": [{"service": ["up", "http"], "action": "accept"}]}, "p")
    assert {n: s.ports for n, s in named.inspected.items()} == {"up": ((2121, 2121),)}


# -- FTP: what does not ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "command", "why"),
    [
        (4, b"PORT 203,0,113,9,156,65\r\n", "a third host"),
        (4, b"PORT 198,51,100,100,156,65\r\n", "a third host"),
        (4, b"PORT 192,0,2,100,0,80\r\n", "port 80"),
        (4, b"EPRT |1|192.0.2.100|1023|\r\n", "port 1023"),
        (4, b"EPRT |2|2001:db8:1::100|40001|\r\n", "a third host"),
        (6, b"EPRT |2|2001:db8:9::9|40001|\r\n", "a third host"),
        (6, b"EPRT |2|2001:db8:1::100|0|\r\n", "port 0"),
    ],
)
def test_an_announcement_that_may_not_be_is_dropped_and_logged_however_often_it_comes(
    family: int, command: bytes, why: str
) -> None:
    control = FtpControl(control_firewall(), family)
    for _ in range(2):
        assert control.say(">", command) == "ANNOUNCEMENT"
        entry = control.fw.log[-1]
        assert why in entry.text and command.strip().decode() in entry.text
        assert entry.rule == 1
    assert not control.expected()
    assert control.fw.counters.drops[entry.reason] == 2 if entry.reason else False
    assert control.say(">", b"NOOP\r\n") == "ACCEPT"


@pytest.mark.parametrize(("command", "reply"), [
    (b"PASV\r\n", b"227 Entering Passive Mode (203,0,113,9,156,65)\r\n"),
    (b"EPSV\r\n", b"229 Entering Extended Passive Mode (|||80|)\r\n"),
])  # fmt: skip
def test_a_servers_announcement_is_held_to_the_same(command: bytes, reply: bytes) -> None:
    control = FtpControl(control_firewall())
    control.say(">", command)
    assert control.say("<", reply) == "ANNOUNCEMENT"
    assert control.say("<", reply) == "ANNOUNCEMENT"


def test_a_refusal_split_over_segments_is_refused_at_its_end() -> None:
    control = FtpControl(control_firewall())
    assert control.say(">", b"PORT 203,0,113") == "ACCEPT"
    assert [control.say(">", b",9,156,65\r\n") for _ in range(2)] == ["ANNOUNCEMENT"] * 2


def test_a_reply_that_nobody_asked_for_announces_nothing() -> None:
    control = FtpControl(control_firewall())
    assert control.say("<", PASSIVE) == "ACCEPT"
    assert control.say(">", b"PASV\r\n") == "ACCEPT"
    assert control.say("<", b"150 " + PASSIVE) == "ACCEPT", "not the last word yet"
    assert not control.expected()
    assert control.say("<", PASSIVE + PASSIVE.replace(b"65", b"66")) == "ACCEPT"
    assert [port for *_, port in control.expected()] == [40001], "one answer a question"


NOT_ASKED = [
    [(">", b"PASV\r\n"), ("<", b"530 Log in first.\r\n"), ("<", PASSIVE)],
    [(">", b"PASV\r\n"), ("<", b"200 What?\r\n"), (">", b"NOOP\r\n"), ("<", PASSIVE)],
    [(">", b"EPSV\r\n"), ("<", PASSIVE)],
    [(">", b"PASVE\r\n"), ("<", PASSIVE)],
    [(">", b"STAT\r\nPASV\r\n"), ("<", b"211-Files:\r\n" + PASSIVE + b"211 End\r\n")],
    [(">", b"XXXX\n227 x\r\nPASV\r\n"), ("<", b"500 unknown: XXXX\n" + PASSIVE)],
    [(">", b"NOOP\r\n" * 40 + b"PASV\r\n"), ("<", PASSIVE)],
    [(">", b"NOOP\r\n" + b"x" * 1_100 + b"\r\nPASV\r\n"), ("<", PASSIVE)],
]


@pytest.mark.parametrize("talk", NOT_ASKED)
def test_a_passive_reply_to_another_command_announces_nothing(talk: list[tuple[str, bytes]]) -> None:
    control = FtpControl(control_firewall())
    for way, text in talk:
        assert control.say(way, text) == "ACCEPT"
    assert not control.expected()


def test_a_client_that_skips_a_byte_gets_nothing_that_it_has_not_asked_for() -> None:
    """What the server says is not taken for an answer because a question may have been missed."""
    control = FtpControl(control_firewall())
    control.next[">"] += 1
    for text in (b"NOOP\r\n", *(b"NOOP\r\n",) * 9):
        assert control.say(">", text) == "ACCEPT"
    assert control.say("<", PASSIVE) == "ACCEPT"
    assert not control.expected()
    assert control.say(">", b"PASV\r\n") == control.say("<", PASSIVE) == "ACCEPT"
    assert [port for *_, port in control.expected()] == [40001], "what it asks for now is followed again"


@pytest.mark.parametrize("missed", [b"230 " + b"x" * 5_000 + b"\r\n", b"230 hi\r\n"])
def test_a_talk_is_followed_again_once_both_ends_are_at_rest(missed: bytes) -> None:
    control = FtpControl(control_firewall())
    assert control.say(">", b"USER a\r\n") == "ACCEPT"
    if len(missed) > 4_016:  # not copied whole
        assert sent(control.fw, bytes(control.segment("<", missed))[:4_016]) == "ACCEPT"
    control.next["<"] += len(missed)
    for way, text in ((">", b"NOOP\r\n"), ("<", b"200 OK\r\n"), (">", b"PASV\r\n"), ("<", PASSIVE)):
        assert control.say(way, text) == "ACCEPT"
    assert [port for *_, port in control.expected()] == [40001]


def test_commands_in_one_go_are_answered_in_their_order() -> None:
    control = FtpControl(control_firewall())
    control.say(">", b"NOOP\r\nPASV\r\n\r\nEPSV\r\n")
    control.say("<", b"200-Yes\r\n 227 no\r\n200 Yes\r\n" + PASSIVE + b"229 Ext (|||40002|)\r\n")
    assert sorted(port for *_, port in control.expected()) == [40001, 40002]


@pytest.mark.parametrize("line", [b"XPORT 192,0,2,100,156,65", b"PORT 192,0,2,100,156", b"PORT 192,0,2,100,156,256",
                                  b"PORT 1,192,0,2,100,156,65", b"EPRT |1|192.0.2.100|99999|", b"EPRT |3|x|2000|",
                                  b"EPRT |1|192.0.2.100!40001|", b"PORT", b""])  # fmt: skip
def test_what_is_not_understood_announces_nothing(line: bytes) -> None:
    control = FtpControl(control_firewall())
    assert control.say(">", line + b"\r\n") == "ACCEPT"
    assert not control.expected()


def test_the_short_way_does_not_look_inside() -> None:
    """Packets that came without their payload announce nothing, and the connection is none the worse."""
    control = FtpControl(control_firewall())
    packet = bytes(control.segment(">", ACTIVE_WAYS[0][1]))
    control.fw.connections.take_updates(0.0)
    assert answer(control.fw, packet) == "ACCEPT"
    assert not control.expected()


# -- segments --------------------------------------------------------------------------------------------------------


def test_every_split_of_a_command_is_understood() -> None:
    command = b"EPRT |1|192.0.2.100|40001|\r\n"
    for at in range(1, len(command)):
        control = FtpControl(control_firewall())
        assert control.say(">", command[:at]) == control.say(">", command[at:]) == "ACCEPT"
        assert control.open("<", 40001) == "ACCEPT", f"split at {at}"


def test_segments_may_come_again_overlap_and_change_places() -> None:
    control = FtpControl(control_firewall())
    first = control.next[">"]
    segments = [(9, b"0,2,100,156"), (5, b"192,0,2"), (0, b"PORT 19"), (0, b"PORT 19"), (5, b"192,0,2,100,156,65\r\n")]
    for at, text in segments:
        assert sent(control.fw, control.segment(">", text, sequence=first + at)) == "ACCEPT"
    assert control.expected() == [(control.server, control.client, 40001)]


def test_a_handshake_that_begins_again_with_other_numbers_is_followed() -> None:
    fw = control_firewall()
    for number in (5_000_000, 77):
        assert sent(fw, ip(CLIENT, SERVER) / TCP(sport=40001, dport=21, flags="S", seq=number)) == "ACCEPT"
    control = FtpControl(fw)
    again = control.segment("<", flags="SA", sequence=control.next["<"] - 1)
    assert control.say("<", b"220 ") == sent(fw, again) == "ACCEPT", "a SYN-ACK that came late changes nothing"
    for way, text in (("<", b"ready\r\n"), (">", b"PASV\r\n"), ("<", PASSIVE)):
        assert control.say(way, text) == "ACCEPT"
    assert control.open(">", 40001) == "ACCEPT"


def test_after_a_segment_that_never_comes_the_next_line_is_understood() -> None:
    control = FtpControl(control_firewall())
    control.next[">"] += 7  # passed on another way
    assert control.say(">", b"RT 192,0,2,100,156,65\r\n") == "ACCEPT"
    control.say("<", b"200 OK\r\n")  # acknowledges it
    assert control.say(">", b"NOOP\r\nPORT 192,0,2,100,156,66\r\n") == "ACCEPT"
    assert [port for *_, port in control.expected()] == [40002]


def test_a_packet_that_was_not_copied_whole_costs_its_last_line_only() -> None:
    control = FtpControl(control_firewall())
    text = b"PORT 192,0,2,100,156,65\r\n" + b"x" * 5_000 + b"PORT 192,0,2,100,156,66\r\n"
    whole = bytes(control.segment(">", text))
    assert sent(control.fw, whole[:4_016]) == "ACCEPT"
    control.next[">"] += len(text)
    assert control.say(">", b"PORT 192,0,2,100,156,67\r\n") == "ACCEPT"
    assert control.say(">", b"PORT 192,0,2,100,156,68\r\n") == "ACCEPT"
    assert [port for *_, port in control.expected()] == [40001, 40004]


def test_a_long_line_is_passed_over() -> None:
    control = FtpControl(control_firewall())
    for text in (b"x" * 900, b"y" * 900, b"PORT 192,0,2,100,156,65\r\n", b"PORT 192,0,2,100,156,66\r\n"):
        assert control.say(">", text) == "ACCEPT"
    assert [port for *_, port in control.expected()] == [40002]


STREAM = (
    b"USER anonymous\r\nPORT 192,0,2,100,156,65\r\nXX PORT 192,0,2,100,156,66\r\nEPRT |1|192.0.2.100|40003|\r\nQUIT\r\n"
)
SAID = {40001, 40003}


@st.composite
def deliveries(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Pieces of the stream (from, to), in any order, some again, some overlapping, some never."""
    cuts = sorted({0, len(STREAM), *draw(st.lists(st.integers(1, len(STREAM) - 1), max_size=12))})
    pieces = list(pairwise(cuts))
    again = draw(st.lists(st.tuples(st.integers(0, len(STREAM) - 1), st.integers(1, 40)), max_size=4))
    pieces += [(at, min(len(STREAM), at + length)) for at, length in again]
    return draw(st.permutations(pieces)) if draw(st.booleans()) else sorted(pieces)


def segment(sequence: int, text: bytes, flags: int = 0x18) -> bytes:
    """From the client; only what is read is filled in."""
    ports = (40001).to_bytes(2) + (21).to_bytes(2)
    header = ports + (sequence % 2**32).to_bytes(4) + bytes(4) + bytes((0x50, flags)) + bytes(6)
    length = (40 + len(text)).to_bytes(2)
    return b"\x45\0" + length + bytes(5) + b"\x06" + bytes(2) + b"".join(ENDS[4]) + header + text


@examples(200)
@given(deliveries(), st.booleans(), st.integers(0, 2**32 - 1))
@example([(0, len(STREAM))], True, 0)
def test_whatever_becomes_of_the_segments_nothing_is_announced_that_was_not_said(
    pieces: list[tuple[int, int]], from_start: bool, start: int
) -> None:
    inspector = FtpInspector(*ENDS[4])
    heard: set[int] = set()

    def see(data: bytes) -> None:
        heard.update(int.from_bytes(found.key[-2:]) for found in inspector.see(parse(data), data, True))

    if from_start:
        see(segment(start - 1, b"", 0x02))
    else:  # after a failover what comes first is taken to begin with a line
        see(segment(start, STREAM[:1]))
    for begin, end in pieces:
        see(segment(start + begin, STREAM[begin:end]))
    assert heard <= SAID
    if len(pieces) <= 8:
        assert heard == SAID, "nothing is missing, and no more is held than may be"


# -- TFTP, SIP -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("request_", [b"\0\1file\0octet\0", b"\0\2file\0netascii\0blksize\0001428\0"])
def test_tftp_the_server_may_answer_from_a_new_port(family: int, request_: bytes) -> None:
    fw = control_firewall()
    assert sent(fw, datagram("<", b"\0\3\0\1data", 40001, 50_000, family)) == "POLICY"
    assert sent(fw, datagram(">", request_, 40001, 69, family)) == "ACCEPT"
    assert sent(fw, datagram("<", b"\0\3\0\1data", 40002, 50_000, family)) == "POLICY"
    assert sent(fw, datagram("<", b"\0\3\0\1data", 40001, 50_000, family)) == "ACCEPT"
    assert sent(fw, datagram(">", b"\0\4\0\1", 40001, 50_000, family)) == "ACCEPT"
    assert sent(fw, datagram("<", b"\0\3\0\1data", 40001, 50_001, family)) == "POLICY", "one answer a request"
    control, data = fw.connections
    assert (data.service, data.parent, data.timeout) == ("tftp-data", control.key, 40.0)


@pytest.mark.parametrize(("payload", "port", "verdict"), [
    (b"\0\3\0\1data", 40001, "ACCEPT"), (b"\0\1file", 40001, "ACCEPT"), (b"\0\1file\0octet\0", 1000, "ANNOUNCEMENT"),
])  # fmt: skip
def test_tftp_what_announces_nothing(payload: bytes, port: int, verdict: str) -> None:
    fw = control_firewall()
    assert sent(fw, datagram(">", payload, port, 69)) == verdict
    assert len(fw.connections.expected) == 0


@pytest.mark.parametrize("family", [4, 6])
def test_sip_both_ends_announce_where_they_listen(family: int) -> None:
    fw = control_firewall()
    assert sent(fw, datagram(">", invite(CLIENT[family], 40_000), 5060, 5060, family)) == "ACCEPT"
    answered = invite(SERVER[family], 50_000, start="SIP/2.0 200 OK")
    assert sent(fw, datagram("<", answered, 5060, 5060, family)) == "ACCEPT"
    assert len(fw.connections.expected) == 4
    # RTP one way and back is one connection; RTCP has its own.
    assert sent(fw, datagram(">", b"rtp", 40_000, 50_000, family)) == "ACCEPT"
    assert sent(fw, datagram("<", b"rtp", 40_000, 50_000, family)) == "ACCEPT"
    assert sent(fw, datagram("<", b"rtcp", 40_001, 50_001, family)) == "ACCEPT"
    assert sent(fw, datagram("<", b"rtp", 40_002, 50_002, family)) == "POLICY"
    assert [c.service for c in fw.connections] == ["sip", "rtp", "rtcp"]


@pytest.mark.parametrize(("message", "ports"), [
    (invite(CLIENT[4], 0), []),
    (invite("0.0.0.0", 40_000), []),
    (invite(CLIENT[4], 65_535), [65_535]),
    (invite(CLIENT[4], 40_000, more="m=video 40010/2 RTP/SAVPF 96\r\na=x\r\nm=text 40020 RTP/AVP 0\r\n"),
     [40_000, 40_001, 40_010, 40_011]),
    (invite(CLIENT[4], 40_000).replace(b"\r\nContent-Length: ", b"\r\nl: 9"), [40_000, 40_001]),
    (invite(CLIENT[4], 40_000).replace(b"application/sdp", b"text/plain"), []),
    (invite(CLIENT[4], 40_000).replace(b"\r\n", b"\n"), [40_000, 40_001]),
    (invite(CLIENT[4], 40_000)[:-4], []),
    (b"NOTIFY sip:x SIP/2.0\r\n\r\n", []),
    (b"\r\n\r\n", []),
])  # fmt: skip
def test_sip_only_complete_lines_of_audio_and_video_count(message: bytes, ports: list[int]) -> None:
    found = sip_message(message, True, *ENDS[4])
    assert [int.from_bytes(f.key[-2:]) for f in found] == ports


def test_sip_a_packet_that_was_not_copied_whole_may_end_amid_a_port() -> None:
    fw = control_firewall()
    message = invite(CLIENT[4], 40_000, more="m=video 40010 RTP/AVP 96\r\n").replace(b"Content-Length", b"X-Length")
    whole = bytes(datagram(">", message, 5060, 5060))
    assert sent(fw, whole[: whole.index(b" 96\r\n")]) == "ACCEPT"
    assert [int.from_bytes(known.key[-2:]) for known in fw.connections.expected] == [40_000, 40_001]


@pytest.mark.parametrize("message", [
    invite("203.0.113.9", 40_000), invite(CLIENT[4], 80), invite("host.example.com", 40_000),
    invite(CLIENT[4], 40_000, more="m=video 40010 RTP/AVP 96\r\nc=IN IP4 203.0.113.9\r\n"),
])  # fmt: skip
def test_sip_an_announcement_that_may_not_be_is_refused_as_a_whole(message: bytes) -> None:
    fw = control_firewall()
    assert sent(fw, datagram(">", message, 5060, 5060)) == "ANNOUNCEMENT"
    assert len(fw.connections.expected) == 0


# -- whatever comes --------------------------------------------------------------------------------------------------

_WORDS = [b"PORT ", b"EPRT |", b"|1|", b"192,0,2,100,", b"227 ", b"229 (|||", b"40001", b"|", b"\r\n", b"\0\1", b"\0",
          b"octet", b"INVITE x SIP/2.0", b"c=IN IP4 192.0.2.100", b"m=audio 40000 RTP/AVP 0", b"Content-Length: ",
          b"Content-Type: application/sdp", b"9" * 50]  # fmt: skip
ANYTHING = st.lists(st.one_of(st.sampled_from(_WORDS), st.binary(max_size=6)), max_size=12).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A packet of a control connection that is cut, or lies in its headers."""
    family, text = draw(st.sampled_from([4, 6])), draw(ANYTHING)
    control = datagram(draw(st.sampled_from("<>")), text, 5060, draw(st.sampled_from([69, 5060])), family)
    header = TCP(sport=40001, dport=21, flags=draw(st.sampled_from(["PA", "SA", "FA", "S"])), seq=1_001)
    data = bytearray(bytes(draw(st.sampled_from([control, ip(CLIENT, SERVER, family) / header / text]))))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(20, len(data)))] if draw(st.booleans()) else data)


@examples(100)
@given(st.lists(damaged(), max_size=4))
def test_an_inspected_connection_takes_any_packet(packets: list[bytes]) -> None:
    fw = control_firewall()
    for family in (4, 6):
        FtpControl(fw, family)
    for data in packets:
        fw.decide_inspected(data, Hook.FORWARD, 0.0)
    for announced in fw.connections.expected:
        assert announced.parent in fw.connections.entries


def test_a_copy_that_names_the_wrong_service_is_not_taken_at_its_word() -> None:
    fw = control_firewall()
    key = parse(bytes(datagram(">", b"", 40001, 53))).key
    record = Record(key, 0, 40.0, 40.0, 1, "ftp", 0, 1.0, 1)
    fw.connections.apply(Update(Op.SET, key, record, 1.0, 1), 0.0, fw.generation)
    assert sent(fw, datagram(">", b"", 40001, 53)) == "ACCEPT"


@examples(300)
@given(ANYTHING, st.sampled_from([4, 6]), st.booleans())
def test_the_parsers_take_any_bytes(data: bytes, family: int, whole: bool) -> None:
    client, server = ENDS[family]
    for parser in (
        lambda: [ftp_command(data, client, server)],
        lambda: [ftp_reply(data, client, server)],
        lambda: [tftp_request(data, client, server, 40001)],
        lambda: sip_message(data, whole, client, server),
    ):
        try:
            found: list[Announcement | None] = list(parser())
        except AnnouncementRefused as error:
            assert len(str(error)) < 250
            continue
        for announcement in filter(None, found):
            assert announcement.key[1:-4] in (client + server, server + client)
            assert announcement.key[-4:-2] == bytes(2) and int.from_bytes(announcement.key[-2:]) >= 1024
