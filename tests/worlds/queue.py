"""The queue runner with all that it works with, on a simulated machine; only the relay is a script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from mailsrv.config import Config, parse
from mailsrv.dkim.signer import Signer
from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.bounce import Reports
from mailsrv.relay.job import IDeliveryAgent, Job
from mailsrv.relay.queue import QueueRunner
from mailsrv.store import queue_id
from mailsrv.store.accounts.accounts import Directory, parse_directory
from mailsrv.store.key_states import NO_KEYS
from mailsrv.store.message import Acceptance, FinalRecipient
from tests.worlds.store import LETTER, Store

DELIVERED = Outcome(
    Result.DELIVERED, "2.0.0", "mx.example.net took the message.", "250 ok", "mx.example.net [192.0.2.9]:25"
)
DEFERRED = Outcome(
    Result.DEFERRED, "4.4.1", "No connection with mx.example.net.", remote="mx.example.net [192.0.2.9]:25"
)
BUSY = Outcome(
    *(Result.DEFERRED, "4.7.0", "mx.example.net does not want to talk to us.", "421 4.7.0 too many connections"),
    "mx.example.net [192.0.2.9]:25",
)
FAILED = Outcome(
    Result.FAILED, "5.1.1", "mx.example.net refused the recipient.", "550 who?", "mx.example.net [192.0.2.9]:25"
)

CONFIG = """
hostname = "mx.example.org"
domains = ["example.org"]
state = "/state"
[queue]
retry = ["1m", "5m", "15m"]
warn = "4h"
expire = "5d"
"""
ACCOUNTS = "alice@example.org:!\nbob@example.org:!\n"


@implementer(IDeliveryAgent)
class ScriptedAgent:
    """A second provider of the delivery agent: answers as it is told, at once or when ``finish`` is called.

    ``answers`` is by recipient; everybody else's mail is delivered.  ``slow`` destinations take the content and are not
    answered by themselves; nobody answers at ``black_holes``, which shows after the seconds that they are set to, and
    neither at ``tarpits``, to which the content goes all the same; who is ``busy`` does not even want to talk.
    ``jobs`` are all that came, ``contents`` what was read of each.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self.answers: dict[str, Outcome] = {}
        self.slow: set[str] = set()
        self.black_holes: dict[str, float] = {}
        self.tarpits: dict[str, float] = {}
        self.busy: set[str] = set()
        self.jobs: list[Job] = []
        self.contents: dict[str, bytes] = {}
        self.running: list[tuple[Job, Deferred[None]]] = []
        self.most = 0  # attempts at the same time
        self.most_of_one = 0
        self.closed = False

    async def deliver(self, job: Job) -> list[Outcome]:
        self.jobs.append(job)
        if job.destination in self.black_holes:
            await deferLater(self._reactor, self.black_holes[job.destination])
            return [DEFERRED] * len(job.recipients)
        if job.destination in self.busy:
            return [BUSY] * len(job.recipients)
        content = b""
        try:
            async for chunk in job.content.chunks():
                content += chunk
        except OSError as error:
            return [Outcome(Result.DEFERRED, "4.3.0", f"Local trouble: {error}.")] * len(job.recipients)
        if job.destination in self.tarpits:
            await deferLater(self._reactor, self.tarpits[job.destination])
            return [DEFERRED] * len(job.recipients)
        job.on_alive()
        self.contents[job.queue_id] = content
        answered: Deferred[None] = Deferred()
        self.running.append((job, answered))
        self.most = max(self.most, len(self.running))
        self.most_of_one = max(self.most_of_one, sum(other.destination == job.destination for other, _ in self.running))
        if job.destination not in self.slow:
            answered.callback(None)
        await answered
        self.running.remove((job, answered))
        if self.closed:
            return [Outcome(Result.DEFERRED, "4.3.2", "This server is shutting down.")] * len(job.recipients)
        return [self.answers.get(str(recipient.address), DELIVERED) for recipient in job.recipients]

    async def close(self) -> None:
        self.closed = True
        self.finish()

    def finish(self, destination: str = "") -> None:
        """Let attempts end, those of one destination or all."""
        for job, answered in list(self.running):
            if destination in ("", job.destination) and not answered.called:
                answered.callback(None)

    def recipients(self) -> list[str]:
        """Whom attempts were made for, in order."""
        return [str(recipient.address) for job in self.jobs for recipient in job.recipients]


class QueueSettings:
    """Settings as text; ``change`` puts others in force."""

    def __init__(self, text: str = CONFIG, accounts: str = ACCOUNTS, aliases: str = "") -> None:
        self.config: Config
        self.directory: Directory
        self.keys = NO_KEYS
        self.change(text, accounts, aliases)

    def change(self, text: str, accounts: str = ACCOUNTS, aliases: str = "") -> None:
        self.config = parse(text, "/etc/mailsrv/mailsrv.toml")
        self.directory = parse_directory(self.config, accounts, aliases)


class QueueWorld(Store):
    """``boot`` begins a life; mail for other domains than example.org goes to ``agent``."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = QueueSettings()
        self.agent: ScriptedAgent
        self.queue: QueueRunner

    def boot(self, *, recover: bool = True) -> QueueWorld:
        super().boot(recover=False)
        outside = self.outside
        self.agent = ScriptedAgent(outside.reactor)
        signer = Signer(outside, lambda: self.settings.keys.signing)
        self.reports = Reports(self.settings, outside, self.spool, self.database, signer)
        self.queue = QueueRunner(
            self.settings, outside, self.database, self.spool, self.agent, self.reports, self.local
        )
        self.local.on_deferred = self.queue.wake_at
        self.local.report_success = self.reports.stored

        def accepted(acceptance: Acceptance) -> None:
            self.local.accepted(acceptance.arrival, acceptance.names, acceptance.content)
            self.queue.accepted(acceptance)

        self.spool.on_accepted = accepted
        if recover:
            self.queue.wake()
        return self

    def submit(
        self,
        *to: str,
        sender: str = "alice@example.org",
        content: bytes = LETTER,
        notify: tuple[str, ...] = (),
        orcpt: str = "",
        ret: str = "",
        envid: str = "",
    ) -> int:
        """A message of a user of ours is accepted; its id."""
        draft = self.spool.draft()
        writing = draft.append(content)
        if writing is not None:
            self.wait(writing)
        arrival = self.arrival(draft.id, content, to, sender)
        recipients = tuple(FinalRecipient(r.address, r.original, r.mailbox, notify, orcpt) for r in arrival.recipients)
        envelope = Envelope(Address.parse(sender) if sender else None, ret=ret, envid=envid)
        self.wait(self.spool.accept(draft, replace(arrival, recipients=recipients, envelope=envelope)))
        return draft.id

    def operator(self, function: Callable[..., Any], *arguments: object) -> Any:
        """The operator's tool changes the database on a connection of its own, and the server notices."""
        connection = self.machine.databases.look("/state/mailsrv.db")
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = function(connection, self.machine.wall(), *arguments)
            connection.execute("COMMIT")
        finally:
            connection.close()
        self.queue.wake()
        return result

    def fill(self, messages: int, **columns: str) -> None:
        """Many messages to example.net at once, as if they had waited since before the start, and the server notices.

        ``columns`` are other values for columns of ``recipient``, SQL with ``more`` for the number of the message; the
        first stays as it is.
        """
        accepted, self.spool.on_accepted = self.spool.on_accepted, lambda acceptance: None
        first = self.submit("user@example.net")
        self.spool.on_accepted = accepted
        self.connection.execute("BEGIN IMMEDIATE")
        for table, key in (("message", "id"), ("content", "message"), ("recipient", "message")):
            names = [name for _, name, *_ in self.connection.execute(f"PRAGMA table_info({table})") if name != key]
            values = ", ".join(columns.get(name, name) if table == "recipient" else name for name in names)
            self.connection.execute(
                "WITH RECURSIVE many (more) AS (SELECT 1 UNION ALL SELECT more + 1 FROM many WHERE more < ?)"
                f" INSERT INTO {table} ({key}, {', '.join(names)})"
                f" SELECT {key} + more, {values} FROM {table}, many WHERE {key} = ?",
                (messages - 1, first),
            )
        self.connection.execute("COMMIT")
        self.spool._ids = queue_id.QueueIds(first + messages)
        self.queue.wake()

    def row(self, message: int, n: int = 0) -> dict[str, Any]:
        names = ("state", "attempts", "since", "next_attempt", "warned", "status", "answer")
        (found,) = self.rows(f"SELECT {', '.join(names)} FROM recipient WHERE message = ? AND n = ?", message, n)
        return dict(zip(names, found, strict=True))

    def reports_in(self, mailbox: str = "alice@example.org") -> list[bytes]:
        """The reports that have come."""
        return [octets for octets in self.mailbox(mailbox).values() if b"multipart/report" in octets]
