"""The Twisted shell of the SMTP server: bytes, TLS, time-outs and back-pressure, and nothing else.

Input goes into the core, its events to the session, the session's answers back into the core, its output to the
transport: one loop, never recursion, with one write for all replies of a turn.  The loop rests while an answer is
awaited, while content is being written away, and while the client does not read what it is sent; reading rests too as
soon as more is buffered than one command line can need.  So a client costs a bounded amount of memory whatever it does,
and after some hundred commands at once it lets others have their turn.
"""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.internet.protocol import ServerFactory as TwistedServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.checks.admission import Admission
from mailsrv.checks.clients import LOCAL, is_loopback
from mailsrv.sasl import mechanisms
from mailsrv.smtp import events, replies
from mailsrv.smtp.dialog import Answer
from mailsrv.smtp.house import House
from mailsrv.smtp.pace import IDLE_S, Pace
from mailsrv.smtp.replies import Reply
from mailsrv.smtp.server import ServerConnection, Service
from mailsrv.smtp.session import Session
from mailsrv.smtp.states import CONTENT
from mailsrv.tls import ServerCertificate, describe, exporter

log = Logger()

HANDSHAKE_S = 60.0  # for a TLS handshake as a whole
UNREAD_S = 60.0  # a client that reads nothing of what it was sent for so long is gone
CLOSING_S = 5.0  # for the last reply to get out
LMTP_ERRORS = 10_000  # on one connection; elsewhere the Service's own few
HOLD_LIMIT_S = 30 * 86400  # RFC 4865: the longest that a user may have a message held
EXTENSIONS = frozenset({"PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "DSN", "LIMITS"})

BROKEN = replies.reply(421, "4.3.0", "Local trouble; try again later")
TURNED_AWAY = replies.reply(421, "4.7.0", "Too many connections; try again later")


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class SmtpProtocol(Protocol):
    """One connection."""

    transport: Any

    def __init__(self, factory: SmtpFactory) -> None:
        self._factory = factory
        self._reactor = factory.house.outside.reactor
        self._client = ""
        self._admitted = False
        self._explaining = False  # not admitted, and in a handshake only to be told so
        self._looping = False
        self._awaiting = False  # an answer, or room for content
        self._unread = False  # the transport asks us to send no more
        self._resting = False  # reading is paused
        self._handshaking = factory.implicit_tls
        self._closing = False
        self._going_down = False
        self._quiet_since = 0.0
        self._timer: IDelayedCall | None = None
        self._core: ServerConnection
        self._session: Session
        self._pace: Pace
        self._penalty: IDelayedCall | None = None  # the next command waits until then, or for its turn

    # -- what Twisted calls

    def connectionMade(self) -> None:
        factory = self._factory
        self._client = getattr(self.transport.getPeer(), "host", LOCAL)
        self._core = ServerConnection(factory.service(self._client), factory.implicit_tls)
        self._session = Session(factory.house, factory.kind, self._client)
        refusal = factory.admission.enter(self._client)
        self._admitted = refusal is None
        factory.connections.add(self)
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._quiet_since = self._reactor.seconds()
        self._pace = Pace(self._quiet_since)
        self._timer = self._reactor.callLater(HANDSHAKE_S if self._handshaking else IDLE_S, self._look)
        if refusal is not None:
            self._turn_away(refusal)
        elif not self._handshaking:
            self._loop()

    def _turn_away(self, refusal: str) -> None:
        self._session.turned_away(refusal)
        self._core.close(TURNED_AWAY, refusal)
        if not self._handshaking:
            self._close()
        elif self._factory.admission.explain(self._client):
            self._explaining = True
        else:
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        if self._core.state in CONTENT:
            # Content that will be refused counts too: its sender has to hear that, and not a 421.
            self._pace.received(len(data), self._reactor.seconds())
        self._core.receive(data)
        self._loop()

    def handshakeCompleted(self) -> None:
        self._handshaking = False
        if self._explaining:
            self._close()
            return
        connection = self.transport.getHandle()
        self._session.encrypted(describe(connection))
        if self._factory.kind == "submission":
            self._core.exporter = exporter(connection)
        # The greeting, where TLS came first.  Not earlier: what is written during a handshake makes TLS ask us to
        # pause, and then the rest of the handshake would never be read.
        self._loop()

    def readConnectionLost(self) -> None:
        self._core.receive_eof()
        self._loop()

    def writeConnectionLost(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._closing = True
        self._factory.connections.discard(self)
        if self._admitted:
            self._factory.admission.leave(self._client)
        if self._explaining:
            self._factory.admission.explained(self._client)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._penalty is not None:
            self._penalty.cancel()
            self._penalty = None
        self._core.close(None, "the client has gone")
        self._session.over()
        self._factory.one_left()

    def pauseProducing(self) -> None:
        """The client does not read what it was sent: nothing more is taken from it."""
        self._unread = True
        self._quiet_since = self._reactor.seconds()
        if self._timer is not None:
            self._timer.reset(UNREAD_S)
        self._rest()

    def resumeProducing(self) -> None:
        self._unread = False
        self._pace.moved(self._reactor.seconds())
        self._loop()

    def stopProducing(self) -> None:
        pass

    # -- the loop

    def _loop(self) -> None:
        if self._looping:
            return
        self._looping = True
        try:
            while not self._awaiting and not self._unread and not self._closing:
                event = self._core.next_event()
                if event is not None:
                    self._take(event)
                elif self._core.full:
                    self._flush()
                    self._stand_aside(0.0)  # who says so much at once lets others have their turn
                else:
                    break
        except Exception:
            self._broken(Failure())
        finally:
            self._looping = False
        self._flush()
        self._rest()

    def _take(self, event: events.Event) -> None:
        kind = type(event)
        if kind is events.Content:
            self._take_content(event.chunk)  # type: ignore[union-attr]
            return
        now = self._reactor.seconds()
        self._pace.moved(now)
        if kind in events.ASKS:
            if kind is events.Mail:
                self._pace.transaction(now)
            elif kind is events.DataBegin:
                self._pace.content(now)
            elif kind is events.DataEnd:
                self._pace.over()
            decision = self._session.decide(event)  # type: ignore[arg-type]
            if decision is None or not isinstance(decision, Coroutine):
                self._reply(decision)
            else:
                self._awaiting = True
                Deferred.fromCoroutine(decision).addCallbacks(self._answer, self._failed)
        elif kind is events.Reset:
            self._pace.over()
            self._session.reset()
        elif kind is events.Refused:
            self._session.refused(event)  # type: ignore[arg-type]
            self._punish(event.reply)  # type: ignore[union-attr]
        elif kind is events.TlsWanted:
            self._start_tls()
        else:
            self._close()

    def _take_content(self, chunk: bytes) -> None:
        room = self._session.content(chunk)
        if room is not None and not (room.called and not isinstance(room.result, Failure)):
            self._awaiting = True
            room.addBoth(self._go_on)

    def _reply(self, decision: Answer) -> None:
        self._core.reply(decision)
        if isinstance(decision, Reply):
            self._punish(decision)

    def _punish(self, reply: Reply) -> None:
        """After a refusal for good the next command may have to wait."""
        delay = self._session.error(reply)
        if delay:
            self._stand_aside(delay)

    def _stand_aside(self, seconds: float) -> None:
        """Take nothing more from the client for a while."""
        if not self._closing and not self._going_down and self._penalty is None:
            self._awaiting = True
            self._penalty = self._reactor.callLater(seconds, self._atoned)

    def _atoned(self) -> None:
        self._penalty = None
        self._go_on(None)

    def _go_on(self, result: object) -> None:
        """There is room for content again, or a penalty is over."""
        self._awaiting = False
        self._pace.moved(self._reactor.seconds())
        if isinstance(result, Failure):
            self._broken(result)
        elif self._going_down:
            self._core.close(replies.SHUTTING_DOWN, "shutting down")
        self._loop()

    def _answer(self, decision: Answer) -> None:
        self._awaiting = False
        self._pace.moved(self._reactor.seconds())
        try:
            self._reply(decision)
        except Exception:
            self._broken(Failure())
        if self._going_down and not self._closing:
            # What was accepted is answered first; the rest is for the next start.
            self._flush()
            self._core.close(replies.SHUTTING_DOWN, "shutting down")
        self._loop()

    def _failed(self, failure: Failure) -> None:
        log.failure("A session with {client} failed", failure=failure, client=self._client)
        self._answer(replies.LOCAL_TROUBLE)

    def _broken(self, failure: Failure) -> None:
        """A bug of ours: its trace is for the log, the client gets 421."""
        log.failure("A session with {client} failed", failure=failure, client=self._client)
        self._core.close(BROKEN, "a bug")
        self._close()

    def _start_tls(self) -> None:
        self._flush()
        self._handshaking = True
        self._quiet_since = self._reactor.seconds()
        if self._timer is not None:
            self._timer.reset(HANDSHAKE_S)
        self.transport.startTLS(self._factory.certificate)
        self._core.tls_started()

    def _flush(self) -> None:
        output = self._core.take_output()
        if output and self.transport.connected:
            self._pace.moved(self._reactor.seconds())
            self.transport.write(output)

    def _rest(self) -> None:
        """Read only what can be used."""
        rest = self._unread or not self._core.hungry or (self._awaiting and self._core.buffered > 0)
        if rest != self._resting and not self._closing:
            self._resting = rest
            if rest:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _close(self) -> None:
        if self._closing:
            return
        self._flush()
        self._closing = True
        if self._resting:
            # The end of TLS is a message from the client; who does not read would wait for it in vain.
            self.transport.resumeProducing()
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        if self._timer is not None:
            self._timer.reset(CLOSING_S)

    # -- time

    def _look(self) -> None:
        """One timer for each connection, armed again only when it has run down."""
        self._timer = None
        if self._closing:
            self.transport.abortConnection()
            return
        now = self._reactor.seconds()
        if self._handshaking or self._unread:
            left = self._quiet_since + (HANDSHAKE_S if self._handshaking else UNREAD_S) - now
        elif self._awaiting:
            left = IDLE_S  # it is us who take so long
        else:
            left = self._pace.deadline(self._factory.house.settings.config.limits) - now
        if left > 0.001:
            self._timer = self._reactor.callLater(left, self._look)
        elif self._unread or self._handshaking:
            self.transport.abortConnection()
        else:
            self._timer = self._reactor.callLater(CLOSING_S, self._look)
            self._core.close(replies.TIMED_OUT, "nothing heard for too long")
            self._loop()

    def shut_down(self) -> None:
        """Answer what is being stored, say 421 to everything else."""
        self._going_down = True
        if self._handshaking:
            self.transport.abortConnection()
        elif self._penalty is not None:
            self._penalty.cancel()
            self._atoned()
        elif self._awaiting:
            self._session.hurry()
        else:
            self._core.close(replies.SHUTTING_DOWN, "shutting down")
            self._loop()


class SmtpFactory(TwistedServerFactory):
    """One for each kind of port: "smtp", "submission", "lmtp"; with ``implicit_tls`` the listener wraps it in TLS."""

    noisy = False

    def __init__(
        self,
        house: House,
        admission: Admission,
        kind: str,
        certificate: ServerCertificate,
        implicit_tls: bool = False,
    ) -> None:
        self.house = house
        self.admission = admission
        self.kind = kind
        self.certificate = certificate
        self.implicit_tls = implicit_tls
        self.connections: set[SmtpProtocol] = set()
        self._services: dict[bool, Service] = {}
        self._services_of: object = None
        self._services_day = 0
        self.service("")  # what is wrong with it shows at the start
        self._all_gone: list[Deferred[None]] = []

    def buildProtocol(self, addr: object) -> SmtpProtocol:
        return SmtpProtocol(self)

    def service(self, client: str) -> Service:
        """What this client is offered; made once for each configuration."""
        config = self.house.settings.config
        today = int(self.house.outside.wall() // 86400)
        if self._services_of is not config or self._services_day != today:
            self._services = {clear: self._service(clear, today) for clear in (False, True)}
            self._services_of = config
            self._services_day = today
        return self._services[config.auth.cleartext == "loopback" and is_loopback(client)]

    def _service(self, auth_in_clear: bool, today: int) -> Service:
        config = self.house.settings.config
        submission = self.kind == "submission"
        latest_hold = datetime.fromtimestamp(today * 86400 + HOLD_LIMIT_S, UTC)
        return Service(
            hostname=config.hostname,
            kind=self.kind,
            extensions=EXTENSIONS | {"FUTURERELEASE"} if submission else EXTENSIONS,
            size_limit=config.limits.message_size,
            recipients_limit=config.limits.recipients,
            starttls=not self.implicit_tls and self.kind != "lmtp",
            # The mail server in front asks for addresses that others made up.
            max_errors=LMTP_ERRORS if self.kind == "lmtp" else Service.max_errors,
            mechanisms=mechanisms.NAMES if submission else (),
            auth_in_clear=auth_in_clear,
            auth_required=submission,
            mend_lines=submission and config.submission.mend_lines,
            hold_limit_s=HOLD_LIMIT_S if submission else 0,
            hold_until=latest_hold.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )

    async def shut_down(self) -> None:
        """Returns when every connection is gone."""
        for connection in tuple(self.connections):
            connection.shut_down()
        if self.connections:
            gone: Deferred[None] = Deferred()
            self._all_gone.append(gone)
            await gone

    def abort(self) -> None:
        """Patience is at an end."""
        for connection in tuple(self.connections):
            connection.transport.abortConnection()

    def one_left(self) -> None:
        if not self.connections:
            gone, self._all_gone = self._all_gone, []
            for waiting in gone:
                waiting.callback(None)
