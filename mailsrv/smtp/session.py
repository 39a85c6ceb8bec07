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
from typing import Any

from twisted.internet.defer import Deferred

from mailsrv.checks.clients import is_within
from mailsrv.checks.interfaces import Facts, Stage, Verdict
from mailsrv.mail import srs
from mailsrv.mail.address import POSTMASTER, Address
from mailsrv.mail.envelope import Recipient
from mailsrv.smtp import events, replies, room
from mailsrv.smtp.acceptance import Acceptance, Transaction
from mailsrv.smtp.dialog import Answer
from mailsrv.smtp.house import House
from mailsrv.smtp.login import Logins
from mailsrv.smtp.refusals import Refusals
from mailsrv.smtp.replies import Reply
from mailsrv.store.accounts.accounts import Resolution, Target
from mailsrv.store.message import FinalRecipient, Hold

NO_RELAYING = replies.reply(550, "5.7.1", "We do not relay; log in on the submission port to send elsewhere")
NO_MAILBOX = replies.reply(550, "5.1.1", "No such mailbox here")
NO_MAILBOX_YET = replies.reply(450, "4.2.1", "No mailbox here yet; try again later")
NOT_YOUR_ADDRESS = replies.reply(550, "5.7.1", "This sender address is not yours")
LOGIN_OVER = replies.reply(421, "4.7.0", "Your account has changed; log in again")

_CAPS = "limits.recipients_per_hour, limits.recipients_per_day"

Decision = Answer | Coroutine[Deferred[Any], Any, Answer]


class Session:
    """Decides for one connection.  ``kind`` is the service's: "smtp", "submission" or "lmtp"."""

    def __init__(self, house: House, kind: str, client: str) -> None:
        self._house = house
        self._kind = kind
        self._client = client
        self._extended = False
        self._gone = False
        self._facts = Facts(client)
        self._logins = Logins(house, client)
        self._refusals = Refusals(house.recorder, client)
        self._transaction: Transaction | None = None

    def decide(self, event: events.Question) -> Decision:
        """The answer to an event that asks for one; None is the usual positive reply."""
        return self._DECISIONS[type(event)](self, event)

    # -- the connection

    def _connected(self, event: events.Connected) -> Decision:
        self._facts.trusted = self._kind == "lmtp" or self._trusted()
        # Whoever comes to log in is a stranger only until then.
        return None if self._kind == "submission" else self._check(Stage.CONNECT)

    def _hello(self, event: events.Hello) -> Decision:
        self._facts.helo = event.name
        self._extended = event.extended
        return None if self._kind == "submission" else self._check(Stage.HELLO)

    def encrypted(self, description: str) -> None:
        """TLS is on; all that was said before is forgotten (RFC 3207 4.2)."""
        self._facts.tls = description
        self._facts.helo = ""
        self._facts.account = None
        self._logins.forget()

    async def _login(self, event: events.Login) -> Answer:
        return self._logged_in(await self._logins.with_password(event))

    async def _keys(self, event: events.Keys) -> Answer:
        return await self._logins.keys(event)

    async def _proof(self, event: events.Proof) -> Answer:
        return self._logged_in(await self._logins.with_proof(event))

    def _logged_in(self, answer: Answer) -> Answer:
        account = self._logins.account
        self._facts.account = account.key if account is not None else None
        return answer

    def hurry(self) -> None:
        """Nobody waits for the end of a penalty any more: the client has gone, or the server is shutting down."""
        self._logins.hurry()

    def over(self) -> None:
        """The client has gone."""
        self._gone = True
        self.hurry()
        self.reset()
        self._house.checks.end(self._facts)

    def _trusted(self) -> bool:
        # Whoever may use LMTP is trusted with our own mailboxes, not with sending elsewhere.
        return self._kind != "lmtp" and is_within(self._client, self._house.settings.config.trusted_networks)

    # -- the checks

    def _check(self, stage: Stage) -> Decision:
        """What the checks answer, where nothing follows when they have no objection."""
        verdict = self._house.checks.ask(stage, self._facts)
        if verdict is None:
            return None
        if isinstance(verdict, Coroutine):
            return self._check_when_known(stage, verdict)
        return self._objection(stage, verdict)

    async def _check_when_known(
        self, stage: Stage, waiting: Coroutine[Deferred[Any], Any, Verdict | None]
    ) -> Reply | None:
        verdict = await waiting
        return None if verdict is None or self._gone else self._objection(stage, verdict)

    def _objection(self, stage: Stage, verdict: Verdict) -> Reply:
        facts = self._facts
        return self._refusals.refuse(
            stage.value,
            replies.reply(verdict.code, verdict.status, verdict.text),
            address=facts.recipient if stage is Stage.RCPT else None,
            sender=facts.sender if stage in (Stage.MAIL, Stage.RCPT) else None,
            reason=verdict.reason,
            rule=verdict.rule,
        )

    # -- the transaction

    def _mail(self, event: events.Mail) -> Decision:
        sender = event.envelope.sender
        account = self._logins.account
        if account is not None and not self._logins.hold():
            return self._refuse(
                "MAIL",
                LOGIN_OVER,
                sender=sender,
                reason=f"{account.key} was removed or its password changed since this client logged in",
                rule="accounts",
            )
        if account is not None and sender is not None and not self._house.settings.directory.owns(account, sender):
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
        self._facts.begin(sender)
        answer = self._check(Stage.MAIL)
        if answer is None:
            self._begin(event)
            return None
        return self._mail_when_known(event, answer) if isinstance(answer, Coroutine) else answer

    async def _mail_when_known(self, event: events.Mail, waiting: Coroutine[Deferred[Any], Any, Answer]) -> Answer:
        answer = await waiting
        if answer is None and not self._gone:
            self._begin(event)
        return answer

    def _begin(self, event: events.Mail) -> None:
        self._transaction = Transaction(event.envelope)
        if event.hold_for_s is not None:
            self._transaction.release_at = self._house.outside.wall() + event.hold_for_s
        elif event.hold_until is not None:
            self._transaction.release_at = event.hold_until

    def _has_room(self) -> bool:
        return self._house.spool.room() >= 2 * self._house.settings.config.limits.message_size

    def _rcpt(self, event: events.Rcpt) -> Decision:
        self._facts.recipient = event.recipient.address
        answer = self._check(Stage.RCPT)
        if answer is None:
            return self._recipient(event.recipient)
        return self._rcpt_when_known(event, answer) if isinstance(answer, Coroutine) else answer

    async def _rcpt_when_known(self, event: events.Rcpt, waiting: Coroutine[Deferred[Any], Any, Answer]) -> Answer:
        answer = await waiting
        if answer is not None or self._gone:
            return answer
        decision = self._recipient(event.recipient)
        return await decision if isinstance(decision, Coroutine) else decision

    def _recipient(self, recipient: Recipient) -> Decision:
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
            size = transaction.envelope.size
            has_room = room.at_rcpt(self._house.usage, [target.mailbox for target in targets], size)
            if has_room is not None:
                return self._recipient_when_known(transaction, recipient, address, targets, has_room)
            self._take(transaction, recipient, address, targets)
            return None
        if self._logins.account is not None or self._trusted():
            self._take(transaction, recipient, address, (Target(address, ""),))
            return None
        return self._refuse(
            "RCPT",
            NO_RELAYING,
            address=address,
            rule="listen.lmtp" if self._kind == "lmtp" else "trusted_networks",
            reason=f"{address.domain} is not a domain of ours and the client had not logged in",
        )

    async def _recipient_when_known(
        self,
        transaction: Transaction,
        recipient: Recipient,
        address: Address,
        targets: Resolution,
        has_room: Coroutine[Deferred[Any], Any, bool],
    ) -> Answer:
        if await has_room or self._gone:
            self._take(transaction, recipient, address, targets)
            return None
        return self._refuse(
            "RCPT",
            room.MAILBOX_FULL,
            address=address,
            rule=room.RULE,
            reason=f"there is no room in the mailbox of {', '.join(target.mailbox for target in targets)}",
        )

    def _take(self, transaction: Transaction, recipient: Recipient, address: Address, targets: Resolution) -> None:
        """A recipient is accepted."""
        for target in targets:
            self._add(transaction, target.address, address, target.mailbox, recipient)
        transaction.ends.append(tuple(target.mailbox for target in targets))
        self._facts.recipients.append(address)

    def _over_cap(self, address: Address) -> Reply | None:
        """Count a recipient of an account against its caps; refuse it, or have the whole message held."""
        account, transaction = self._logins.account, self._transaction
        if account is None or transaction is None:
            return None
        if address.local.lower() == POSTMASTER.local and self._house.settings.directory.is_own(address.domain):
            return None  # whoever is over a cap has to be able to say so
        over = self._house.caps.reserve(account.key)
        if over is None or over.held:
            transaction.reserved += 1
            if over is not None:
                transaction.hold = Hold(f"{account.key} has written to {over.cap}", f"{_CAPS}, limits.over_cap")
            return None
        return self._refuse(
            "RCPT",
            replies.reply(452, "4.7.1", f"M{over.cap[1:]}; {over.again}"),
            address=address,
            reason=f"{account.key} has written to {over.cap}; {over.again}",
            rule=_CAPS,
        )

    def _bounce_of_forwarded(self, transaction: Transaction, recipient: Recipient, address: Address) -> Reply | None:
        """Mail to a sender that we rewrote goes on to the true one, if it is a report."""
        house = self._house
        try:
            if transaction.envelope.sender is not None:
                raise srs.NotOurs("only reports are sent there")
            sender = srs.restore(address, house.spool.secret, house.outside.wall())
        except srs.NotOurs as problem:
            return self._refuse("RCPT", NO_MAILBOX, address=address, rule="SRS", reason=str(problem))
        self._take(transaction, recipient, address, (Target(sender, ""),))
        return None

    def _sender_for(self, transaction: Transaction, original: Address, mailbox: str) -> Address | None:
        """Another sender for what is forwarded out of our domains (SRS), None where it keeps its own."""
        house = self._house
        sender = transaction.envelope.sender
        directory = house.settings.directory
        if mailbox or sender is None or not directory.is_own(original.domain) or directory.is_own(sender.domain):
            return None
        return srs.rewrite(sender, original.domain, house.spool.secret, house.outside.wall())

    def _add(
        self, transaction: Transaction, target: Address, original: Address, mailbox: str, recipient: Recipient
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
        account = self._logins.account
        if event.problem is not None:
            transaction.forget(self._house, account)
            return self._refusals.refuse_content(
                self._facts.recipients,
                event.problem,
                event.problem.text,
                "RFC 5321 2.3.8, limits",
                sender=transaction.envelope.sender,
            )
        return Acceptance(
            self._house, self._kind, self._facts, self._extended, account, self._refusals, transaction
        ).accept(transaction.draft, event)

    def reset(self) -> None:
        """The transaction is forgotten."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.forget(self._house, self._logins.account)

    # -- the ledger

    def error(self, reply: Reply) -> float:
        """A reply has been given: how long the client's next command is to wait."""
        if reply.code < 500 or self._kind == "lmtp" or self._logins.account is not None or self._trusted():
            return 0.0
        return self._house.penalties.refused(self._client)

    def refused(self, event: events.Refused) -> None:
        """The core has refused a command by itself."""
        self._refuse(event.command or "?", event.reply, reason=event.reply.text, rule="RFC 5321")

    def turned_away(self, reason: str) -> None:
        """The client did not get a session at all."""
        self._refusals.turned_away(reason)

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
        return self._refusals.refuse(command, answer, reason=reason, rule=rule, address=address, sender=sender)

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
