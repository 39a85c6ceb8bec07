"""Time-outs and back-pressure on a virtual clock, with a transport in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope, Recipient
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.attempt import Attempt, Trouble
from mailsrv.relay.connection import SmtpClient, Timeouts
from mailsrv.relay.conversation import Conversation
from mailsrv.relay.conversion import Converter
from mailsrv.relay.dial import is_this_server
from mailsrv.relay.job import Job
from mailsrv.relay.mx import Hop
from mailsrv.relay.session import Key, Session
from mailsrv.relay.tls import ClientTls, tls_policy
from mailsrv.smtp.client import ClientConnection

GREETING = b"220 mx.example.net\r\n"
EHLO = b"250-mx.example.net\r\n250-8BITMIME\r\n250 PIPELINING\r\n"
PLAIN_EHLO = b"250 mx.example.net\r\n"
HOP = Hop("mx.example.net", "192.0.2.1")


class Transport(StringTransport):
    no_delay = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled


class Content:
    """Pieces that come when the test says so."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces or (b"x\r\n",)
        self.taken = 0
        self.closed = False

    def beginning(self) -> AsyncIterator[bytes]:
        return self.chunks()

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            for piece in self.pieces:
                self.taken += 1
                yield piece
        finally:
            self.closed = True


class Talk:
    """A conversation with the test as the server."""

    def __init__(
        self,
        content: Content | None = None,
        recipients: int = 1,
        timeouts: Timeouts | None = None,
        *,
        other_family: bool = False,
        reused: bool = False,
    ) -> None:
        self.clock = Clock()
        self.content = content or Content()
        self.client = SmtpClient(self.clock, ClientConnection("us.example.org"))
        self.transport: Any = Transport()  # type: ignore[no-untyped-call]
        connect: Any = self.client.makeConnection
        connect(self.transport)
        policy = tls_policy(HOP, None, "example.net", {}, failed_lately=False)
        tls = ClientTls(SSL.Context(SSL.TLS_CLIENT_METHOD), HOP.name)
        self.session = Session(self.client, Key(HOP, None, policy), tls, "us.example.org", timeouts or Timeouts())
        bobs = tuple(Recipient(Address(f"bob{n}", "example.net")) for n in range(recipients))
        size = sum(map(len, self.content.pieces))
        self.signs_of_life = 0
        job = Job("0", Envelope(None), bobs, "example.net", self.content, size, False, self.lives)
        self.session.reused = reused
        self.attempt = Attempt(job, other_family=other_family)
        self.settled = self.attempt.settled
        self.results: list[Any] = []
        Deferred.fromCoroutine(self.run()).addBoth(self.results.append)

    async def run(self) -> Trouble | None:
        converter: Any = Converter(None, None)  # type: ignore[arg-type]
        try:
            return await self.session.open() or await Conversation(self.session, self.attempt, converter).deliver()
        finally:
            self.client.close()

    def lives(self) -> None:
        self.signs_of_life += 1

    def say(self, *replies: bytes) -> None:
        for reply in replies:
            self.client.dataReceived(reply)

    def lose(self) -> None:
        self.client.connectionLost(Failure(ConnectionDone()))

    @property
    def said(self) -> bytes:
        return bytes(self.transport.value())

    @property
    def trouble(self) -> Outcome:
        (trouble,) = self.results
        assert isinstance(trouble, Trouble), trouble
        return trouble.outcome

    def passes(self, seconds: float) -> None:
        """Nothing happens for a little less than ``seconds``; then the conversation is over."""
        self.clock.advance(seconds - 0.5)
        assert self.results == []
        self.clock.advance(1)
        assert len(self.results) == 1


OPENED = (GREETING, EHLO)
ACCEPTED = (*OPENED, b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n")


@pytest.mark.parametrize(
    ("replies", "seconds"),
    [
        ((), 300),
        ((b"220-slow\r\n",), 300),
        ((GREETING,), 300),
        (OPENED, 300),
        ((*OPENED, b"250 ok\r\n"), 300),
        ((*OPENED, b"250 ok\r\n", b"250 ok\r\n"), 120),
        ((GREETING, PLAIN_EHLO), 300),
        ((GREETING, PLAIN_EHLO, b"250 ok\r\n"), 300),
        ((GREETING, PLAIN_EHLO, b"250 ok\r\n", b"250 ok\r\n"), 120),
    ],
)
def test_silence_before_the_content(replies: tuple[bytes, ...], seconds: float) -> None:
    # RFC 5321 4.5.3.2
    talk = Talk()
    talk.say(*replies)
    talk.passes(seconds)
    assert (talk.trouble.result, talk.trouble.status) == (Result.DEFERRED, "4.4.2")
    assert not talk.settled
    assert talk.transport.disconnected or talk.transport.disconnecting
    assert f"{seconds:g} seconds" in talk.trouble.reason


@pytest.mark.parametrize(
    "ehlo", [EHLO, PLAIN_EHLO, b"250-mx.example.net\r\n250-8BITMIME\r\n250-CHUNKING\r\n250 PIPELINING\r\n"]
)
def test_the_sign_of_life_is_a_recipient_that_is_taken(ehlo: bytes) -> None:
    """Not that our own copy was read, to see whether it has to be converted or to send it in one flight with MAIL."""
    talk = Talk(recipients=3)
    talk.say(GREETING, ehlo)
    assert talk.content.taken == (0 if ehlo is EHLO else 1)
    talk.say(b"250 ok\r\n", b"450 4.2.0 later\r\n")
    assert talk.signs_of_life == 0
    talk.say(b"250 ok\r\n")
    assert talk.signs_of_life == 1
    talk.say(b"250 ok\r\n")
    assert talk.signs_of_life == 1


def test_a_refusal_is_no_sign_of_life() -> None:
    for refusal in (b"421 4.3.2 bye\r\n", b"451 4.3.0 later\r\n", b"550 5.7.1 no\r\n"):
        talk = Talk()
        talk.say(*OPENED, refusal)
        assert talk.signs_of_life == 0


def test_dribbling_octets_do_not_win_time() -> None:
    talk = Talk()
    for _ in range(29):
        talk.say(b"2")
        talk.clock.advance(10)
    talk.passes(10)


def test_everything_before_mail_is_bounded_together() -> None:
    talk = Talk(timeouts=Timeouts(opening=400))
    talk.clock.advance(290)
    talk.say(GREETING)
    talk.passes(110)
    assert "all together took too long" in talk.trouble.reason


def test_all_recipients_are_bounded_together() -> None:
    talk = Talk(recipients=50)
    talk.say(*OPENED, b"250 ok\r\n")
    for _ in range(8):
        talk.clock.advance(100)
        talk.say(b"250 ok\r\n")
    talk.passes(100)
    assert (talk.trouble.result, talk.trouble.status) == (Result.DEFERRED, "4.4.2")


def test_content_has_to_be_taken_at_some_rate() -> None:
    pieces = 200
    content = Content(*[b"x" * 65_534 + b"\r\n"] * pieces)
    talk = Talk(content)
    talk.transport.registerProducer = paused_at_once(talk)
    talk.say(*ACCEPTED)
    write = talk.transport.write

    def full(data: bytes) -> None:
        write(data)
        talk.client.pauseProducing()

    talk.transport.write = full
    while not talk.results:
        talk.clock.advance(60)  # each time before a block is overdue
        talk.client.resumeProducing()
    assert talk.clock.seconds() <= 600 + pieces * 65_536 / 4096 + 60
    assert "too long" in talk.trouble.reason
    assert content.taken < pieces


def test_silence_after_the_dot_may_be_a_duplicate() -> None:
    talk = Talk(recipients=1)
    talk.say(*ACCEPTED)
    assert talk.said.endswith(b"DATA\r\nx\r\n.\r\n")
    talk.passes(600)
    outcome = talk.settled[0]
    assert (outcome.result, outcome.status) == (Result.DEFERRED, "4.4.2")
    assert "second time" in outcome.reason


def test_content_waits_for_a_transport_that_is_full() -> None:
    content = Content(b"one\r\n", b"two\r\n", b"three\r\n")
    talk = Talk(content)
    talk.say(*ACCEPTED[:-1])
    talk.transport.registerProducer = paused_at_once(talk)
    talk.say(ACCEPTED[-1])
    assert content.taken == 1
    talk.client.resumeProducing()
    assert content.taken == 3
    assert talk.said.endswith(b"one\r\ntwo\r\nthree\r\n.\r\n")
    assert talk.transport.producer is None
    talk.say(b"250 taken\r\n")
    assert talk.settled[0].result is Result.DELIVERED


def paused_at_once(talk: Talk) -> Any:
    def register(producer: Any, streaming: bool) -> None:
        assert streaming
        talk.transport.producer = producer
        producer.pauseProducing()

    return register


def test_a_block_that_is_not_taken() -> None:
    content = Content(b"one\r\n", b"two\r\n")
    talk = Talk(content)
    talk.transport.registerProducer = paused_at_once(talk)
    talk.say(*ACCEPTED)
    talk.passes(180)
    assert not talk.said.endswith(b".\r\n")
    assert talk.trouble.status == "4.4.2"
    assert content.closed


def test_the_server_gone_while_the_transport_is_full() -> None:
    content = Content(b"one\r\n", b"two\r\n")
    talk = Talk(content)
    talk.transport.registerProducer = paused_at_once(talk)
    talk.say(*ACCEPTED)
    talk.lose()
    assert talk.trouble.status == "4.4.2"
    assert content.closed


def test_the_outcome_does_not_wait_for_goodbye_and_goodbye_is_bounded() -> None:
    talk = Talk()
    talk.say(*ACCEPTED, b"250 taken\r\n")
    assert talk.settled[0].result is Result.DELIVERED
    assert talk.said.endswith(b"QUIT\r\n")
    assert not talk.transport.disconnecting
    talk.clock.advance(10)
    assert talk.transport.disconnected or talk.transport.disconnecting
    talk.lose()
    assert talk.clock.getDelayedCalls() == []


def test_goodbye_answered() -> None:
    talk = Talk()
    talk.say(*ACCEPTED, b"250 taken\r\n", b"221 bye\r\n")
    assert talk.transport.disconnecting
    talk.lose()
    assert talk.clock.getDelayedCalls() == []


def test_no_timer_is_left_behind() -> None:
    talk = Talk()
    talk.say(GREETING)
    talk.lose()
    assert talk.trouble.status == "4.4.2"
    assert talk.clock.getDelayedCalls() == []


def test_every_connection_is_without_delay() -> None:
    assert Talk().transport.no_delay is True


@pytest.mark.parametrize(
    ("here", "endpoint", "ourselves"),
    [
        ("192.0.2.1", "tcp:25", True),
        ("192.0.2.1", "tcp:25:interface=192.0.2.1", True),
        ("192.0.2.1", "tcp:2525", False),  # somebody else on the same machine
        ("192.0.2.9", "tcp:25", False),
    ],
)
def test_an_address_of_this_machine_at_which_we_listen_is_a_loop(here: str, endpoint: str, ourselves: bool) -> None:
    talk = Talk()
    talk.transport.hostAddr = IPv4Address("TCP", here, 40000)
    assert is_this_server(talk.client, HOP, [endpoint]) is ourselves


def test_our_own_name_in_the_answer_is_a_loop() -> None:
    talk = Talk()
    talk.say(GREETING, b"250 US.example.org hello\r\n")
    assert (talk.trouble.result, talk.trouble.status) == (Result.FAILED, "5.4.6")
    assert talk.results[0].ourselves


def test_a_thousand_pipelined_answers_in_one_piece() -> None:
    talk = Talk(recipients=100)
    talk.say(*OPENED, b"250 ok\r\n" * 101 + b"354 go\r\n")
    talk.say(b"250 taken\r\n")
    assert {outcome.result for outcome in talk.settled.values()} == {Result.DELIVERED}


EHLOS = [
    EHLO,
    PLAIN_EHLO,
    b"250-mx.example.net\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
    b"250-mx.example.net\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 LIMITS RCPTMAX=2 MAILMAX=2\r\n",
    b"250-mx.example.net\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250 LIMITS RCPTMAX=1\r\n",
]
REPLIES = [
    *(b"250 ok\r\n", b"250 ok\r\n250 ok\r\n", b"354 go\r\n", b"450 4.2.0 later\r\n", b"452 4.5.3 too many\r\n"),
    *(b"550 5.1.1 who?\r\n", b"550 5.7.25 no PTR\r\n", b"503 5.5.1 what?\r\n", b"421 4.3.2 bye\r\n", b"nonsense\r\n"),
]


@given(
    st.sampled_from(EHLOS),
    st.lists(st.sampled_from(REPLIES), max_size=25),
    st.sampled_from([10, 70_000, 600_000]),
    st.booleans(),
    st.booleans(),
)
def test_whatever_a_server_says_everybody_has_an_outcome(
    ehlo: bytes, replies: list[bytes], size: int, other_family: bool, reused: bool
) -> None:
    pieces = [b"x" * (min(size - start, 50_000) - 2) + b"\r\n" for start in range(0, size, 50_000)]
    talk = Talk(Content(*pieces), recipients=4, other_family=other_family, reused=reused)
    talk.say(GREETING, ehlo)
    talk.say(*replies)
    if not talk.results:
        talk.lose()
    (trouble,) = talk.results
    assert trouble is None or isinstance(trouble, Trouble), trouble
    outcomes = talk.attempt.outcomes()
    assert len(outcomes) == 4
    if trouble is None and not talk.attempt.refused:
        assert len(talk.settled) == 4
    for outcome in outcomes:
        if outcome.result is Result.DELIVERED:
            assert outcome.answer.startswith("250")
            assert b"LAST\r\n" in talk.said or b"\r\n.\r\n" in talk.said
    assert not (talk.attempt.refused and not other_family)
    if not talk.client.closed.called:
        talk.lose()
    assert talk.clock.getDelayedCalls() == []
