"""Messages in the database: what an accepted message is, and the transactions that change its recipients.

Plain functions on a connection; the caller's transaction makes them durable, several of them at once.  The states that
they lead through, and what a crash in each means, stand in ``mailsrv.store.spool``; what waits for its time is asked
for in ``mailsrv.store.due``.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.store import ledger, rows, schema
from mailsrv.store.ledger import Event


@dataclass(frozen=True, slots=True)
class FinalRecipient:
    """One target of a message after aliases.  ``mailbox`` is an account's key, "" for an address elsewhere."""

    address: Address
    original: Address
    mailbox: str
    notify: tuple[str, ...] = ()
    orcpt: str = ""
    sender: Address | None = None  # for forwarding: the sender that the next server is told

    @property
    def destination(self) -> str:
        return "" if self.mailbox else self.address.domain


@dataclass(frozen=True, slots=True)
class Hold:
    """Why an accepted message waits for the operator: in words, and the setting that decides."""

    reason: str
    rule: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message at the moment of its acceptance, all but its content."""

    id: int
    envelope: Envelope
    recipients: tuple[FinalRecipient, ...]
    prefix: bytes  # trace and verdict headers for the front, CRLF
    message_id: str
    account: str
    client: str
    helo: str
    protocol: str
    size: int
    lines: int
    reason: str = "the message is stored"
    about: str = ""  # queue id of the message that a report of our own tells of
    release_at: float = 0.0  # RFC 4865: not before this time, seconds since 1970
    hold: Hold | None = None  # not before the operator says so

    @property
    def lane(self) -> str:
        """With whom its recipients take turns: the mail of an account, or of a stranger's domain."""
        return self.account or (self.envelope.sender.domain if self.envelope.sender else "")


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    """A recipient row that is still open."""

    n: int
    address: Address
    original: Address
    sender: Address | None
    mailbox: str
    name: str
    notify: tuple[str, ...]
    orcpt: str
    attempts: int
    since: float
    warned: bool
    due: float = 0.0  # from when an attempt may be made, seconds since 1970


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message with those of its open recipients that were asked for.  ``head`` is the octets of its prefix."""

    id: int
    accepted: float
    envelope: Envelope
    message_id: str
    account: str
    client: str
    protocol: str
    size: int
    lines: int
    recipients: tuple[QueuedRecipient, ...]
    head: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """What one attempt changes in one recipient: its new state and the event that tells of it."""

    n: int
    state: str
    event: Event
    attempts: int
    next_attempt: float = 0.0
    warned: bool = False


class Acceptance(NamedTuple):
    """All that the transaction needs which makes a message accepted.

    ``names`` are the file names of the copies, "" for recipients elsewhere; ``content`` is None when it is a file.
    """

    now: float
    arrival: Arrival
    names: Sequence[str]
    content: bytes | None

    @property
    def due(self) -> float:
        """From when on delivery may be tried, seconds since 1970."""
        return max(self.now, self.arrival.release_at)


class Settled(NamedTuple):
    """All that the transaction needs which records an attempt: when, at which message, and what it changes."""

    now: float
    message: int
    settlements: Sequence[Settlement]


def insert(connection: sqlite3.Connection, acceptances: Sequence[Acceptance]) -> None:
    """Accept messages: their rows, their contents, their recipients and their events."""
    rows.execute(
        connection,
        "INSERT INTO message VALUES {rows}",
        [
            (
                arrival.id,
                now,
                str(arrival.envelope.sender or ""),
                arrival.message_id,
                arrival.size,
                arrival.lines,
                arrival.envelope.body,
                arrival.envelope.smtputf8,
                arrival.envelope.ret,
                arrival.envelope.envid,
                arrival.account,
                arrival.client,
                arrival.helo,
                arrival.protocol,
            )
            for now, arrival, _, _ in acceptances
        ],
    )
    rows.execute(
        connection,
        "INSERT INTO content VALUES {rows}",
        [(arrival.id, arrival.prefix, content) for _, arrival, _, content in acceptances],
    )
    rows.execute(
        connection,
        "INSERT INTO recipient VALUES {rows}",
        [row for acceptance in acceptances for row in _recipients(acceptance)],
    )
    # Positional arguments: this is the path that every message takes.
    events = [
        Event(
            *(ledger.ACCEPTED, arrival.id, None, "", str(arrival.envelope.sender or ""), arrival.client),
            *("", arrival.reason, "", "", "", arrival.about),
        )
        for _, arrival, _, _ in acceptances
    ]
    events += [
        Event(ledger.HELD, arrival.id, reason=arrival.hold.reason, rule=arrival.hold.rule)
        for _, arrival, _, _ in acceptances
        if arrival.hold is not None
    ]
    ledger.write(connection, acceptances[-1].now, events)


def _recipients(acceptance: Acceptance) -> list[tuple[Any, ...]]:
    arrival, due = acceptance.arrival, acceptance.due
    found: list[tuple[Any, ...]] = []
    for n, (recipient, name) in enumerate(zip(arrival.recipients, acceptance.names, strict=True)):
        destination = recipient.destination
        found.append(
            (
                arrival.id,
                n,
                str(recipient.address),
                str(recipient.original),
                str(recipient.sender or ""),
                recipient.mailbox,
                name,
                destination,
                ",".join(recipient.notify),
                recipient.orcpt,
                schema.HELD if arrival.hold else schema.QUEUED,
                0,
                due,
                due,
                0,
                "",
                "",
                # In own mailboxes nobody waits for anybody, and without lanes they come in the order of their time.
                arrival.lane if destination else "",
            )
        )
    return found


def settle_all(connection: sqlite3.Connection, attempts: Sequence[Settled]) -> None:
    """Record what attempts led to, at most one for each recipient; the contents that nobody waits for any more go.

    A recipient that the operator took out while the attempt was under way keeps its event, so that nothing is hidden:
    what really happened is told, even if it came too late to be stopped.
    """
    _record(connection, attempts)
    # Where somebody still waits, the content is not looked for.
    done = [(message,) for _, message, settlements in attempts if any(each.state != "queued" for each in settlements)]
    rows.execute(connection, _DROP, done)


def settle_with_reports(connection: sqlite3.Connection, settled: Settled, reports: Sequence[Acceptance]) -> bool:
    """Record one attempt and accept the reports that tell of it; True when that let the content go."""
    if reports:
        insert(connection, reports)
    _record(connection, [settled])
    return drop_content(connection, settled.message)


def settle(connection: sqlite3.Connection, now: float, message: int, settlements: Sequence[Settlement]) -> bool:
    """Record one attempt; True when that let the content go."""
    return settle_with_reports(connection, Settled(now, message, settlements), ())


def _record(connection: sqlite3.Connection, attempts: Sequence[Settled]) -> None:
    rows.execute(
        connection,
        "WITH new (state, attempts, next_attempt, warned, status, answer, message, n) AS (VALUES {rows})"
        " UPDATE recipient SET"
        " state = CASE WHEN recipient.state = 'held' AND new.state = 'queued' THEN 'held' ELSE new.state END,"
        " attempts = new.attempts, next_attempt = new.next_attempt, warned = new.warned,"
        " status = new.status, answer = new.answer FROM new"
        " WHERE recipient.message = new.message AND recipient.n = new.n AND recipient.state IN ('queued', 'held')",
        [
            (
                settlement.state,
                settlement.attempts,
                settlement.next_attempt,
                settlement.warned,
                settlement.event.status,
                settlement.event.answer or settlement.event.reason,
                message,
                settlement.n,
            )
            for _, message, settlements in attempts
            for settlement in settlements
        ],
    )
    events = [settlement.event for _, _, settlements in attempts for settlement in settlements]
    ledger.write(connection, attempts[-1].now, events)


def is_open(connection: sqlite3.Connection, message: int, numbers: Sequence[int]) -> bool:
    """Whether one of these recipients is queued or held."""
    found = connection.execute("SELECT n FROM recipient WHERE message = ? AND state IN ('queued', 'held')", (message,))
    return not {n for (n,) in found}.isdisjoint(numbers)


def waiting_since(connection: sqlite3.Connection, message: int) -> dict[int, float]:
    """From when the time of the open recipients counts, seconds since 1970: of those that are held it does not."""
    rows = connection.execute(
        "SELECT n, state, since FROM recipient WHERE message = ? AND state IN ('queued', 'held')", (message,)
    )
    return {n: math.inf if state == schema.HELD else since for n, state, since in rows}


def delivered(
    connection: sqlite3.Connection,
    now: float,
    items: Sequence[tuple[int, int, str, str]],
    reports: Sequence[Acceptance] = (),
) -> list[int]:
    """Mark ``(message, n, mailbox, file name)`` as delivered locally; the messages whose content has gone.

    ``reports`` to senders who asked for them are accepted with it.
    """
    if reports:
        insert(connection, reports)
    rows.execute(
        connection,
        "WITH done (message, n) AS (VALUES {rows})"
        " UPDATE recipient SET state = 'delivered', attempts = attempts + 1, status = '2.0.0', answer = '' FROM done"
        " WHERE recipient.message = done.message AND recipient.n = done.n AND state IN ('queued', 'held')",
        [(message, n) for message, n, _, _ in items],
    )
    ledger.write(
        connection,
        now,
        [
            Event(
                ledger.DELIVERED,
                message=message,
                n=n,
                address=mailbox,
                status="2.0.0",
                reason="stored in the mailbox",
                detail=name,
            )
            for message, n, mailbox, name in items
        ],
    )
    done = list({(message,) for message, _, _, _ in items})
    rows.execute(connection, _DROP, done)
    kept = set(rows.execute(connection, "SELECT message FROM content WHERE message IN (VALUES {rows})", done))
    return [message for (message,) in done if (message,) not in kept]


_DROP = (
    "DELETE FROM content WHERE message IN (VALUES {rows}) AND NOT EXISTS"
    " (SELECT 1 FROM recipient WHERE message = content.message AND state IN ('queued', 'held'))"
)


def drop_content(connection: sqlite3.Connection, message: int) -> bool:
    """Let the content go when no recipient is open any more; True when it went."""
    return connection.execute(_DROP.replace("{rows}", "(?)"), (message,)).rowcount > 0


def recipients_by_minute(connection: sqlite3.Connection, account: str, now: float, seconds: float) -> dict[int, int]:
    """How many recipients the account has written to in the last ``seconds``, by how many minutes ago.

    What was accepted after ``now`` (seconds since 1970), before the clock was set back, is not counted.
    """
    # Ids go by the time, but never back: since the clock was set back they are ahead of it.
    return dict(
        connection.execute(
            "SELECT CAST((?2 - accepted) / 60 AS INTEGER), count(*)"
            " FROM message JOIN recipient ON recipient.message = message.id"
            " WHERE account = ?1 AND account <> '' AND message.id > ?3 AND accepted BETWEEN ?4 AND ?2 GROUP BY 1",
            (account, now, int((now - seconds) * 1_000_000), now - seconds),
        )
    )


def last_id(connection: sqlite3.Connection) -> int:
    """The highest queue id given out so far."""
    found: int = connection.execute("SELECT coalesce(max(id), 0) FROM message").fetchone()[0]
    return found


def content(connection: sqlite3.Connection, message: int) -> tuple[bytes, bytes | None] | None:
    """Prefix and content; the content is None when it is a file, and all is None when the message has none any more."""
    row: tuple[bytes, bytes | None] | None = connection.execute(
        "SELECT prefix, data FROM content WHERE message = ?", (message,)
    ).fetchone()
    return row


def filed(connection: sqlite3.Connection) -> set[int]:
    """The messages whose content is a file in ``spool/``."""
    return {row[0] for row in connection.execute("SELECT message FROM content WHERE data IS NULL")}


def prefix(connection: sqlite3.Connection, message: int) -> tuple[bytes | None, bool]:
    """The prefix, and whether the content is a file; None when the message has none any more."""
    row = connection.execute("SELECT prefix, data IS NULL FROM content WHERE message = ?", (message,)).fetchone()
    return (row[0], bool(row[1])) if row else (None, False)


def content_block(connection: sqlite3.Connection, message: int, offset: int, octets: int) -> bytes:
    """Up to ``octets`` of a content in the database, from ``offset`` on; b"" at its end, and when it has gone."""
    row = connection.execute(
        "SELECT substr(data, ?, ?) FROM content WHERE message = ?", (offset + 1, octets, message)
    ).fetchone()
    return bytes(row[0]) if row and row[0] else b""
