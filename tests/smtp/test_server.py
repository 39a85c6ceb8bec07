"""The server's core: pausing, order, limits, ends, and what the events say."""

from __future__ import annotations

import time

import pytest

from mailsrv.mail.address import POSTMASTER, Address
from mailsrv.mail.envelope import Envelope, Recipient
from mailsrv.smtp import events, replies
from mailsrv.smtp.replies import reply
from mailsrv.smtp.server import BUFFER_LIMIT, ServerConnection, Service
from tests.smtp.driver import LMTP, SMTP, SUBMISSION, UNKNOWN, Record, lines, settle, talk

MAIL, RCPT = "MAIL FROM:<alice@example.net>", "RCPT TO:<bob@example.org>"
START = lines("EHLO a.example", MAIL, RCPT)


def after(sent: bytes, service: Service = SMTP, *, secure: bool = False) -> ServerConnection:
    connection = ServerConnection(service, secure)
    settle(connection, Record())
    connection.receive(sent)
    settle(connection, Record())
    return connection


def test_what_the_events_say() -> None:
    record = talk(
        SMTP,
        lines(
            "EHLO client.example.net",
            "MAIL FROM:<Alice@Example.NET> SIZE=7 BODY=8BITMIME RET=FULL ENVID=x+2By SMTPUTF8",
            "RCPT TO:<bob@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=RFC822;rob+2Bx@example.org",
            "RCPT TO:<postmaster>",
            "DATA",
            "a",
            "..",
            ".",
            "NOOP",
            "QUIT",
        ),
    )
    assert record.events == [
        events.Connected(),
        events.Hello("client.example.net", extended=True),
        events.Mail(Envelope(Address("Alice", "example.net"), "8BITMIME", True, "FULL", "x+y", 7)),
        events.Rcpt(Recipient(Address("bob", "example.org"), "rfc822;rob+x@example.org", ("FAILURE", "SUCCESS"))),
        events.Rcpt(Recipient(POSTMASTER)),
        events.DataBegin(),
        events.Content(b"a\r\n.\r\n"),
        events.DataEnd(6, 2, None),
        events.Closed("QUIT"),
    ]


def test_nothing_is_parsed_while_a_reply_is_awaited() -> None:
    connection = after(lines("EHLO a.example"))
    connection.receive(lines(MAIL, RCPT, "NOOP", "nonsense"))
    assert isinstance(connection.next_event(), events.Mail)
    for _ in range(3):
        assert connection.paused
        assert connection.next_event() is None
        connection.receive(b"NOOP\r\n")
    assert connection.take_output() == b""
    connection.reply(reply(250, "2.1.0", "At last"))
    assert isinstance(connection.next_event(), events.Rcpt)
    assert connection.take_output() == b"250 2.1.0 At last\r\n"
    connection.reply(UNKNOWN)
    assert isinstance(connection.next_event(), events.Refused)
    assert connection.next_event() is None
    assert connection.unsent == 6
    assert connection.take_output().split(b"\r\n")[:3] == [
        UNKNOWN.encode()[:-2],
        b"250 2.0.0 OK",
        b"500 5.5.1 Command not recognised",
    ]


def test_a_reply_to_nothing_is_a_mistake_of_the_session() -> None:
    connection = ServerConnection(SMTP)
    with pytest.raises(RuntimeError):
        connection.reply()  # Connected has not been taken yet
    connection.next_event()
    connection.reply()
    with pytest.raises(RuntimeError):
        connection.reply()


def test_a_refused_greeting_leaves_only_quit() -> None:
    connection = ServerConnection(SMTP)
    connection.next_event()
    connection.reply(reply(554, "5.7.1", "Not you"))
    connection.receive(lines("EHLO a.example", "NOOP", "QUIT"))
    record = Record()
    settle(connection, record)
    assert record.codes == [554, 503, 503, 221]
    assert record.events[-1] == events.Closed("QUIT")


def test_a_refused_greeting_may_be_one_error_too_many() -> None:
    connection = ServerConnection(Service("mx.example.org", max_errors=1))
    connection.next_event()
    connection.reply(reply(554, "5.7.1", "Not you"))
    assert connection.next_event() == events.Closed("too many errors")
    assert connection.closed


def test_a_refused_hello_changes_nothing() -> None:
    connection = after(START)
    connection.receive(lines("EHLO b.example", "DATA"))
    assert connection.next_event() == events.Hello("b.example", extended=True)
    connection.reply(reply(550, "5.7.1", "Not that name"))
    assert connection.next_event() == events.DataBegin()


@pytest.mark.parametrize("service", [SMTP, LMTP, SUBMISSION], ids=lambda service: service.kind)
def test_421_to_any_question_ends(service: Service) -> None:
    connection = ServerConnection(service)
    connection.next_event()
    connection.receive(lines("NOOP"))
    connection.reply(replies.SHUTTING_DOWN)
    assert connection.next_event() == events.Closed("Shutting down; try again soon")
    assert connection.next_event() is None
    assert connection.take_output() == b"421 4.3.2 Shutting down; try again soon\r\n"
    assert connection.closed
    assert not connection.hungry


def test_close_while_a_reply_is_awaited_forgets_the_question() -> None:
    connection = after(START)
    connection.receive(lines(RCPT, "NOOP"))
    assert isinstance(connection.next_event(), events.Rcpt)
    connection.close(replies.TIMED_OUT, "idle")
    connection.reply()
    connection.receive(b"NOOP\r\n")
    connection.close(None, "again")
    connection.tls_started()
    assert [connection.next_event() for _ in range(3)] == [events.Reset(), events.Closed("idle"), None]
    assert connection.take_output() == replies.TIMED_OUT.encode()
    assert connection.buffered == 0


def test_the_end_of_input_answers_what_came_and_closes() -> None:
    record = talk(SMTP, START + b"NOOP\r\nNOOP", eof=True)
    assert record.codes == [220, 250, 250, 250, 250]
    assert record.events[-2:] == [events.Reset(), events.Closed("the client closed the connection")]


@pytest.mark.parametrize("content", [b"DATA\r\nhalf a message\r\n", b"DATA\r\nhalf\r\n.\r", b"BDAT 20\r\nhalf\r\n"])
def test_content_without_its_end_is_no_message(content: bytes) -> None:
    record = talk(SMTP, START + content, eof=True)
    assert record.of(events.DataEnd) == []
    assert record.events[-2:] == [events.Reset(), events.Closed("the client closed the connection")]


def test_a_connection_lost_after_the_end_of_data_forgets_nothing() -> None:
    """The session has the message then: what becomes of it is its decision."""
    connection = after(START + lines("DATA"))
    connection.receive(b"x\r\n.\r\n")
    assert isinstance(connection.next_event(), events.Content)
    assert isinstance(connection.next_event(), events.DataEnd)
    connection.close(None, "gone")
    assert connection.next_event() == events.Closed("gone")


# STARTTLS.


@pytest.mark.parametrize("injected", [b"NOOP\r\n", b"\r\n", b"E", MAIL.encode()])
@pytest.mark.parametrize("together", [True, False])
def test_octets_behind_starttls_end_the_connection(injected: bytes, together: bool) -> None:
    chunks = [START + b"STARTTLS\r\n" + injected] if together else [START + b"STARTTLS\r\n", injected]
    record = talk(SMTP, chunks)
    assert record.events[-1] == events.Closed("data behind STARTTLS")
    assert record.events.count(events.Reset()) == 1
    assert len(record.of(events.Mail)) == 1
    assert record.codes[4:] == ([421] if together else [220])


def test_everything_is_forgotten_when_tls_starts() -> None:
    service = Service("mx.example.org", starttls=True, mechanisms=("PLAIN",), auth_in_clear=True)
    connection = after(lines("EHLO a.example", "AUTH PLAIN AGFsaWNlAHNlY3JldA=="), service)
    assert connection.authenticated
    connection.receive(lines(MAIL, "STARTTLS"))
    record = Record()
    settle(connection, record)
    assert record.events[-2:] == [events.Reset(), events.TlsWanted()]
    connection.tls_started()
    assert connection.secure
    assert not connection.authenticated
    connection.receive(lines(MAIL))
    settle(connection, record)
    assert record.lines[-1] == "503 5.5.1 Say hello first"


def test_tls_without_starttls_is_a_mistake() -> None:
    with pytest.raises(RuntimeError):
        after(b"").tls_started()


# AUTH.


def test_a_password_appears_nowhere() -> None:
    secret = b"AGFsaWNlAHNlY3JldA=="
    record = talk(
        SUBMISSION,
        lines("EHLO a.example", b"AUTH PLAIN " + secret, secret, b"AUTH X " + secret, b"x" * 13_000),
    )
    assert len(record.of(events.Refused)) == 4
    assert "AGFs" not in repr(record.events)
    event = events.Login("PLAIN", "alice", "secret")
    assert "secret" not in repr(event)


def test_login_carries_what_the_client_said() -> None:
    record = talk(SUBMISSION, lines("EHLO a.example", "AUTH PLAIN AGFsaWNlAHNlY3JldA=="), secure=True)
    assert record.of(events.Login) == [events.Login("PLAIN", "alice", "secret")]
    assert record.lines[-1] == "235 2.7.0 Authentication succeeded"


def test_endless_auth_lines_cost_constant_memory() -> None:
    connection = after(lines("EHLO a.example", "AUTH PLAIN"), SUBMISSION, secure=True)
    for _ in range(100):
        connection.receive(b"A" * 65_536)
        assert connection.next_event() is None
        assert connection.buffered <= 12_288


# Limits.


def test_recipients_beyond_the_limit_are_refused_for_now() -> None:
    service = Service("mx.example.org", recipients_limit=2)
    record = talk(service, START + lines(RCPT, RCPT, RCPT, "DATA", "."))
    assert record.codes[3:] == [250, 250, 452, 452, 354, 250]
    assert record.of(events.Refused)[0] == events.Refused("RCPT", replies.TOO_MANY_RECIPIENTS, "TO:<bob@example.org>")


@pytest.mark.parametrize(("octets", "code"), [(1000, 250), (1001, 552)])
@pytest.mark.parametrize("way", ["DATA", "BDAT", "two BDAT"])
def test_the_size_limit_counts_octets_while_they_come(octets: int, code: int, way: str) -> None:
    service = Service("mx.example.org", size_limit=1000, extensions=frozenset({"CHUNKING"}))
    message = b"." + b"x" * (octets - 3) + b"\r\n"
    if way == "DATA":
        sent = lines("DATA") + b"." + message + b".\r\n"
    elif way == "BDAT":
        sent = b"BDAT %d LAST\r\n" % octets + message
    else:
        sent = b"BDAT 500\r\n" + message[:500] + b"BDAT %d LAST\r\n" % (octets - 500) + message[500:]
    record = talk(service, START + sent)
    assert record.codes[-1] == code
    (end,) = record.of(events.DataEnd)
    assert isinstance(end, events.DataEnd)
    assert end.size == octets
    assert end.problem == (replies.TOO_BIG if code == 552 else None)


def test_a_chunk_that_announces_too_much_is_not_handed_on() -> None:
    service = Service("mx.example.org", size_limit=1000, extensions=frozenset({"CHUNKING"}))
    record = talk(service, START + b"BDAT 500\r\n" + b"x" * 500 + b"BDAT 501\r\n" + b"y" * 501)
    assert record.content == b"x" * 500
    assert record.codes[4:] == [250, 552]


def test_recipients_that_the_core_refuses_are_no_valid_ones() -> None:
    record = talk(SMTP, lines("EHLO a.example", MAIL, "RCPT TO:<@>", "DATA"))
    assert record.codes[3:] == [501, 554]


def test_a_huge_message_costs_no_memory_and_no_content() -> None:
    connection, record = after(START + lines("DATA"), Service("mx.example.org", size_limit=1000)), Record()
    for _ in range(200):
        connection.receive(b"x" * 65_536)
        settle(connection, record)
        assert connection.buffered == 0
    assert len(record.content) <= 65_536
    connection.receive(b"\r\n.\r\n")
    settle(connection, record)
    assert record.codes == [552]


def test_a_huge_refused_chunk_costs_no_memory() -> None:
    connection = after(lines("EHLO a.example", "BDAT 99999999999999999999"))
    for _ in range(100):
        connection.receive(b"QUIT\r\n" * 10_000)
        assert connection.next_event() is None
        assert connection.buffered == 0
    assert connection.take_output() == b""


def test_hungry_says_when_to_stop_reading() -> None:
    connection = after(lines("EHLO a.example"))
    connection.receive(lines(MAIL))
    assert isinstance(connection.next_event(), events.Mail)
    connection.receive(b"x" * BUFFER_LIMIT)
    assert connection.hungry
    connection.receive(b"x")
    assert not connection.hungry
    assert connection.buffered == BUFFER_LIMIT + 1
    connection.reply()
    assert connection.next_event() is None
    assert connection.hungry


def test_errors_end_the_connection_and_an_accepted_message_forgives_them() -> None:
    service = Service("mx.example.org", max_errors=3)
    message = lines(MAIL, RCPT, "DATA", ".")
    record = talk(service, lines("EHLO a.example", "x", "x") + message + lines("x", "x", "NOOP", "x", "NOOP"))
    assert record.codes[2:] == [500, 500, 250, 250, 354, 250, 500, 500, 250, 500, 421]
    assert record.events[-1] == events.Closed("too many errors")


def test_recipients_that_a_session_refuses_are_errors_too() -> None:
    service = Service("mx.example.org", max_errors=3)
    unknown = "RCPT TO:<unknown@example.org>"
    later = "RCPT TO:<later@example.org>"
    record = talk(service, lines("EHLO a.example", MAIL, later, later, later, unknown, unknown, unknown, unknown))
    assert record.codes[3:] == [451, 451, 451, 550, 550, 550, 421]
    assert record.events[-2:] == [events.Reset(), events.Closed("too many errors")]


# Content.


def test_a_refused_data_leaves_the_transaction() -> None:
    connection = after(START)
    connection.receive(lines("DATA"))
    assert connection.next_event() == events.DataBegin()
    connection.reply(replies.STORAGE_FULL)
    connection.receive(lines("DATA", "."))
    record = Record()
    settle(connection, record)
    assert record.codes == [452, 354, 250]


def test_a_refused_first_chunk_ends_the_transaction_and_is_swallowed() -> None:
    connection = after(START)
    connection.receive(b"BDAT 6 LAST\r\nQU")
    assert connection.next_event() == events.DataBegin()
    connection.reply(replies.STORAGE_FULL)
    connection.receive(b"IT\r\nNOOP\r\n")
    record = Record()
    settle(connection, record)
    assert record.events == [events.Reset()]
    assert record.codes == [452, 250]


@pytest.mark.parametrize(
    ("message", "delivered"),
    [
        (b"", b""),
        (b"abc", b"abc\r\n"),
        (b"abc\r\n", b"abc\r\n"),
        (b".\r\n", b".\r\n"),
        (b"..\r\n.\r\n", b"..\r\n.\r\n"),
    ],
)
def test_bdat_delivers_whole_lines_and_leaves_dots_alone(message: bytes, delivered: bytes) -> None:
    for cut in range(len(message) + 1):
        chunks = b"BDAT %d\r\n" % cut + message[:cut] + b"BDAT %d LAST\r\n" % (len(message) - cut) + message[cut:]
        record = talk(SMTP, START + chunks)
        assert record.content == delivered
        assert record.events[-1] == events.DataEnd(len(delivered), delivered.count(b"\r\n"), None)


def test_a_cr_at_the_end_of_the_last_chunk_is_bare() -> None:
    record = talk(SMTP, START + b"BDAT 4 LAST\r\nabc\r")
    assert record.codes[-1] == 554


def test_the_problem_is_given_whatever_the_session_says() -> None:
    connection = after(START + lines("DATA"))
    connection.receive(b"a\nb\r\n.\r\n")
    event = connection.next_event()
    assert event == events.DataEnd(5, 1, replies.BARE_LF_IN_CONTENT)
    connection.reply(reply(250, "2.0.0", "Accepted anyway"))
    assert connection.take_output() == replies.BARE_LF_IN_CONTENT.encode()


def test_lmtp_takes_one_reply_for_each_recipient() -> None:
    connection = after(lines("LHLO a.example", MAIL, RCPT, RCPT, "DATA"), LMTP)
    connection.receive(b".\r\n")
    assert isinstance(connection.next_event(), events.DataEnd)
    with pytest.raises(ValueError, match="2 replies wanted"):
        connection.reply([UNKNOWN])


def test_lmtp_has_one_reply_for_a_chunk_that_is_not_the_last() -> None:
    record = talk(LMTP, lines("LHLO a.example", MAIL, RCPT, RCPT) + b"BDAT 2\r\na\nNOOP\r\n")
    assert record.codes[4:] == [250, 554, 250]


def test_lmtp_replies_may_differ() -> None:
    connection = after(lines("LHLO a.example", MAIL, RCPT, RCPT, "DATA"), LMTP)
    connection.receive(b".\r\n")
    connection.next_event()
    connection.reply([replies.ACCEPTED, replies.STORAGE_FULL])
    assert connection.take_output() == replies.ACCEPTED.encode() + replies.STORAGE_FULL.encode()


# Cost.  Limits are generous: a quadratic way would take minutes.


def test_a_megabyte_octet_by_octet() -> None:
    connection = after(START + lines("DATA"))
    began = time.process_time()
    for octet in (b"x" * 98 + b"\r\n") * 10_000 + b".\r\n":
        connection.receive(bytes((octet,)))
        while connection.next_event() is not None:
            pass
    assert time.process_time() - began < 20


def test_ten_thousand_commands_in_one_chunk() -> None:
    record = talk(SMTP, lines("EHLO a.example") + b"NOOP\r\n" * 10_000)
    assert record.codes == [220] + [250] * 10_001


def test_four_thousand_messages_in_one_chunk() -> None:
    began = time.process_time()
    message = lines(MAIL, RCPT, "DATA") + b"x" * 1000 + b"\r\n.\r\n"
    record = talk(SMTP, lines("EHLO a.example") + message * 4_000)
    assert len(record.of(events.DataEnd)) == 4_000
    assert time.process_time() - began < 10
