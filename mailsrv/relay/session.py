"""A connection with one server until mail can go over it: greeting, names, TLS, login.

What is learned on the way stays with the connection: extensions, limits, what TLS was worth, how many messages went
over it.  Another message of the same ``Key`` may follow; nothing else may.

Until here nothing was said about the mail, so whatever goes wrong is a ``Trouble``: another server may be asked, else
the mail is DEFERRED.  A greeting with 5xx is of this kind too, as Postfix has it: the host does not serve us now, which
is no fact about the mail (RFC 5321 3.1).  Only 521, "never here", fails the mail, and only when every server says so
(RFC 7504).  What is local trouble (a login refused, a demand for TLS not met) is DEFERRED always, and where TLS is
demanded nothing fails the mail that was said in clear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mailsrv.config import Route
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.attempt import Trouble
from mailsrv.relay.connection import SmtpClient, Timeouts
from mailsrv.relay.family import refuses_our_address
from mailsrv.relay.mx import Hop
from mailsrv.relay.route import is_loopback
from mailsrv.relay.tls import ClientTls, Demand, TlsPolicy
from mailsrv.smtp.client_events import (
    ConnectionEnded,
    Event,
    Greeted,
    HelloAnswered,
    LoginAnswered,
    RemoteReply,
    TlsReady,
    TlsRefused,
)

MOST_MESSAGES: Final = 100  # over one connection
_LONGEST_LIFE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Key:
    """What two messages have to share to go over one connection: server, way, and what is demanded of TLS."""

    hop: Hop
    route: Route | None
    policy: TlsPolicy
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # It is looked up a dozen times for each message.
        object.__setattr__(self, "_hash", hash((self.hop, self.route, self.policy)))

    def __hash__(self) -> int:
        return self._hash


class Session:
    """Talks over ``client`` as ``hostname``.  ``tls`` is our side of a handshake, if there is to be one.

    ``note`` tells why there is none.  ``transactions`` and ``domains`` count what went over it, ``reused`` tells that
    something did.  ``chunking``: content may go by BDAT where that is offered.
    """

    def __init__(
        self,
        client: SmtpClient,
        key: Key,
        tls: ClientTls,
        hostname: str,
        timeouts: Timeouts,
        note: str = "",
        *,
        now: float = 0.0,
    ) -> None:
        self.client = client
        self.core = client.core
        self.key = key
        self.hop = key.hop
        self.timeouts = timeouts
        self.chunking = True
        self.greeted = False
        self.reused = False
        self.transactions = 0
        self.domains: set[str] = set()
        self._route = key.route
        self._policy = key.policy
        self._tls = tls
        self._hostname = hostname
        self._channel = note  # Outcome.tls
        self._born = now

    @property
    def exhausted(self) -> bool:
        """Whether no further transaction may follow (RFC 9422 4.1, and our own limit)."""
        return self.transactions >= min(MOST_MESSAGES, self.core.extensions.limit("MAILMAX") or MOST_MESSAGES)

    def is_old(self, now: float) -> bool:
        """A connection does not live for ever, so that load spreads."""
        return now - self._born >= _LONGEST_LIFE_S

    def takes(self, domain: str) -> bool:
        """RFC 9422 4.3: whether recipients of ``domain`` may follow those of the domains before."""
        most = self.core.extensions.limit("RCPTDOMAINMAX")
        return most is None or domain in self.domains or len(self.domains) < most

    async def open(self) -> Trouble | None:
        """Everything until MAIL may be said.  The connection is to be closed by the caller, after trouble too."""
        self.client.bound(self.timeouts.opening)
        if self._policy.implicit:
            trouble = await self._handshake()
            if trouble is not None:
                return trouble
        event = await self.client.next_event(self.timeouts.greeting)
        if not isinstance(event, Greeted):
            return self.lost(event, "before it greeted", after_tls=self._policy.implicit)
        self.greeted = True
        if not event.reply.positive:
            return self._turned_away(event.reply)
        trouble = await self._hello() or await self._encrypt()
        if trouble is None and self._route is not None and self._route.username:
            trouble = await self._log_in(self._route)
        self.client.bound(None)
        return trouble or await self.gone("before a word about the message")

    async def gone(self, when: str) -> Trouble | None:
        """Whether the connection has ended behind the last answer: what was said there nobody had asked for."""
        if not self.core.ended:
            return None
        return self.lost(await self.client.next_event(self.timeouts.hello), when)

    async def _hello(self, *, after_tls: bool = False) -> Trouble | None:
        if (trouble := await self.gone("behind its greeting")) is not None:
            return trouble
        self.core.say_hello()
        event = await self.client.next_event(self.timeouts.hello)
        if not isinstance(event, HelloAnswered):
            return self.lost(event, "when we gave our name", after_tls=after_tls)
        if event.extensions is None:
            return self._turned_away(event.reply)
        words = event.reply.lines[0].split()
        ours = bool(words) and words[0].lower().rstrip(".") == self._hostname
        if self._route is None and ours and self._is_believed():
            # An address of ours that the plan did not know, behind a NAT for example.
            reason = f"Mail would come back to this server: {self.hop} answers with our own name."
            return Trouble(self.outcome(Result.FAILED, "5.4.6", reason, event.reply, "RFC 5321 5.1"), ourselves=True)
        return None

    async def _encrypt(self) -> Trouble | None:
        policy = self._policy
        if policy.implicit or policy.demand is Demand.CLEAR:
            return None
        if "STARTTLS" not in self.core.extensions:
            return self._unencrypted("it does not offer STARTTLS", None) if policy.needed else None
        if (trouble := await self.gone("behind its answer to EHLO")) is not None:
            return trouble
        self.core.start_tls()
        event = await self.client.next_event(self.timeouts.hello)
        if isinstance(event, TlsRefused):
            return self._unencrypted("it refused STARTTLS", event.reply) if policy.needed else None
        if not isinstance(event, TlsReady):
            return self.lost(event, "at STARTTLS")
        trouble = await self.gone("at STARTTLS") or await self._handshake()
        if trouble is not None:
            return trouble
        self.core.tls_started()
        return await self._hello(after_tls=True)

    async def _handshake(self) -> Trouble | None:
        problem = await self.client.start_tls(self._tls, self.timeouts.handshake)
        if problem:
            reason = f"TLS with {self.hop} failed: {problem}."
            return Trouble(self.outcome(Result.DEFERRED, "4.7.5", reason, rule=self._policy.rule), tls=problem)
        self._channel = self._tls.description()
        if self._policy.demand is Demand.VERIFIED and self._tls.problem():
            reason = (
                f"The certificate of {self.hop} does not prove that it is {self._policy.name}: {self._tls.problem()}."
            )
            self.client.abort()
            return Trouble(self.outcome(Result.DEFERRED, "4.7.5", reason, rule=self._policy.rule))
        return None

    async def _log_in(self, route: Route) -> Trouble | None:
        clear = is_loopback(route)
        if not (self.core.secure or clear):
            return self._unencrypted("the password does not go in clear", None)
        if not self.core.extensions.mechanisms & {"PLAIN", "LOGIN"}:
            reason = f"{self.hop} offers no login by PLAIN or LOGIN, but the route has a password."
            return Trouble(self.outcome(Result.DEFERRED, "4.7.0", reason, rule=self._policy.rule), stop=True)
        if (trouble := await self.gone("before the login")) is not None:
            return trouble
        self.core.log_in(route.username, route.password, clear=clear)
        event = await self.client.next_event(self.timeouts.login)
        if not isinstance(event, LoginAnswered):
            return self.lost(event, "at the login")
        if event.reply.positive:
            return None
        reason = f"{self.hop} refused the login as {route.username}: check user and password in [outbound] routes."
        outcome = self.outcome(Result.DEFERRED, softened(event.reply), reason, event.reply, "outbound.routes")
        return Trouble(outcome, stop=True)

    # What it means.

    def delivered(self, reply: RemoteReply) -> Outcome:
        """The server's yes to the content."""
        remote, tells_sender = str(self.hop), "DSN" in self.core.extensions
        reason = f"{remote} took the message."
        return Outcome(Result.DELIVERED, reply.status, reason, reply.text, remote, "", self._channel, tells_sender)

    def refusal(self, reply: RemoteReply, what: str) -> Outcome:
        """The server's no to the mail itself: ``what`` is the sender, the recipient or the message."""
        if reply.permanent and not (reply.code == 530 and self._route is not None):
            return self.outcome(Result.FAILED, reply.status, f"{self.hop} refused {what}.", reply)
        # RFC 4954 6: 530 at a smarthost is about our login, which the operator can mend.
        reason = f"{self.hop} does not take {what} now."
        return self.outcome(Result.DEFERRED, softened(reply), reason, reply)

    def lost(self, event: Event, when: str, *, after_tls: bool = False) -> Trouble:
        """The connection ended; ``after_tls`` when that was the first thing that happened under TLS."""
        if not isinstance(event, ConnectionEnded):
            raise TypeError(f"{event} is not what the core promises here")
        status = "4.5.0" if event.fault else softened(event.reply) if event.reply else "4.4.2"
        reason = f"The connection with {self.hop} ended {when}: {event.reason}."
        failed = event.reason if after_tls and event.reply is None else ""
        about_us = event.reply is not None and refuses_our_address(event.reply.text)
        return Trouble(self.outcome(Result.DEFERRED, status, reason, event.reply), tls=failed, about_us=about_us)

    def outcome(
        self, result: Result, status: str, reason: str, reply: RemoteReply | None = None, rule: str = ""
    ) -> Outcome:
        return Outcome(result, status, reason, reply.text if reply else "", str(self.hop), rule, self._channel)

    def _turned_away(self, reply: RemoteReply) -> Trouble:
        about_us = refuses_our_address(reply.text)
        if reply.code == 521 and self._is_believed():
            reason = f"{self.hop} says that it never takes mail."
            outcome = self.outcome(Result.FAILED, reply.status, reason, reply, "RFC 7504")
        else:
            reason = f"{self.hop} does not want to talk to us."
            outcome = self.outcome(Result.DEFERRED, softened(reply), reason, reply)
        return Trouble(outcome, about_us=about_us)

    def _is_believed(self) -> bool:
        """Whether mail may fail for what is said now: where TLS is demanded, anybody could have said it before."""
        return self.core.secure or not self._policy.needed

    def _unencrypted(self, why: str, reply: RemoteReply | None) -> Trouble:
        reason = f"{self.hop} cannot be used without TLS: {why}."
        return Trouble(self.outcome(Result.DEFERRED, "4.7.4", reason, reply, self._policy.rule))


def softened(reply: RemoteReply) -> str:
    """The status of a refusal that is not taken as final."""
    return "4" + reply.status[1:]
