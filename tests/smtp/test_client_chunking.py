"""The client's core with CHUNKING (RFC 3030): pieces once the recipients were answered, or all in one flight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope, Recipient
from mailsrv.smtp.client import CHUNK, ClientConnection, State, StateError
from mailsrv.smtp.client_events import (
    ConnectionEnded,
    ContentWanted,
    Event,
    Extensions,
    RecipientAnswered,
    Transaction,
    TransactionEnded,
)

EHLO = b"250-mx.example.net\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
ENVELOPE = b"MAIL FROM:<alice@example.org>\r\nRCPT TO:<bob@example.net>\r\n"


def transaction(*locals_: str) -> Transaction:
    recipients = tuple(Recipient(Address(local, "example.net")) for local in locals_ or ("bob",))
    return Transaction(Envelope(Address("alice", "example.org")), recipients, 10, False)


def events(connection: ClientConnection) -> list[Event]:
    found = []
    while (event := connection.next_event()) is not None:
        found.append(event)
    return found


def ready(ehlo: bytes = EHLO) -> ClientConnection:
    connection = ClientConnection("mx.example.org")
    connection.receive(b"220 mx.example.net\r\n")
    connection.say_hello()
    connection.receive(ehlo)
    connection.take_output()
    events(connection)
    return connection


def in_flight(*locals_: str) -> ClientConnection:
    connection = ready()
    connection.send_whole(transaction(*locals_), b".Hi\r\n")
    return connection


def ended(connection: ClientConnection) -> TransactionEnded:
    event = events(connection)[-1]
    assert isinstance(event, TransactionEnded)
    return event


# One flight.


def test_a_small_message_goes_in_one_piece_as_it_is() -> None:
    connection = in_flight()
    assert connection.take_output() == ENVELOPE + b"BDAT 5 LAST\r\n.Hi\r\n"
    connection.receive(b"250 ok\r\n250 ok\r\n250 2.0.0 taken\r\n")
    answered, over = events(connection)
    assert isinstance(answered, RecipientAnswered) and answered.reply.positive
    assert isinstance(over, TransactionEnded) and over.at == "." and over.reply is not None and over.reply.positive
    assert connection.state is State.READY
    assert connection.at_rest


def test_an_empty_message() -> None:
    connection = ready()
    connection.send_whole(transaction(), b"")
    assert connection.take_output().endswith(b"BDAT 0 LAST\r\n")


@pytest.mark.parametrize("last", [b"503 5.5.1 no recipients\r\n", b"554 no\r\n", b"250 taken by nobody\r\n"])
def test_nobody_accepted(last: bytes) -> None:
    connection = in_flight("bob", "carol")
    connection.receive(b"250 ok\r\n550 5.1.1 who?\r\n450 later\r\n" + last)
    assert ended(connection) == TransactionEnded("RCPT", None)
    assert connection.state is (State.READY if last[:3] == b"250" else State.REFUSED)


def test_some_accepted() -> None:
    connection = in_flight("bob", "carol")
    connection.receive(b"250 ok\r\n550 5.1.1 who?\r\n250 ok\r\n250 taken\r\n")
    found = events(connection)
    assert [(e.n, e.reply.code) for e in found if isinstance(e, RecipientAnswered)] == [(0, 550), (1, 250)]
    assert isinstance(found[-1], TransactionEnded) and found[-1].at == "."


def test_sender_refused() -> None:
    connection = in_flight()
    connection.receive(b"550 5.7.1 not you\r\n503 no\r\n503 no\r\n")
    over = ended(connection)
    assert over.at == "MAIL" and over.reply is not None and over.reply.status == "5.7.1"


def test_content_refused_and_reset_before_the_next() -> None:
    connection = in_flight()
    connection.receive(b"250 ok\r\n250 ok\r\n552 5.3.4 too big\r\n")
    over = ended(connection)
    assert over.at == "." and over.reply is not None and over.reply.status == "5.3.4"
    assert connection.state is State.REFUSED
    connection.take_output()
    connection.send_whole(transaction(), b"x")
    assert connection.take_output() == b"RSET\r\n" + ENVELOPE + b"BDAT 1 LAST\r\nx"
    connection.receive(b"250 reset\r\n250 ok\r\n250 ok\r\n250 taken\r\n")
    assert ended(connection).at == "."


@pytest.mark.parametrize(
    ("said", "unanswered", "untouched"),
    [
        (b"", True, True),
        (b"250 ok\r\n", True, False),
        (b"250 ok\r\n250 ok\r\n", True, False),
        (b"250 ok\r\n550 who?\r\n", False, False),  # to nobody
        (b"550 not you\r\n", False, False),
        (b"550 not you\r\n503 no\r\n", False, False),
    ],
)
def test_lost_in_flight_is_doubt_unless_nobody_could_get_it(said: bytes, unanswered: bool, untouched: bool) -> None:
    connection = in_flight()
    connection.receive(said)
    connection.receive_eof()
    over = events(connection)[-1]
    assert isinstance(over, ConnectionEnded)
    assert (over.unanswered, over.untouched) == (unanswered, untouched)


@pytest.mark.parametrize("said", [b"", b"250 ok\r\n"])
def test_goodbye_before_the_answer_to_the_content_is_no_doubt(said: bytes) -> None:
    connection = in_flight()
    connection.receive(said + b"421 4.3.2 bye\r\n")
    over = events(connection)[-1]
    assert isinstance(over, ConnectionEnded)
    assert (over.unanswered, over.untouched) == (False, not said)


def test_goodbye_is_an_answer_to_the_content() -> None:
    connection = in_flight()
    connection.receive(b"250 ok\r\n250 ok\r\n421 4.3.2 bye\r\n")
    _, over, gone = events(connection)
    assert isinstance(over, TransactionEnded) and over.reply is not None and over.reply.code == 421
    assert isinstance(gone, ConnectionEnded) and not gone.unanswered


def test_given_up_in_flight_is_doubt() -> None:
    connection = in_flight()
    connection.give_up("no answer")
    assert events(connection) == [ConnectionEnded("no answer", unanswered=True)]
    connection.give_up("again")
    assert events(connection) == []


def test_3xx_is_no_answer() -> None:
    connection = in_flight()
    connection.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    over = events(connection)[-1]
    assert isinstance(over, ConnectionEnded) and over.fault


# Pieces.


def test_pieces_wait_for_the_recipients() -> None:
    connection = ready()
    connection.send(transaction("bob", "carol"), chunked=True)
    assert connection.take_output() == ENVELOPE + b"RCPT TO:<carol@example.net>\r\n"
    connection.receive(b"250 ok\r\n250 ok\r\n")
    assert [type(e) for e in events(connection)] == [RecipientAnswered]
    connection.receive(b"550 who?\r\n")
    assert events(connection)[-1] == ContentWanted()
    a, b, c = b"a" * 10, b"b" * CHUNK, b"c"
    for piece in (a, b, c):
        connection.send_content(piece)
    assert connection.take_output() == b"BDAT 10\r\n" + a + b"BDAT %d\r\n" % CHUNK + b
    connection.receive(b"250 10 octets\r\n")
    assert events(connection) == []
    connection.end_content()
    assert connection.take_output() == b"BDAT 1 LAST\r\nc"
    connection.receive(b"250 fine\r\n250 2.0.0 taken\r\n")
    assert ended(connection).at == "."
    assert connection.state is State.READY


def test_pieces_for_nobody_are_never_sent() -> None:
    connection = ready()
    connection.send(transaction("bob", "carol"), chunked=True)
    connection.receive(b"250 ok\r\n550 who?\r\n550 who?\r\n")
    assert ended(connection) == TransactionEnded("RCPT", None)
    assert connection.state is State.REFUSED
    connection = ready()
    connection.send(transaction("bob", "carol"), chunked=True)
    connection.receive(b"450 not now\r\n503 no\r\n503 no\r\n")
    assert ended(connection).at == "MAIL"
    assert connection.state is State.REFUSED


def between_pieces() -> ClientConnection:
    connection = ready()
    connection.send(transaction(), chunked=True)
    connection.receive(b"250 ok\r\n250 ok\r\n")
    connection.send_content(b"a")
    connection.send_content(b"b" * CHUNK)
    events(connection)
    return connection


def test_a_refused_piece_ends_it() -> None:
    connection = between_pieces()
    connection.receive(b"552 5.2.2 full\r\n")
    over, gone = events(connection)
    assert isinstance(over, TransactionEnded) and over.reply is not None and over.reply.status == "5.2.2"
    assert isinstance(gone, ConnectionEnded) and not gone.unanswered
    with pytest.raises(StateError):
        connection.send_content(b"c")


def test_a_refused_piece_when_all_is_sent() -> None:
    connection = between_pieces()
    connection.end_content()
    connection.receive(b"452 4.2.2 full\r\n503 what?\r\n")
    over = ended(connection)
    assert over.reply is not None and over.reply.status == "4.2.2"
    assert connection.state is State.REFUSED


def test_lost_between_pieces_is_no_doubt_and_after_the_last_it_is() -> None:
    connection = between_pieces()
    connection.receive_eof()
    assert events(connection) == [ConnectionEnded("the connection was lost")]
    connection = between_pieces()
    connection.end_content()
    connection.receive(b"250 ok\r\n")
    connection.receive_eof()
    assert events(connection) == [ConnectionEnded("the connection was lost", unanswered=True)]


# When it may be used, and limits.


@pytest.mark.parametrize("offered", [b"250 PIPELINING\r\n", b"250 CHUNKING\r\n"])
def test_only_where_it_is_offered_with_pipelining(offered: bytes) -> None:
    connection = ready(b"250-mx.example.net\r\n" + offered)
    with pytest.raises(StateError):
        connection.send_whole(transaction(), b"x")
    with pytest.raises(StateError):
        connection.send(transaction(), chunked=True)
    assert connection.take_output() == b""
    assert connection.state is State.READY


def test_at_rest_only_when_nothing_is_half_said() -> None:
    connection = ready()
    assert connection.at_rest
    connection.receive(b"42")
    assert not connection.at_rest
    connection.receive(b"1 bye\r\n")
    assert not connection.at_rest


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ("RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=1", (5, 20, 1)),
        ("mailmax=5", (5, None, None)),
        ("MAILMAX=0 RCPTMAX=-1 RCPTDOMAINMAX=x", (None, None, None)),
        ("MAILMAX MAILMAX= RCPTMAX=1000000", (None, None, None)),
        ("FUTURE=1;RCPTMAX=5 RCPTMAX=7", (None, 7, None)),
        ("", (None, None, None)),
    ],
)
def test_limits(limits: str, expected: tuple[int | None, ...]) -> None:
    # RFC 9422 3: at most six digits, no leading zero.
    extensions = Extensions.parse(("mx.example.net", f"LIMITS {limits}"))
    assert tuple(extensions.limit(name) for name in ("MAILMAX", "RCPTMAX", "RCPTDOMAINMAX")) == expected


@given(
    st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"250 ok\r\n", b"421 x\r\n", b"550 no\r\n"]))),
    st.booleans(),
)
def test_whatever_a_server_says_one_end_is_reached_at_most_once(chunks: list[bytes], whole: bool) -> None:
    connection = ready()
    if whole:
        connection.send_whole(transaction("bob", "carol"), b"x")
    else:
        connection.send(transaction("bob", "carol"), chunked=True)
    found = []
    for chunk in chunks:
        connection.receive(chunk)
        found += events(connection)
        if connection.state is State.CONTENT:
            connection.send_content(b"x")
            connection.end_content()
    connection.receive_eof()
    found += events(connection)
    assert [isinstance(event, ConnectionEnded) for event in found].count(True) == 1
    assert isinstance(found[-1], ConnectionEnded)
    assert sum(isinstance(event, TransactionEnded) for event in found) <= 1
