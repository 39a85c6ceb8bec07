"""Mail over an open connection, and what each answer means for it.

What is definite about a recipient is settled at once: nothing that goes wrong later can undo it.  For the others
there is a ``Trouble``, whose outcome stands if no other server does better.  What is definite and what is not:

- Nothing said about the mail (421, a loss before the content was through, MAIL refused with 4xx): another server may be
  asked, else DEFERRED.
- An answer to RCPT, DATA or the content, and MAIL refused with 5xx, is definite: 4xx DEFERRED, 5xx FAILED.  But if it
  concerns our address, and the other family of addresses has not been asked yet, it is put aside for that.
- The content sent and no answer heard: DEFERRED, no other server in this attempt, since the mail may have arrived.
- Our own copy unreadable: DEFERRED, local trouble.

A connection kept from an earlier message that turns out to be at its end is none of all that, see ``Trouble.stale``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.attempt import Attempt, Trouble
from mailsrv.relay.connection import ContentLost
from mailsrv.relay.conversion import Converter, Crowded
from mailsrv.relay.family import refuses_our_address
from mailsrv.relay.job import Job
from mailsrv.relay.obstacles import too_international, too_large, whole_content
from mailsrv.relay.session import Session
from mailsrv.smtp.client_events import (
    ConnectionEnded,
    ContentWanted,
    RecipientAnswered,
    RemoteReply,
    Transaction,
    TransactionEnded,
)

ONE_FLIGHT: Final = 64 * 1024  # octets of content that may go before the recipients have been answered
_RECIPIENTS: Final = 100  # RFC 5321 4.5.3.1.8: what any server takes in one transaction
_TOO_MANY: Final = 452  # RFC 5321 4.5.3.1.10
_NOT_UNDERSTOOD: Final = (500, 501, 502, 503)  # with 5.5.x an answer to BDAT that is about the command


class Conversation:
    """Sends what ``attempt`` still has over ``session``."""

    def __init__(self, session: Session, attempt: Attempt, converter: Converter) -> None:
        self._session = session
        self._client = session.client
        self._core = session.core
        self._timeouts = session.timeouts
        self._attempt = attempt
        self._converter = converter

    async def deliver(self) -> Trouble | None:
        """Settle as many recipients as possible.

        Returns the trouble with the others, None when there are none.  The connection stays open where it is in order.
        """
        try:
            return await self._transactions()
        except ContentLost as error:
            outcome = Outcome(Result.DEFERRED, "4.3.0", f"Local trouble: {error}.", rule="our own spool")
            return Trouble(outcome, stop=True)
        except Crowded as error:
            outcome = Outcome(Result.DEFERRED, "4.3.0", f"Local trouble: {error}.", rule="conversion to 7 bits")
            return Trouble(outcome, stop=True)

    async def _transactions(self) -> Trouble | None:
        attempt, session = self._attempt, self._session
        attempt.settled.update(await too_international(attempt.job, attempt.waiting(), session))
        job = await self._fitted()
        if job is None:
            return None
        most = min(_RECIPIENTS, self._core.extensions.limit("RCPTMAX") or _RECIPIENTS)
        begun = False
        # Those who were too many for one transaction come first in the next.
        while waiting := attempt.waiting():
            if begun and session.exhausted:
                reason = f"{session.hop} takes no more messages over this connection."
                return Trouble(session.outcome(Result.DEFERRED, "4.5.3", reason, rule="LIMITS (RFC 9422)"), stale=True)
            content = await self._at_once(job)
            # Reading it may take a while, and the connection may end meanwhile.
            when = "between two messages" if session.reused else "before a word about this message"
            if (trouble := await session.gone(when)) is not None:
                return replace(trouble, stale=session.reused)
            begun = True
            session.transactions += 1
            session.domains.add(job.destination)
            trouble = await self._transaction(job, waiting[:most], content)
            if trouble is not None:
                return trouble
            session.reused = True
        return None

    async def _fitted(self) -> Job | None:
        """The message as this server takes it; None when there is nobody left to bring it to."""
        attempt, session = self._attempt, self._session
        waiting = attempt.waiting()
        if not waiting:
            return None
        job = await self._converter.fitted(attempt.job, self._core.extensions)
        failed: Outcome | None
        if isinstance(job, str):
            failed = session.outcome(Result.FAILED, "5.6.3", job, rule="8BITMIME (RFC 6152)")
        else:
            failed = too_large(job, session)
        if failed is not None:
            attempt.settled.update(dict.fromkeys(waiting, failed))
        return job if isinstance(job, Job) and failed is None else None

    async def _at_once(self, job: Job) -> bytes | None:
        """The content, when it may go in one flight with the envelope."""
        return await whole_content(job) if self._by_bdat() and job.size <= ONE_FLIGHT else None

    def _by_bdat(self) -> bool:
        offered = self._core.extensions
        return self._session.chunking and "CHUNKING" in offered and "PIPELINING" in offered

    async def _transaction(self, job: Job, batch: Sequence[int], content: bytes | None) -> Trouble | None:
        """One message to ``batch``.  Without trouble at least one of them is settled or put aside."""
        accepted: list[int] = []
        too_many: set[int] = set()
        answered = 0
        timeouts = self._timeouts
        by_bdat = self._by_bdat()
        self._begin(job, batch, content)
        timeout_s = timeouts.envelope
        while isinstance(event := await self._client.next_event(timeout_s), RecipientAnswered):
            answered += 1
            if event.reply.positive:
                if not accepted:
                    job.on_alive()
                accepted.append(batch[event.n])
            elif event.reply.code == _TOO_MANY and accepted:
                too_many.add(batch[event.n])
            else:
                self._refused([batch[event.n]], event.reply, "the recipient")
            if answered == len(batch):
                timeout_s = timeouts.data if content is None else timeouts.final
                self._client.bound(None)
        if isinstance(event, ContentWanted):
            self._client.bound(timeouts.slow_start + job.size / timeouts.least_rate)
            lost = await self._client.send_content(job.content.chunks(), job.size, timeouts.block)
            self._client.bound(None)
            event = lost or await self._client.next_event(timeouts.final)
        match event:
            case TransactionEnded(".", RemoteReply(positive=True) as reply):
                self._attempt.settled.update(dict.fromkeys(accepted, self._session.delivered(reply)))
            case TransactionEnded("MAIL", RemoteReply() as reply):
                return self._sender_refused(reply, batch)
            case TransactionEnded(reply=RemoteReply() as reply):
                if by_bdat and reply.code in _NOT_UNDERSTOOD and reply.status.startswith("5.5."):
                    return Trouble(self._session.refusal(reply, "the message"), unchunked=True)
                self._refused(accepted, reply, "the message")
            case TransactionEnded():
                pass  # every recipient was refused
            case ConnectionEnded(untouched=True) if self._session.reused:
                return replace(self._session.lost(event, "before a word about this message"), stale=True)
            case ConnectionEnded(unanswered=True):
                doubtful = [n for n in batch if n in self._attempt.waiting() and n not in too_many]
                return self._doubtful(event, doubtful, by_bdat)
            case _:
                return self._session.lost(event, "before the message was through")
        return None

    def _begin(self, job: Job, batch: Sequence[int], content: bytes | None) -> None:
        """Say what may be said at once."""
        recipients = tuple(job.recipients[n] for n in batch)
        transaction = Transaction(job.envelope, recipients, job.size, job.eight_bit)
        self._client.bound(self._timeouts.transaction)
        if content is not None:
            self._core.send_whole(transaction, content)
        else:
            self._core.send(transaction, chunked=self._by_bdat())

    # What it means.

    def _refused(self, positions: Sequence[int], reply: RemoteReply, what: str) -> None:
        outcome = self._session.refusal(reply, what)
        if self._attempt.other_family and refuses_our_address(reply.text):
            self._attempt.refused.update(dict.fromkeys(positions, outcome))
        else:
            self._attempt.settled.update(dict.fromkeys(positions, outcome))

    def _sender_refused(self, reply: RemoteReply, batch: Sequence[int]) -> Trouble | None:
        outcome = self._session.refusal(reply, "the sender")
        if self._session.reused and (not reply.permanent or reply.code == 503):
            # Perhaps it has had enough of this connection, and not of this sender.
            return Trouble(outcome, stale=True)
        if not reply.permanent:
            return Trouble(outcome, about_us=refuses_our_address(reply.text))
        self._refused(batch, reply, "the sender")
        return None

    def _doubtful(self, event: ConnectionEnded, positions: Sequence[int], by_bdat: bool) -> Trouble:
        trouble = self._session.lost(event, "after the message")
        reason = (
            f"The message went to {self._session.hop} whole, but no answer came ({event.reason}). It may have "
            "arrived, so the next attempt may deliver it a second time."
        )
        doubtful = self._session.outcome(Result.DEFERRED, "4.4.2", reason, rule="RFC 5321 4.5.3.2.6")
        self._attempt.settled.update(dict.fromkeys(positions, doubtful))
        # Should BDAT be what it cannot take, the second attempt is not to end like the first.
        return replace(trouble, unchunked=by_bdat)
