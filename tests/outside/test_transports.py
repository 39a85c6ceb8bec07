"""Prompt writes under TLS, on real sockets of the loopback interface; without TLS they are in test_listening.py."""

from __future__ import annotations

import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailsrv.outside.connecting import connect
from mailsrv.outside.listening import listen
from mailsrv.outside.transports import PromptTlsFactory
from mailsrv.tls import ServerCertificate
from tests.simulation.certificates import pem

reactor: Any = _reactor


@implementer(IHandshakeListener, IPushProducer)
class Side(Protocol):
    """Our side of a connection."""

    def __init__(self) -> None:
        self.made: Deferred[None] = Deferred()
        self.secured: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.heard: Deferred[bytes] = Deferred()
        self.asked: list[str] = []

    @property
    def wire(self) -> Any:
        return self.transport

    def connectionMade(self) -> None:
        self.made.callback(None)

    def handshakeCompleted(self) -> None:
        self.secured.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.heard.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)

    def pauseProducing(self) -> None:
        self.asked.append("pause")

    def resumeProducing(self) -> None:
        self.asked.append("resume")

    def stopProducing(self) -> None:
        self.asked.append("stop")


class PromptTls(TestCase):
    """The other side is Python's own TLS, which blocks: in a thread where it needs turns of the reactor."""

    timeout = 20

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.paths = str(Path(folder.name) / "cert.pem"), str(Path(folder.name) / "key.pem")
        for path, octets in zip(self.paths, pem("mx.example.org"), strict=True):
            Path(path).write_bytes(octets)
        self.certificate = ServerCertificate(*self.paths)

    async def server(self, implicit: bool = False) -> tuple[Side, ssl.SSLSocket]:
        """A server's side under TLS with a small buffer, and its client."""
        side = Side()
        factory: Any = Factory.forProtocol(lambda: side)
        factory.noisy = False
        port: Any = await listen(
            reactor,
            "tcp:0:interface=127.0.0.1",
            PromptTlsFactory(self.certificate, False, factory, reactor) if implicit else factory,
        )
        self.addCleanup(port.stopListening)
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        plain.settimeout(5)
        plain.connect(("127.0.0.1", port.getHost().port))
        self.addCleanup(plain.close)
        await side.made
        if not implicit:
            side.wire.registerProducer(side, True)
            side.wire.startTLS(self.certificate)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client = await deferToThread(context.wrap_socket, plain)
        self.addCleanup(client.close)
        await side.secured
        if implicit:
            side.wire.registerProducer(side, True)
        side.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        self.addCleanup(self.gone, side)
        return side, client

    async def gone(self, side: Side) -> None:
        side.wire.abortConnection()
        await side.lost

    async def test_a_write_is_on_its_way_when_it_returns(self) -> None:
        for implicit in (False, True):
            server, client = await self.server(implicit)
            for n in range(3):
                server.wire.write(b"+OK %d" % n)
                assert client.recv(100) == b"+OK %d" % n  # without a turn of the reactor
            server.wire.writeSequence([b"+OK", b" ", b"3"])
            server.wire.write(b"+OK 4")
            assert client.recv(100) + client.recv(100) == b"+OK 3+OK 4"

    async def test_a_client_of_others_writes_at_once_too(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        client = Side()
        factory = Factory.forProtocol(lambda: client)
        factory.noisy = False
        await connect(reactor, "127.0.0.1", listening.getsockname()[1], factory, 5.0)
        plain, _ = listening.accept()
        self.addCleanup(plain.close)
        plain.settimeout(5)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.paths)
        client.wire.startTLS(CertificateOptions())
        server = await deferToThread(context.wrap_socket, plain, server_side=True)
        self.addCleanup(server.close)
        await client.secured
        client.wire.write(b"EHLO mx.example.org\r\n")
        assert server.recv(100) == b"EHLO mx.example.org\r\n"
        server.sendall(b"250 mx.example.net\r\n")
        assert await client.heard == b"250 mx.example.net\r\n"
        await self.gone(client)

    async def test_what_the_socket_does_not_take_arrives_whole_and_in_order(self) -> None:
        for implicit in (False, True):
            server, client = await self.server(implicit)
            data = b"".join(b"%07d\n" % n for n in range(200_000))
            server.wire.write(data)
            server.wire.write(b"+OK goodbye\r\n")
            assert server.asked == ["pause"], "the socket has taken everything, and nothing is shown"
            received = await deferToThread(_read, client, len(data) + 13)
            assert received == data + b"+OK goodbye\r\n"
            await deferLater(reactor, 0.01)
            assert server.asked == ["pause", "resume"]
            server.wire.write(b"x")
            assert client.recv(100) == b"x"

    async def test_what_is_written_before_closing_arrives_and_then_the_end(self) -> None:
        for implicit in (False, True):
            server, client = await self.server(implicit)
            server.wire.write(b"x" * 1_000_000)
            server.wire.write(b"+OK goodbye\r\n")
            server.wire.unregisterProducer()
            server.wire.loseConnection()
            received = await deferToThread(_read, client, 10_000_000)
            assert len(received) == 1_000_013
            assert received.endswith(b"x+OK goodbye\r\n")
            client.close()
            await server.lost
            server.wire.write(b"too late")

    async def test_writing_to_a_client_that_has_gone_ends_the_connection_in_its_own_turn(self) -> None:
        for implicit in (False, True):
            server, client = await self.server(implicit)
            server.wire.stopReading()
            # RFC 9293 3.5.3: a reset and not an end.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
            for _ in range(3):
                server.wire.write(b"x" * 1000)
                assert not server.lost.called
            await server.lost
            server.wire.write(b"x")


def _read(client: ssl.SSLSocket, octets: int) -> bytes:
    """So many octets, or all there are until TLS is closed in order."""
    data = bytearray()
    while len(data) < octets:
        piece = client.recv(50_000)
        if not piece:
            break
        data += piece
    return bytes(data)
