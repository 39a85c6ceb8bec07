"""What holds for any octets, cut anyhow, and replies however late: hypothesis looks for the exception."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailsrv.smtp import events
from mailsrv.smtp.server import ServerConnection, Service
from mailsrv.smtp.states import State
from tests.smtp.driver import ASKS, LMTP, SMTP, SUBMISSION, Record, decide, settle, talk
from tests.worlds.scram import EXAMPLE_FIRST, ScramClient

HELLO = [b"EHLO a.example\r\n", b"HELO [192.0.2.1]\r\n", b"LHLO b\r\n", b"EHLO\r\n"]
ENVELOPES = [
    b"MAIL FROM:<alice@example.net>\r\n",
    b"MAIL FROM:<> SIZE=200000\r\n",
    b"MAIL FROM:<blocked@example.net> BODY=8BITMIME\r\n",
    b"RCPT TO:<bob@example.org>\r\n",
    b"RCPT TO:<unknown@example.org>\r\n",
    b"RCPT TO:<later@example.org> NOTIFY=NEVER\r\n",
]
_CLIENT = ScramClient("user", "pencil")
FIRST = _CLIENT.first()
FINAL = _CLIENT.answer(EXAMPLE_FIRST)
OTHERS = [
    b"RSET\r\n",
    b"NOOP\r\n",
    b"VRFY x\r\n",
    b"nonsense\r\n",
    b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n",
    b"AUTH LOGIN\r\n",
    f"AUTH SCRAM-SHA-256 {FIRST}\r\n".encode(),
    f"AUTH SCRAM-SHA-256\r\n{FIRST}\r\n{FINAL}\r\n\r\n".encode(),
    b"YWxpY2U=\r\n",
    b"*\r\n",
    b"bare\nline\r\n",
    b"x" * 13_000 + b"\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b"QUIT\r\n",
]
MESSAGES = [
    b"DATA\r\nSubject: x\r\n\r\n..dots\r\n.\r\n",
    b"DATA\r\n.\r\n",
    b"DATA\r\na\n.\nb\r\n.\r\n",
    b"DATA\r\n\0\r\n.\r\n",
    b"DATA\r\n" + b"y" * 120 + b"\r\n.\r\n",
    b"BDAT 5\r\nabc\r\n",
    b"BDAT 3\r\na\r\r\n",
    b"BDAT 2\r\na\r",
    b"BDAT 3 LAST\r\nabc",
    b"BDAT 0 LAST\r\n",
    b"BDAT 99999999999999999999\r\n",
    b"BDAT x\r\n",
]
TRANSACTION = st.builds(
    lambda message: ENVELOPES[0] + ENVELOPES[3] + message, st.sampled_from([*MESSAGES, *MESSAGES, b"RSET\r\n"])
)
SESSIONS = st.lists(
    st.sampled_from(HELLO + ENVELOPES + OTHERS + MESSAGES) | TRANSACTION | st.binary(max_size=5), max_size=25
).map(lambda parts: b"EHLO a.example\r\n" + b"".join(parts))
SMALL = Service("mx.example.org", extensions=SMTP.extensions, size_limit=100, recipients_limit=2, max_errors=8)
MENDING = replace(SMTP, mend_lines=True)
SERVICES = st.sampled_from([(SMALL, False), (SMTP, False), (SUBMISSION, True), (LMTP, False), (MENDING, False)])

# A busy machine is no failure.
ANY_SPEED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def comparable(record: Record) -> tuple[list[object], bytes]:
    """Pieces of content that was refused may be cut anywhere: all but them, and all of the output."""
    kept: list[object] = []
    for event in record.events:
        if isinstance(event, events.DataEnd) and event.problem and isinstance(kept[-1], events.Content):
            kept.pop()
        kept.append(event)
    # Content without an end: how much of it was handed on depends on the cuts too.
    kept = [
        event
        for event, after in zip(kept, [*kept[1:], None], strict=True)
        if not isinstance(event, events.Content) or isinstance(after, events.DataEnd)
    ]
    return kept, record.output


@ANY_SPEED
@given(SERVICES, SESSIONS, st.data())
def test_neither_cuts_nor_late_replies_change_anything(
    kind: tuple[Service, bool], session: bytes, data: st.DataObject
) -> None:
    service, secure = kind
    whole = talk(service, session, secure=secure, eof=True)
    connection, record = ServerConnection(service, secure), Record()
    waiting = None
    left, eof = session, False
    while True:
        if not eof and data.draw(st.integers(0, 3), label="feed") == 0:
            size = data.draw(st.sampled_from([1, 2, 3, 7, 50, 5000]), label="octets")
            connection.receive(left[:size])
            left = left[size:]
            if not left:
                connection.receive_eof()
                eof = True
        elif waiting is not None:
            assert connection.paused
            connection.reply(decide(waiting))
            waiting = None
            record.output += connection.take_output()
        elif (event := connection.next_event()) is not None:
            record.add(event)
            if isinstance(event, ASKS):
                waiting = event
                assert connection.next_event() is None
        elif connection.closed:
            break
        elif not eof:
            connection.receive(left[:1])
            left = left[1:]
            if not left:
                connection.receive_eof()
                eof = True
    record.output += connection.take_output()
    assert comparable(record) == comparable(whole)


@ANY_SPEED
@given(
    SERVICES, st.lists(st.binary(max_size=200) | st.sampled_from(OTHERS + MESSAGES + ENVELOPES + HELLO), max_size=15)
)
def test_random_octets_are_answered_and_never_raise(kind: tuple[Service, bool], chunks: list[bytes]) -> None:
    record = talk(kind[0], chunks, secure=kind[1], eof=True)
    assert isinstance(record.events[-1], events.Closed)
    assert all(len(line) <= 510 and line.isprintable() for line in record.lines)
    assert record.output.count(b"\n") == record.output.count(b"\r\n")


@ANY_SPEED
@given(
    st.sampled_from([replace(SMTP, max_errors=10_000), replace(SUBMISSION, auth_in_clear=True, max_errors=10_000)]),
    st.lists(st.sampled_from(ENVELOPES + OTHERS + MESSAGES) | TRANSACTION, max_size=10),
    SESSIONS,
)
def test_nothing_said_before_tls_is_remembered(service: Service, before: list[bytes], after: bytes) -> None:
    """Under TLS a connection is as one on which nothing was ever said (RFC 3207 4.2)."""
    connection, record = ServerConnection(service), Record()
    settle(connection, record)
    for part in (b"EHLO a.example\r\n", *before, b"\r\n", b"*\r\n", b".\r\n", b"RSET\r\n", b"EHLO b.example\r\n"):
        connection.receive(part)
        settle(connection, record)
    connection.receive(b"STARTTLS\r\n")
    settle(connection, record)
    if connection.state is not State.TLS:
        return  # the connection has ended, or a chunk has not
    connection.tls_started()
    under_tls = Record()
    connection.receive(after)
    settle(connection, under_tls)
    fresh = talk(service, after, secure=True)
    assert under_tls.output == fresh.output.partition(b"\r\n")[2]
    assert under_tls.events == fresh.events[1:]


@ANY_SPEED
@given(SERVICES, SESSIONS)
def test_transactions_pair_up(kind: tuple[Service, bool], session: bytes) -> None:
    """Each accepted MAIL ends in exactly one DataEnd or Reset, and content comes only in between."""
    open_transaction = content = False
    for event in talk(kind[0], session, secure=kind[1], eof=True).events:
        match event:
            case events.Mail():
                assert not open_transaction
                open_transaction = decide(event) is None
                content = False
            case events.Rcpt():
                assert open_transaction
            case events.DataBegin():
                assert open_transaction
                content = True
            case events.Content():
                assert content
            case events.DataEnd() | events.Reset():
                assert open_transaction
                open_transaction = content = False
    assert not open_transaction


# Every sequence that some server has taken, or could take, for the end of data, and that is none.
NO_ENDS = [
    b"\n.\n",
    b"\r\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r.\n",
    b"\n.\r",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\0\n",
    b"\0\r\n.\n",
    b"\n\n.\r\n",
    b"\r\n\n.\n\r\n",
]


@pytest.mark.parametrize("sequence", NO_ENDS)
@pytest.mark.parametrize("before", [b"hello", b"hello\r\n", b"", b"x" * 65_530])
def test_nothing_but_crlf_dot_crlf_ends_data(before: bytes, sequence: bytes) -> None:
    smuggled = b"MAIL FROM:<ceo@example.com>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nforged"
    start = b"EHLO a.example\r\nMAIL FROM:<alice@example.net>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"
    session = start + before + sequence + smuggled + b"\r\n.\r\nNOOP\r\n"
    for size in (1, 2, 3, 4, 5, 7, len(session)):
        if size < 3 and len(before) > 100:
            continue
        record = talk(SMTP, [session[at : at + size] for at in range(0, len(session), size)])
        assert len(record.of(events.Mail)) == 1
        assert [
            end.problem.code for end in record.of(events.DataEnd) if isinstance(end, events.DataEnd) and end.problem
        ] == [554]
        assert record.codes == [220, 250, 250, 250, 354, 554, 250]


@pytest.mark.parametrize("sequence", [b"\r\n.\r\n", b"\r\n..\r\n", b"\r\n.x", b"\r\n...\r\n.", b"\r\n.."])
@pytest.mark.parametrize("offset", range(12))
def test_dots_at_every_edge(sequence: bytes, offset: int) -> None:
    session = b"EHLO a.example\r\nMAIL FROM:<alice@example.net>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"
    whole = session + b"abc" + sequence + b"end\r\n.\r\nNOOP\r\n"
    expected = talk(SMTP, whole)
    at = len(session) + offset
    assert comparable(talk(SMTP, [whole[:at], whole[at:]])) == comparable(expected)
