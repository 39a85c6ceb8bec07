"""What happens at the end of the content: it is judged, made complete, signed, and handed to the spool.

Before 250 everything is durable; whatever keeps it from being stored is 4xx.  Content of our own users has to be from
themselves (RFC 6409 6.1); what they have left out is added.  Signed (DKIM) is what is from one of our domains and came
from who may write in its name: a user of ours, or a client of ``trusted_networks``.  What a stranger sends never is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace

from mailsrv.checks.clients import LOCAL
from mailsrv.checks.interfaces import Facts, Stage
from mailsrv.dkim.signature import take_off
from mailsrv.mail import header, submitted, trace
from mailsrv.mail.address import Address
from mailsrv.mail.author import AuthorError, authors
from mailsrv.mail.envelope import Envelope
from mailsrv.smtp import events, replies
from mailsrv.smtp.house import House
from mailsrv.smtp.refusals import Refusals
from mailsrv.smtp.replies import Reply
from mailsrv.store import queue_id
from mailsrv.store.accounts import Account
from mailsrv.store.database import StorageTrouble
from mailsrv.store.message import Arrival, FinalRecipient
from mailsrv.store.spool import Draft

NOT_YOUR_FROM = replies.reply(550, "5.7.1", "The From field must name one of your own addresses, and nobody else")
HEADER_TOO_LONG = replies.reply(552, "5.3.4", "The header section is too long")


class Transaction:
    """From MAIL to the end of the content."""

    __slots__ = ("draft", "envelope", "found", "release_at", "reserved")

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.found: dict[str, FinalRecipient] = {}  # each final target once
        self.draft: Draft | None = None
        self.reserved = 0  # recipients that the caps have counted
        self.release_at = 0.0  # RFC 4865: the client wants it held until then

    def forget(self, house: House, account: Account | None) -> None:
        """Nothing of it stays; of a message that was accepted nothing is left to be forgotten."""
        if self.draft is not None:
            self.draft.discard()
        if self.reserved and account is not None:
            house.caps.release(account.key, self.reserved)
            self.reserved = 0


class Acceptance:
    """One content: ``accept`` gives the answer to its end."""

    __slots__ = ("_account", "_extended", "_facts", "_house", "_kind", "_refusals", "_transaction")

    def __init__(
        self,
        house: House,
        kind: str,
        facts: Facts,
        extended: bool,
        account: Account | None,
        refusals: Refusals,
        transaction: Transaction,
    ) -> None:
        self._house = house
        self._kind = kind
        self._facts = facts
        self._extended = extended
        self._account = account
        self._refusals = refusals
        self._transaction = transaction

    async def accept(self, draft: Draft, event: events.DataEnd) -> Reply | None:
        try:
            return await self._judge(draft, event)
        finally:
            self._facts.over()
            self._transaction.forget(self._house, self._account)

    async def _judge(self, draft: Draft, event: events.DataEnd) -> Reply | None:
        transaction, facts = self._transaction, self._facts
        head = draft.head()
        seen = header.scan(head)
        length = seen.size if seen.size >= 0 else len(head)
        whole = seen.size >= 0 or not draft.filed
        facts.header, facts.whole, facts.scan, facts.size, facts.number = (
            head[:length],
            whole,
            seen,
            event.size,
            draft.id,
        )
        facts.read = draft.content
        added, signature = b"", b""
        size, lines = event.size, event.lines
        try:
            verdict = self._house.checks.ask(Stage.DATA, facts)
            if isinstance(verdict, Coroutine):
                verdict = await verdict
            if verdict is not None:
                answer = replies.reply(verdict.code, verdict.status, verdict.text)
                return self._refuse(answer, verdict.reason, verdict.rule)
            if self._account is not None:
                refusal = self._not_its_own(self._account, facts.header, whole)
                if refusal is not None:
                    return refusal
                amended = submitted.amend(
                    facts.header,
                    author=transaction.envelope.sender or self._account.address,
                    at=self._house.outside.wall(),
                    message_id=f"{queue_id.text(draft.id)}@{self._house.settings.config.hostname}",
                )
                added = amended.added
                if amended.head is not None:
                    size += len(amended.head) - length
                    lines += amended.head.count(b"\n") - head.count(b"\n", 0, length)
                    draft = transaction.draft = await self._house.spool.with_head(draft, length, amended.head)
                    length = len(amended.head)
                if not seen.message_id:
                    seen = replace(seen, message_id=header.message_id(added))
            if whole:
                signature = await self._signature(draft, added, length)
            arrival = self._arrival(draft, seen.message_id, signature, added, size, lines)
            await self._house.spool.accept(draft, arrival)
        except StorageTrouble as trouble:
            answer = replies.STORAGE_FULL if trouble.full else replies.LOCAL_TROUBLE
            return self._refuse(answer, f"it could not be stored: {trouble}", "local trouble")
        transaction.draft = None
        self._house.penalties.behaved(facts.client)
        if self._account is not None:
            self._house.caps.accepted(self._account.key, transaction.reserved)
            transaction.reserved = 0
        return replies.reply(250, "2.0.0", f"Accepted as {queue_id.text(draft.id)}")

    def _not_its_own(self, account: Account, head: bytes, whole: bool) -> Reply | None:
        """Refuse what says that it is from somebody else (RFC 6409 6.1)."""
        if not whole:
            return self._refuse(HEADER_TOO_LONG, "its header section is too long to be looked at", "RFC 6409 8")
        count = header.count(head, "From")
        problem = f"it has {count} From fields" if count > 1 else ""
        if count == 1:
            directory = self._house.settings.directory
            try:
                strangers = [
                    str(author)
                    for author in authors(header.field(head, "From") or b"")
                    if not directory.owns(account, author)
                ]
            except AuthorError as error:
                problem = f"its From field cannot be read: {error}"
            else:
                if strangers:
                    problem = f"its From field names {', '.join(strangers)}, which {account.key} does not own"
        if problem:
            return self._refuse(NOT_YOUR_FROM, problem, "a sender owns its address")
        return None

    async def _signature(self, draft: Draft, added: bytes, length: int) -> bytes:
        """The signature fields for the message, whose header section is the first ``length`` octets of the draft."""
        if self._account is None and not (self._facts.trusted and self._kind != "lmtp"):
            return b""
        head = added + draft.head()[:length]
        domain = self._author_domain(head)
        return await self._house.signer.fields(domain, head, _from(length, draft.content())) if domain else b""

    def _author_domain(self, head: bytes) -> str:
        """The domain of ours that the message is from, "" when it is from elsewhere or that cannot be said."""
        try:
            found = authors(header.field(head, "From") or b"")
        except AuthorError:
            return ""
        domain = found[0].domain
        return domain if self._house.settings.directory.is_own(domain) and header.count(head, "From") == 1 else ""

    def _refuse(self, answer: Reply, reason: str, rule: str) -> Reply:
        sender = self._transaction.envelope.sender
        return self._refusals.refuse_content(self._facts.recipients, answer, reason, rule, sender=sender)

    def _arrival(self, draft: Draft, message_id: str, signature: bytes, added: bytes, size: int, lines: int) -> Arrival:
        transaction, facts = self._transaction, self._facts
        envelope = transaction.envelope
        protocol = trace.protocol(
            extended=self._extended,
            tls=bool(facts.tls),
            authenticated=self._account is not None,
            utf8=envelope.smtputf8,
            lmtp=self._kind == "lmtp",
        )
        # What the checks say of this message stands above our Received, as their trace (RFC 8601 5).  The signature is
        # on top, where whoever changes the message on its way out can take it off.
        prefix = b"".join((signature, *facts.fields, self._received(queue_id.text(draft.id), protocol), added))
        domain, _ = take_off(signature)
        return Arrival(
            id=draft.id,
            envelope=envelope,
            recipients=tuple(transaction.found.values()),
            prefix=prefix,
            message_id=message_id,
            account=self._account.key if self._account else "",
            client=facts.client,
            helo=facts.helo,
            protocol=protocol,
            size=size,
            lines=lines,
            release_at=transaction.release_at,
            reason=f"the message is stored, signed by {domain}" if domain else "the message is stored",
        )

    def _received(self, number: str, protocol: str) -> bytes:
        facts = self._facts
        only: Address | None = facts.recipients[0] if len(facts.recipients) == 1 else None
        return trace.received(
            hostname=self._house.settings.config.hostname,
            helo=facts.helo,
            client="" if facts.client == LOCAL else facts.client,
            client_name=facts.client_name,
            queue_id=number,
            at=self._house.outside.wall(),
            protocol=protocol,
            tls=facts.tls,
            recipient=only,
            # Where our users are is nobody's business.
            hide_client=self._account is not None,
        )


async def _from(offset: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What follows the first ``offset`` octets."""
    async for chunk in chunks:
        if offset < len(chunk):
            yield chunk[offset:]
        offset = max(offset - len(chunk), 0)
