"""Twisted's network in the form in which dnspython asks for one: datagrams, streams, sleep.

Each question has a socket of its own, so the kernel draws a fresh source port and, since the socket is connected,
drops what comes from anywhere else.  Time-outs are ``dns.exception.Timeout``, network errors OSError or
EOFError: what dnspython's resolution expects and answers by asking again or elsewhere.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import dns._asyncbackend  # what dns.asyncbackend shows, in a form that type checkers see
import dns.exception
from twisted.internet import udp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import ITCPTransport, IUDPTransport
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python import log
from twisted.python.failure import Failure

from mailsrv.outside.interfaces import IReactor

_MOST_OCTETS = 65535 + 2  # of one answer over a stream, with its length
_MOST_DATAGRAMS = 64  # waiting at once: more are a flood, not answers


class _Inbox:
    """What has come in, for one reader at a time."""

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor
        self._items: deque[Any] = deque()
        self._waiter: Deferred[None] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Any) -> None:
        """An exception is raised for the reader."""
        self._items.append(item)
        self._wake()

    async def get(self, timeout_s: float | None) -> Any:
        """The next item; dns.exception.Timeout."""
        if not self._items:
            self._waiter = Deferred()
            timer = None if timeout_s is None else self._reactor.callLater(timeout_s, self._wake)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None and timer.active():
                    timer.cancel()
        if not self._items:
            raise cast(Any, dns.exception.Timeout)(timeout=timeout_s)
        item = self._items.popleft()
        if isinstance(item, Exception):
            raise item
        return item

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)


class _Datagrams(DatagramProtocol):
    noisy = False

    def __init__(self, inbox: _Inbox) -> None:
        self._inbox = inbox

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if len(self._inbox) < _MOST_DATAGRAMS:
            self._inbox.put((datagram, addr))

    def connectionRefused(self) -> None:
        self._inbox.put(ConnectionRefusedError("nothing answers there"))


class _Silence:
    """What Twisted's module for UDP has in place of its log while a socket opens or closes."""

    msg = staticmethod(lambda *message, **event: None)
    err = staticmethod(log.err)


@contextmanager
def _in_silence() -> Iterator[None]:
    module: Any = udp
    spoken, module.log = module.log, _Silence
    try:
        yield
    finally:
        module.log = spoken


class _QuietPort(udp.Port):
    """Twisted's writes two lines to the log for each socket, whatever ``noisy`` says: two for each question."""

    def _bindSocket(self) -> None:
        with _in_silence():
            super()._bindSocket()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure | None = None) -> None:
        with _in_silence():
            super().connectionLost(reason)  # type: ignore[no-untyped-call]


class DatagramSocket(dns._asyncbackend.DatagramSocket):
    def __init__(self, reactor: IReactor, family: int, destination: tuple[str, int]) -> None:
        super().__init__(family, socket.SOCK_DGRAM)
        self._inbox = _Inbox(reactor)
        protocol = _Datagrams(self._inbox)
        interface = "::" if family == socket.AF_INET6 else ""
        _QuietPort(0, protocol, interface, 65535, reactor).startListening()  # type: ignore[no-untyped-call]
        self._transport = cast(IUDPTransport, protocol.transport)
        self._transport.connect(*destination)
        self._write: Any = self._transport.write  # the address is optional once connected; the interface cannot say so

    async def sendto(self, what: bytes, destination: Any, timeout: float | None) -> int:
        self._write(what)
        return len(what)

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, Any]:
        datagram, source = await self._inbox.get(timeout)
        if self.family == socket.AF_INET6:
            source = (*source[:2], 0, 0)
        return datagram, source

    async def close(self) -> None:
        self._transport.stopListening()


class _Stream(Protocol):
    def __init__(self, inbox: _Inbox) -> None:
        self._inbox = inbox
        self._left = _MOST_OCTETS

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._inbox.put(EOFError("more than one answer"))
            cast(ITCPTransport, self.transport).abortConnection()
        else:
            self._inbox.put(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._inbox.put(b"")


class StreamSocket(dns._asyncbackend.StreamSocket):
    def __init__(self, family: int, inbox: _Inbox, transport: ITCPTransport) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._inbox = inbox
        self._transport = transport
        self._rest = b""

    async def sendall(self, what: bytes, timeout: float | None) -> None:
        self._transport.write(what)

    async def recv(self, size: int, timeout: float | None) -> bytes:
        data = self._rest or await self._inbox.get(timeout)
        self._rest = data[size:]
        return cast(bytes, data[:size])

    async def getpeername(self) -> tuple[str, int]:
        peer = self._transport.getPeer()
        assert isinstance(peer, IPv4Address | IPv6Address)
        return peer.host, peer.port

    async def close(self) -> None:
        self._transport.abortConnection()


class TwistedBackend(dns._asyncbackend.Backend):
    """Give it to dnspython as ``backend=``."""

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor

    def name(self) -> str:
        return "twisted"

    def datagram_connection_required(self) -> bool:
        return True

    async def make_socket(
        self,
        af: int,
        socktype: int,
        proto: int = 0,
        source: Any = None,
        destination: Any = None,
        timeout: float | None = None,
        ssl_context: Any = None,
        server_hostname: str | None = None,
    ) -> dns._asyncbackend.Socket:
        """``destination`` is ``(address, port)``; neither a source nor TLS is offered (NotImplementedError)."""
        if source is not None or ssl_context is not None or destination is None:
            raise NotImplementedError
        if socktype == socket.SOCK_DGRAM:
            return DatagramSocket(self._reactor, af, destination)
        inbox = _Inbox(self._reactor)
        endpoint: Any = TCP6ClientEndpoint if af == socket.AF_INET6 else TCP4ClientEndpoint
        stream = _Stream(inbox)
        factory = Factory.forProtocol(lambda: stream)
        factory.noisy = False
        try:
            await endpoint(self._reactor, *destination, timeout=timeout).connect(factory)
        except ConnectError as error:
            raise OSError(str(error)) from error
        return StreamSocket(af, inbox, cast(ITCPTransport, stream.transport))

    async def sleep(self, interval: float) -> None:
        await deferLater(self._reactor, interval)
