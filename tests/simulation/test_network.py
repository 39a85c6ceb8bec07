"""The network carries, delays, splits, cuts and resists; TLS runs over it as over any other."""

from __future__ import annotations

import random
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, serverFromString
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailsrv.outside.interfaces import IReactor
from tests.simulation.certificates import self_signed
from tests.simulation.network import CALM, Network, Weather
from tests.simulation.reactor import SimulatedReactor
from tests.simulation.timeline import Life, Timeline


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class Recorder(Protocol):
    """Keeps all that happens to it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.events: list[str] = []
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)

    def readConnectionLost(self) -> None:
        self.events.append("read lost")

    def writeConnectionLost(self) -> None:
        self.events.append("write lost")

    def handshakeCompleted(self) -> None:
        self.events.append("handshake")

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason

    @property
    def octets(self) -> bytes:
        return b"".join(self.received)


def _tls_client(factory: Factory, reactor: Any) -> Any:
    return TLSMemoryBIOFactory(CertificateOptions(), True, factory, reactor)


class Pair:
    """Two hosts, one connection."""

    def __init__(self, seed: int = 0, weather: Weather = CALM, context: Any = None) -> None:
        self.timeline = Timeline()
        self.network = Network(self.timeline, random.Random(seed), weather)
        self.server_life, self.client_life = Life("server"), Life("client")
        self.at_server = self.reactor("server", ("192.0.2.1", "2001:db8::1"), self.server_life)
        self.at_client = self.reactor("client", ("192.0.2.2", "2001:db8::2"), self.client_life)
        self.server, self.client = Recorder(), Recorder()
        server: Any = Factory.forProtocol(lambda: self.server)
        client: Any = ClientFactory.forProtocol(lambda: self.client)
        if context is not None:
            server = TLSMemoryBIOFactory(context, False, server, self.at_server)
            client = _tls_client(client, self.at_client)
        self.at_server.listenTCP(25, server)
        # Not by an endpoint: its wrapper passes on only one of the interfaces that a protocol provides.
        self.at_client.connectTCP("192.0.2.1", 25, client)
        self.run()

    def reactor(self, host: str, addresses: tuple[str, ...], life: Life) -> SimulatedReactor:
        return SimulatedReactor(self.timeline, self.network, host, addresses, life)

    def run(self, seconds: float = 5.0) -> None:
        self.timeline.run(self.timeline.now + seconds)


def test_the_reactor_provides_what_the_door_asks_for() -> None:
    assert verifyObject(IReactor, Pair().at_server)


def test_octets_arrive_in_order_and_later() -> None:
    for seed in range(20):
        pair = Pair(seed)
        sent = random.Random(seed).randbytes(5000)
        before = pair.timeline.now
        pair.client.transport.write(sent[:1000])  # type: ignore[union-attr]
        pair.client.transport.writeSequence([sent[1000:3000], sent[3000:]])  # type: ignore[union-attr]
        pair.timeline.run(before + 0.0004)
        assert pair.server.octets == b""
        pair.run()
        assert pair.server.octets == sent


def test_octets_arrive_in_other_pieces() -> None:
    pieces = set()
    for seed in range(30):
        pair = Pair(seed, Weather(splits=1.0))
        pair.client.transport.write(b"MAIL FROM:<>\r\n")  # type: ignore[union-attr]
        pair.run()
        pieces.add(tuple(pair.server.received))
    assert len(pieces) > 10


def test_addresses_are_told() -> None:
    pair = Pair()
    assert pair.server.transport is not None
    peer, host = pair.server.transport.getPeer(), pair.server.transport.getHost()
    assert (peer.host, host.host, host.port) == ("192.0.2.2", "192.0.2.1", 25)  # type: ignore[attr-defined]


def test_close_flushes_first() -> None:
    pair = Pair()
    pair.server.transport.write(b"x" * 300_000)  # type: ignore[union-attr]
    pair.server.transport.loseConnection()  # type: ignore[union-attr]
    pair.run()
    assert pair.client.octets == b"x" * 300_000
    assert pair.client.events == ["read lost"]
    pair.client.transport.loseConnection()  # type: ignore[union-attr]
    pair.run()
    assert pair.client.lost is not None
    assert pair.server.lost is not None
    pair.server.lost.trap(error.ConnectionDone)


def test_half_close_leaves_the_other_direction_open() -> None:
    pair = Pair()
    pair.client.transport.write(b"last words")  # type: ignore[union-attr]
    pair.client.transport.loseWriteConnection()  # type: ignore[union-attr]
    pair.run()
    assert (pair.server.octets, pair.server.events) == (b"last words", ["read lost"])
    pair.server.transport.write(b"answer")  # type: ignore[union-attr]
    pair.run()
    assert pair.client.octets == b"answer"


def test_abort_resets_the_other_side() -> None:
    pair = Pair()
    pair.client.transport.abortConnection()  # type: ignore[union-attr]
    pair.run()
    assert pair.client.lost is not None
    assert pair.server.lost is not None
    pair.client.lost.trap(error.ConnectionAborted)
    pair.server.lost.trap(error.ConnectionLost)


def test_whoever_does_not_read_is_not_written_to() -> None:
    @implementer(IPushProducer)
    class Producer:
        written = 0
        paused = False

        def pauseProducing(self) -> None:
            self.paused = True

        def resumeProducing(self) -> None:
            self.paused = False
            while not self.paused and self.written < 1_000_000:
                self.written += 10_000
                pair.server.transport.write(b"x" * 10_000)  # type: ignore[union-attr]

        def stopProducing(self) -> None:
            self.paused = True

    pair = Pair()
    pair.client.transport.pauseProducing()  # type: ignore[union-attr]
    producer = Producer()
    pair.server.transport.registerProducer(producer, True)  # type: ignore[union-attr]
    producer.resumeProducing()
    pair.run()
    assert producer.paused
    assert 64 * 1024 < producer.written <= 3 * 64 * 1024  # the window, the transport's buffer, one write more
    pair.client.transport.resumeProducing()  # type: ignore[union-attr]
    pair.run(60)
    assert pair.client.octets == b"x" * 1_000_000


def test_a_cut_loses_the_connection_on_both_sides() -> None:
    for seed in range(20):
        pair = Pair(seed, Weather(cut=1.0, accident_octets=1000))
        pair.client.transport.write(b"x" * 2000)  # type: ignore[union-attr]
        pair.run()
        assert len(pair.server.octets) < 1000
        for side in (pair.client, pair.server):
            assert side.lost is not None
            side.lost.trap(error.ConnectionLost)


def test_a_stall_is_noticed_by_nobody() -> None:
    pair = Pair(0, Weather(stall=1.0, accident_octets=1000))
    pair.client.transport.write(b"x" * 2000)  # type: ignore[union-attr]
    pair.run(1000)
    assert len(pair.server.octets) < 1000
    assert pair.client.lost is None
    assert pair.server.lost is None


def test_nobody_listens() -> None:
    pair = Pair()
    failures: list[Failure] = []
    factory = Factory.forProtocol(Recorder)
    for place in ("192.0.2.1:26", "192.0.2.99:25"):
        host, _, port = place.partition(":")
        TCP4ClientEndpoint(pair.at_client, host, int(port)).connect(factory).addErrback(failures.append)
    pair.run()
    assert [failure.type for failure in failures] == [error.ConnectionRefusedError] * 2


def test_a_black_hole_ends_in_the_time_out_of_the_client() -> None:
    pair = Pair()
    pair.network.black_holes.add("192.0.2.1")
    failures: list[Failure] = []
    endpoint = TCP4ClientEndpoint(pair.at_client, "192.0.2.1", 25, timeout=20)
    endpoint.connect(Factory.forProtocol(Recorder)).addErrback(failures.append)
    pair.run(19)
    assert failures == []
    pair.run(2)
    assert [failure.type for failure in failures] == [error.TimeoutError]


def test_loopback_stays_on_the_host() -> None:
    pair = Pair()
    failures: list[Failure] = []
    TCP4ClientEndpoint(pair.at_client, "127.0.0.1", 25).connect(Factory()).addErrback(failures.append)
    beside = pair.reactor("server", (), Life("beside"))
    client = Recorder()
    TCP4ClientEndpoint(beside, "127.0.0.1", 25).connect(Factory.forProtocol(lambda: client))
    pair.run()
    assert [failure.type for failure in failures] == [error.ConnectionRefusedError]
    assert client.transport is not None
    assert client.transport.getHost().host == "127.0.0.1"  # type: ignore[attr-defined]


def test_both_families_stand_side_by_side() -> None:
    pair = Pair()
    servers = [Recorder(), Recorder()]
    for server, description in zip(servers, ("tcp:587", "tcp6:587"), strict=True):
        serverFromString(pair.at_server, description).listen(_factory(server))
    client = Recorder()
    pair.at_client.connectTCP("2001:db8::1", 587, _factory(client))
    pair.run()
    client.transport.write(b"six")  # type: ignore[union-attr]
    pair.run()
    assert [server.octets for server in servers] == [b"", b"six"]


def _factory(protocol: Protocol) -> Any:
    return ClientFactory.forProtocol(lambda: protocol)


def test_a_port_is_taken_until_its_owner_lets_go_or_dies() -> None:
    pair = Pair()
    port = pair.at_server.listenTCP(26, Factory())
    with pytest.raises(error.CannotListenError):
        pair.at_server.listenTCP(26, Factory())
    port.stopListening()
    with pytest.raises(error.CannotListenError):  # as with a real reactor, it is closed in the next turn
        pair.at_server.listenTCP(26, Factory())
    pair.run()
    pair.at_server.listenTCP(26, Factory())
    pair.server_life.end()
    next_life = pair.reactor("server", ("192.0.2.1",), Life("server again"))
    next_life.listenTCP(26, Factory())


def test_the_end_of_a_life_is_told_to_the_other_side_or_is_silence() -> None:
    told = set()
    for seed in range(20):
        pair = Pair(seed)
        pair.at_server.callLater(1, pair.server.events.append, "a dead program acts")
        pair.server_life.end()
        pair.run()
        assert pair.server.events == []
        told.add(pair.client.lost is not None)
    assert told == {True, False}


def test_implicit_tls() -> None:
    pair = Pair(1, context=_server_context())
    pair.run()
    assert "handshake" in pair.client.events and "handshake" in pair.server.events
    for _ in range(3):
        pair.client.transport.write(b"x" * 100_000)  # type: ignore[union-attr]
    pair.run()
    assert pair.server.octets == b"x" * 300_000
    pair.server.transport.loseConnection()  # type: ignore[union-attr]
    pair.run()
    assert pair.client.lost is not None
    pair.client.lost.trap(error.ConnectionDone)


def test_starttls() -> None:
    pair = Pair(2)
    pair.client.transport.startTLS(CertificateOptions())  # type: ignore[union-attr]
    pair.server.transport.startTLS(_server_context())  # type: ignore[union-attr]
    pair.run()
    assert pair.client.events == pair.server.events == ["handshake"]
    pair.client.transport.write(b"secret")  # type: ignore[union-attr]
    pair.run()
    assert pair.server.octets == b"secret"


def test_a_run_is_a_function_of_its_seed() -> None:
    def run(seed: int) -> list[tuple[float, bytes]]:
        pair = Pair(seed, Weather(splits=1.0))
        arrived: list[tuple[float, bytes]] = []
        pair.server.dataReceived = lambda data: arrived.append((pair.timeline.now, data))  # type: ignore[method-assign]
        for _ in range(20):
            pair.client.transport.write(b"0123456789")  # type: ignore[union-attr]
            pair.run(0.01)
        return arrived

    assert run(5) == run(5)
    assert run(5) != run(6)


def _server_context() -> CertificateOptions:
    key, certificate = self_signed("mx.example.org")
    return CertificateOptions(privateKey=key, certificate=certificate)  # type: ignore[arg-type]


def test_timers_are_called_when_due_put_off_and_cancelled() -> None:
    pair = Pair()
    reactor, start = pair.at_server, pair.timeline.now
    called: list[tuple[str, float]] = []

    def call(name: str) -> None:
        called.append((name, round(reactor.seconds() - start, 6)))

    reactor.callLater(3, call, "three")
    reactor.callLater(1, call, "one")
    later = reactor.callLater(2, call, "put off")
    earlier = reactor.callLater(9, call, "put forward")
    cancelled = reactor.callLater(2.5, call, "cancelled")
    later.delay(2)
    earlier.reset(0.5)
    cancelled.cancel()
    waiting: Deferred[None] = Deferred()
    waiting.addCallback(lambda _: call("from a thread"))
    reactor.callFromThread(waiting.callback, None)
    pair.run(10)
    assert called == [("from a thread", 0), ("put forward", 0.5), ("one", 1), ("three", 3), ("put off", 4)]
    assert reactor.getDelayedCalls() == []
