"""What an attempt means for each recipient and for the sender: try again, warn, give up and report.

RFC 5321 6.1 and RFC 3461 say who is told: the sender, by one message from the null reverse-path, unless it asked not
to be (NOTIFY), and never about a message that had the null reverse-path itself.  What nobody may be told ends as
"dropped", with the rule that forbids it in the ledger.  A sender of ours that does not exist is replaced by the
postmaster, who also gets a report of ours that was to tell of a failure and could not be delivered: a double bounce.
What is said of that one is the end of it.

A known refusal (``remedies``) comes with its meaning and its remedy, and may keep the next attempt waiting.

A report is from a domain of ours and signed by it (DKIM), so that it passes DMARC where it goes: from the domain of the
sender when that is ours, else from the one that the message was sent to, else from the first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mailsrv.dkim.signer import Signer
from mailsrv.mail import header
from mailsrv.mail.address import POSTMASTER, Address
from mailsrv.mail.envelope import Envelope
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.mail.report import Kind, ReportedRecipient, build
from mailsrv.outside.interfaces import Outside
from mailsrv.relay import schedule
from mailsrv.relay.remedies import Action, remedy_for
from mailsrv.relay.telling import DOUBLE_EVERY_S, DOUBLES, Pace, Postmaster
from mailsrv.store import due, ledger, message, notices, queue_id, schema
from mailsrv.store.accounts.accounts import Target
from mailsrv.store.database import Database
from mailsrv.store.ledger import Event
from mailsrv.store.message import (
    Acceptance,
    Arrival,
    FinalRecipient,
    QueuedMessage,
    QueuedRecipient,
    Settled,
    Settlement,
)
from mailsrv.store.notices import Notice, Notices
from mailsrv.store.settings import Settings
from mailsrv.store.spool import Spool

RETURNED = 64 * 1024  # octets of the original that a report gives back at most
WAIT_S = 3600.0  # the least until the next attempt where a server is better left alone
FAILURE, DELAY, SUCCESS, DOUBLE = "report", "report of delay", "report of success", "double bounce"  # message.protocol

_PROTOCOLS: dict[Kind, str] = {"failed": FAILURE, "delayed": DELAY, "lost": DOUBLE}

About = Sequence[tuple[QueuedRecipient, Outcome]]
Content = tuple[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one attempt changes; reports and notices are accepted in the transaction that settles what they tell of.

    ``given_up`` are recipients whose time is up, with the time from which it counted (seconds since 1970).
    """

    settlements: tuple[Settlement, ...]
    reports: tuple[Acceptance, ...]
    notices: tuple[Notice, ...] = ()
    given_up: Mapping[int, float] = field(default_factory=dict)


class Reprieved(Exception):
    """The time of some who were given up is not up: the operator held or released them during the attempt.

    ``since``: from when it counts; never, as long as they are held.  The attempt is to be judged again.
    """

    def __init__(self, since: Mapping[int, float]) -> None:
        super().__init__("the operator has held or released recipients whose time was up")
        self.since = since


def settle(connection: sqlite3.Connection, settled: Settled, verdict: Verdict) -> tuple[bool, Sequence[Acceptance]]:
    """In the caller's transaction: whether the content of the message has gone, and what was accepted (Reprieved)."""
    if verdict.given_up:
        since = message.waiting_since(connection, settled.message)
        later = {n: since[n] for n, counted in verdict.given_up.items() if since.get(n, counted) > counted + 1.0}
        if later:
            raise Reprieved(later)
    told = notices.accept(connection, settled.now, verdict.notices)
    reports = verdict.reports
    if reports and not message.is_open(connection, settled.message, [each.n for each in settled.settlements]):
        # The operator took it out during the attempt: nobody is told, but in the ledger.
        reports, settled = (), settled._replace(settlements=_untold(settled.settlements))
    return message.settle_with_reports(connection, settled, reports), (*reports, *told)


def _untold(settlements: Sequence[Settlement]) -> tuple[Settlement, ...]:
    """The same without a word of reports."""
    untold = []
    for each in settlements:
        if each.event.kind == ledger.BOUNCED:
            event = replace(each.event, kind=ledger.DROPPED, detail="", rule="mailsrv queue remove")
            untold.append(replace(each, state=schema.DROPPED, event=event))
        elif each.event.kind != ledger.WARNED:
            untold.append(each)
    return tuple(untold)


class Reports:
    """Turns outcomes into settlements and reports."""

    def __init__(self, settings: Settings, outside: Outside, spool: Spool, database: Database, signer: Signer) -> None:
        self._settings = settings
        self._outside = outside
        self._spool = spool
        self._database = database
        self._signer = signer
        written = Notices(settings, outside, spool, database, signer.fields_of)
        self._postmaster = Postmaster(written, lambda: settings.config.hostname)
        self._doubles = Pace(outside.reactor.seconds, DOUBLES, DOUBLE_EVERY_S)

    async def judge(
        self, queued: QueuedMessage, outcomes: Sequence[Outcome], content: Callable[[], Awaitable[Content]]
    ) -> Verdict:
        """``outcomes`` are in the order of ``queued.recipients``.

        ``content`` gives prefix and data of the original, and is only asked when a report is to be made; its errors
        (StorageTrouble) are the caller's.
        """
        judging = _Judging(self._settings, self._outside, queued, self._doubles.allows)
        for recipient, outcome in zip(queued.recipients, outcomes, strict=True):
            judging.take(recipient, outcome)
        reports: dict[Kind, Acceptance] = {}
        outcome_of = list(zip(queued.recipients, outcomes, strict=True))
        try:
            for kind, about in judging.to_tell.items():
                reports[kind] = await self._compose(kind, queued, about, await content(), judging.now)
            told = await self._postmaster.refusals(queued, outcome_of, judging.now)
        except BaseException:
            if "lost" in judging.to_tell:
                self._doubles.give_back()
            raise
        return Verdict(judging.verdict(reports), tuple(reports.values()), told, judging.given_up)

    def not_recorded(self, verdict: Verdict) -> None:
        """The database did not take it; the attempt is judged again, and what was not told has no part in the pace."""
        if any(report.arrival.protocol == DOUBLE for report in verdict.reports):
            self._doubles.give_back()

    async def stored(self, number: int, recipients: Sequence[int]) -> Sequence[Acceptance]:
        """Tell a sender who asked for it (NOTIFY=SUCCESS) that these copies are in their mailboxes (RFC 3461 5.2.2)."""
        queued = await self._database.read(due.of, number, recipients)
        content = await self._spool.load(number)
        if queued is None or content is None or queued.envelope.sender is None:
            return ()
        stored = Outcome(Result.DELIVERED, "2.1.5", "It is stored in the mailbox.")
        about = [(recipient, stored) for recipient in queued.recipients]
        return (await self._compose("delivered", queued, about, content, self._outside.wall()),)

    async def _compose(
        self, kind: Kind, queued: QueuedMessage, about: About, content: Content, now: float
    ) -> Acceptance:
        hostname = self._settings.config.hostname
        sender = queued.envelope.sender
        if kind == "lost":
            sender = Address(POSTMASTER.local, self._settings.directory.domains[0])
        assert sender is not None
        number = self._spool.next_id()
        prefix, data = content
        if data is None:
            try:
                data = await self._spool.read_file(queued.id, 0)
            except OSError:
                data = b""  # a report without the original is better than none, and than an attempt not recorded
        original = prefix + data
        head, body = header.split(original)
        domain = self._domain(sender, about[0][0])
        # RFC 3461 6.2: nobody needs back what has arrived.
        whole = kind in ("failed", "lost") and queued.envelope.ret != "HDRS" and len(prefix) + queued.size <= RETURNED
        report = build(
            kind,
            hostname=hostname,
            domain=domain,
            to=sender,
            recipients=[self._reported(recipient, outcome, now) for recipient, outcome in about],
            original_header=head,
            original_body=body if whole else None,
            arrived_at=queued.accepted,
            now=now,
            message_id=f"{queue_id.text(number)}@{hostname}",
            boundary_token=self._outside.random(12).hex(),
            envid=queued.envelope.envid,
        )
        arrival = Arrival(
            id=number,
            envelope=Envelope(None, report.body, report.smtputf8),
            recipients=tuple(
                FinalRecipient(target.address, sender, target.mailbox, ("NEVER",)) for target in self._back_to(sender)
            ),
            prefix=await self._signer.fields_of(domain, report.content),
            message_id=f"{queue_id.text(number)}@{hostname}",
            account="",
            client="",
            helo="",
            protocol=_PROTOCOLS.get(kind, SUCCESS),
            size=len(report.content),
            lines=report.content.count(b"\n"),
            reason=f"a report to the {'postmaster' if kind == 'lost' else 'sender'} about {queue_id.text(queued.id)}",
            about=queue_id.text(queued.id),
        )
        return Acceptance(now, arrival, self._spool.names(arrival), report.content)

    def _domain(self, sender: Address, recipient: QueuedRecipient) -> str:
        directory = self._settings.directory
        named = (sender.domain, recipient.original.domain, *directory.domains)
        return next(domain for domain in named if directory.is_own(domain))

    def _back_to(self, sender: Address) -> tuple[Target, ...]:
        directory = self._settings.directory
        if not directory.is_own(sender.domain):
            return (Target(sender, ""),)
        return directory.resolve(sender) or directory.resolve(POSTMASTER) or (Target(sender, ""),)

    def _reported(self, recipient: QueuedRecipient, outcome: Outcome, now: float) -> ReportedRecipient:
        remedy = remedy_for(outcome.answer)
        return ReportedRecipient(
            address=recipient.address,
            status=outcome.status,
            reason=outcome.reason,
            answer=outcome.answer,
            remote=outcome.remote,
            original=original_recipient(recipient),
            attempted_at=now,
            retry_until=recipient.since + self._settings.config.queue.expire,
            meaning=remedy.meaning if remedy else "",
            remedy=remedy.remedy if remedy else "",
            for_postmaster=remedy is not None and remedy.tell,
        )


def original_recipient(recipient: QueuedRecipient) -> str:
    """ORCPT (RFC 3461 4.2): as the client gave it, else the alias that led here, else ""."""
    if recipient.orcpt or recipient.original == recipient.address:
        return recipient.orcpt
    return f"{'rfc822' if recipient.original.is_ascii else 'utf-8'};{recipient.original}"


class _Judging:
    """One attempt of one message."""

    def __init__(
        self, settings: Settings, outside: Outside, queued: QueuedMessage, one_more_double: Callable[[], bool]
    ) -> None:
        self.now = outside.wall()
        self.to_tell: dict[Kind, list[tuple[QueuedRecipient, Outcome]]] = {}
        self.given_up: dict[int, float] = {}
        self._settings = settings
        self._outside = outside
        self._queued = queued
        self._one_more_double = one_more_double
        self._settlements: list[Settlement] = []
        self._jitter: float | None = None

    def take(self, recipient: QueuedRecipient, outcome: Outcome) -> None:
        queue = self._settings.config.queue
        if outcome.result is Result.DELIVERED:
            self._settle(recipient, outcome, schema.DELIVERED, ledger.DELIVERED)
            if "SUCCESS" in recipient.notify and not outcome.tells_sender and self._queued.envelope.sender is not None:
                self._tell("relayed", recipient, outcome)
        elif outcome.result is Result.FAILED:
            self._fail(recipient, outcome)
        elif schedule.expired(recipient.since, self.now, queue.expire):
            self.given_up[recipient.n] = recipient.since
            self._fail(recipient, _given_up(outcome, queue.expire))
        else:
            self._defer(recipient, outcome)

    def _fail(self, recipient: QueuedRecipient, outcome: Outcome) -> None:
        if self._queued.envelope.sender is None:
            self._fail_report(recipient, outcome)
        elif recipient.notify and "FAILURE" not in recipient.notify:
            self._drop(recipient, outcome, "RFC 3461 4.1: the sender asked not to be told (NOTIFY)")
        else:
            self._tell("failed", recipient, outcome)

    def _fail_report(self, recipient: QueuedRecipient, outcome: Outcome) -> None:
        """What has the null reverse-path has failed."""
        protocol = self._queued.protocol
        if protocol != FAILURE:
            what = "a double bounce" if protocol == DOUBLE else "a message with the null reverse-path"
            self._drop(recipient, outcome, f"RFC 5321 6.1: no report about {what}")
        elif not self._settings.directory.resolve(POSTMASTER):
            self._drop(recipient, outcome, "RFC 5321 6.1: no report about a report, and there is no postmaster")
        elif self.to_tell.get("lost") or self._one_more_double():
            self._tell("lost", recipient, outcome)
        else:
            self._drop(
                recipient, outcome, f"more than {DOUBLES} double bounces in {DOUBLES * DOUBLE_EVERY_S / 60:g} minutes"
            )

    def _tell(self, kind: Kind, recipient: QueuedRecipient, outcome: Outcome) -> None:
        self.to_tell.setdefault(kind, []).append((recipient, outcome))

    def _drop(self, recipient: QueuedRecipient, outcome: Outcome, rule: str) -> None:
        self._settle(recipient, outcome, schema.DROPPED, ledger.DROPPED, rule=rule)

    def _defer(self, recipient: QueuedRecipient, outcome: Outcome) -> None:
        queue = self._settings.config.queue
        attempts = recipient.attempts + 1
        if self._jitter is None:
            # One for all, so that recipients who were deferred together stay together.
            self._jitter = int.from_bytes(self._outside.random(2)) / 65536
        at = schedule.next_attempt(queue.retry, attempts, self.now, self._jitter)
        remedy = remedy_for(outcome.answer)
        if remedy is not None and remedy.action is Action.WAIT and at < self.now + WAIT_S:
            at = self.now + WAIT_S
            outcome = replace(
                outcome, reason=f"{outcome.reason.rstrip('.')}; the next attempt waits for an hour.", rule=remedy.cause
            )
        at = min(at, max(recipient.since + queue.expire, self.now + 1.0))
        warned = recipient.warned
        if schedule.warn_due(recipient.since, self.now, queue.warn, warned) and self._may_warn(recipient):
            warned = True
            self._tell("delayed", recipient, outcome)
        self._settle(recipient, outcome, schema.QUEUED, ledger.DEFERRED, str(at), next_attempt=at, warned=warned)

    def _may_warn(self, recipient: QueuedRecipient) -> bool:
        return self._queued.envelope.sender is not None and (not recipient.notify or "DELAY" in recipient.notify)

    def _settle(
        self,
        recipient: QueuedRecipient,
        outcome: Outcome,
        state: str,
        kind: str,
        detail: str = "",
        *,
        rule: str = "",
        next_attempt: float = 0.0,
        warned: bool = False,
    ) -> None:
        event = self._event(recipient, outcome, kind, detail, rule)
        attempts = recipient.attempts + 1
        self._settlements.append(Settlement(recipient.n, state, event, attempts, next_attempt, warned))

    def _event(self, recipient: QueuedRecipient, outcome: Outcome, kind: str, detail: str, rule: str = "") -> Event:
        return Event(
            kind,
            message=self._queued.id,
            n=recipient.n,
            address=str(recipient.address),
            status=outcome.status,
            reason=outcome.reason,
            rule=rule or outcome.rule or _cause(outcome),
            answer=outcome.answer,
            remote=", ".join(filter(None, (outcome.remote, outcome.tls))),
            detail=detail,
        )

    def verdict(self, reports: Mapping[Kind, Acceptance]) -> tuple[Settlement, ...]:
        """All settlements, those that name a report included."""
        endings: tuple[Kind, Kind] = ("failed", "lost")
        for kind in endings:
            for recipient, outcome in self.to_tell.get(kind, ()):
                number = queue_id.text(reports[kind].arrival.id)
                rule = "" if kind == "failed" else "double bounces go to the postmaster"
                self._settle(recipient, outcome, schema.BOUNCED, ledger.BOUNCED, number, rule=rule)
        for recipient, outcome in self.to_tell.get("delayed", ()):
            event = self._event(recipient, outcome, ledger.WARNED, queue_id.text(reports["delayed"].arrival.id))
            delay = next(settlement for settlement in self._settlements if settlement.n == recipient.n)
            self._settlements.append(replace(delay, event=event))
        return tuple(self._settlements)


def _cause(outcome: Outcome) -> str:
    """The key of a known refusal, "" for none."""
    remedy = None if outcome.result is Result.DELIVERED else remedy_for(outcome.answer)
    return remedy.cause if remedy else ""


def _given_up(outcome: Outcome, expire: float) -> Outcome:
    return Outcome(
        Result.FAILED,
        "4.4.7",  # RFC 3463 3.5: delivery time expired
        f"given up after {expire / 3600:g} hours of trying: {outcome.reason}",
        outcome.answer,
        outcome.remote,
        "queue.expire",
        outcome.tls,
    )
