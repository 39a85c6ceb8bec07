"""A client's prompt writes, on real sockets of the loopback interface; what both sides share: test_listening."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from mailsrv.outside.prompt_writes import call_promptly

reactor: Any = global_reactor


class Client(Protocol):
    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    @property
    def wire(self) -> Any:
        return self.transport

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class Calling:
    """The reactor with connections of ours; the global one stays as it is."""

    def __init__(self) -> None:
        call_promptly(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class ClientTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.calling: Any = Calling()

    async def connected(self) -> tuple[Client, socket.socket]:
        """A client connected by an endpoint, and the socket of its server."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        factory = Factory.forProtocol(Client)
        factory.noisy = False
        endpoint: Any = TCP4ClientEndpoint(self.calling, "127.0.0.1", listening.getsockname()[1], timeout=10)
        client = await endpoint.connect(factory)
        server, _ = listening.accept()
        self.addCleanup(server.close)
        self.addCleanup(self.gone, client)
        return client, server

    async def gone(self, client: Client) -> None:
        if not client.lost.called:
            client.wire.abortConnection()
            await client.lost

    async def test_a_write_is_on_its_way_when_it_returns(self) -> None:
        client, server = await self.connected()
        client.wire.write(b"EHLO client.example.net\r\n")
        server.settimeout(5)
        assert server.recv(100) == b"EHLO client.example.net\r\n"  # without a turn of the reactor

    async def test_a_write_larger_than_the_socket_takes_arrives_whole_and_in_order(self) -> None:
        client, server = await self.connected()
        data = b"".join(b"%07d\n" % n for n in range(2_000_000))
        client.wire.write(data)
        assert client.wire._tempDataLen > 0, "the socket has taken everything, and nothing is shown"
        client.wire.loseConnection()
        server.setblocking(False)
        received = bytearray()
        while True:
            try:
                piece = server.recv(1_000_000)
            except BlockingIOError:
                await deferLater(reactor, 0)
                continue
            if not piece:
                break
            received += piece
        assert received == data

    async def test_nobody_there(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and does not listen
            endpoint: Any = TCP4ClientEndpoint(self.calling, "127.0.0.1", taken.getsockname()[1], timeout=10)
            await self.assertFailure(endpoint.connect(Factory.forProtocol(Client)), ConnectionRefusedError)
