"""The pure TCP endpoint: what it sends, when, and what it tells its application."""

from __future__ import annotations

import errno

import pytest
import tcp_stories as stories
from hypothesis import example, given
from hypothesis import strategies as st
from properties import examples
from tcp_pipe import CLIENT, DELAY_S, SERVER, Pipe, opened

from labs.simulation.segments import ACK, RST, SYN
from labs.simulation.tcp_connection import TcpState

IPV6 = (bytes(15) + b"\x01", bytes(15) + b"\x02")


def talk(pipe: Pipe, exchanges: int, think_s: float) -> None:
    connection = pipe.client.connection
    for _ in range(exchanges):
        assert connection is not None
        connection.write(b"Q 1\n", pipe.world.now)
        pipe.run(think_s)


# -- the order and the kinds of packets; tests/netns/test_real_tcp.py holds the same against a kernel


@pytest.mark.parametrize("ends", [(CLIENT, SERVER), IPV6])
def test_questions_answers_and_acks_as_linux_sends_them(ends: tuple[bytes, bytes]) -> None:
    pipe = Pipe(ends=ends)
    opened(pipe)
    talk(pipe, 1, 0.1)
    assert pipe.said() == stories.FIRST_EXCHANGE
    talk(pipe, 2, 0.1)
    assert pipe.said() == stories.LATER_EXCHANGES


def test_who_thinks_for_a_moment_only_lets_the_ack_ride_on_the_next_question() -> None:
    pipe = Pipe()
    opened(pipe)
    talk(pipe, 4, 0.01)
    assert pipe.said() == stories.QUICK_EXCHANGES
    pipe.run(0.1)
    assert pipe.said() == stories.LAST_ACK, "it comes by itself, in the end"


def test_both_ends_close_in_three_packets() -> None:
    pipe = Pipe()
    connection = opened(pipe)
    connection.shut_down(pipe.world.now)
    pipe.run(0.1)
    assert pipe.said() == stories.BOTH_CLOSE
    assert pipe.server.is_gone and not pipe.client.is_gone
    assert pipe.client.app.said == ["opened", "ended"] and pipe.server.app.error is None
    pipe.run(61)
    assert pipe.client.is_gone and pipe.said() == "", "TIME_WAIT is over"


def test_one_side_closes_and_still_hears_the_other() -> None:
    pipe = Pipe()
    connection = opened(pipe, None)
    pipe.server.app.reply_eof = False
    connection.shut_down(pipe.world.now)
    pipe.run(0.5)
    assert connection.state is TcpState.FIN_WAIT_2
    assert pipe.server.connection is not None
    pipe.server.connection.write(b"the rest", pipe.world.now)
    pipe.run(0.1)
    assert bytes(pipe.client.app.data) == b"the rest"
    pipe.server.connection.close(pipe.world.now)
    pipe.run(0.1)
    assert pipe.said() == stories.HALF_CLOSE


def test_an_abort_is_one_rst_and_a_reset_at_the_other_end() -> None:
    pipe = Pipe()
    opened(pipe).abort(pipe.world.now)
    pipe.run(300)
    assert pipe.said() == stories.ABORT and pipe.client.is_gone
    assert pipe.server.app.error == errno.ECONNRESET and pipe.server.is_gone


def test_data_for_a_process_that_has_closed_is_answered_by_a_rst() -> None:
    pipe = Pipe()
    connection = opened(pipe)
    connection.write(b"Q", pipe.world.now)
    connection.close(pipe.world.now)
    pipe.run(0.1)
    assert ">R" in pipe.said() and pipe.client.is_gone and pipe.server.is_gone


def test_what_is_unknown_is_answered_by_a_rst() -> None:
    pipe = Pipe()
    pipe.server.listens = False
    pipe.connect()
    pipe.run(1)
    assert pipe.said() == stories.REFUSED and pipe.client.app.error == errno.ECONNREFUSED
    pipe.raw(ACK, 5, 9)
    pipe.raw(RST, 5, 9)
    assert pipe.said() == "<R", "and a RST by nothing"


def test_a_syn_in_an_open_connection_is_challenged_and_a_rst_must_fit() -> None:
    pipe = Pipe()
    connection = opened(pipe)
    pipe.raw(SYN, 77, 0)
    pipe.raw(RST, 200, 0)
    pipe.run(0.1)
    assert pipe.said() == "<. <." and connection.state is TcpState.ESTABLISHED
    pipe.raw(RST, 101, 0)
    assert pipe.server.app.error == errno.ECONNRESET


def test_a_client_that_began_anew_on_the_same_port_is_let_in_by_challenge_and_rst() -> None:
    pipe = Pipe()
    opened(pipe)
    pipe.connect(initial=900_000)
    pipe.run(3)
    assert pipe.said() == ">S <. >R >S <S. >."


# -- a dark other side


def test_data_that_nobody_acknowledges_is_sent_again_at_doubled_intervals_until_it_fails() -> None:
    pipe = Pipe()
    connection = opened(pipe)
    pipe.dark = True
    connection.write(b"Q", pipe.world.now)
    pipe.run(7)
    times = pipe.times()
    assert times[:5] == pytest.approx(stories.DARK_DATA_S, rel=0.05)
    assert times[5:] == pytest.approx([3.2, 6.4], rel=0.05)
    pipe.run(900)
    assert pipe.client.app.error is None
    pipe.run(200)
    assert pipe.client.app.error == errno.ETIMEDOUT and pipe.client.is_gone


@pytest.mark.parametrize(("lost", "later"), [("<S.", stories.SLOW_DATA_S), (">S", [0.0, 0.204])])
def test_a_late_answer_makes_the_next_timeout_long_and_a_lost_question_does_not(lost: str, later: list[float]) -> None:
    """What a SYN-ACK echoes tells which SYN the server has heard first (Linux: tcp_ack_update_rtt)."""
    pipe = Pipe()

    def lose_the_first(_: object) -> list[float]:
        _, arrow, flags, _ = pipe.log[-1]
        return [] if pipe.world.now < pipe.start + 0.5 and arrow + flags == lost else [DELAY_S]

    pipe.fate = lose_the_first
    connection = pipe.connect()
    pipe.run(1.1)
    assert connection.state is TcpState.ESTABLISHED
    pipe.log.clear()
    pipe.dark = True
    connection.write(b"Q 1\n", pipe.world.now)
    pipe.run(2.5)
    assert pipe.times()[:2] == pytest.approx(later, abs=0.01)


def test_a_last_icmp_error_is_what_the_application_hears_in_the_end() -> None:
    pipe = Pipe()
    connection = opened(pipe)
    pipe.dark = True
    connection.write(b"Q", pipe.world.now)
    connection.unreachable(errno.EHOSTUNREACH)
    pipe.run(1_100)
    assert pipe.client.app.error == errno.EHOSTUNREACH


def test_a_syn_is_sent_eleven_times() -> None:
    pipe = Pipe()
    pipe.dark = True
    pipe.connect()
    pipe.run(140)
    assert (times := pipe.times()) == [0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67] and times[:4] == stories.DARK_SYN_S
    assert pipe.client.app.error == errno.ETIMEDOUT


def test_an_icmp_error_ends_an_opening_at_once() -> None:
    pipe = Pipe()
    pipe.dark = True
    pipe.connect().unreachable(errno.EHOSTUNREACH)
    assert pipe.client.app.error == errno.EHOSTUNREACH and pipe.client.is_gone


def test_a_syn_ack_that_nobody_answers_is_forgotten_in_silence() -> None:
    pipe = Pipe()
    pipe.dark = True
    pipe.raw(SYN, 5, 0)
    pipe.run(70)
    assert pipe.times() == [0, 1, 3, 7, 15, 31] and pipe.server.is_gone and pipe.server.app.said == []


def test_an_orphan_gives_up_sooner() -> None:
    pipe = Pipe()
    connection = opened(pipe)
    pipe.dark = True
    connection.write(b"Q", pipe.world.now)
    connection.close(pipe.world.now)
    pipe.run(250)
    assert pipe.client.is_gone and pipe.client.app.error is None


def test_keepalive_notices_a_silent_death() -> None:
    pipe = Pipe()
    connection = opened(pipe)
    connection.keep_alive(pipe.world.now)
    pipe.run(7_300)
    assert pipe.said() == ">. <."
    pipe.dark = True
    pipe.run(7_200 + 9 * 75)
    assert pipe.client.app.error == errno.ETIMEDOUT and pipe.said() == " ".join([">."] * 9 + [">R."])


# -- much data


def test_a_process_that_does_not_read_stops_the_other_side_and_loses_nothing() -> None:
    pipe = Pipe()
    connection = opened(pipe, None)
    assert pipe.server.connection is not None
    pipe.server.connection.pause_reading()
    text = bytes(range(256)) * 20_000
    connection.write(text, pipe.world.now)
    pipe.run(30)
    assert 4_000_000 < len(text) - connection.pending < 5_000_000 and not pipe.server.app.data
    pipe.server.connection.resume_reading(pipe.world.now)
    pipe.run(30)
    assert bytes(pipe.server.app.data) == text and connection.pending == 0


def test_one_lost_segment_of_many_is_repaired_by_duplicate_acknowledgements() -> None:
    pipe = Pipe()
    connection = opened(pipe, None)
    sent = 0

    def lose_the_third(_: object) -> list[float]:
        nonlocal sent
        sent += 1
        return [] if sent == 3 else [DELAY_S]

    pipe.fate = lose_the_third
    connection.write(bytes(14_000), pipe.world.now)
    pipe.run(5 * DELAY_S)
    assert len(pipe.server.app.data) == 14_000, "before any timer, that of the loss probe included"


def test_a_bottleneck_is_filled_and_not_flooded() -> None:
    """A link of 1 Mbit/s that holds 150 ms: slow start overruns it, the window then settles."""
    pipe = Pipe()
    connection = opened(pipe, None)
    free_at = pipe.world.now

    def queue(_: object) -> list[float]:
        nonlocal free_at
        now = pipe.world.now
        free_at = max(free_at, now)
        if free_at - now > 0.15:
            return []
        free_at += pipe.log[-1][3] * 8 / 1e6
        return [free_at - now + DELAY_S]

    pipe.fate = queue
    connection.write(bytes(1_000_000), pipe.world.now)
    pipe.run(12)
    assert len(pipe.server.app.data) == 1_000_000
    carried = sum(length for _, arrow, _, length in pipe.log if arrow == ">")
    assert carried < 1_150_000


# -- whatever the network does


Copies = st.lists(st.floats(0.0005, 0.4), max_size=2)


@examples(60)
@given(
    fates=st.lists(Copies, max_size=60), sizes=st.lists(st.integers(1, 6_000), min_size=1, max_size=12),
    initial=st.sampled_from([100, 0xFFFFFF00, 0xFFFFFFFF, 0x7FFFFF00]), ends=st.sampled_from([(CLIENT, SERVER), IPV6]),
)  # fmt: skip
def test_every_byte_arrives_once_and_in_order_in_both_directions(
    fates: list[list[float]], sizes: list[int], initial: int, ends: tuple[bytes, bytes]
) -> None:
    """Any segments may be lost, late or doubled for a while; the network is well in the end."""
    pipe = Pipe(ends=ends)
    connection = pipe.connect(initial)
    pipe.run(0.1)
    pipe.server.app.answer = bytes.swapcase
    left = iter(fates)
    pipe.fate = lambda _: next(left, [DELAY_S])
    texts = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    for text in texts:
        connection.write(text, pipe.world.now)
        pipe.run(0.07)
    pipe.run(600)
    assert bytes(pipe.server.app.data) == b"".join(texts)
    assert bytes(pipe.client.app.data) == b"".join(texts).swapcase()
    assert connection.pending == 0 and pipe.client.app.error is None
    connection.close(pipe.world.now)
    pipe.run(700)
    assert pipe.client.is_gone and pipe.server.is_gone, "nothing is left on either side"


@examples(40)
@given(loss=st.floats(0, 1), seed=st.integers(0, 1 << 30), size=st.integers(0, 60_000))
@example(loss=0.625, seed=1449, size=0)  # the server's end is lost every time
def test_all_arrives_or_the_connection_fails(loss: float, seed: int, size: int) -> None:
    text = bytes(index % 251 for index in range(size))
    pipe = Pipe(lambda random: [] if random.random() < loss else [random.uniform(0.0005, 0.05)], seed)
    connection = pipe.connect()

    def begin() -> None:
        connection.write(text, pipe.world.now)
        connection.shut_down(pipe.world.now)

    pipe.client.app.opened = begin
    pipe.run(5_000)
    left = pipe.server.connection
    assert left is None or (left.state is TcpState.ESTABLISHED and not left.pending)
    # Where the server's end is lost every time, nothing tells the client: it has said its own, and waits, as in Linux.
    assert pipe.client.is_gone or (left is None and connection.state is TcpState.FIN_WAIT_2)
    assert text.startswith(bytes(pipe.server.app.data))
    if "ended" in pipe.server.app.said:
        assert bytes(pipe.server.app.data) == text
    else:
        assert pipe.client.app.error is not None


@examples(60)
@given(st.lists(st.tuples(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 63)), max_size=20))
def test_strange_segments_break_nothing(strangers: list[tuple[int, int, int]]) -> None:
    pipe = Pipe()
    connection = opened(pipe)
    for sequence, acknowledgement, flags in strangers:
        pipe.raw(flags, sequence, acknowledgement)
    connection.write(b"Q\n", pipe.world.now)
    pipe.run(10)
    assert bytes(pipe.client.app.data) == b"A Q\n" or pipe.client.is_gone
