"""Connections to others and their prompt writes, on real sockets of the loopback interface."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionAborted
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from mailsrv.outside.connecting import connect


class Client(Protocol):
    """One connection, seen from the client."""

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    @property
    def wire(self) -> Any:
        return self.transport

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class ConnectingTests(TestCase):
    timeout = 20

    def listening(self, address: str = "127.0.0.1") -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            server = socket.create_server((address, 0), family=family)
        except OSError as error:
            raise SkipTest(f"this machine has no {address}") from error
        self.addCleanup(server.close)
        server.settimeout(5)
        return server

    def dial(self, address: str, port: int, client: Protocol | None = None, timeout_s: float = 5.0) -> Deferred[Any]:
        factory = Factory.forProtocol(lambda: client or Protocol())
        factory.noisy = False
        return connect(reactor, address, port, factory, timeout_s)

    async def connected(self, address: str = "127.0.0.1") -> tuple[Client, socket.socket]:
        """A client with a small buffer, and the server's socket."""
        server = self.listening(address)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client = Client()
        assert await self.dial(address, server.getsockname()[1], client) is client
        wire, _ = server.accept()
        self.addCleanup(wire.close)
        client.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        self.addCleanup(self.gone, client)
        wire.settimeout(5)
        return client, wire

    async def gone(self, client: Client) -> None:
        client.wire.abortConnection()
        await client.lost

    async def test_a_write_is_on_its_way_when_it_returns_in_either_family(self) -> None:
        for address in ("127.0.0.1", "::1"):
            client, server = await self.connected(address)
            client.wire.write(b"EHLO mx.example.org\r\n")
            assert server.recv(100) == b"EHLO mx.example.org\r\n"  # without a turn of the reactor
            assert client.wire.getPeer().host == address

    async def test_a_write_larger_than_the_socket_takes_arrives_whole_and_in_order(self) -> None:
        client, server = await self.connected()
        data = b"".join(b"%07d\n" % n for n in range(200_000))
        client.wire.write(data)
        client.wire.write(b"QUIT\r\n")
        assert client.wire._tempDataLen > 0, "the socket has taken everything, and nothing is shown"
        client.wire.loseConnection()
        server.setblocking(False)
        received = bytearray()
        while not received.endswith(b"QUIT\r\n"):
            try:
                received += server.recv(50_000)
            except BlockingIOError:
                await deferLater(reactor, 0)
        assert bytes(received) == data + b"QUIT\r\n"

    async def test_writing_to_a_server_that_has_gone_ends_the_connection_in_its_own_turn(self) -> None:
        client, server = await self.connected()
        client.wire.stopReading()
        # RFC 9293 3.5.3: a reset and not an end.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.close()
        for _ in range(3):
            client.wire.write(b"x" * 1000)
            assert not client.lost.called
        await client.lost
        client.wire.write(b"x")

    async def test_what_was_written_arrives_before_the_end(self) -> None:
        client, server = await self.connected()
        client.wire.write(b"QUIT\r\n")
        client.wire.loseConnection()
        assert not client.lost.called  # the protocol is not told while it is at work
        client.wire.write(b"one more\r\n")
        await client.lost
        assert server.recv(100) == b"QUIT\r\none more\r\n"
        assert server.recv(100) == b""

    async def test_a_connection_may_be_cut_after_it_was_closed(self) -> None:
        client, _ = await self.connected()
        client.wire.loseConnection()
        client.wire.loseConnection()
        client.wire.abortConnection()
        await client.lost

    async def test_who_closes_and_then_cuts_hears_that_it_was_cut(self) -> None:
        class Told(Client):
            reason: Any = None

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                self.reason = reason.type
                super().connectionLost(reason)

        client = Told()
        await self.dial("127.0.0.1", self.listening().getsockname()[1], client)
        client.wire.loseConnection()
        client.wire.abortConnection()
        await client.lost
        assert client.reason is ConnectionAborted

    async def test_a_protocol_that_fails_at_once_loses_its_connection(self) -> None:
        class Failing(Client):
            def connectionMade(self) -> None:
                raise ValueError("at once")

        client = Failing()
        server = self.listening()
        with pytest.raises(ValueError):
            await self.dial("127.0.0.1", server.getsockname()[1], client)
        assert client.lost.called
        accepted, _ = server.accept()
        self.addCleanup(accepted.close)
        assert accepted.recv(1) == b""

    async def test_a_port_that_is_none(self) -> None:
        with pytest.raises(OverflowError):
            await self.dial("127.0.0.1", 70_000)

    async def test_nobody_listens(self) -> None:
        server = self.listening()
        port = server.getsockname()[1]
        server.close()
        with pytest.raises(ConnectError):
            await self.dial("127.0.0.1", port)

    def silent(self) -> int:
        """A port where nobody answers: the queue of connections to be accepted is full."""
        server = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.addCleanup(server.close)
        for _ in range(2):
            client = socket.socket()
            client.setblocking(False)
            self.addCleanup(client.close)
            client.connect_ex(server.getsockname())
        port: int = server.getsockname()[1]
        return port

    def test_a_server_that_is_there_is_connected_when_the_call_returns(self) -> None:
        client = Client()
        for address in ("127.0.0.1", "::1"):
            client = Client()
            dial = self.dial(address, self.listening(address).getsockname()[1], client)
            self.addCleanup(self.gone, client)
            assert dial.called and client.connected

    async def test_a_dial_that_is_given_up(self) -> None:
        dial = self.dial("127.0.0.1", self.silent())
        assert not dial.called
        dial.cancel()
        with pytest.raises(ConnectingCancelledError):
            await dial

    async def test_nobody_answers(self) -> None:
        with pytest.raises(ConnectTimeout):
            await self.dial("127.0.0.1", self.silent(), timeout_s=0.05)

    async def test_a_server_that_answers_later_is_connected_then(self) -> None:
        server = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.addCleanup(server.close)
        first = socket.create_connection(server.getsockname())
        self.addCleanup(first.close)
        client = Client()
        dial = self.dial("127.0.0.1", server.getsockname()[1], client)
        assert not dial.called
        self.addCleanup(self.gone, client)
        accepted, _ = server.accept()
        self.addCleanup(accepted.close)
        assert await dial is client
