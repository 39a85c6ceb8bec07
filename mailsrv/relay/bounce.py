"""What an attempt means for each recipient and for the sender: try again, warn, give up and report.

RFC 5321 6.1 and RFC 3461 say who is told: the sender, by one message from the null reverse-path, unless it asked not to
be (NOTIFY), and never about a message that had the null reverse-path itself.  What nobody may be told ends as "dropped",
with the rule that forbids it in the ledger.  A sender of ours that does not exist is replaced by the postmaster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailsrv.mail import header
from mailsrv.mail.address import POSTMASTER, Address
from mailsrv.mail.envelope import Envelope
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.mail.report import Kind, ReportedRecipient, build
from mailsrv.outside.interfaces import Outside
from mailsrv.relay import schedule
from mailsrv.store import ledger, queue_id, schema
from mailsrv.store.accounts import Target
from mailsrv.store.ledger import Event
from mailsrv.store.message import Arrival, FinalRecipient, QueuedMessage, QueuedRecipient, Settlement
from mailsrv.store.settings import Settings
from mailsrv.store.spool import Spool

RETURNED = 64 * 1024  # octets of the original that a report gives back at most


@dataclass(frozen=True, slots=True)
class PreparedReport:
    """A report to be accepted in the transaction that settles what it tells of."""

    arrival: Arrival
    names: tuple[str, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one attempt changes."""

    settlements: tuple[Settlement, ...]
    reports: tuple[PreparedReport, ...]


class Reports:
    """Turns outcomes into settlements and reports."""

    def __init__(self, settings: Settings, outside: Outside, spool: Spool) -> None:
        self._settings = settings
        self._outside = outside
        self._spool = spool

    async def judge(
        self, queued: QueuedMessage, outcomes: Sequence[Outcome], content: tuple[bytes, bytes | None]
    ) -> Verdict:
        """``outcomes`` are in the order of ``queued.recipients``; ``content`` is prefix and data of the original."""
        judging = _Judging(self, queued, self._outside.wall())
        for recipient, outcome in zip(queued.recipients, outcomes, strict=True):
            judging.take(recipient, outcome)
        return await judging.verdict(content)


class _Judging:
    """One attempt of one message."""

    def __init__(self, reports: Reports, queued: QueuedMessage, now: float) -> None:
        self._reports = reports
        self._settings = reports._settings
        self._outside = reports._outside
        self._spool = reports._spool
        self._queued = queued
        self._now = now
        self._settlements: list[Settlement] = []
        self._failed: list[tuple[QueuedRecipient, Outcome]] = []
        self._delayed: list[tuple[QueuedRecipient, Outcome]] = []

    def take(self, recipient: QueuedRecipient, outcome: Outcome) -> None:
        queue = self._settings.config.queue
        if outcome.result is Result.DELIVERED:
            self._settle(recipient, outcome, schema.DELIVERED, ledger.DELIVERED)
        elif outcome.result is Result.FAILED:
            self._fail(recipient, outcome)
        elif schedule.expired(recipient.since, self._now, queue.expire):
            self._fail(recipient, _given_up(outcome, queue.expire))
        else:
            self._defer(recipient, outcome)

    def _fail(self, recipient: QueuedRecipient, outcome: Outcome) -> None:
        if self._queued.envelope.sender is None:
            self._drop(recipient, outcome, "RFC 5321 6.1: no report about a message with the null reverse-path")
        elif recipient.notify and "FAILURE" not in recipient.notify:
            self._drop(recipient, outcome, "RFC 3461 4.1: the sender asked not to be told (NOTIFY)")
        else:
            self._failed.append((recipient, outcome))

    def _drop(self, recipient: QueuedRecipient, outcome: Outcome, rule: str) -> None:
        self._settle(recipient, outcome, schema.DROPPED, ledger.DROPPED, rule=rule)

    def _defer(self, recipient: QueuedRecipient, outcome: Outcome) -> None:
        queue = self._settings.config.queue
        attempts = recipient.attempts + 1
        jitter = int.from_bytes(self._outside.random(2)) / 65536
        at = schedule.next_attempt(queue.retry, attempts, self._now, jitter)
        at = min(at, max(recipient.since + queue.expire, self._now + 1.0))
        warned = recipient.warned
        if schedule.warn_due(recipient.since, self._now, queue.warn, warned) and self._may_warn(recipient):
            warned = True
            self._delayed.append((recipient, outcome))
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
            rule=rule or outcome.rule,
            answer=outcome.answer,
            remote=", ".join(filter(None, (outcome.remote, outcome.tls))),
            detail=detail,
        )

    # -- reports

    async def verdict(self, content: tuple[bytes, bytes | None]) -> Verdict:
        reports = []
        if self._failed:
            report = await self._report("failed", self._failed, content)
            for recipient, outcome in self._failed:
                self._settle(recipient, outcome, schema.BOUNCED, ledger.BOUNCED, queue_id.text(report.arrival.id))
            reports.append(report)
        if self._delayed:
            report = await self._report("delayed", self._delayed, content)
            number = queue_id.text(report.arrival.id)
            for recipient, outcome in self._delayed:
                event = self._event(recipient, outcome, ledger.WARNED, number)
                delay = next(s for s in self._settlements if s.n == recipient.n)
                warned = Settlement(recipient.n, schema.QUEUED, event, delay.attempts, delay.next_attempt, True)
                self._settlements.append(warned)
            reports.append(report)
        return Verdict(tuple(self._settlements), tuple(reports))

    async def _report(
        self, kind: Kind, about: Sequence[tuple[QueuedRecipient, Outcome]], content: tuple[bytes, bytes | None]
    ) -> PreparedReport:
        queued = self._queued
        sender = queued.envelope.sender
        assert sender is not None
        hostname = self._settings.config.hostname
        number = self._spool.next_id()
        prefix, data = content
        original = prefix + (data if data is not None else await self._spool.read_file(queued.id, 0))
        head, body = header.split(original)
        whole = queued.envelope.ret != "HDRS" and len(prefix) + queued.size <= RETURNED
        report = build(
            kind,
            hostname=hostname,
            to=sender,
            recipients=[self._reported(recipient, outcome) for recipient, outcome in about],
            original_header=head,
            original_body=body if whole else None,
            arrived_at=queued.accepted,
            now=self._now,
            message_id=f"{queue_id.text(number)}@{hostname}",
            boundary_token=self._outside.random(12).hex(),
            envid=queued.envelope.envid,
        )
        recipients = tuple(
            FinalRecipient(target.address, sender, target.mailbox, ("NEVER",)) for target in self._back_to(sender)
        )
        arrival = Arrival(
            id=number,
            envelope=Envelope(None, report.body, report.smtputf8),
            recipients=recipients,
            prefix=b"",
            message_id=f"{queue_id.text(number)}@{hostname}",
            account="",
            client="",
            helo="",
            protocol="report",
            size=len(report.content),
            lines=report.content.count(b"\n"),
            reason=f"a report to the sender about {queue_id.text(queued.id)}",
            about=queue_id.text(queued.id),
        )
        return PreparedReport(arrival, self._spool.names(arrival), report.content)

    def _back_to(self, sender: Address) -> tuple[Target, ...]:
        directory = self._settings.directory
        if not directory.is_own(sender.domain):
            return (Target(sender, ""),)
        return directory.resolve(sender) or directory.resolve(POSTMASTER) or (Target(sender, ""),)

    def _reported(self, recipient: QueuedRecipient, outcome: Outcome) -> ReportedRecipient:
        return ReportedRecipient(
            address=recipient.address,
            status=outcome.status,
            reason=outcome.reason,
            answer=outcome.answer,
            remote=outcome.remote,
            original=recipient.orcpt,
            attempted_at=self._now,
            retry_until=recipient.since + self._settings.config.queue.expire,
        )


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
