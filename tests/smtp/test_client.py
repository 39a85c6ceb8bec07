"""The client's core in dialogs: what it says, in which order, and what it makes of the answers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope, Recipient
from mailsrv.smtp.client import TRANSITIONS, ClientConnection, State, StateError
from mailsrv.smtp.client_events import (
    ConnectionEnded,
    ContentWanted,
    Event,
    Greeted,
    HelloAnswered,
    LoginAnswered,
    RecipientAnswered,
    TlsReady,
    TlsRefused,
    Transaction,
    TransactionEnded,
)

ALICE = Address("alice", "example.org")
EHLO = b"250-mx.example.net\r\n250-PIPELINING\r\n250 SIZE 1000000\r\n"


def transaction(*locals_: str, sender: Address | None = ALICE) -> Transaction:
    recipients = tuple(Recipient(Address(local, "example.net")) for local in locals_ or ("bob",))
    return Transaction(Envelope(sender), recipients, 10, False)


def events(connection: ClientConnection) -> list[Event]:
    found = []
    while (event := connection.next_event()) is not None:
        found.append(event)
    return found


def ready(ehlo: bytes = EHLO, **options: bool) -> ClientConnection:
    connection = ClientConnection("mx.example.org", **options)
    connection.receive(b"220 mx.example.net\r\n")
    connection.say_hello()
    connection.receive(ehlo)
    assert connection.state is State.READY
    connection.take_output()
    events(connection)
    return connection


def test_a_message_goes_out() -> None:
    connection = ClientConnection("mx.example.org")
    connection.receive(b"220 mx.example.net ESMTP\r\n")
    (greeted,) = events(connection)
    assert isinstance(greeted, Greeted) and greeted.reply.positive
    connection.say_hello()
    assert connection.take_output() == b"EHLO mx.example.org\r\n"
    connection.receive(b"250-mx.example.net at your service\r\n250-SIZE 1000\r\n250 8bitmime\r\n")
    (hello,) = events(connection)
    assert isinstance(hello, HelloAnswered) and hello.extensions is not None
    assert hello.extensions.size == 1000 and "8BITMIME" in hello.extensions
    connection.send(transaction())
    assert connection.take_output() == b"MAIL FROM:<alice@example.org> SIZE=10\r\n"
    connection.receive(b"250 ok\r\n")
    assert connection.take_output() == b"RCPT TO:<bob@example.net>\r\n"
    connection.receive(b"250 2.1.5 ok\r\n")
    assert connection.take_output() == b"DATA\r\n"
    connection.receive(b"354 go\r\n")
    answered, wanted = events(connection)
    assert isinstance(answered, RecipientAnswered) and answered.reply.status == "2.1.5"
    assert wanted == ContentWanted()
    connection.send_content(b"Hi\r")
    connection.send_content(b"\n.\r\n")
    connection.end_content()
    assert connection.take_output() == b"Hi\r\n..\r\n.\r\n"
    connection.receive(b"250 2.6.0 queued\r\n")
    (ended,) = events(connection)
    assert isinstance(ended, TransactionEnded) and ended.at == "." and ended.reply is not None and ended.reply.positive
    connection.quit()
    assert connection.take_output() == b"QUIT\r\n"
    connection.receive(b"221 bye\r\n")
    assert events(connection) == [ConnectionEnded("goodbye")]


def test_pipelining_says_everything_at_once_and_checks_every_answer() -> None:
    connection = ready()
    connection.send(transaction("bob", "carol", "dan"))
    assert connection.take_output() == (
        b"MAIL FROM:<alice@example.org> SIZE=10\r\nRCPT TO:<bob@example.net>\r\nRCPT TO:<carol@example.net>\r\n"
        b"RCPT TO:<dan@example.net>\r\nDATA\r\n"
    )
    connection.receive(b"250 ok\r\n250 ok\r\n550 5.1.1 who?\r\n451 later\r\n354 go\r\n")
    found = events(connection)
    assert [(e.n, e.reply.code) for e in found if isinstance(e, RecipientAnswered)] == [(0, 250), (1, 550), (2, 451)]
    assert found[-1] == ContentWanted()


@pytest.mark.parametrize("data_reply", [b"554 no valid recipients\r\n", b"503 need RCPT\r\n"])
def test_nobody_accepted_with_pipelining(data_reply: bytes) -> None:
    connection = ready()
    connection.send(transaction())
    connection.receive(b"250 ok\r\n550 5.1.1 who?\r\n" + data_reply)
    assert events(connection)[-1] == TransactionEnded("RCPT", None)
    assert connection.state is State.REFUSED


def test_content_wanted_for_nobody_is_answered_by_a_dot() -> None:
    # RFC 2920 3.1: the server may wait for content although it refused every recipient.
    connection = ready()
    connection.send(transaction())
    connection.take_output()
    connection.receive(b"250 ok\r\n550 5.1.1 who?\r\n354 go\r\n")
    assert connection.take_output() == b".\r\n"
    assert [type(e) for e in events(connection)] == [RecipientAnswered]
    connection.receive(b"250 queued\r\n")
    assert events(connection) == [TransactionEnded("RCPT", None)]
    assert connection.state is State.READY


def test_nobody_accepted_without_pipelining_never_says_data() -> None:
    connection = ready(b"250 mx.example.net\r\n")
    connection.send(transaction())
    connection.receive(b"250 ok\r\n")
    connection.take_output()
    connection.receive(b"550 5.1.1 who?\r\n")
    assert connection.take_output() == b""
    assert events(connection)[-1] == TransactionEnded("RCPT", None)


@pytest.mark.parametrize("ehlo", [EHLO, b"250 mx.example.net\r\n"])
def test_sender_refused(ehlo: bytes) -> None:
    connection = ready(ehlo)
    connection.send(transaction())
    connection.receive(b"550 5.7.1 not you\r\n")
    if "PIPELINING" in connection.extensions:
        assert events(connection) == []
        connection.receive(b"503 no\r\n503 no\r\n")
    (ended,) = events(connection)
    assert isinstance(ended, TransactionEnded) and ended.at == "MAIL"
    assert ended.reply is not None and ended.reply.status == "5.7.1"


def test_a_refused_transaction_is_reset_before_the_next() -> None:
    connection = ready()
    connection.send(transaction())
    connection.receive(b"250 ok\r\n550 who?\r\n554 no\r\n")
    events(connection)
    connection.take_output()
    connection.send(transaction("carol"))
    assert connection.take_output().startswith(b"RSET\r\nMAIL FROM:")
    connection.receive(b"250 reset\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    assert events(connection)[-1] == ContentWanted()


def test_several_transactions_over_one_connection() -> None:
    connection = ready()
    for _ in range(3):
        connection.send(transaction())
        connection.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
        connection.send_content(b"x")
        connection.end_content()
        assert connection.take_output().endswith(b"DATA\r\nx\r\n.\r\n")
        connection.receive(b"250 taken\r\n")
        assert isinstance(events(connection)[-1], TransactionEnded)


def test_helo_when_ehlo_is_refused() -> None:
    connection = ClientConnection("mx.example.org")
    connection.receive(b"220 hi\r\n")
    connection.say_hello()
    connection.take_output()
    connection.receive(b"502 what?\r\n")
    assert connection.take_output() == b"HELO mx.example.org\r\n"
    connection.receive(b"250 mx.example.net\r\n")
    assert isinstance(events(connection)[-1], HelloAnswered)
    connection.send(transaction())
    assert connection.take_output() == b"MAIL FROM:<alice@example.org>\r\n"


def test_helo_refused_too() -> None:
    connection = ClientConnection("mx.example.org")
    connection.receive(b"220 hi\r\n")
    connection.say_hello()
    connection.receive(b"502 what?\r\n550 go away\r\n")
    answered = events(connection)[-1]
    assert isinstance(answered, HelloAnswered) and answered.extensions is None and answered.reply.code == 550


def test_a_greeting_of_refusal_leaves_only_quit() -> None:
    connection = ClientConnection("mx.example.org")
    connection.receive(b"554 no\r\n")
    (greeted,) = events(connection)
    assert isinstance(greeted, Greeted) and not greeted.reply.positive
    with pytest.raises(StateError):
        connection.say_hello()
    connection.quit()


# TLS.


def test_starttls_forgets_what_was_learned() -> None:
    connection = ready(b"250-mx\r\n250-STARTTLS\r\n250 SIZE 5\r\n")
    connection.start_tls()
    assert connection.take_output() == b"STARTTLS\r\n"
    connection.receive(b"220 go\r\n")
    assert events(connection) == [TlsReady()]
    connection.tls_started()
    assert connection.secure and connection.extensions.size is None
    with pytest.raises(StateError):
        connection.send(transaction())
    connection.say_hello()


@pytest.mark.parametrize(
    "chunks", [[b"220 go\r\n250-evil\r\n"], [b"220 go\r\n", b"2"], [b"220 go\r", b"\n2"], [b"220 go\r\n ", b""]]
)
def test_clear_text_behind_starttls_ends_the_connection(chunks: list[bytes]) -> None:
    # CVE-2021-38371
    connection = ready(b"250-mx\r\n250 STARTTLS\r\n")
    connection.start_tls()
    for chunk in chunks:
        connection.receive(chunk)
    found = events(connection)
    assert isinstance(found[-1], ConnectionEnded) and found[-1].fault
    with pytest.raises(StateError):
        connection.tls_started()


def test_starttls_refused() -> None:
    connection = ready(b"250-mx\r\n250 STARTTLS\r\n")
    connection.start_tls()
    connection.receive(b"454 4.7.0 not now\r\n")
    (refused,) = events(connection)
    assert isinstance(refused, TlsRefused)
    connection.send(transaction())


# Login.


def test_no_password_in_clear() -> None:
    connection = ready(b"250-mx\r\n250 AUTH PLAIN\r\n")
    with pytest.raises(StateError):
        connection.log_in("alice", "secret")
    assert connection.take_output() == b""


def test_login_plain() -> None:
    connection = ready(b"250-mx\r\n250 AUTH LOGIN PLAIN\r\n", secure=True)
    connection.log_in("alice", "secret")
    assert connection.take_output() == b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"
    connection.receive(b"235 2.7.0 welcome\r\n")
    (answered,) = events(connection)
    assert isinstance(answered, LoginAnswered) and answered.reply.positive


def test_login_login() -> None:
    connection = ready(b"250-mx\r\n250 AUTH=LOGIN\r\n", secure=True)
    connection.log_in("alice", "secret")
    connection.receive(b"334 VXNlcm5hbWU6\r\n")
    connection.receive(b"334 UGFzc3dvcmQ6\r\n")
    assert connection.take_output() == b"AUTH LOGIN\r\nYWxpY2U=\r\nc2VjcmV0\r\n"
    connection.receive(b"535 5.7.8 no\r\n")
    (answered,) = events(connection)
    assert isinstance(answered, LoginAnswered) and not answered.reply.positive


def test_a_login_that_asks_for_more_is_cancelled() -> None:
    connection = ready(b"250-mx\r\n250 AUTH PLAIN\r\n", secure=True)
    connection.log_in("alice", "secret")
    connection.take_output()
    connection.receive(b"334 more\r\n")
    assert connection.take_output() == b"*\r\n"
    connection.receive(b"501 cancelled\r\n")
    assert isinstance(events(connection)[-1], LoginAnswered)


def test_no_mechanism_we_know() -> None:
    connection = ready(b"250-mx\r\n250 AUTH CRAM-MD5\r\n", secure=True)
    with pytest.raises(StateError):
        connection.log_in("alice", "secret")
    assert connection.state is State.READY


# Endings.


@pytest.mark.parametrize("said", [b"", b"250 ok\r\n", b"250 ok\r\n250 ok\r\n"])
def test_lost_before_the_content_is_no_doubt(said: bytes) -> None:
    connection = ready()
    connection.send(transaction())
    connection.receive(said)
    connection.receive_eof()
    ended = events(connection)[-1]
    assert isinstance(ended, ConnectionEnded) and not ended.unanswered


def in_content() -> ClientConnection:
    connection = ready()
    connection.send(transaction())
    connection.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    events(connection)
    connection.send_content(b"x\r\n")
    return connection


def test_lost_in_the_content_is_no_doubt_and_after_the_dot_it_is() -> None:
    connection = in_content()
    connection.receive_eof()
    assert events(connection) == [ConnectionEnded("the connection was lost")]
    connection = in_content()
    connection.end_content()
    connection.receive_eof()
    assert events(connection) == [ConnectionEnded("the connection was lost", unanswered=True)]


def test_garbage_after_the_dot_is_doubt() -> None:
    connection = in_content()
    connection.end_content()
    connection.receive(b"what a lovely message\r\n")
    ended = events(connection)[-1]
    assert isinstance(ended, ConnectionEnded) and ended.fault and ended.unanswered


def test_421_after_the_dot_is_an_answer() -> None:
    connection = in_content()
    connection.end_content()
    connection.receive(b"421 4.3.2 going down\r\n")
    ended, over = events(connection)
    assert isinstance(ended, TransactionEnded) and ended.reply is not None and ended.reply.code == 421
    assert isinstance(over, ConnectionEnded) and not over.unanswered and over.reply == ended.reply


def test_a_refusal_in_the_middle_of_the_content_is_believed_and_an_acceptance_is_not() -> None:
    connection = in_content()
    connection.receive(b"552 5.3.4 too big\r\n")
    ended, over = events(connection)
    assert isinstance(ended, TransactionEnded) and ended.reply is not None and ended.reply.status == "5.3.4"
    assert isinstance(over, ConnectionEnded)
    connection = in_content()
    connection.receive(b"250 taken\r\n")
    (over,) = events(connection)
    assert isinstance(over, ConnectionEnded) and over.fault and not over.unanswered


def test_an_answer_given_before_the_content_is_not_believed() -> None:
    connection = ready()
    connection.send(transaction())
    connection.receive(b"250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n")
    ended = events(connection)[-1]
    assert isinstance(ended, ConnectionEnded) and ended.fault
    with pytest.raises(StateError):
        connection.send_content(b"x")


@pytest.mark.parametrize("after", [b"", b"250 ok\r\n", b"250 ok\r\n250 ok\r\n"])
def test_421_at_any_command(after: bytes) -> None:
    connection = ready()
    connection.send(transaction())
    connection.receive(after + b"421 4.3.2 bye\r\n")
    ended = events(connection)[-1]
    assert isinstance(ended, ConnectionEnded) and ended.reply is not None and ended.reply.code == 421


def test_421_between_transactions() -> None:
    connection = ready()
    connection.receive(b"421 4.4.2 idle for too long\r\n")
    (ended,) = events(connection)
    assert isinstance(ended, ConnectionEnded) and ended.reply is not None


@pytest.mark.parametrize("reply", [b"250 ok\r\n", b"354 go\r\n", b"550 no\r\n"])
def test_a_reply_to_nothing_ends_the_connection(reply: bytes) -> None:
    connection = ready()
    connection.receive(reply)
    (ended,) = events(connection)
    assert isinstance(ended, ConnectionEnded) and ended.fault


def test_a_3xx_is_no_answer_to_rcpt_and_a_2xx_none_to_data() -> None:
    for replies in (b"354 go\r\n", b"250 ok\r\n354 go\r\n", b"250 ok\r\n250 ok\r\n250 ok\r\n"):
        connection = ready()
        connection.send(transaction())
        connection.receive(replies)
        ended = events(connection)[-1]
        assert isinstance(ended, ConnectionEnded) and ended.fault


def test_an_address_cannot_become_a_command() -> None:
    connection = ready()
    evil = Transaction(Envelope(None), (Recipient(Address("a>\r\nDATA\r\n", "example.net")),), 1, False)
    with pytest.raises(ValueError, match="control"):
        connection.send(evil)
    assert connection.take_output() == b""
    connection.send(transaction(sender=None))
    assert connection.take_output().startswith(b"MAIL FROM:<> ")


def test_every_state_is_reached_and_left_by_the_table() -> None:
    reached = {State.GREETING, State.ENDED} | set(TRANSITIONS.values())
    assert reached == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.ENDED, State.QUITTING}


def test_calls_outside_the_table_are_mistakes() -> None:
    connection = ClientConnection("mx.example.org")
    for call in (connection.say_hello, connection.start_tls, connection.tls_started, connection.quit):
        with pytest.raises(StateError):
            call()
    with pytest.raises(StateError):
        connection.send(transaction())
    with pytest.raises(StateError):
        connection.end_content()


# Chunks.

DIALOGS = [
    b"250 ok\r\n250 ok\r\n354 go\r\n",
    b"250-a\r\n250 ok\r\n550 5.1.1 x\r\n554 no\r\n",
    b"450 4.2.0 x\r\n503 x\r\n503 x\r\n421 bye\r\n",
    b"250 ok\r\n250 ok\r\n354 go\r\n550 early\r\n",
    b"250 ok\r\n250 ok\n354 go\r\n\x00\r\n",
    b"250 ok\r\n421 x\r\n",
    b"999 x\r\n",
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(DIALOGS), st.lists(st.integers(0, 60), max_size=8))
def test_chunks_make_no_difference(stream: bytes, cuts: list[int]) -> None:
    def run(pieces: list[bytes]) -> tuple[list[Event], bytes, State]:
        connection = ready()
        connection.send(transaction())
        for piece in pieces:
            connection.receive(piece)
        return events(connection), connection.take_output(), connection.state

    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert run(pieces) == run([stream])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"250 ok\r\n", b"354 go\r\n", b"550 no\r\n"]))))
def test_whatever_a_server_says_one_end_is_reached_at_most_once(chunks: list[bytes]) -> None:
    connection = ready()
    connection.send(transaction("bob", "carol"))
    for chunk in chunks:
        connection.receive(chunk)
    connection.receive_eof()
    found = events(connection)
    assert [isinstance(event, ConnectionEnded) for event in found].count(True) == 1
    assert isinstance(found[-1], ConnectionEnded)
    assert sum(isinstance(event, TransactionEnded) for event in found) <= 1
