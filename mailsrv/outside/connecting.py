"""Connections to other servers, over transports that send at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IConnector, IProtocol, IProtocolFactory
from twisted.internet.protocol import ClientFactory
from twisted.internet.tcp import Client, Connector

from mailsrv.outside.transports import PromptClient


class _Connector(Connector):
    def _makeTransport(self) -> Client:
        return PromptClient(self.host, self.port, self.bindAddress, self, self.reactor)  # type: ignore[no-untyped-call]


class _Reactor:
    """A reactor whose connections to others are ours."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(
        self, host: str, port: int, factory: ClientFactory[Any], timeout: float = 30.0, bindAddress: Any = None
    ) -> IConnector:
        connector = _Connector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        transport: Any = connector.transport
        transport.begin()
        return connector


def connect(reactor: Any, address: str, port: int, factory: IProtocolFactory, timeout_s: float) -> Deferred[IProtocol]:
    """Connect to ``address``, an IPv4 or IPv6 address as text; fails as Twisted's client endpoints do."""
    endpoint: Any = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
    connected: Deferred[IProtocol] = endpoint(_Reactor(reactor), address, port, timeout=timeout_s).connect(factory)
    return connected
