"""The Twisted side of a client's connection: transport, TLS, time-outs, back-pressure, and nothing else.

``SmtpClient`` carries octets between a transport and ``mailsrv.smtp.client.ClientConnection`` and lets a coroutine wait
for its events, one at a time.  What a server says after the end of TLS's handshake is all it hears under TLS; what is
said in the wrong moment ends the connection in the core.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.relay.tls import ClientTls
from mailsrv.smtp.client import ClientConnection, State
from mailsrv.smtp.client_events import ConnectionEnded, Event

_CLOSE_S = 10.0  # how long a server may take over QUIT and the end of TLS; nobody waits for it


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for an answer: the least that RFC 5321 4.5.3.2 allows.  ``handshake`` is our own."""

    greeting: float = 300
    hello: float = 300
    handshake: float = 120
    login: float = 300
    envelope: float = 300  # MAIL and each RCPT
    data: float = 120
    block: float = 180  # for each piece of content to be taken
    final: float = 600


class ContentLost(Exception):
    """Our own copy of the content could not be read, or is not as long as it was."""


@implementer(IHandshakeListener, IPushProducer)
class SmtpClient(Protocol):
    """One connection.  A coroutine drives it; at most one waits at a time."""

    def __init__(self, reactor: IReactorTime, core: ClientConnection) -> None:
        self.core = core
        self.closed: Deferred[None] = Deferred()  # fires when the transport is gone
        self._reactor = reactor
        self._event: Event | None = None
        self._waiter: Deferred[None] | None = None
        self._paused = False
        self._secure = False
        self._loss: BaseException | None = None
        self._lost = False
        self._closing = False
        self._closer: IDelayedCall | None = None

    # For the coroutine.

    async def next_event(self, timeout_s: float) -> Event:
        """The next event, after writing what there is to say.

        When nothing comes in ``timeout_s`` seconds the connection is dropped, and the event is ConnectionEnded.
        """
        self._flush()
        if not await self._until(lambda: self._has_event() or self.core.ended, timeout_s):
            unanswered = self.core.state is State.FINISHING
            self.abort()
            return ConnectionEnded(f"no answer within {timeout_s:g} seconds", unanswered=unanswered)
        event, self._event = self._event, None
        return event or ConnectionEnded("the connection was lost")

    async def start_tls(self, tls: ClientTls, timeout_s: float) -> str:
        """The handshake, now.  "" when TLS is there, else why it is not; the connection is lost then."""
        if self._lost or self.core.ended:
            return "the connection was lost"
        cast(ITLSTransport, self.transport).startTLS(tls)
        if not await self._until(lambda: self._secure or self._lost, timeout_s):
            self.abort()
            return f"not done within {timeout_s:g} seconds"
        return "" if self._secure and not self._lost else _in_words(self._loss)

    async def send_content(self, chunks: AsyncIterator[bytes], size: int, timeout_s: float) -> ConnectionEnded | None:
        """Send ``size`` octets of content and the last dot, no faster than they are taken.

        Ends early, without the dot, when there is an event (the server has answered or gone) or when nothing is taken
        for ``timeout_s`` seconds (then ConnectionEnded).  ContentLost drops the connection: half a message
        must not be taken for a whole one.
        """
        transport = cast(Any, self.transport)  # producers are not in Twisted's interfaces of transports
        transport.registerProducer(self, True)
        sent = 0
        try:
            async for chunk in chunks:
                if self._has_event():
                    return None
                sent += len(chunk)
                self.core.send_content(chunk)
                self._flush()
                if not await self._until(lambda: not self._paused or self._has_event(), timeout_s):
                    self.abort()
                    return ConnectionEnded(f"no content was taken for {timeout_s:g} seconds")
        except OSError as error:
            self.abort()
            raise ContentLost(f"the content cannot be read: {error}") from error
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()
            self._paused = False
            transport.unregisterProducer()
        if self._has_event():
            return None
        if sent != size:
            self.abort()
            raise ContentLost(f"the content is {sent} octets long where {size} were written down")
        self.core.end_content()
        return None

    def close(self) -> None:
        """End in order where that is possible: QUIT, its answer, the end of TLS.  Nobody needs to wait for it."""
        if self._closing or self._lost:
            return
        if self.core.state not in (State.UNWELCOME, State.GREETED, State.READY, State.REFUSED):
            self.abort()
            return
        self._closing = True
        self._closer = self._reactor.callLater(_CLOSE_S, self.abort)
        self.core.quit()
        self._flush()

    def abort(self) -> None:
        """End at once."""
        if not self._lost:
            self._closing = True
            cast(ITCPTransport, self.transport).abortConnection()

    # For Twisted.

    def connectionMade(self) -> None:
        transport = cast(ITCPTransport, self.transport)
        transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        if self._lost:
            return
        self.core.receive(data)
        self._flush()
        if self._closing and self.core.ended:
            cast(ITCPTransport, self.transport).loseConnection()
        self._wake()

    def handshakeCompleted(self) -> None:
        self._secure = True
        self._wake()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._wake()

    def stopProducing(self) -> None:
        self._paused = False  # connectionLost comes, or has come

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._lost = True
        self._loss = reason.value if reason is not None else None
        self.core.receive_eof()
        if self._closer is not None and self._closer.active():
            self._closer.cancel()
        self._wake()
        self.closed.callback(None)

    # Inside.

    def _flush(self) -> None:
        data = self.core.take_output()
        if data and not self._lost:
            cast(Any, self.transport).write(data)

    def _has_event(self) -> bool:
        if self._event is None:
            self._event = self.core.next_event()
        return self._event is not None

    async def _until(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``ready``; False when that takes longer than ``timeout_s`` seconds."""
        if ready():
            return True
        overdue = False

        def too_late() -> None:
            nonlocal overdue
            overdue = True
            self._wake()

        timer = self._reactor.callLater(timeout_s, too_late)
        try:
            while not ready():
                if overdue:
                    return False
                self._waiter = Deferred()
                await self._waiter
        finally:
            self._waiter = None
            if timer.active():
                timer.cancel()
        return True

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)


def _in_words(loss: BaseException | None) -> str:
    """Why a handshake failed."""
    if isinstance(loss, SSL.Error) and loss.args and isinstance(loss.args[0], list):
        reasons = [str(error[-1]) for error in loss.args[0] if error]
        if reasons:
            return "; ".join(reasons)
    return str(loss) if loss is not None and str(loss) else "the connection was lost"
