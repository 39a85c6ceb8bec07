"""The pool on a virtual clock: how long, how many, for whom."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from mailsrv.relay.connection import SmtpClient, Timeouts
from mailsrv.relay.mx import Hop
from mailsrv.relay.pool import IDLE_S, MOST, MOST_ALIKE, Pool
from mailsrv.relay.session import MOST_MESSAGES, Key, Session
from mailsrv.relay.tls import ClientTls, Demand, TlsPolicy
from mailsrv.smtp.client import ClientConnection

HOP = Hop("mx.example.net", "192.0.2.1")
POLICY = TlsPolicy(Demand.OPPORTUNISTIC, False, HOP.name, "")
KEY = Key(HOP, None, POLICY)


class Transport(StringTransport):
    def setTcpNoDelay(self, enabled: bool) -> None: ...


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.pool = Pool(self.clock)

    def session(self, key: Key = KEY, limits: bytes = b"") -> Session:
        client = SmtpClient(self.clock, ClientConnection("us.example.org"))
        transport: Any = Transport()  # type: ignore[no-untyped-call]
        connect: Any = client.makeConnection
        connect(transport)
        client.dataReceived(b"220 mx.example.net\r\n")
        client.core.next_event()
        client.core.say_hello()
        client.dataReceived(b"250-mx.example.net\r\n250 LIMITS %b\r\n" % limits)
        client.core.next_event()
        tls = ClientTls(SSL.Context(SSL.TLS_CLIENT_METHOD), HOP.name)
        return Session(client, key, tls, "us.example.org", Timeouts(), now=self.clock.seconds())

    def kept(self, key: Key = KEY, limits: bytes = b"") -> Session:
        session = self.session(key, limits)
        self.pool.keep(session)
        return session


def said(session: Session) -> bytes:
    transport: Any = session.client.transport
    return bytes(transport.value())


def lose(session: Session) -> None:
    session.client.connectionLost(Failure(ConnectionDone()))


def test_the_one_that_rested_least_is_taken_and_only_once() -> None:
    world = World()
    first, second = world.kept(), world.kept()
    assert world.pool.has(HOP)
    assert world.pool.take(KEY, "example.net") is second
    assert world.pool.take(KEY, "example.net") is first
    assert world.pool.take(KEY, "example.net") is None
    assert not world.pool.has(HOP)


def test_rest_is_short_and_ends_with_goodbye() -> None:
    world = World()
    first = world.kept()
    world.clock.advance(IDLE_S - 1)
    second = world.kept()
    world.clock.advance(1)
    assert said(first).endswith(b"QUIT\r\n")
    assert not said(second).endswith(b"QUIT\r\n")
    assert len(world.pool) == 1
    world.clock.advance(IDLE_S)
    assert said(second).endswith(b"QUIT\r\n")
    assert len(world.pool) == 0
    for session in (first, second):
        lose(session)
    assert world.clock.getDelayedCalls() == []


def test_whoever_speaks_at_rest_is_dropped() -> None:
    for words in (b"421 4.4.2 idle\r\n", b"250 what?\r\n", b"4"):
        world = World()
        session = world.kept()
        session.client.dataReceived(words)
        transport: Any = session.client.transport
        assert transport.disconnected or transport.disconnecting
        assert world.pool.take(KEY, "example.net") is None
        assert len(world.pool) == 0


def test_whoever_goes_at_rest_is_forgotten() -> None:
    world = World()
    session = world.kept()
    lose(session)
    assert len(world.pool) == 0
    assert not world.pool.has(HOP)


def test_each_key_has_its_own() -> None:
    world = World()
    session = world.kept()
    for other in (
        Key(Hop("mx.example.net", "192.0.2.2"), None, POLICY),
        Key(Hop("other.example.net", "192.0.2.1"), None, POLICY),
        Key(HOP, None, TlsPolicy(Demand.ENCRYPTED, False, HOP.name, "")),
        Key(HOP, None, TlsPolicy(Demand.CLEAR, False, HOP.name, "")),
    ):
        assert world.pool.take(other, "example.net") is None
    assert world.pool.take(Key(Hop("mx.example.net", "192.0.2.1", preference=7), None, POLICY), "a.example") is session


def test_the_number_is_bounded_in_all_and_for_each_key() -> None:
    world = World()
    alike = [world.kept() for _ in range(MOST_ALIKE + 1)]
    assert len(world.pool) == MOST_ALIKE
    assert said(alike[-1]).endswith(b"QUIT\r\n")
    for n in range(MOST):
        world.kept(Key(Hop("mx.example.net", f"192.0.2.{n}", 26), None, POLICY))
    assert len(world.pool) == MOST
    assert said(alike[0]).endswith(b"QUIT\r\n")  # the oldest went


def test_messages_and_time_of_one_connection_are_bounded() -> None:
    world = World()
    worn, limited, old = world.session(), world.session(limits=b"MAILMAX=2"), world.session()
    worn.transactions, limited.transactions = MOST_MESSAGES, 2
    for session in (worn, limited):
        world.pool.keep(session)
        assert said(session).endswith(b"QUIT\r\n")
    world.clock.advance(300)
    world.pool.keep(old)
    assert said(old).endswith(b"QUIT\r\n")
    assert len(world.pool) == 0


def test_domains_of_one_connection_may_be_bounded() -> None:
    world = World()
    session = world.session(limits=b"RCPTDOMAINMAX=2")
    session.domains |= {"a.example", "b.example"}
    world.pool.keep(session)
    assert world.pool.take(KEY, "c.example") is None
    assert world.pool.take(KEY, "b.example") is session


def test_clearing_says_goodbye_to_all() -> None:
    world = World()
    sessions = [world.kept() for _ in range(3)]
    world.pool.clear()
    assert len(world.pool) == 0
    for session in sessions:
        assert said(session).endswith(b"QUIT\r\n")
        session.client.dataReceived(b"221 bye\r\n")
        lose(session)
    assert world.clock.getDelayedCalls() == []
