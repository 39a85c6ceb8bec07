"""Properties of the POP3 core: the cutting of the input changes nothing, the table says what is legal, answers too late
are harmless."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.pop3 import events, replies
from mailsrv.pop3.dialog import OUTPUT_LIMIT
from mailsrv.pop3.maildrop import Maildrop
from mailsrv.pop3.server import ServerConnection
from mailsrv.pop3.states import COMMANDS, READING, TABLE, State
from tests.pop3.driver import CREDENTIALS, LOOPBACK, PLAIN, Record, Stored, settle
from tests.worlds.scram import EXAMPLE_FIRST, ScramClient

LOGIN = b"USER %b\r\nPASS %b\r\n" % (CREDENTIALS[0].encode(), CREDENTIALS[1].encode())
SCRAM = ScramClient("user", "pencil")

lines = st.one_of(
    st.sampled_from(
        [
            LOGIN,
            b"CAPA\r\n",
            b"STAT\r\n",
            b"LIST\r\n",
            b"UIDL\r\n",
            b"LIST 1\r\n",
            b"RETR 1\r\n",
            b"RETR 2\r\n",
            b"TOP 1 1\r\n",
            b"DELE 1\r\n",
            b"DELE 2\r\n",
            b"RSET\r\n",
            b"NOOP\r\n",
            b"AUTH PLAIN\r\n*\r\n",
            f"AUTH SCRAM-SHA-256 {SCRAM.first()}\r\n".encode(),
            f"AUTH SCRAM-SHA-256\r\n{SCRAM.first()}\r\n{SCRAM.answer(EXAMPLE_FIRST)}\r\n\r\n".encode(),
            b"AUTH PLAIN\r\nAGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldCB3b3JkIA==\r\n",
            b"\r\n",
            b"x" * 300 + b"\r\n",
            b"NOOP\r\r\n",
        ]
    ),
    st.binary(max_size=12).map(lambda octets: octets + b"\r\n"),
    st.sampled_from([b"QUIT\r\n", b"NOOP\n"]),
)


def run(chunks: list[bytes], eof: bool) -> Record:
    connection, record = ServerConnection(LOOPBACK), Record()
    settle(connection, record)
    for chunk in chunks:
        connection.receive(chunk)
        settle(connection, record)
    if eof:
        connection.receive_eof()
        settle(connection, record)
        assert connection.closed
    return record


@settings(max_examples=150, deadline=None)
@given(st.lists(lines, max_size=12), st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_any_cutting_of_the_input_gives_the_same(said: list[bytes], cuts: list[int], eof: bool) -> None:
    data = b"".join(said)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[start:end] for start, end in pairwise(edges)]
    whole = run([data], eof)
    assert run(chunks, eof) == whole
    assert run([bytes([octet]) for octet in data], eof) == whole


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_no_octets_make_it_fail(data: bytes) -> None:
    record = run([LOGIN, data, b"\r\nDELE 1\r\n"], eof=True)
    assert all(line.startswith(("+", "-ERR ")) or b"+OK" in record.output for line in record.lines)
    assert record.removed is None or b"QUIT" in data.upper()


def test_the_table_is_closed() -> None:
    for state, row in TABLE.items():
        assert set(row.values()) <= set(TABLE)
        assert (state in READING) == any(word in COMMANDS for word in row) or state is State.EXCHANGE
    reached = {state for row in TABLE.values() for state in row.values()} | {State.GREETING}
    assert reached == set(State) == set(TABLE)


@pytest.mark.parametrize("state", [state for state in READING if state is not State.EXCHANGE])
@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_a_command_outside_of_its_state_is_refused_and_changes_nothing(state: State, verb: str) -> None:
    opening = {State.AUTHORIZATION: b"", State.NAMED: LOGIN.partition(b"\r\n")[0] + b"\r\n", State.TRANSACTION: LOGIN}
    connection, record = ServerConnection(PLAIN, secure=True), Record()
    connection.receive(opening[state])
    settle(connection, record)
    assert connection._state is state
    record.output = b""
    connection.receive(verb.encode() + b" 1\r\n")
    settle(connection, record)
    if verb not in TABLE[state]:
        assert record.output.startswith(b"-ERR")
        assert connection._state is state


def test_nothing_is_parsed_while_an_answer_is_awaited() -> None:
    connection, record = ServerConnection(LOOPBACK), Record()
    settle(connection, record)
    connection.receive(LOGIN + b"STAT\r\n")
    assert connection.next_event() == events.Login("USER", *CREDENTIALS)
    assert connection.next_event() is None
    connection.take_output()
    connection.log_in(Maildrop(Stored(), 61))
    assert connection.next_event() is None
    assert connection.take_output() == b"+OK 2 messages (61 octets)\r\n+OK 2 61\r\n"


def test_answers_after_the_end_are_ignored() -> None:
    connection, record = ServerConnection(LOOPBACK), Record()
    settle(connection, record)
    connection.receive(LOGIN)
    assert isinstance(connection.next_event(), events.Login)
    connection.take_output()
    connection.close(None, "gone")
    connection.log_in(Maildrop(Stored(), 61))
    connection.refuse(replies.BAD_LOGIN)
    connection.begin_message(3)
    connection.send(b"abc")
    connection.end_message()
    connection.list_more()
    connection.updated()
    connection.tls_started()
    connection.greet()
    connection.receive(b"NOOP\r\n")
    assert connection.next_event() == events.Closed("gone")
    assert connection.next_event() is None
    assert connection.take_output() == b""


def test_output_is_handed_over_before_it_grows() -> None:
    connection, record = ServerConnection(LOOPBACK), Record()
    settle(connection, record)
    connection.receive(b"CAPA\r\n" * 10_000)
    assert connection.next_event() is None
    assert connection.full
    assert OUTPUT_LIMIT <= len(connection.take_output()) < OUTPUT_LIMIT + 512
    assert not connection.full
    assert not ServerConnection(LOOPBACK).full


def test_clear_text_after_stls_ends_the_connection() -> None:
    connection, record = ServerConnection(PLAIN), Record()
    connection.receive(b"STLS\r\n")
    settle(connection, record)
    assert isinstance(record.events[-1], events.TlsWanted)
    connection.receive(b"x")
    settle(connection, record)
    assert record.events[-1:] == [events.Closed("clear text behind STLS")]


def test_a_password_is_not_shown() -> None:
    assert "tulip" not in repr(events.Login("USER", "alice@example.org", "tulip"))


@pytest.mark.parametrize("text", ["two\r\nlines", "é", "", "x" * 501])
def test_a_reply_is_one_line_of_ascii(text: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        replies.ok(text)
