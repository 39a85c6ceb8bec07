"""Transports of the simulated network: Twisted's own TCP Connection on a socket that is only simulated.

Buffering, producers, half-closing and TLS are therefore not imitations: what the program's protocols meet here is the
code they meet in production, down to the socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import defer, error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.base import BaseConnector
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.outside.transports import Prompt, PromptServer
from tests.simulation.network import Place, SimulatedSocket, canonical, is_loopback

if TYPE_CHECKING:
    from tests.simulation.reactor import SimulatedReactor


def _address(place: Place) -> IPv4Address | IPv6Address:
    return IPv6Address("TCP", *place) if ":" in place[0] else IPv4Address("TCP", *place)


class SimulatedConnection(Prompt):
    """What both sides of a connection have in common, the program's own way of writing too."""

    endpoint: SimulatedSocket
    simulated_reactor: SimulatedReactor

    def getHost(self) -> IPv4Address | IPv6Address:
        return _address(self.endpoint.local)

    def getPeer(self) -> IPv4Address | IPv6Address:
        return _address(self.endpoint.remote)


class SimulatedServer(SimulatedConnection, PromptServer):
    """The server's side of a connection."""

    def __init__(self, endpoint: SimulatedSocket, protocol: IProtocol, reactor: SimulatedReactor) -> None:
        self.endpoint = endpoint
        self.simulated_reactor = reactor
        endpoint.connection = self
        self.repstr = f"<server's side of {endpoint.remote} to {endpoint.local}>"
        PromptServer.__init__(self, endpoint, protocol, endpoint.remote, None, 0, reactor)  # type: ignore[arg-type]


class SimulatedClient(SimulatedConnection):
    """The client's side of a connection, from the first packet on."""

    _tlsClientDefault = True

    def __init__(self, connector: SimulatedConnector, local: Place, remote: Place) -> None:
        reactor = connector.simulated_reactor
        self.simulated_reactor = reactor
        self.endpoint = SimulatedSocket(reactor.timeline, reactor.life, local, remote)
        self.endpoint.connection = self
        self.connector: SimulatedConnector | None = connector
        super().__init__(self.endpoint, None, reactor)  # type: ignore[arg-type]

    def established(self) -> None:
        if self.connector is None:
            self.endpoint.close()  # given up meanwhile
            return
        protocol = self.connector.buildProtocol(self.getPeer())
        self.connected = 1
        if protocol is None:
            self.protocol = Protocol()
            self.loseConnection()
            return
        self.protocol = protocol
        self.startReading()  # type: ignore[no-untyped-call]
        protocol.makeConnection(self)

    def refused(self) -> None:
        self.failIfNotConnected(error.ConnectionRefusedError())

    def failIfNotConnected(self, reason: BaseException) -> None:
        """Called by the connector at its time-out, too."""
        if self.connected or self.connector is None:
            return
        connector, self.connector = self.connector, None
        connector.connectionFailed(Failure(reason))

    def connectionLost(self, reason: Failure) -> None:
        connector, self.connector = self.connector, None
        super().connectionLost(reason)
        if connector is not None:
            connector.connectionLost(reason)


class SimulatedConnector(BaseConnector):
    """A request to connect."""

    def __init__(
        self,
        reactor: SimulatedReactor,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float,
        bind_address: tuple[str, int] | None,
    ) -> None:
        self._remote = (canonical(host), port)
        self._bind_address = bind_address
        self.simulated_reactor = reactor
        super().__init__(factory, timeout, reactor)  # type: ignore[arg-type]

    def getDestination(self) -> IAddress:
        return _address(self._remote)

    def _makeTransport(self) -> Any:
        address, port = self._source()
        client = SimulatedClient(self, (address, port or self.simulated_reactor.network.ephemeral_port()), self._remote)
        if address:
            self.simulated_reactor.network.dial(client)
        else:
            self.simulated_reactor.callLater(0, client.failIfNotConnected, error.NoRouteError())
        return client

    def _source(self) -> Place:
        """Where the connection comes from; "" when this host has no address of the family."""
        if self._bind_address and self._bind_address[0]:
            return canonical(self._bind_address[0]), self._bind_address[1]
        remote = self._remote[0]
        if is_loopback(remote):
            return remote, 0
        if self.simulated_reactor.host in self.simulated_reactor.network.cut_off:
            return "", 0
        return next((own for own in self.simulated_reactor.addresses if (":" in own) == (":" in remote)), ""), 0


@implementer(IListeningPort)
class SimulatedPort:
    """A listening socket."""

    def __init__(self, reactor: SimulatedReactor, port: int, factory: Factory, interface: str) -> None:
        self.reactor = reactor
        self.factory = factory
        self.port = port or reactor.network.ephemeral_port()
        self.interface = interface
        self._listening = False

    def startListening(self) -> None:
        if self.interface in ("", "0.0.0.0", "::"):
            version_6 = ":" in self.interface
            addresses = [own for own in self.reactor.addresses if (":" in own) == version_6]
            addresses.append("::1" if version_6 else "127.0.0.1")
        else:
            addresses = [canonical(self.interface)]
        if not self.reactor.network.listen(self, [(address, self.port) for address in addresses]):
            taken = OSError("address already in use")
            raise error.CannotListenError(self.interface, self.port, taken)
        self._listening = True
        self.factory.doStart()

    def accept(self, endpoint: SimulatedSocket) -> None:
        if not self._listening:
            endpoint.cut()
            return
        protocol = self.factory.buildProtocol(_address(endpoint.remote))
        if protocol is None:
            endpoint.close()
            return
        protocol.makeConnection(SimulatedServer(endpoint, protocol, self.reactor))

    def stopListening(self) -> defer.Deferred[None]:
        if not self._listening:
            return defer.succeed(None)
        self._listening = False
        # As Twisted's own: the socket is closed in the next turn, and until then its address is taken.
        closed: defer.Deferred[None] = defer.Deferred()
        self.reactor.callLater(0, self._close, closed)
        return closed

    def _close(self, closed: defer.Deferred[None]) -> None:
        self.reactor.network.unlisten(self)
        self.factory.doStop()
        closed.callback(None)

    def getHost(self) -> IPv4Address | IPv6Address:
        wildcard = "::" if ":" in self.interface else "0.0.0.0"
        return _address((self.interface or wildcard, self.port))
