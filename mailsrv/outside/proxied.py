"""Listening behind a proxy: who the client is comes from the PROXY header, before anything else is said or decided.

``ProxiedFactory`` stands before the factory of a service.  A connection from a proxy that the operator listed has to
begin with a header; then the service gets the transport, whose ``getPeer`` is the client that the header names, and
what follows the header is the client's first octet: of TLS, where that comes first.  Without a valid header within
``HEADER_S`` the proxy is let go without a byte.

A connection from anywhere else goes to the service as it is, at no cost, and a header on it is octets like any others:
nobody but a listed proxy can say who it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure

from mailsrv.wire import proxy

HEADER_S = 5.0


class ProxiedFactory(ServerFactory):
    """``wrapped`` serves; ``is_proxy`` is asked for each connection's address, so a change of the list counts at once.

    ``refused`` is told the address of a proxy that was let go, and why.
    """

    noisy = False

    def __init__(
        self,
        wrapped: IProtocolFactory,
        is_proxy: Callable[[str], bool],
        clock: IReactorTime,
        refused: Callable[[str, str], None],
    ) -> None:
        self.wrapped: Any = wrapped
        self.clock = clock
        self.refused = refused
        self.waiting: set[_Introduction] = set()
        self._is_proxy = is_proxy

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]
        address = getattr(addr, "host", "")
        if address and self._is_proxy(address):
            return _Introduction(self, address)
        return self.wrapped.buildProtocol(addr)  # type: ignore[no-any-return]

    def doStart(self) -> None:
        super().doStart()  # type: ignore[no-untyped-call]
        self.wrapped.doStart()

    def doStop(self) -> None:
        super().doStop()  # type: ignore[no-untyped-call]
        self.wrapped.doStop()

    def stopFactory(self) -> None:
        for introduction in tuple(self.waiting):
            introduction.end()

    def logPrefix(self) -> str:
        return self.wrapped.logPrefix()  # type: ignore[no-any-return]


class _Introduction(Protocol):
    """A connection from a proxy, until its header is there."""

    transport: Any

    def __init__(self, factory: ProxiedFactory, address: str) -> None:
        self._factory = factory
        self._address = address
        self._received = b""
        self._deadline: IDelayedCall

    def connectionMade(self) -> None:
        self._factory.waiting.add(self)
        self._deadline = self._factory.clock.callLater(HEADER_S, self._refuse, f"no PROXY header in {HEADER_S:g} s")

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        try:
            header = proxy.parse(self._received)
        except proxy.ProxyError as error:
            self._refuse(f"no valid PROXY header: {error}")
            return
        if header is not None:
            self._hand_over(header)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._done()

    def end(self) -> None:
        """Close without a byte."""
        self._done()
        self.transport.abortConnection()

    def _refuse(self, reason: str) -> None:
        self.end()
        self._factory.refused(self._address, reason)

    def _done(self) -> None:
        self._factory.waiting.discard(self)
        if self._deadline.active():
            self._deadline.cancel()

    def _hand_over(self, header: proxy.Header) -> None:
        self._done()
        transport = self.transport
        if header.client is not None:
            peer = _address(header.client)
            transport.getPeer = lambda: peer
        protocol = self._factory.wrapped.buildProtocol(transport.getPeer())
        if protocol is None:
            transport.abortConnection()
            return
        # As Twisted's own startTLS does it: from here on the transport speaks to the service alone.
        transport.protocol = protocol
        protocol.makeConnection(transport)
        rest = self._received[header.size :]
        if rest:
            protocol.dataReceived(rest)


def _address(client: proxy.Client) -> IPv4Address | IPv6Address:
    kind = IPv6Address if ":" in client.address else IPv4Address
    return kind("TCP", client.address, client.port)
