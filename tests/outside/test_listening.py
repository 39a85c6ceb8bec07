"""Listening sockets and prompt writes, on real sockets of the loopback interface: kernels cannot be simulated."""

from __future__ import annotations

import errno
import select
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface import implementer

from mailsrv.outside.listening import BACKLOG, listen

LOOPBACK = "tcp:0:interface=127.0.0.1"


@implementer(IPushProducer)
class Server(Protocol):
    """One connection, seen from the server."""

    def __init__(self) -> None:
        self.made: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.asked: list[str] = []

    @property
    def wire(self) -> Any:
        return self.transport

    def connectionMade(self) -> None:
        self.made.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)

    def pauseProducing(self) -> None:
        self.asked.append("pause")

    def resumeProducing(self) -> None:
        self.asked.append("resume")

    def stopProducing(self) -> None:
        self.asked.append("stop")


class ListeningTests(TestCase):
    timeout = 20

    async def listening(self, description: str, factory: Factory | None = None) -> Any:
        port: Any = await listen(reactor, description, factory or Factory.forProtocol(Protocol))
        port.factory.noisy = False
        self.addCleanup(port.stopListening)
        return port

    async def connected(self) -> tuple[Server, socket.socket]:
        """A server's side with a small buffer, and the client's socket."""
        server = Server()
        port = await self.listening(LOOPBACK, Factory.forProtocol(lambda: server))
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect(("127.0.0.1", port.getHost().port))
        client.setblocking(False)
        self.addCleanup(client.close)
        await server.made
        server.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        self.addCleanup(self.gone, server)
        return server, client

    async def gone(self, server: Server) -> None:
        server.wire.abortConnection()
        await server.lost

    async def received(self, client: socket.socket, octets: int) -> bytes:
        """So many octets, or all there are until the end."""
        data = bytearray()
        while len(data) < octets:
            try:
                piece = client.recv(50_000)
            except BlockingIOError:
                await deferLater(reactor, 0)
                continue
            if not piece:
                break
            data += piece
        return bytes(data)

    async def test_both_families_stand_side_by_side_on_one_port(self) -> None:
        four = await self.listening("tcp:0")
        number = four.getHost().port
        try:
            six = await self.listening(f"tcp6:{number}")
        except CannotListenError as error:
            if error.socketError.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise SkipTest("this machine has no IPv6") from None
            raise
        assert six.getHost().port == number
        assert six.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, number), timeout=5).close()

    async def test_ipv6_alone_takes_no_ipv4(self) -> None:
        try:
            six = await self.listening("tcp6:0")
        except CannotListenError as error:
            raise SkipTest("this machine has no IPv6") from error
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", six.getHost().port), timeout=5)

    async def test_a_taken_port_and_a_wrong_description(self) -> None:
        port = await self.listening(LOOPBACK)
        number = port.getHost().port
        with pytest.raises(CannotListenError):
            await listen(reactor, f"tcp:{number}:interface=127.0.0.1", Factory.forProtocol(Protocol))
        for description in ("nonsense:25", "tcp:twentyfive"):
            with pytest.raises(ValueError):
                await listen(reactor, description, Factory.forProtocol(Protocol))

    async def test_the_queue_is_long_enough_for_a_storm(self) -> None:
        port = await self.listening(f"{LOOPBACK}:backlog=5")
        assert port.backlog == BACKLOG

    async def test_a_storm_of_connects_finds_room(self) -> None:
        """While nobody accepts: a client for whom there is no room tries again after a second, and is late."""
        limit = int(Path("/proc/sys/net/core/somaxconn").read_text())
        storm = 2000
        if limit < storm:
            raise SkipTest(f"this machine lets {limit} connections wait at most (net.core.somaxconn)")
        port = await self.listening(LOOPBACK)
        waiting = select.epoll()
        self.addCleanup(waiting.close)
        for _ in range(storm):
            client = socket.socket()
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port.getHost().port))
            waiting.register(client, select.EPOLLOUT)
        assert len(waiting.poll(0, storm)) == storm
        clients = [socket.socket() for _ in range(200)]
        try:
            for client in clients:  # within one turn of the reactor: nobody accepts meanwhile
                client.setblocking(False)
                client.connect_ex(port.socket.getsockname())
            assert all(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 for client in clients)
            for client in clients:
                client.send(b"x")  # each of them is connected
        finally:
            for client in clients:
                client.close()

    async def test_a_write_is_on_its_way_when_it_returns(self) -> None:
        server, client = await self.connected()
        server.wire.write(b"220 ready\r\n")
        client.settimeout(5)
        assert client.recv(100) == b"220 ready\r\n"  # without a turn of the reactor

    async def test_a_write_larger_than_the_socket_takes_arrives_whole_and_in_order(self) -> None:
        server, client = await self.connected()
        data = b"".join(b"%07d\n" % n for n in range(200_000))
        server.wire.write(data)
        assert server.wire._tempDataLen > 0, "the socket has taken everything, and nothing is shown"
        assert await self.received(client, len(data)) == data

    async def test_writes_behind_a_partial_one_keep_their_order(self) -> None:
        server, client = await self.connected()
        numbers = iter(range(10_000_000))
        sent = 0
        received = b""
        for size in (1, 60_000, 1, 2, 3, 30_000, 1, 30_000, 5) * 2:
            data = b"".join(b"%07d\n" % next(numbers) for _ in range(size))
            server.wire.write(data)
            sent += len(data)
            if size == 2:
                received += await self.received(client, 10_000)
        received += await self.received(client, sent - len(received))
        assert received == b"".join(b"%07d\n" % n for n in range(sent // 8))

    async def test_a_prompt_write_once_the_buffer_is_empty_again(self) -> None:
        server, client = await self.connected()
        for n in range(3):
            server.wire.write(b"x" * 1_000_000)
            assert len(await self.received(client, 1_000_000)) == 1_000_000
            await deferLater(reactor, 0.01)
            server.wire.write(b"%d" % n)
            client.settimeout(5)
            assert client.recv(10) == b"%d" % n
            client.settimeout(0)

    async def test_what_is_written_before_closing_arrives(self) -> None:
        server, client = await self.connected()
        server.wire.write(b"x" * 1_000_000)
        server.wire.write(b"221 goodbye\r\n")
        server.wire.loseConnection()
        data = await self.received(client, 10_000_000)
        assert len(data) == 1_000_013
        assert data.endswith(b"221 goodbye\r\n")

    async def test_a_producer_is_paused_while_much_is_unsent(self) -> None:
        server, client = await self.connected()
        server.wire.registerProducer(server, True)
        server.wire.write(b"x" * 50_000)
        assert server.asked == []
        server.wire.write(b"x" * 1_000_000)
        assert server.asked == ["pause"]
        await self.received(client, 1_050_000)
        await deferLater(reactor, 0.01)
        assert server.asked == ["pause", "resume"]
        server.wire.unregisterProducer()

    async def test_writing_to_a_client_that_has_gone_ends_the_connection_in_its_own_turn(self) -> None:
        server, client = await self.connected()
        server.wire.stopReading()
        # RFC 9293 3.5.3: a reset and not an end.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        for _ in range(3):
            server.wire.write(b"x" * 1000)
            assert not server.lost.called
        await server.lost
        server.wire.write(b"x")

    async def test_nothing_is_sent_behind_the_end(self) -> None:
        server, client = await self.connected()
        server.wire.loseWriteConnection()
        await deferLater(reactor, 0.01)
        server.wire.write(b"too late")
        assert await self.received(client, 100) == b""
