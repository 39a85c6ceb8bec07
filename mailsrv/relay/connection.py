"""The Twisted side of a client's connection: transport, TLS, time-outs, back-pressure, and nothing else.

``SmtpClient`` carries octets between a transport and ``mailsrv.smtp.client.ClientConnection`` and lets a coroutine wait
for its events, one at a time.  Between two coroutines it may rest, open for the next.  What a server says after the
end of TLS's handshake is all it hears under TLS; what is said in the wrong moment ends the connection in the core.
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

_NEVER = float("inf")
_WRITE = 64 * 1024  # octets of content that are joined to one piece for the transport, about
_CLOSE_S = 10.0  # how long a server may take over QUIT and the end of TLS; nobody waits for it


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for an answer: the least that RFC 5321 4.5.3.2 allows.  ``handshake`` and the rest are our own.

    A server that uses all of them, or lets a whole answer come octet by octet, would hold a place for hours.  So
    ``opening`` bounds all that is said before MAIL, ``transaction`` all that is said from MAIL until content may go,
    and the content has to be taken within ``slow_start`` and at ``least_rate`` octets a second on the whole.
    """

    greeting: float = 300
    hello: float = 300
    handshake: float = 120
    login: float = 300
    envelope: float = 300  # MAIL and each RCPT
    data: float = 120
    block: float = 180  # for each piece of content to be taken
    final: float = 600
    opening: float = 900
    transaction: float = 900
    slow_start: float = 600
    least_rate: float = 4096


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
        self._until_s = _NEVER  # when the present waiting is over
        self._deadline_s = _NEVER
        self._timer: IDelayedCall | None = None
        self._overdue = False
        self._paused = False
        self._secure = False
        self._loss: BaseException | None = None
        self._lost = False
        self._closing = False
        self._ended_at_rest: Callable[[], None] | None = None

    @property
    def closing(self) -> bool:
        """Goodbye was said, or nothing more will be."""
        return self._closing

    # For the coroutine.

    def bound(self, seconds: float | None) -> None:
        """All further waiting together ends in ``seconds``, whatever is said to each; None for no such bound."""
        self._deadline_s = _NEVER if seconds is None else self._reactor.seconds() + seconds

    async def next_event(self, timeout_s: float) -> Event:
        """The next event, after writing what there is to say.

        When nothing comes in ``timeout_s`` seconds the connection is dropped, and the event is ConnectionEnded.
        """
        self._flush()
        if not self._answered() and not await self._until(self._answered, timeout_s):
            self.core.give_up(self._too_late("no answer", timeout_s))
            self._has_event()
            self.abort()
        event, self._event = self._event, None
        return event or ConnectionEnded("the connection was lost")

    async def start_tls(self, tls: ClientTls, timeout_s: float) -> str:
        """The handshake, now.  "" when TLS is there, else why it is not; the connection is lost then."""
        if self._lost or self.core.ended:
            return "the connection was lost"
        cast(ITLSTransport, self.transport).startTLS(tls)
        if not await self._until(lambda: self._secure or self._lost, timeout_s):
            self.abort()
            return self._too_late("not done", timeout_s)
        return "" if self._secure and not self._lost else _in_words(self._loss)

    async def send_content(self, chunks: AsyncIterator[bytes], size: int, timeout_s: float) -> ConnectionEnded | None:
        """Send ``size`` octets of content and their end, no faster than they are taken.

        Ends early, without the end, when there is an event (the server has answered or gone) or when nothing is taken
        for ``timeout_s`` seconds (then ConnectionEnded).  ContentLost drops the connection: half a message
        must not be taken for a whole one.
        """
        transport = cast(Any, self.transport)  # producers are not in Twisted's interfaces of transports
        transport.registerProducer(self, True)
        sent = unwritten = 0
        try:
            async for chunk in chunks:
                if self._has_event():
                    return None
                sent += len(chunk)
                unwritten += len(chunk)
                self.core.send_content(chunk)
                if unwritten < _WRITE and not self._paused:
                    continue
                unwritten = 0
                self._flush()
                if not self._may_go_on() and not await self._until(self._may_go_on, timeout_s):
                    self.abort()
                    return ConnectionEnded(self._too_late("no content was taken", timeout_s))
        except OSError as error:
            self.abort()
            raise ContentLost(f"the content cannot be read: {error}") from error
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()
            self._paused = False
            if not self._lost:  # under TLS a transport that is gone does not take that
                transport.unregisterProducer()
        if self._has_event():
            return None
        if sent != size:
            self.abort()
            raise ContentLost(f"the content is {sent} octets long where {size} were written down")
        self.core.end_content()
        return None

    def rest(self, ended: Callable[[], None]) -> None:
        """Nobody waits for a while.  ``ended`` is called, and the transport closed, when the server speaks or goes."""
        self._ended_at_rest = ended
        self._deadline_s = _NEVER

    def resume(self) -> bool:
        """The end of the rest; False when this connection is of no more use."""
        self._ended_at_rest = None
        return not self._lost and not self._closing and self.core.at_rest

    def close(self, within_s: float = _CLOSE_S) -> None:
        """End in order where that is possible: QUIT, its answer, the end of TLS.  Nobody needs to wait for it."""
        self._ended_at_rest = None
        if self._closing or self._lost:
            return
        if self.core.state not in (State.UNWELCOME, State.GREETED, State.READY, State.REFUSED):
            self.abort()
            return
        self._closing = True
        self._stop_timer()
        self._timer = self._reactor.callLater(within_s, self._goodbye_is_late)
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
        if self._ended_at_rest is not None and not self.core.at_rest:
            # RFC 5321 3.8: most often the 421 of a server that waits no longer.
            self._end_of_rest()
            self.abort()
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
        self._stop_timer()
        self._end_of_rest()
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

    def _answered(self) -> bool:
        return self._has_event() or self.core.ended

    def _may_go_on(self) -> bool:
        return not self._paused or self._has_event()

    def _end_of_rest(self) -> None:
        ended, self._ended_at_rest = self._ended_at_rest, None
        if ended is not None:
            ended()

    async def _until(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``ready``; False when that takes longer than ``timeout_s`` seconds or goes beyond the bound."""
        if ready():
            return True
        now = self._reactor.seconds()
        self._until_s = min(now + timeout_s, self._deadline_s)
        self._overdue = False
        # One timer for the connection, which is left to run when the waiting ends early: most do.
        if self._timer is None or self._timer.getTime() > self._until_s:
            self._stop_timer()
            self._timer = self._reactor.callLater(max(self._until_s - now, 0.0), self._timer_ran_out)
        try:
            while not ready():
                if self._overdue:
                    return False
                self._waiter = Deferred()
                await self._waiter
        finally:
            self._waiter = None
            self._until_s = _NEVER
        return True

    def _timer_ran_out(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        left = self._until_s - self._reactor.seconds()
        if left > 0:
            self._timer = self._reactor.callLater(left, self._timer_ran_out)
        else:
            self._overdue = True
            self._wake()

    def _goodbye_is_late(self) -> None:
        self._timer = None
        self.abort()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _too_late(self, what: str, timeout_s: float) -> str:
        if self._reactor.seconds() >= self._deadline_s:
            return f"{what}, and all together took too long"
        return f"{what} within {timeout_s:g} seconds"

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
