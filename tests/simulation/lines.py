"""Lines on a connection, for the scripted clients and servers of a world.

Deliberately apart from the program's own line code, and as plain as can be: this is a judge, and a judge must not share
the mistakes of what it judges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.simulation.network import SimulatedSocket


class Gone(Exception):
    """The connection is lost, or nothing came in time."""


class Conversation(Protocol):
    """A connection on which lines are awaited one after the other."""

    def __init__(self, reactor: Any, patience_s: float = 600.0, on_lost: Callable[[], object] = bool) -> None:
        self.gone = False
        self._on_lost = on_lost
        self._reactor = reactor
        self._patience_s = patience_s
        self._received = bytearray()
        self._waiting: tuple[str, Callable[[bytearray], int], Deferred[bytes]] | None = None
        self._made: Deferred[Conversation] = Deferred()
        self._socket: SimulatedSocket | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        # Under TLS from the first octet the socket is one layer further down.
        self._socket = getattr(transport, "endpoint", None) or transport.transport.endpoint
        self._made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        self._on_lost()
        self._look()

    def made(self) -> Deferred[Conversation]:
        return self._made

    @property
    def pending(self) -> bytes:
        """What has come and was not asked for yet."""
        return bytes(self._received)

    async def line(self) -> bytes:
        """The next line with its CRLF."""
        return await self.until(b"\r\n")

    async def until(self, end: bytes) -> bytes:
        """Everything up to and including ``end``; ``Gone`` when it does not come."""

        def length(received: bytearray) -> int:
            found = received.find(end)
            return found + len(end) if found >= 0 else -1

        return await self._wait(repr(end), length)

    async def octets(self, count: int) -> bytes:
        """So many octets; ``Gone`` when they do not come."""
        return await self._wait(f"{count} octets", lambda received: count if len(received) >= count else -1)

    async def _wait(self, what: str, length: Callable[[bytearray], int]) -> bytes:
        """As many octets as ``length`` says of what has come; -1 is "not yet"."""
        assert self._waiting is None
        waiting: Deferred[bytes] = Deferred()
        self._waiting = (what, length, waiting)
        timer = self._reactor.callLater(self._patience_s, self._lose_patience)
        self._look()
        try:
            return await waiting
        finally:
            if timer.active():
                timer.cancel()

    def send(self, data: bytes) -> None:
        if self.transport is not None and not self.gone:
            self.transport.write(data)

    @property
    def sent(self) -> int:
        """How many octets have left so far."""
        return self._socket.sent if self._socket is not None else 0

    def heard(self, since: int) -> bool:
        """Whether the other side has read all that was sent, and something was since ``sent`` had this value."""
        return self._socket is not None and self._socket.sent > since and self._socket.unread == 0

    @property
    def abandoned(self) -> bool:
        """Whether the other side has closed its socket or is dead, even if nobody tells us."""
        peer = self._socket.peer if self._socket is not None else None
        return peer is None or peer.closed or not peer.life.alive

    def stop_reading(self) -> None:
        if self.transport is not None and not self.gone:
            self.transport.pauseProducing()  # type: ignore[attr-defined]

    def close(self) -> None:
        if self.transport is not None and not self.gone:
            self.transport.loseConnection()

    def abort(self) -> None:
        if self.transport is not None and not self.gone:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    async def pause(self, seconds: float) -> None:
        waiting: Deferred[None] = Deferred()
        self._reactor.callLater(seconds, waiting.callback, None)
        await waiting

    def start_tls(self, context: Any) -> None:
        if self.gone:
            raise Gone("the connection was lost before TLS")
        self.transport.startTLS(context)  # type: ignore[union-attr]

    def _lose_patience(self) -> None:
        self.abort()
        self.gone = True
        self._look()

    def _look(self) -> None:
        if self._waiting is None:
            return
        what, length, waiting = self._waiting
        wanted = length(self._received)
        if wanted >= 0:
            data = bytes(self._received[:wanted])
            del self._received[:wanted]
            self._waiting = None
            waiting.callback(data)
        elif self.gone:
            self._waiting = None
            waiting.errback(Gone(f"waiting for {what}, had {bytes(self._received[-80:])!r}"))


class Conversations(Factory):
    """Gives out one conversation, and for a server one for each connection."""

    noisy = False

    def __init__(self, make: Any) -> None:
        self._make = make

    def buildProtocol(self, addr: Any) -> Protocol:
        made: Protocol = self._make()
        made.factory = self
        return made
