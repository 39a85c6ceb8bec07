"""What happens at the end of the content: it is judged, made complete, signed, and handed to the spool.

Before 250 everything is durable; whatever keeps it from being stored is 4xx.  Content of our own users has to be from
themselves (RFC 6409 6.1); what they have left out is added, and what is unusual for its account is accepted and held.
Signed (DKIM) is what is from one of our domains and came from who may write in its name: a user of ours, or a client of
``trusted_networks``.  What a stranger sends never is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass

from mailsrv.checks.clients import LOCAL
from mailsrv.checks.interfaces import Facts, Stage
from mailsrv.dkim.signature import take_off
from mailsrv.mail import header, submitted, trace
from mailsrv.mail.address import Address
from mailsrv.mail.author import AuthorError, authors
from mailsrv.mail.envelope import Envelope
from mailsrv.smtp import events, holding, replies, room
from mailsrv.smtp.dialog import Answer
from mailsrv.smtp.house import House
from mailsrv.smtp.refusals import Refusals
from mailsrv.smtp.replies import Reply
from mailsrv.smtp.room import Taken
from mailsrv.store import queue_id
from mailsrv.store.accounts.accounts import Account
from mailsrv.store.database import StorageTrouble
from mailsrv.store.message import Arrival, FinalRecipient, Hold
from mailsrv.store.spool import Draft

NOT_YOUR_FROM = replies.reply(550, "5.7.1", "The From field must name one of your own addresses, and nobody else")
HEADER_TOO_LONG = replies.reply(552, "5.3.4", "The header section is too long")


class Transaction:
    """From MAIL to the end of the content."""

    __slots__ = ("draft", "ends", "envelope", "found", "hold", "release_at", "reserved")

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.found: dict[str, FinalRecipient] = {}  # each final target once
        self.ends: list[tuple[str, ...]] = []  # the mailboxes behind each RCPT, "" for an address elsewhere
        self.draft: Draft | None = None
        self.reserved = 0  # recipients that the caps have counted
        self.release_at = 0.0  # RFC 4865: the client wants it held until then
        self.hold: Hold | None = None  # it is unusual, and waits for the operator

    def forget(self, house: House, account: Account | None) -> None:
        """Nothing of it stays; of a message that was accepted nothing is left to be forgotten."""
        if self.draft is not None:
            self.draft.discard()
        if self.reserved and account is not None:
            house.caps.release(account.key, self.reserved)
            self.reserved = 0


@dataclass(slots=True)
class _Letter:
    """The content as it is to be stored.

    ``head`` is its header section: the draft may have less of it in memory.  ``size`` and ``lines`` are of the whole,
    without ``added``, which goes in front.
    """

    draft: Draft
    head: bytes
    size: int
    lines: int
    message_id: str
    added: bytes = b""


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

    async def accept(self, draft: Draft, event: events.DataEnd) -> Answer:
        try:
            return await self._judge(draft, event)
        finally:
            self._facts.over()
            self._transaction.forget(self._house, self._account)

    async def _judge(self, draft: Draft, event: events.DataEnd) -> Answer:
        transaction, house = self._transaction, self._house
        self._look(draft, event)
        taken = Taken()
        try:
            refusal = await self._objection()
            if refusal is not None:
                return refusal
            letter = await self._completed(draft, event)
            if self._account is not None and transaction.hold is None:
                transaction.hold = await house.bursts.judge(self._account.key, self._facts.client, self._elsewhere())
            signature = await self._signature(letter) if self._facts.whole else b""
            arrival = self._arrival(letter, signature)
            if room.limited(house.usage, arrival.recipients):
                taken = await self._in_their_mailboxes(arrival)
                if taken.whole:
                    return room.MAILBOX_FULL
                arrival = room.without(arrival, transaction.ends, taken.refused)
            also = (
                None if arrival.hold is None else await holding.told(house, arrival, arrival.hold, self._facts.header)
            )
            await house.spool.accept(letter.draft, arrival, also)
        except StorageTrouble as trouble:
            answer = replies.STORAGE_FULL if trouble.full else replies.LOCAL_TROUBLE
            return self._refuse(answer, f"it could not be stored: {trouble}", "local trouble")
        finally:
            taken.release()
        self._accepted()
        accepted = replies.reply(250, "2.0.0", f"Accepted as {queue_id.text(arrival.id)}")
        if not taken.refused:
            return accepted
        return [room.MAILBOX_FULL if n in taken.refused else accepted for n in range(len(transaction.ends))]

    def _look(self, draft: Draft, event: events.DataEnd) -> None:
        """What there is to be known of the content."""
        facts = self._facts
        head = draft.head()
        facts.scan = seen = header.scan(head)
        facts.header = head[: seen.size] if seen.size >= 0 else head
        facts.whole = seen.size >= 0 or not draft.filed
        facts.size, facts.number, facts.read = event.size, draft.id, draft.content

    async def _objection(self) -> Reply | None:
        """What the checks say, and whether a user of ours sends in its own name."""
        verdict = self._house.checks.ask(Stage.DATA, self._facts)
        if verdict is not None and isinstance(verdict, Coroutine):
            verdict = await verdict
        if verdict is not None:
            answer = replies.reply(verdict.code, verdict.status, verdict.text)
            return self._refuse(answer, verdict.reason, verdict.rule)
        return None if self._account is None else self._not_its_own(self._account)

    async def _completed(self, draft: Draft, event: events.DataEnd) -> _Letter:
        """The content with what users left out, and without what does not belong there (StorageTrouble)."""
        facts, transaction = self._facts, self._transaction
        letter = _Letter(draft, facts.header, event.size, event.lines, facts.scan.message_id)
        kept = header.without(facts.header, facts.removed) if facts.removed else facts.header
        if self._account is not None:
            amended = submitted.amend(
                kept,
                author=transaction.envelope.sender or self._account.address,
                at=self._house.outside.wall(),
                message_id=f"{queue_id.text(draft.id)}@{self._house.settings.config.hostname}",
            )
            letter.added = amended.added
            kept = kept if amended.head is None else amended.head
            letter.message_id = letter.message_id or header.message_id(letter.added)
        if kept != facts.header:
            letter.size += len(kept) - len(letter.head)
            letter.lines += kept.count(b"\n") - facts.header.count(b"\n")
            letter.draft = transaction.draft = await self._house.spool.with_head(draft, len(letter.head), kept)
            letter.head = kept
        return letter

    def _accepted(self) -> None:
        """It is on stable storage."""
        transaction, house, client = self._transaction, self._house, self._facts.client
        transaction.draft = None
        house.penalties.behaved(client)
        if self._account is not None:
            house.caps.accepted(self._account.key, transaction.reserved)
            transaction.reserved = 0
            if transaction.hold is None:
                house.bursts.accepted(self._account.key, client)

    async def _in_their_mailboxes(self, arrival: Arrival) -> Taken:
        """Whose mailbox has room for it; the ledger hears of the others."""
        transaction, recipients = self._transaction, self._facts.recipients
        house, each = self._house, self._kind == "lmtp"
        taken = await room.at_end(house.usage, house.spool, arrival, transaction.ends, each)
        for n in taken.refused:
            ends = ", ".join(transaction.ends[n])
            self._refusals.refuse(
                "DATA",
                room.MAILBOX_FULL,
                address=recipients[n],
                sender=transaction.envelope.sender,
                reason=f"there is no room in the mailbox of {ends}",
                rule=room.RULE,
            )
        return taken

    def _elsewhere(self) -> list[Address]:
        return [recipient.address for recipient in self._transaction.found.values() if not recipient.mailbox]

    def _not_its_own(self, account: Account) -> Reply | None:
        """Refuse what says that it is from somebody else (RFC 6409 6.1)."""
        head = self._facts.header
        if not self._facts.whole:
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

    async def _signature(self, letter: _Letter) -> bytes:
        """The signature fields for the message, b"" where it is not ours to sign."""
        if self._account is None and not (self._facts.trusted and self._kind != "lmtp"):
            return b""
        head = letter.added + letter.head
        domain = self._author_domain(head)
        body = _from(len(letter.head), letter.draft.content())
        return await self._house.signer.fields(domain, head, body) if domain else b""

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

    def _arrival(self, letter: _Letter, signature: bytes) -> Arrival:
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
        received = self._received(queue_id.text(letter.draft.id), protocol)
        prefix = b"".join((signature, *facts.fields, received, letter.added))
        domain, _ = take_off(signature)
        return Arrival(
            id=letter.draft.id,
            envelope=envelope,
            recipients=tuple(transaction.found.values()),
            prefix=prefix,
            message_id=letter.message_id,
            account=self._account.key if self._account else "",
            client=facts.client,
            helo=facts.helo,
            protocol=protocol,
            size=letter.size,
            lines=letter.lines,
            release_at=transaction.release_at,
            reason=f"the message is stored, signed by {domain}" if domain else "the message is stored",
            hold=transaction.hold,
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
