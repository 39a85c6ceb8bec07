"""Notices to the postmaster and to users: composed here, accepted like any other mail, told once for each cause.

A notice belongs to the transaction of the change that it tells of.  ``accept`` runs there: it counts how often the
cause has happened, and accepts the mail unless its reader has heard of that cause already.  So a crash neither loses a
notice nor tells it twice, and a cause that happens a thousand times makes one message.

It is told the first time; again when it comes back after ``quiet_s`` seconds without, or when it still happens
``again_s`` seconds after the last telling.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from mailsrv.mail import notice
from mailsrv.mail.address import POSTMASTER, Address
from mailsrv.mail.envelope import Envelope
from mailsrv.outside.interfaces import Outside
from mailsrv.store import message, queue_id
from mailsrv.store.accounts.accounts import Target
from mailsrv.store.database import Database, StorageTrouble
from mailsrv.store.message import Acceptance, Arrival, FinalRecipient
from mailsrv.store.settings import Settings
from mailsrv.store.spool import Spool

PROTOCOL = "notice"  # message.protocol of what is written here
QUIET_S = 30 * 86400.0

# From a domain of ours and a message of it to the fields of a signature: ``mailsrv.dkim.signer.Signer.fields_of``.
Sign = Callable[[str, bytes], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be told, if its cause was not told already.

    ``cause`` is a stable key, such as "google-no-ptr" or "quota alice@example.org".  Without ``acceptance`` it is only
    counted.  ``times``: how often it has happened now.
    """

    cause: str
    acceptance: Acceptance | None = None
    times: int = 1
    quiet_s: float = QUIET_S
    again_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Count:
    """How often a cause was seen; times are seconds since 1970, ``told`` 0.0 when nobody was told."""

    cause: str
    told: float
    seen: float
    times: int


def accept(connection: sqlite3.Connection, now: float, notices: Iterable[Notice]) -> list[Acceptance]:
    """In the caller's transaction: count the causes and accept what is to be told; after the commit those accepted are
    handed over (:meth:`Notices.hand_over`).
    """
    due = []
    for each in notices:
        if each.acceptance is not None and _is_due(connection, now, each):
            due.append(each.acceptance)
            _count(connection, now, each, now)
        else:
            _count(connection, now, each, 0.0)
    if due:
        message.insert(connection, due)
    return due


def forget(connection: sqlite3.Connection, cause: str) -> None:
    """The cause is over: when it comes back it is told at once."""
    connection.execute("DELETE FROM notice WHERE cause = ?", (cause,))


def counts(connection: sqlite3.Connection, since: float = 0.0) -> list[Count]:
    """The causes seen since then (seconds since 1970), the latest first."""
    rows = connection.execute(
        "SELECT cause, told, seen, times FROM notice WHERE seen >= ? ORDER BY seen DESC, cause", (since,)
    )
    return [Count(*row) for row in rows]


def _is_due(connection: sqlite3.Connection, now: float, wanted: Notice) -> bool:
    row = connection.execute("SELECT told, seen FROM notice WHERE cause = ?", (wanted.cause,)).fetchone()
    if row is None:
        return True
    told, seen = row
    # In either direction: the clock may have been set back since.
    return not told or abs(now - seen) >= wanted.quiet_s or abs(now - told) >= wanted.again_s


def _count(connection: sqlite3.Connection, now: float, wanted: Notice, told: float) -> None:
    connection.execute(
        "INSERT INTO notice (cause, told, seen, times) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (cause) DO UPDATE"
        " SET told = CASE WHEN excluded.told > 0 THEN excluded.told ELSE told END,"
        " seen = excluded.seen, times = times + excluded.times",
        (wanted.cause, told, now, wanted.times),
    )


class Notices:
    """Writes them, signed like all mail of our domains, and sees to it that they get on their way."""

    def __init__(self, settings: Settings, outside: Outside, spool: Spool, database: Database, sign: Sign) -> None:
        self._settings = settings
        self._outside = outside
        self._spool = spool
        self._database = database
        self._sign = sign

    async def wanted(self, notice: Notice, to: Address, subject: str, text: str, now: float, about: str = "") -> Notice:
        """``notice`` with the mail that tells of it, written and signed only where its cause may be due."""
        try:
            due = await self._database.read(_is_due, now, notice)
        except StorageTrouble:
            due = True  # the transaction knows better, when there is one
        return replace(notice, acceptance=await self.compose(to, subject, text, now, about)) if due else notice

    async def compose(self, to: Address, subject: str, text: str, now: float, about: str = "") -> Acceptance:
        """The mail, ready to be accepted; not accepted yet.

        ``to`` is an address of ours, or POSTMASTER; when nobody is behind it the postmaster gets the mail, and an
        address elsewhere if aliases lead there.  ``text`` as in :func:`mailsrv.mail.notice.build`.  ``about`` is the
        queue id of the message it tells of, "" for none.
        """
        directory = self._settings.directory
        hostname = self._settings.config.hostname
        if not to.domain:
            to = Address(to.local, directory.domains[0])
        number = self._spool.next_id()
        written = notice.build(
            domain=to.domain,
            to=to,
            subject=subject,
            text=text,
            now=now,
            message_id=f"{queue_id.text(number)}@{hostname}",
        )
        targets = directory.resolve(to) or directory.resolve(POSTMASTER) or (Target(to, ""),)
        arrival = Arrival(
            id=number,
            envelope=Envelope(None, "8BITMIME" if written.smtputf8 else "7BIT", written.smtputf8),
            recipients=tuple(FinalRecipient(target.address, to, target.mailbox, ("NEVER",)) for target in targets),
            prefix=await self._sign(to.domain, written.content),
            message_id=written.message_id,
            account="",
            client="",
            helo="",
            protocol=PROTOCOL,
            size=len(written.content),
            lines=written.content.count(b"\n"),
            reason=f"a notice: {subject}",
            about=about,
        )
        return Acceptance(now, arrival, self._spool.names(arrival), written.content)

    async def tell(self, wanted: Notice) -> bool:
        """In a transaction of its own, for what changes nothing else; whether it was told (StorageTrouble)."""
        accepted = await self._database.write(accept, self._outside.wall(), (wanted,))
        self.hand_over(accepted)
        return bool(accepted)

    def hand_over(self, accepted: Sequence[Acceptance]) -> None:
        """After the commit: delivery begins."""
        for each in accepted:
            self._spool.on_accepted(each)
