"""The session: who may send what to whom, one decision for each event of the server's core.

Most decisions are plain functions, because nothing has to be awaited; those that ask the disk, the DNS or a slow hash
are coroutines.  A refusal is a ``Reply`` for the peer and an ``Event`` for the ledger; the two do not say the same.
Local trouble is 4xx; only facts about the mail or the policy are 5xx.

No relaying: a recipient elsewhere is accepted only from who has logged in, or from a trusted network.  Recipients of
own domains must exist.  Who has logged in sends as itself: the reverse-path is its account, one of its aliases or a
subaddress of either.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from mailsrv.checks.blocklists import Blocklists, Listing
from mailsrv.checks.caps import Caps
from mailsrv.checks.clients import LOCAL, is_within
from mailsrv.checks.login import Denied, Granted, Login
from mailsrv.checks.penalties import Penalties
from mailsrv.mail import header, srs, submitted, trace
from mailsrv.mail.address import Address
from mailsrv.mail.author import AuthorError, authors
from mailsrv.mail.envelope import Envelope, Recipient
from mailsrv.outside.interfaces import Outside
from mailsrv.smtp import events, replies
from mailsrv.smtp.dialog import Answer
from mailsrv.smtp.replies import Reply
from mailsrv.store import ledger, queue_id
from mailsrv.store.accounts import Account
from mailsrv.store.database import StorageTrouble
from mailsrv.store.ledger import Event
from mailsrv.store.message import Arrival, FinalRecipient
from mailsrv.store.passwords import Passwords
from mailsrv.store.recorder import Recorder
from mailsrv.store.settings import Settings
from mailsrv.store.spool import Draft, Spool

HOPS = 50  # RFC 5321 6.3: more Received fields than any real way has

NO_RELAYING = replies.reply(550, "5.7.1", "We do not relay; log in on the submission port to send elsewhere")
NO_MAILBOX = replies.reply(550, "5.1.1", "No such mailbox here")
NO_MAILBOX_YET = replies.reply(450, "4.2.1", "No mailbox here yet; try again later")
NOT_YOUR_ADDRESS = replies.reply(550, "5.7.1", "This sender address is not yours")
NOT_YOUR_FROM = replies.reply(550, "5.7.1", "The From field must name one of your own addresses, and nobody else")
HEADER_TOO_LONG = replies.reply(552, "5.3.4", "The header section is too long")
TOO_MANY_HOPS = replies.reply(554, "5.4.6", "The message goes round in circles: too many Received fields")
LISTED = replies.reply(554, "5.7.1", "Your address is on a blocklist that we use")
BUSY = replies.reply(454, "4.7.0", "Too many logins at once; try again")
LOGIN_OVER = replies.reply(421, "4.7.0", "Your account has changed; log in again")


@dataclass(frozen=True, slots=True)
class House:
    """What all sessions share."""

    settings: Settings
    outside: Outside
    spool: Spool
    passwords: Passwords
    penalties: Penalties
    recorder: Recorder
    blocklists: Blocklists
    caps: Caps


Decision = Answer | Coroutine[Deferred[Any], Any, Answer]


class _Transaction:
    """From MAIL to the end of the content."""

    __slots__ = ("draft", "envelope", "found", "recipients", "release_at", "reserved")

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.recipients: list[Address] = []  # as the client named them
        self.found: dict[str, FinalRecipient] = {}  # each final target once
        self.draft: Draft | None = None
        self.reserved = 0  # recipients that the caps have counted
        self.release_at = 0.0  # RFC 4865: the client wants it held until then


class Session:
    """Decides for one connection.  ``kind`` is the service's: "smtp", "submission" or "lmtp"."""

    def __init__(self, house: House, kind: str, client: str) -> None:
        self._house = house
        self._kind = kind
        self._client = client
        self._secure = ""  # what the Received field says about TLS
        self._helo = ""
        self._extended = False
        self._account: Account | None = None
        self._granted: Granted | None = None
        self._logins = Login(
            house.settings, house.passwords, house.penalties, house.recorder.record, self._wait, "smtp", client
        )
        self._transaction: _Transaction | None = None
        self._listing: Deferred[Listing | None] | None = None
        self._penalty: Deferred[None] | None = None

    def decide(self, event: events.Question) -> Decision:
        """The answer to an event that asks for one; None is the usual positive reply."""
        return self._DECISIONS[type(event)](self, event)

    # -- the connection

    def _connected(self, event: events.Connected) -> Reply | None:
        house = self._house
        checks = house.settings.config.checks
        if self._kind == "smtp" and checks.dns and checks.blocklists and not self._trusted():
            # Asked now, awaited at the first recipient: nobody waits for the DNS before the greeting.
            self._listing = Deferred.fromCoroutine(house.blocklists.listing(self._client))
        return None

    def _hello(self, event: events.Hello) -> Reply | None:
        self._helo = event.name
        self._extended = event.extended
        return None

    def encrypted(self, description: str) -> None:
        """TLS is on; all that was said before is forgotten (RFC 3207 4.2)."""
        self._secure = description
        self._helo = ""
        self._account = self._granted = None

    async def _login(self, event: events.Login) -> Answer:
        return await self._outcome(await self._logins.with_password(event.mechanism, event.username, event.password))

    async def _keys(self, event: events.Keys) -> Answer:
        first = await self._logins.server_first(event.username)
        return BUSY if isinstance(first, Denied) else first

    async def _proof(self, event: events.Proof) -> Answer:
        return await self._outcome(self._logins.with_proof(event.mechanism, event.username, event.fault))

    async def _outcome(self, outcome: Granted | Denied) -> Reply | None:
        if isinstance(outcome, Denied):
            return BUSY if outcome is Denied.BUSY else replies.LOGIN_FAILED
        await self._house.caps.prepare(outcome.account.key)
        self._granted = outcome
        self._account = outcome.account
        return None

    async def _wait(self, seconds: float) -> bool:
        """False when the waiting was cut short."""
        self._penalty = deferLater(self._house.outside.reactor, seconds)
        try:
            await self._penalty
        except CancelledError:
            return False
        finally:
            self._penalty = None
        return True

    def hurry(self) -> None:
        """Nobody waits for the end of a penalty any more: the client has gone, or the server is shutting down."""
        if self._penalty is not None:
            self._penalty.cancel()

    def _trusted(self) -> bool:
        # Whoever may use LMTP is trusted with our own mailboxes, not with sending elsewhere.
        return self._kind != "lmtp" and is_within(self._client, self._house.settings.config.trusted_networks)

    # -- the transaction

    def _mail(self, event: events.Mail) -> Reply | None:
        sender = event.envelope.sender
        account = self._account
        if account is not None and self._granted is not None and not self._logins.holds(self._granted):
            return self._refuse(
                "MAIL",
                LOGIN_OVER,
                sender=sender,
                reason=f"{account.key} was removed or its password changed since this client logged in",
                rule="accounts",
            )
        if account is not None and sender is not None and not self._owns(account, sender):
            return self._refuse(
                "MAIL",
                NOT_YOUR_ADDRESS,
                sender=sender,
                reason=f"{sender} is not an address of {account.key}",
                rule="a sender owns its address",
            )
        if not self._has_room():
            return self._refuse(
                "MAIL",
                replies.STORAGE_FULL,
                sender=sender,
                rule="limits.message_size",
                reason="less room on the disk than twice the size of a message",
            )
        self._transaction = _Transaction(event.envelope)
        if event.hold_for_s is not None:
            self._transaction.release_at = self._house.outside.wall() + event.hold_for_s
        elif event.hold_until is not None:
            self._transaction.release_at = event.hold_until
        return None

    def _owns(self, account: Account, sender: Address) -> bool:
        return any(target.mailbox == account.key for target in self._house.settings.directory.resolve(sender))

    def _has_room(self) -> bool:
        return self._house.spool.room() >= 2 * self._house.settings.config.limits.message_size

    def _rcpt(self, event: events.Rcpt) -> Decision:
        if self._listing is not None:
            return self._rcpt_when_looked_up(event, self._listing)
        return self._recipient(event.recipient)

    async def _rcpt_when_looked_up(self, event: events.Rcpt, lookup: Deferred[Listing | None]) -> Reply | None:
        listing = await lookup
        self._listing = None
        if self._transaction is None:
            return None  # the client has gone meanwhile
        if listing is None:
            return self._recipient(event.recipient)
        self._listing = _fired(listing)
        return self._refuse(
            "RCPT",
            LISTED,
            address=event.recipient.address,
            rule=f"checks.blocklists: {listing.blocklist}",
            reason=f"the client is listed by {listing.blocklist} with code {listing.code}",
        )

    def _recipient(self, recipient: Recipient) -> Reply | None:
        transaction = self._transaction
        assert transaction is not None
        directory = self._house.settings.directory
        address = recipient.address
        if not address.domain:
            address = Address(address.local, directory.domains[0])  # RFC 5321 4.1.1.3: <postmaster>
        over = self._over_cap(address)
        if over is not None:
            return over
        if directory.is_own(address.domain):
            if srs.is_rewritten(address):
                return self._bounce_of_forwarded(transaction, recipient, address)
            targets = directory.resolve(address)
            if not targets:
                answer = NO_MAILBOX if directory.accounts else NO_MAILBOX_YET
                return self._refuse("RCPT", answer, address=address, rule="accounts", reason="there is no such mailbox")
            for target in targets:
                self._add(transaction, target.address, address, target.mailbox, recipient)
        elif self._account is not None or self._trusted():
            self._add(transaction, address, address, "", recipient)
        else:
            return self._refuse(
                "RCPT",
                NO_RELAYING,
                address=address,
                rule="listen.lmtp" if self._kind == "lmtp" else "trusted_networks",
                reason=f"{address.domain} is not a domain of ours and the client had not logged in",
            )
        transaction.recipients.append(address)
        return None

    def _over_cap(self, address: Address) -> Reply | None:
        """Count a recipient of an account against its caps, or refuse it."""
        account, transaction = self._account, self._transaction
        if account is None or transaction is None:
            return None
        why_not = self._house.caps.reserve(account.key)
        if why_not is None:
            transaction.reserved += 1
            return None
        return self._refuse(
            "RCPT",
            replies.reply(452, "4.7.1", why_not),
            address=address,
            reason=f"{account.key}: {why_not}",
            rule="limits.recipients_per_hour, limits.recipients_per_day",
        )

    def _bounce_of_forwarded(self, transaction: _Transaction, recipient: Recipient, address: Address) -> Reply | None:
        """Mail to a sender that we rewrote goes on to the true one, if it is a report."""
        house = self._house
        try:
            if transaction.envelope.sender is not None:
                raise srs.NotOurs("only reports are sent there")
            sender = srs.restore(address, house.spool.secret, house.outside.wall())
        except srs.NotOurs as problem:
            return self._refuse("RCPT", NO_MAILBOX, address=address, rule="SRS", reason=str(problem))
        self._add(transaction, sender, address, "", recipient)
        transaction.recipients.append(address)
        return None

    def _sender_for(self, transaction: _Transaction, original: Address, mailbox: str) -> Address | None:
        """Another sender for what is forwarded out of our domains (SRS), None where it keeps its own."""
        house = self._house
        sender = transaction.envelope.sender
        directory = house.settings.directory
        if mailbox or sender is None or not directory.is_own(original.domain) or directory.is_own(sender.domain):
            return None
        return srs.rewrite(sender, original.domain, house.spool.secret, house.outside.wall())

    def _add(
        self, transaction: _Transaction, target: Address, original: Address, mailbox: str, recipient: Recipient
    ) -> None:
        key = mailbox or f"{target.local}@{target.domain}"
        if key not in transaction.found:
            sender = self._sender_for(transaction, original, mailbox)
            final = FinalRecipient(target, original, mailbox, recipient.notify, recipient.original, sender)
            transaction.found[key] = final

    def _data_begin(self, event: events.DataBegin) -> Reply | None:
        transaction = self._transaction
        assert transaction is not None
        transaction.draft = self._house.spool.draft()
        return None

    def content(self, chunk: bytes) -> Deferred[None] | None:
        """A piece of the message; an answered Deferred asks the shell to wait before it brings more."""
        assert self._transaction is not None and self._transaction.draft is not None
        return self._transaction.draft.append(chunk)

    def _data_end(self, event: events.DataEnd) -> Decision:
        transaction, self._transaction = self._transaction, None
        assert transaction is not None and transaction.draft is not None
        if event.problem is not None:
            self._forget(transaction)
            return self._refuse_content(transaction, event.problem, event.problem.text, "RFC 5321 2.3.8, limits")
        return self._accept(transaction, transaction.draft, event)

    async def _accept(self, transaction: _Transaction, draft: Draft, event: events.DataEnd) -> Reply | None:
        try:
            return await self._judge(transaction, draft, event)
        finally:
            # Of a message that was accepted nothing is left to be forgotten.
            self._forget(transaction)

    async def _judge(self, transaction: _Transaction, draft: Draft, event: events.DataEnd) -> Reply | None:
        head = draft.head()
        seen = header.scan(head)
        if seen.received > HOPS:
            return self._refuse_content(
                transaction, TOO_MANY_HOPS, f"it has been through {seen.received} servers", "RFC 5321 6.3"
            )
        added = b""
        size, lines = event.size, event.lines
        if self._account is not None:
            length = seen.size if seen.size >= 0 else len(head)
            refusal = self._not_its_own(
                transaction, self._account, head[:length], whole=seen.size >= 0 or not draft.filed
            )
            if refusal is not None:
                return refusal
            amended = submitted.amend(
                head[:length],
                author=transaction.envelope.sender or self._account.address,
                at=self._house.outside.wall(),
                message_id=f"{queue_id.text(draft.id)}@{self._house.settings.config.hostname}",
            )
            added = amended.added
            if amended.head is not None:
                size += len(amended.head) - length
                lines += amended.head.count(b"\n") - head.count(b"\n", 0, length)
                draft = transaction.draft = await self._house.spool.with_head(draft, length, amended.head)
            if not seen.message_id:
                seen = replace(seen, message_id=header.message_id(added))
        arrival = self._arrival(transaction, draft, seen.message_id, added, size, lines)
        try:
            await self._house.spool.accept(draft, arrival)
        except StorageTrouble as trouble:
            answer = replies.STORAGE_FULL if trouble.full else replies.LOCAL_TROUBLE
            return self._refuse_content(transaction, answer, f"it could not be stored: {trouble}", "local trouble")
        transaction.draft = None
        self._house.penalties.behaved(self._client)
        if self._account is not None:
            self._house.caps.accepted(self._account.key, transaction.reserved)
            transaction.reserved = 0
        return replies.reply(250, "2.0.0", f"Accepted as {queue_id.text(draft.id)}")

    def _not_its_own(self, transaction: _Transaction, account: Account, head: bytes, whole: bool) -> Reply | None:
        """Refuse what says that it is from somebody else (RFC 6409 6.1)."""
        if not whole:
            return self._refuse_content(
                transaction, HEADER_TOO_LONG, "its header section is too long to be looked at", "RFC 6409 8"
            )
        count = header.count(head, "From")
        problem = f"it has {count} From fields" if count > 1 else ""
        if count == 1:
            try:
                strangers = [str(a) for a in authors(header.field(head, "From") or b"") if not self._owns(account, a)]
            except AuthorError as error:
                problem = f"its From field cannot be read: {error}"
            else:
                if strangers:
                    problem = f"its From field names {', '.join(strangers)}, which {account.key} does not own"
        if problem:
            return self._refuse_content(transaction, NOT_YOUR_FROM, problem, "a sender owns its address")
        return None

    def _arrival(
        self, transaction: _Transaction, draft: Draft, message_id: str, added: bytes, size: int, lines: int
    ) -> Arrival:
        envelope = transaction.envelope
        protocol = trace.protocol(
            extended=self._extended,
            tls=bool(self._secure),
            authenticated=self._account is not None,
            utf8=envelope.smtputf8,
            lmtp=self._kind == "lmtp",
        )
        return Arrival(
            id=draft.id,
            envelope=envelope,
            recipients=tuple(transaction.found.values()),
            prefix=self._received(transaction, queue_id.text(draft.id), protocol) + added,
            message_id=message_id,
            account=self._account.key if self._account else "",
            client=self._client,
            helo=self._helo,
            protocol=protocol,
            size=size,
            lines=lines,
            release_at=transaction.release_at,
        )

    def _received(self, transaction: _Transaction, number: str, protocol: str) -> bytes:
        return trace.received(
            hostname=self._house.settings.config.hostname,
            helo=self._helo,
            client="" if self._client == LOCAL else self._client,
            queue_id=number,
            at=self._house.outside.wall(),
            protocol=protocol,
            tls=self._secure,
            recipient=transaction.recipients[0] if len(transaction.recipients) == 1 else None,
            # Where our users are is nobody's business.
            hide_client=self._account is not None,
        )

    def reset(self) -> None:
        """The transaction is forgotten."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            self._forget(transaction)

    def _forget(self, transaction: _Transaction) -> None:
        if transaction.draft is not None:
            transaction.draft.discard()
        if transaction.reserved and self._account is not None:
            self._house.caps.release(self._account.key, transaction.reserved)
            transaction.reserved = 0

    # -- the ledger

    def error(self, reply: Reply) -> float:
        """A reply has been given: how long the client's next command is to wait."""
        if reply.code < 500 or self._kind == "lmtp" or self._account is not None or self._trusted():
            return 0.0
        return self._house.penalties.refused(self._client)

    def refused(self, event: events.Refused) -> None:
        """The core has refused a command by itself."""
        self._refuse(event.command or "?", event.reply, reason=event.reply.text, rule="RFC 5321")

    def turned_away(self, reason: str) -> None:
        """The client did not get a session at all."""
        self._record(ledger.CONNECTION, replies.TOO_MANY_ERRORS, reason, "limits.connections", "", None, None)

    def _refuse_content(self, transaction: _Transaction, answer: Reply, reason: str, rule: str) -> Reply:
        for recipient in transaction.recipients:
            self._refuse(
                "DATA", answer, address=recipient, sender=transaction.envelope.sender, reason=reason, rule=rule
            )
        return answer

    def _refuse(
        self,
        command: str,
        answer: Reply,
        *,
        reason: str,
        rule: str,
        address: Address | None = None,
        sender: Address | None = None,
    ) -> Reply:
        if sender is None and self._transaction is not None:
            sender = self._transaction.envelope.sender
        self._record(ledger.REFUSED, answer, reason, rule, command, address, sender)
        return answer

    def _record(
        self,
        kind: str,
        answer: Reply,
        reason: str,
        rule: str,
        detail: str,
        address: Address | None,
        sender: Address | None,
    ) -> None:
        self._house.recorder.record(
            Event(
                kind,
                address=str(address) if address else "",
                sender=str(sender) if sender else "",
                client=self._client,
                status=answer.status,
                reason=reason,
                rule=rule,
                detail=detail,
            )
        )

    _DECISIONS: dict[type, Callable[[Any, Any], Decision]] = {
        events.Connected: _connected,
        events.Hello: _hello,
        events.Login: _login,
        events.Keys: _keys,
        events.Proof: _proof,
        events.Mail: _mail,
        events.Rcpt: _rcpt,
        events.DataBegin: _data_begin,
        events.DataEnd: _data_end,
    }


def _fired(listing: Listing) -> Deferred[Listing | None]:
    done: Deferred[Listing | None] = Deferred()
    done.callback(listing)
    return done
