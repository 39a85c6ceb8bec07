"""A reactor of a simulated host: virtual time, in-memory sockets, no threads.

Each start of a program has one of its own, as has each scripted client; what they share is the timeline and the
network.  Time comes from ``Timeline``.  The transports are Twisted's own (``transport.py``): this reactor serves their
sockets as the epoll reactor does, level-triggered, an event at a time.

There is no UDP and no name resolution here: the program asks its resolver (RFC 1035) through the door, not the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.internet.base import DelayedCall
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConnector, IDelayedCall, IHalfCloseableDescriptor, IListeningPort
from twisted.internet.protocol import ClientFactory, Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.outside.interfaces import IReactor
from tests.simulation.timeline import Life, Timeline
from tests.simulation.transport import SimulatedConnection, SimulatedConnector, SimulatedPort

if TYPE_CHECKING:
    from tests.simulation.network import Network

_logger = Logger()


@implementer(IReactor)
class SimulatedReactor:
    """``addresses`` are those of the host; the first of a family is where its connections come from."""

    running = True

    def __init__(self, timeline: Timeline, network: Network, host: str, addresses: Sequence[str], life: Life) -> None:
        self.timeline = timeline
        self.network = network
        self.host = host
        self.addresses = tuple(addresses)
        self.life = life
        self._delayed: dict[DelayedCall, None] = {}
        self._readers: dict[SimulatedConnection, None] = {}
        self._writers: dict[SimulatedConnection, None] = {}
        self._polled: set[SimulatedConnection] = set()
        self._triggers: list[tuple[str, Callable[..., object], tuple[object, ...], dict[str, object]]] = []

    # IReactorTime

    def seconds(self) -> float:
        return self.timeline.now

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> IDelayedCall:
        assert delay >= 0, f"{callable} cannot be called {delay} seconds from now"
        call = DelayedCall(self.timeline.now + delay, callable, args, kw, self._forget, self._schedule, self.seconds)
        self._delayed[call] = None
        self._schedule(call)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        return list(self._delayed)

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass for the whole world."""
        self.timeline.run(self.timeline.now + seconds)

    def _schedule(self, call: DelayedCall) -> None:
        self.timeline.at(call.getTime(), self.life, self._due, call)

    def _forget(self, call: DelayedCall) -> None:
        del self._delayed[call]

    def _due(self, call: DelayedCall) -> None:
        if call.cancelled or call.called:
            return
        if call.getTime() > self.timeline.now:
            self._schedule(call)  # it was put off meanwhile
            return
        del self._delayed[call]
        call.called = 1
        call.func(*call.args, **call.kw)

    # IReactorFromThreads

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        self.callLater(0, callable, *args, **kwargs)

    # IReactorCore

    def callWhenRunning(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> Any | None:
        callable(*args, **kwargs)
        return None

    def addSystemEventTrigger(
        self, phase: str, eventType: str, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> Any:
        trigger = (f"{phase} {eventType}", callable, args, kwargs)
        self._triggers.append(trigger)
        return trigger

    def removeSystemEventTrigger(self, triggerID: Any) -> None:
        self._triggers.remove(triggerID)

    def fireSystemEvent(self, eventType: str) -> None:
        for phase in ("before", "during", "after"):
            for name, function, args, kwargs in list(self._triggers):
                if name == f"{phase} {eventType}":
                    function(*args, **kwargs)

    def resolve(self, name: str, timeout: Sequence[int] = (1, 3, 11, 45)) -> defer.Deferred[str]:
        raise NotImplementedError("names are asked of the resolver, not of the reactor")

    def run(self) -> None:
        raise NotImplementedError("the world runs the timeline")

    def stop(self) -> None:
        self.fireSystemEvent("shutdown")

    def crash(self) -> None:
        self.life.end()

    def iterate(self, delay: float) -> None:
        self.advance(delay)

    # IReactorTCP

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> IListeningPort:
        listening = SimulatedPort(self, port, factory, interface)
        listening.startListening()
        return listening

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        connector = SimulatedConnector(self, host, port, factory, timeout, bindAddress)
        connector.connect()
        return connector

    # IReactorUDP

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> IListeningPort:
        raise NotImplementedError("there is no UDP in a simulated world; the door gives a resolver")

    # IReactorFDSet, as far as Twisted's Connection asks for it.

    def addReader(self, connection: SimulatedConnection) -> None:
        self._readers[connection] = None
        self.poll(connection)

    def addWriter(self, connection: SimulatedConnection) -> None:
        self._writers[connection] = None
        self.poll(connection)

    def removeReader(self, connection: SimulatedConnection) -> None:
        self._readers.pop(connection, None)

    def removeWriter(self, connection: SimulatedConnection) -> None:
        self._writers.pop(connection, None)

    def poll(self, connection: SimulatedConnection) -> None:
        """Serve ``connection`` in the next turn; to be called whenever its socket may have become ready."""
        if connection not in self._polled:
            self._polled.add(connection)
            self.timeline.at(0, self.life, self._serve, connection)

    def _serve(self, connection: SimulatedConnection) -> None:
        self._polled.discard(connection)
        endpoint = connection.endpoint
        if connection in self._writers and endpoint.writable:
            self._do(connection, connection.doWrite, False)
        if connection in self._readers and endpoint.readable:
            self._do(connection, connection.doRead, True)
        elif connection in self._writers and endpoint.broken:
            self._disconnect(connection, ConnectionLost(), False)
        if (connection in self._readers and endpoint.readable) or (connection in self._writers and endpoint.writable):
            self.poll(connection)

    def _do(self, connection: SimulatedConnection, method: Callable[[], Any], reading: bool) -> None:
        try:
            why = method()
        except Exception as error:
            _logger.failure("a protocol failed")
            why = error
        if why is not None:
            self._disconnect(connection, why, reading)

    def _disconnect(self, connection: SimulatedConnection, why: BaseException, reading: bool) -> None:
        self.removeReader(connection)
        if reading and isinstance(why, ConnectionDone) and IHalfCloseableDescriptor.providedBy(connection):
            connection.readConnectionLost(Failure(why))
        else:
            self.removeWriter(connection)
            connection.connectionLost(Failure(why))
