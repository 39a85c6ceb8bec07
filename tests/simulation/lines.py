"""Lines on a connection, for the scripted clients and servers of a world.

Deliberately apart from the program's own line code, and as plain as can be: this is a judge, and a judge must not share
the mistakes of what it judges.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure


class Gone(Exception):
    """The connection is lost, or nothing came in time."""


class Conversation(Protocol):
    """A connection on which lines are awaited one after the other."""

    def __init__(self, reactor: Any, patience_s: float = 600.0) -> None:
        self.gone = False
        self._reactor = reactor
        self._patience_s = patience_s
        self._received = bytearray()
        self._waiting: tuple[bytes, Deferred[bytes]] | None = None
        self._made: Deferred[Conversation] = Deferred()

    def connectionMade(self) -> None:
        self._made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
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
        assert self._waiting is None
        waiting: Deferred[bytes] = Deferred()
        self._waiting = (end, waiting)
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
        end, waiting = self._waiting
        found = self._received.find(end)
        if found >= 0:
            data = bytes(self._received[: found + len(end)])
            del self._received[: found + len(end)]
            self._waiting = None
            waiting.callback(data)
        elif self.gone:
            self._waiting = None
            waiting.errback(Gone(f"waiting for {end!r}, had {bytes(self._received[-80:])!r}"))


class Conversations(Factory):
    """Gives out one conversation, and for a server one for each connection."""

    noisy = False

    def __init__(self, make: Any) -> None:
        self._make = make

    def buildProtocol(self, addr: Any) -> Protocol:
        made: Protocol = self._make()
        made.factory = self
        return made
