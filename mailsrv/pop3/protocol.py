"""The Twisted shell of the POP3 server: bytes, TLS, time-outs and back-pressure, and nothing else.

What can be answered without waiting is answered within the call that brought it.  For the rest one loop takes events
from the core, has the session answer them and sends what the core has to say, joined into one write per turn.  The loop
rests while the client does not take what it is sent, so a connection holds one chunk of one
message, however much was asked for; reading rests then too, and while more commands wait than will soon be answered.

Reports: a failure of our own to the log, with the client's address; the connection is then cut, nothing is removed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.internet.protocol import ServerFactory as TwistedServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.checks.clients import is_loopback
from mailsrv.checks.interfaces import Admission, Penalties
from mailsrv.checks.login_delay import LoginDelay
from mailsrv.outside.interfaces import Outside
from mailsrv.pop3 import events, replies
from mailsrv.pop3.server import ServerConnection, Service
from mailsrv.pop3.session import Gone, ReadingFailed, Recorder, Session, Settings, Surroundings
from mailsrv.store.accounts.passwords import Passwords
from mailsrv.store.mailbox.mailboxes import MailStore
from mailsrv.tls import exporter

log = Logger()

IDLE_S = 600.0  # RFC 1939 3: the autologout timer is at least ten minutes
LOGIN_S = 60.0  # from connecting to the mailbox
UNREAD_S = 60.0  # a client that for so long has not taken what lay in the transport's buffer is gone
TURNED_AWAY_S = 5.0  # for the one line to a client over the limits
PIECE = 128 * 1024  # what is handed to the transport at once: UNREAD_S is counted for so much, 2 KiB a second


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class Pop3Protocol(Protocol):
    """One connection."""

    transport: Any

    def __init__(self, factory: Pop3Factory) -> None:
        self._factory = factory
        self._reactor = factory.surroundings.outside.reactor
        self._client = ""
        self._admitted = False
        self._explaining = False  # not admitted, and in a handshake only to be told so
        self._begun = False  # under implicit TLS: after its handshake
        self._looping = False
        self._fed = False  # input has come since the loop last asked for an event
        self._unread = False  # the transport asks us to send no more
        self._resting = False  # reading is paused
        self._closing = False
        self._gone = False
        self._going_down = False
        self._connected_at = 0.0
        self._quiet_since = 0.0
        self._timer: IDelayedCall | None = None
        self._pending: events.Event | None = None  # the one that the loop is to begin with
        self._waiter: Deferred[None] | None = None  # what the loop waits for: room in the transport, or time
        self._core: ServerConnection
        self._session: Session

    # -- what Twisted calls

    def connectionMade(self) -> None:
        factory = self._factory
        self._client = getattr(self.transport.getPeer(), "host", "local")
        self._core = ServerConnection(factory.service(self._client), factory.implicit_tls)
        self._session = Session(factory.surroundings, self._core, self._client, self._flush, self._sleep)
        factory.connections.add(self)
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self._connected_at = self._quiet_since = self._reactor.seconds()
        self._timer = self._reactor.callLater(LOGIN_S, self._look)
        refusal = factory.surroundings.admission.enter(self._client)
        self._admitted = refusal is None
        if refusal is not None:
            self._session.turned_away(refusal)
            self._core.close(replies.TURNED_AWAY, refusal)
        if not factory.implicit_tls:
            self._begin()
        elif refusal is not None:
            self._explaining = factory.surroundings.admission.explain(self._client)
            if not self._explaining:
                self.transport.abortConnection()

    def handshakeCompleted(self) -> None:
        self._core.exporter = exporter(self.transport.getHandle())
        if not self._begun:
            self._begin()

    def _begin(self) -> None:
        # What is written before the end of a handshake makes TLS pause its producer, who then would not read the rest
        # of that handshake.
        self._begun = True
        self.transport.registerProducer(self, True)
        self._run()

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        self._quiet_since = self._reactor.seconds()
        self._core.receive(data)
        self._run()

    def readConnectionLost(self) -> None:
        self._core.receive_eof()
        self._run()

    def writeConnectionLost(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._closing = self._gone = True
        if self._admitted:
            self._factory.surroundings.admission.leave(self._client)
        if self._explaining:
            self._factory.surroundings.admission.explained(self._client)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._core.close(None, "the client has gone")
        if self._looping:
            # It ends as soon as what it does now is done: a thread may be reading, or messages are being removed.
            self._wake()
        else:
            self._end()

    def pauseProducing(self) -> None:
        """The client does not take what it was sent: nothing more is sent to it, nor taken from it."""
        self._unread = True
        self._quiet_since = self._reactor.seconds()
        timer = self._timer
        if timer is not None and timer.getTime() > self._quiet_since + UNREAD_S:
            timer.reset(UNREAD_S)
        self._rest()

    def resumeProducing(self) -> None:
        self._unread = False
        self._quiet_since = self._reactor.seconds()
        self._rest()
        self._wake()

    def stopProducing(self) -> None:
        pass

    # -- the loop

    def _run(self) -> None:
        self._fed = True
        if not self._looping:
            if self._answered_at_once():
                return
            self._looping = True
            Deferred.fromCoroutine(self._loop()).addErrback(self._failed).addBoth(self._rested)
        self._rest()

    def _answered_at_once(self) -> bool:
        """Answer what takes no waiting and send it; False when there is more to do, for the loop."""
        if self._closing or self._unread or self._going_down:
            return False
        core, session = self._core, self._session
        try:
            while (event := core.next_event()) is not None:
                if not session.answer_at_once(event):
                    self._pending = event
                    return False
        except Exception:
            self._failed(Failure())
            return True
        if core.full:
            return False
        output = core.take_output()
        if output:
            self.transport.write(output)
        return True

    async def _loop(self) -> None:
        try:
            while not self._closing:
                self._fed = False
                event, self._pending = self._pending or self._core.next_event(), None
                if event is None:
                    full = self._core.full
                    await self._flush()
                    if full:
                        await self._sleep(0)  # it is the turn of others
                    elif self._going_down:
                        self._core.close(replies.GOING_DOWN, "shutting down")
                    elif not self._fed:
                        return
                elif isinstance(event, events.Closed):
                    self._close()
                elif isinstance(event, events.TlsWanted):
                    await self._flush()
                    self._start_tls()
                else:
                    if not self._session.answer_at_once(event):
                        await self._session.answer(event)
                    self._quiet_since = self._reactor.seconds()
                    if self._going_down:
                        self._core.close(replies.GOING_DOWN, "shutting down")
        except Gone:
            pass
        except ReadingFailed:
            self._core.close(None, "a message could not be read")
            self.transport.abortConnection()

    def _failed(self, failure: Failure) -> None:
        log.failure("A session with {client} failed", failure=failure, client=self._client)
        self._core.close(None, "a bug")
        self.transport.abortConnection()

    def _rested(self, result: object) -> None:
        self._looping = False
        if self._gone:
            self._end()
        else:
            self._rest()

    def _end(self) -> None:
        self._session.ended()
        self._factory.ended(self)

    async def _flush(self) -> None:
        """Send what the core has to say; returns when the client takes more.  Gone."""
        output = self._core.take_output()
        for start in range(0, len(output), PIECE):
            self._check_there()
            self.transport.write(output[start : start + PIECE] if len(output) > PIECE else output)
            while self._unread:
                await self._wait()
        self._check_there()

    async def _sleep(self, seconds: float) -> None:
        """Gone."""
        call = self._reactor.callLater(seconds, self._wake)
        try:
            await self._wait()
            while call.active():
                await self._wait()
        finally:
            if call.active():
                call.cancel()

    async def _wait(self) -> None:
        self._check_there()
        self._waiter = Deferred()
        await self._waiter
        self._check_there()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def _check_there(self) -> None:
        if self._gone:
            raise Gone

    def _start_tls(self) -> None:
        assert self._factory.tls is not None
        self.transport.startTLS(self._factory.tls())
        self._core.tls_started()

    def _rest(self) -> None:
        """Read only what can be used."""
        rest = self._unread or not self._core.hungry
        if rest != self._resting and not self._closing:
            self._resting = rest
            if rest:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _close(self) -> None:
        if self._closing:
            return
        self._closing = True
        # Before the last reply goes out, for the client may log in again at once.
        self._session.ended()
        output = self._core.take_output()
        if output:
            self.transport.write(output)
        if self._resting:
            # The end of TLS is a message from the client; who does not read would wait for it in vain.
            self.transport.resumeProducing()
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        if self._timer is not None:
            # Who only hears why it is turned away is not to keep others from hearing it.
            self._timer.reset(UNREAD_S if self._admitted else TURNED_AWAY_S)

    # -- time

    def _look(self) -> None:
        """One timer for each connection, armed again only when it has run down."""
        self._timer = None
        now = self._reactor.seconds()
        if self._closing:
            due = now
        elif self._unread:
            due = self._quiet_since + UNREAD_S
        elif not self._core.logged_in:
            due = self._connected_at + LOGIN_S
        elif self._looping:
            due = now + IDLE_S  # it is us who take so long
        else:
            due = self._quiet_since + IDLE_S
        if due - now > 0.001:
            self._timer = self._reactor.callLater(due - now, self._look)
        else:
            # RFC 1939 3: no answer, and no message is removed.
            self._core.close(None, "nothing heard for too long")
            self.transport.abortConnection()

    def shut_down(self) -> None:
        """Finish the command under way, then say goodbye."""
        self._going_down = True
        if self._begun:
            self._run()
        else:
            self.transport.abortConnection()


class Pop3Factory(TwistedServerFactory):
    """One for POP3 with STLS, and one with ``implicit_tls`` for POP3S, whose listener wraps it in TLS (RFC 8314).

    ``tls`` gives what ``startTLS`` needs for a new connection; None: STLS is not offered.
    """

    noisy = False

    def __init__(
        self,
        settings: Settings,
        outside: Outside,
        mailboxes: MailStore,
        passwords: Passwords,
        admission: Admission,
        penalties: Penalties,
        login_delay: LoginDelay,
        recorder: Recorder,
        tls: Callable[[], Any] | None,
        implicit_tls: bool = False,
    ) -> None:
        self.surroundings = Surroundings(
            settings, outside, mailboxes, passwords, admission, penalties, login_delay, recorder
        )
        self.tls = tls
        self.implicit_tls = implicit_tls
        self.connections: set[Pop3Protocol] = set()
        self._all_gone: list[Deferred[None]] = []

    def buildProtocol(self, addr: object) -> Pop3Protocol:
        return Pop3Protocol(self)

    def service(self, client: str) -> Service:
        """What this client is offered, by the configuration of the moment."""
        config = self.surroundings.settings.config
        return Service(
            hostname=config.hostname,
            stls=self.tls is not None,
            cleartext=config.auth.cleartext == "loopback" and is_loopback(client),
            login_delay_s=math.ceil(config.limits.login_delay),
        )

    async def shut_down(self) -> None:
        """Returns when every connection is gone and every session has ended."""
        for connection in tuple(self.connections):
            connection.shut_down()
        if self.connections:
            gone: Deferred[None] = Deferred()
            self._all_gone.append(gone)
            await gone

    def abort(self) -> None:
        """Patience is at an end; what is being removed is still removed."""
        for connection in tuple(self.connections):
            connection.transport.abortConnection()

    def ended(self, connection: Pop3Protocol) -> None:
        """A connection is gone and its session has ended."""
        self.connections.discard(connection)
        if not self.connections:
            gone, self._all_gone = self._all_gone, []
            for waiting in gone:
                waiting.callback(None)
