"""One conversation with one server: greeting, names, TLS, login, transactions, and what each answer means for the mail.

What is definite about a recipient is settled at once: nothing that goes wrong later can undo it.  For the others
there is a ``Trouble``, whose outcome stands if no other server does better.  What is definite and what is not:

- Nothing said about the mail (no connection, a greeting or EHLO refused, 421, a loss before the last dot, MAIL refused
  with 4xx): another server may be asked, else DEFERRED.  A greeting with 5xx is of this kind too, as Postfix has it:
  the host does not serve us now, which is no fact about the mail (RFC 5321 3.1).  Only 521, "never here", fails the
  mail, and only when every server says so (RFC 7504).
- An answer to RCPT, DATA or the content, and MAIL refused with 5xx, is definite: 4xx DEFERRED, 5xx FAILED.
- The content sent and no answer heard: DEFERRED, no other server in this attempt, since the mail may have arrived.
- What is local trouble (a login refused, an operator's demand for TLS not met, our copy unreadable): DEFERRED.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from mailsrv.config import Route
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.connection import ContentLost, SmtpClient, Timeouts
from mailsrv.relay.job import Job
from mailsrv.relay.mx import Hop
from mailsrv.relay.route import is_loopback
from mailsrv.relay.tls import ClientTls, Demand, TlsPolicy
from mailsrv.smtp.client_commands import is_ascii
from mailsrv.smtp.client_events import (
    ConnectionEnded,
    ContentWanted,
    Event,
    Greeted,
    HelloAnswered,
    LoginAnswered,
    RecipientAnswered,
    RemoteReply,
    TlsReady,
    TlsRefused,
    Transaction,
    TransactionEnded,
)

_RECIPIENTS: Final = 100  # RFC 5321 4.5.3.1.8: what any server takes in one transaction
_TOO_MANY: Final = 452  # RFC 5321 4.5.3.1.10


Settled = dict[int, Outcome]  # by position in ``job.recipients``


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a server was of no use.  ``stop``: the next one is not to be asked.  ``tls``: why the handshake failed."""

    outcome: Outcome
    stop: bool = False
    tls: str = ""


class Conversation:
    """Talks to ``hop`` over ``client`` as ``hostname``.  ``tls`` is our side of a handshake, if there is to be one."""

    def __init__(
        self,
        client: SmtpClient,
        hop: Hop,
        route: Route | None,
        policy: TlsPolicy,
        tls: ClientTls,
        hostname: str,
        timeouts: Timeouts,
        note: str = "",
    ) -> None:
        self._client = client
        self._core = client.core
        self._hop = hop
        self._route = route
        self._policy = policy
        self._tls = tls
        self._hostname = hostname
        self._timeouts = timeouts
        self._channel = note  # Outcome.tls

    async def deliver(self, job: Job, settled: Settled) -> Trouble | None:
        """Bring ``job`` to the recipients that are not ``settled`` yet, and settle as many as possible.

        Returns the trouble with the others, None when there are none.  Says goodbye, or hangs up, in the end.
        """
        try:
            return await self._open() or await self._transactions(job, settled)
        except ContentLost as error:
            outcome = Outcome(Result.DEFERRED, "4.3.0", f"Local trouble: {error}.", rule="our own spool")
            return Trouble(outcome, stop=True)
        finally:
            self._client.close()

    # Until mail can be sent.

    async def _open(self) -> Trouble | None:
        if self._policy.implicit:
            trouble = await self._handshake()
            if trouble is not None:
                return trouble
        event = await self._client.next_event(self._timeouts.greeting)
        if not isinstance(event, Greeted):
            return self._lost(event, "before it greeted", after_tls=self._policy.implicit)
        if not event.reply.positive:
            return self._turned_away(event.reply)
        trouble = await self._hello() or await self._encrypt()
        if trouble is None and self._route is not None and self._route.username:
            trouble = await self._log_in(self._route)
        return trouble

    async def _hello(self, *, after_tls: bool = False) -> Trouble | None:
        self._core.say_hello()
        event = await self._client.next_event(self._timeouts.hello)
        if not isinstance(event, HelloAnswered):
            return self._lost(event, "when we gave our name", after_tls=after_tls)
        if event.extensions is None:
            return self._turned_away(event.reply)
        words = event.reply.lines[0].split()
        if self._route is None and words and words[0].lower().rstrip(".") == self._hostname:
            # An address of ours that the plan did not know, behind a NAT for example.
            reason = f"Mail would come back to this server: {self._hop} answers with our own name."
            return Trouble(self._outcome(Result.FAILED, "5.4.6", reason, event.reply, "RFC 5321 5.1"), stop=True)
        return None

    async def _encrypt(self) -> Trouble | None:
        policy = self._policy
        if policy.implicit or policy.demand is Demand.CLEAR:
            return None
        if "STARTTLS" not in self._core.extensions:
            return self._unencrypted("it does not offer STARTTLS", None) if policy.needed else None
        self._core.start_tls()
        event = await self._client.next_event(self._timeouts.hello)
        if isinstance(event, TlsRefused):
            return self._unencrypted("it refused STARTTLS", event.reply) if policy.needed else None
        if not isinstance(event, TlsReady):
            return self._lost(event, "at STARTTLS")
        if self._core.ended:  # something was waiting behind the answer
            return self._lost(await self._client.next_event(self._timeouts.hello), "at STARTTLS")
        trouble = await self._handshake()
        if trouble is not None:
            return trouble
        self._core.tls_started()
        return await self._hello(after_tls=True)

    async def _handshake(self) -> Trouble | None:
        problem = await self._client.start_tls(self._tls, self._timeouts.handshake)
        if problem:
            reason = f"TLS with {self._hop} failed: {problem}."
            return Trouble(self._outcome(Result.DEFERRED, "4.7.5", reason, rule=self._policy.rule), tls=problem)
        self._channel = self._tls.description()
        if self._policy.demand is Demand.VERIFIED and self._tls.problem():
            reason = (
                f"The certificate of {self._hop} does not prove that it is {self._policy.name}: {self._tls.problem()}."
            )
            self._client.abort()
            return Trouble(self._outcome(Result.DEFERRED, "4.7.5", reason, rule=self._policy.rule))
        return None

    async def _log_in(self, route: Route) -> Trouble | None:
        clear = is_loopback(route)
        if not (self._core.secure or clear):
            return self._unencrypted("the password does not go in clear", None)
        if not self._core.extensions.mechanisms & {"PLAIN", "LOGIN"}:
            reason = f"{self._hop} offers no login by PLAIN or LOGIN, but the route has a password."
            return Trouble(self._outcome(Result.DEFERRED, "4.7.0", reason, rule=self._policy.rule), stop=True)
        self._core.log_in(route.username, route.password, clear=clear)
        event = await self._client.next_event(self._timeouts.login)
        if not isinstance(event, LoginAnswered):
            return self._lost(event, "at the login")
        if event.reply.positive:
            return None
        reason = f"{self._hop} refused the login as {route.username}: check user and password in [outbound] routes."
        outcome = self._outcome(Result.DEFERRED, _softened(event.reply), reason, event.reply, "outbound.routes")
        return Trouble(outcome, stop=True)

    # Mail.

    async def _transactions(self, job: Job, settled: Settled) -> Trouble | None:
        settled.update(await self._obstacles(job, [n for n in range(len(job.recipients)) if n not in settled]))
        waiting = [n for n in range(len(job.recipients)) if n not in settled]
        while waiting:
            batch = waiting[:_RECIPIENTS]
            trouble = await self._transaction(job, batch, settled)
            if trouble is not None:
                return trouble
            # Those who were too many for this transaction come first in the next.
            waiting = [n for n in waiting if n not in settled]
        return None

    async def _obstacles(self, job: Job, positions: Sequence[int]) -> dict[int, Outcome]:
        """What is known to fail before a word is said about it.

        Content with octets above 127 is none of it: where 8BITMIME is not offered it goes unchanged all the same, since
        practically every server takes it, and a conversion would break signatures.
        """
        extensions = self._core.extensions
        limit = extensions.size
        if limit is not None and job.size > limit:
            reason = f"The message has {job.size} octets, and {self._hop} takes at most {limit}."
            return dict.fromkeys(positions, self._outcome(Result.FAILED, "5.3.4", reason, rule="SIZE (RFC 1870)"))
        if "SMTPUTF8" in extensions:
            return {}
        # RFC 6531 3.2, 3.4: nothing that needs it goes where it is not known.
        whole = not is_ascii(job.envelope.sender)
        if job.envelope.smtputf8 and job.eight_bit and not whole:
            whole = await _unicode_header(job)
        reason = f"{self._hop} takes no addresses or headers beyond ASCII, and this message needs them."
        refused = self._outcome(Result.FAILED, "5.6.7", reason, rule="SMTPUTF8 (RFC 6531)")
        return {n: refused for n in positions if whole or not is_ascii(job.recipients[n].address)}

    async def _transaction(self, job: Job, batch: Sequence[int], settled: Settled) -> Trouble | None:
        """One message to ``batch``.  Without trouble at least one of them is settled."""
        accepted: list[int] = []
        answered = 0
        recipients = tuple(job.recipients[n] for n in batch)
        self._core.send(Transaction(job.envelope, recipients, job.size, job.eight_bit))
        timeout_s = self._timeouts.envelope
        while isinstance(event := await self._client.next_event(timeout_s), RecipientAnswered):
            answered += 1
            if event.reply.positive:
                accepted.append(batch[event.n])
            elif not (event.reply.code == _TOO_MANY and accepted):
                settled[batch[event.n]] = self._refusal(event.reply, "the recipient")
            if answered == len(batch):
                timeout_s = self._timeouts.data
        if isinstance(event, ContentWanted):
            lost = await self._client.send_content(job.content.chunks(), job.size, self._timeouts.block)
            event = lost or await self._client.next_event(self._timeouts.final)
        match event:
            case TransactionEnded(".", RemoteReply(positive=True) as reply):
                delivered = self._outcome(Result.DELIVERED, reply.status, f"{self._hop} took the message.", reply)
                delivered = replace(delivered, tells_sender="DSN" in self._core.extensions)
                settled.update(dict.fromkeys(accepted, delivered))
            case TransactionEnded("MAIL", RemoteReply(permanent=False) as reply):
                return Trouble(self._refusal(reply, "the sender"))
            case TransactionEnded("MAIL", RemoteReply() as reply):
                settled.update(dict.fromkeys(batch, self._refusal(reply, "the sender")))
            case TransactionEnded(reply=RemoteReply() as reply):
                settled.update(dict.fromkeys(accepted, self._refusal(reply, "the message")))
            case TransactionEnded():
                pass  # every recipient was refused
            case ConnectionEnded(unanswered=True):
                reason = (
                    f"The message went to {self._hop} whole, but no answer came ({event.reason}). It may have "
                    "arrived, so the next attempt may deliver it a second time."
                )
                doubtful = self._outcome(Result.DEFERRED, "4.4.2", reason, rule="RFC 5321 4.5.3.2.6")
                settled.update(dict.fromkeys(accepted, doubtful))
                return self._lost(event, "after the message")
            case _:
                return self._lost(event, "before the message was through")
        return None

    # What it means.

    def _refusal(self, reply: RemoteReply, what: str) -> Outcome:
        """The server's no to the mail itself."""
        if reply.permanent and not (reply.code == 530 and self._route is not None):
            return self._outcome(Result.FAILED, reply.status, f"{self._hop} refused {what}.", reply)
        # RFC 4954 6: 530 at a smarthost is about our login, which the operator can mend.
        reason = f"{self._hop} does not take {what} now."
        return self._outcome(Result.DEFERRED, _softened(reply), reason, reply)

    def _turned_away(self, reply: RemoteReply) -> Trouble:
        if reply.code == 521:
            reason = f"{self._hop} says that it never takes mail."
            return Trouble(self._outcome(Result.FAILED, reply.status, reason, reply, "RFC 7504"))
        reason = f"{self._hop} does not want to talk to us."
        return Trouble(self._outcome(Result.DEFERRED, _softened(reply), reason, reply))

    def _unencrypted(self, why: str, reply: RemoteReply | None) -> Trouble:
        reason = f"{self._hop} cannot be used without TLS: {why}."
        return Trouble(self._outcome(Result.DEFERRED, "4.7.4", reason, reply, self._policy.rule))

    def _lost(self, event: Event, when: str, *, after_tls: bool = False) -> Trouble:
        """The connection ended; ``after_tls`` when that was the first thing that happened under TLS."""
        if not isinstance(event, ConnectionEnded):
            raise TypeError(f"{event} is not what the core promises here")
        status = "4.5.0" if event.fault else _softened(event.reply) if event.reply else "4.4.2"
        reason = f"The connection with {self._hop} ended {when}: {event.reason}."
        failed = event.reason if after_tls and event.reply is None else ""
        return Trouble(self._outcome(Result.DEFERRED, status, reason, event.reply), tls=failed)

    def _outcome(
        self, result: Result, status: str, reason: str, reply: RemoteReply | None = None, rule: str = ""
    ) -> Outcome:
        return Outcome(result, status, reason, reply.text if reply else "", str(self._hop), rule, self._channel)


def _softened(reply: RemoteReply) -> str:
    """The status of a refusal that is not taken as final."""
    return "4" + reply.status[1:]


async def _unicode_header(job: Job) -> bool:
    """Whether there are octets above 127 before the first empty line."""
    chunks = job.content.chunks()
    before = b""
    try:
        async for chunk in chunks:
            text = before + chunk
            header, end, _ = text.partition(b"\r\n\r\n")
            if not header.isascii():
                return True
            if end:
                return False
            before = text[-3:]
    except OSError as error:
        raise ContentLost(f"the content cannot be read: {error}") from error
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()
    return False
