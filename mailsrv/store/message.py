"""Messages in the database: what an accepted message is, and the transactions that change its recipients.

Plain functions on a connection; the caller's transaction makes them durable, several of them at once.  The states that
they lead through, and what a crash in each means, stand in ``mailsrv.store.spool``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.store import ledger, schema
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


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message with those of its open recipients that were asked for."""

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


@dataclass(frozen=True, slots=True)
class Settlement:
    """What one attempt changes in one recipient: its new state and the event that tells of it."""

    n: int
    state: str
    event: Event
    attempts: int
    next_attempt: float = 0.0
    warned: bool = False


def optional_address(text: str) -> Address | None:
    """A stored address again; None for the null reverse-path.  Stored text was canonical, so it parses."""
    return Address.parse(text) if text else None


class Acceptance(NamedTuple):
    """All that the transaction needs which makes a message accepted.

    ``names`` are the file names of the copies, "" for recipients elsewhere; ``content`` is None when it is a file.
    """

    now: float
    arrival: Arrival
    names: Sequence[str]
    content: bytes | None


def insert(connection: sqlite3.Connection, acceptances: Sequence[Acceptance]) -> None:
    """Accept messages: their rows, their contents, their recipients and their events."""
    connection.executemany(
        "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
    connection.executemany(
        "INSERT INTO content VALUES (?, ?, ?)",
        [(arrival.id, arrival.prefix, content) for _, arrival, _, content in acceptances],
    )
    connection.executemany(
        "INSERT INTO recipient VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, 0, '', '', ?)",
        [
            (
                arrival.id,
                n,
                str(recipient.address),
                str(recipient.original),
                str(recipient.sender or ""),
                recipient.mailbox,
                name,
                recipient.destination,
                ",".join(recipient.notify),
                recipient.orcpt,
                schema.HELD if arrival.hold else schema.QUEUED,
                max(now, arrival.release_at),
                max(now, arrival.release_at),
                arrival.lane,
            )
            for now, arrival, names, _ in acceptances
            for n, (recipient, name) in enumerate(zip(arrival.recipients, names, strict=True))
        ],
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


def settle(connection: sqlite3.Connection, now: float, message: int, settlements: Sequence[Settlement]) -> bool:
    """Record what an attempt led to.  True when no recipient is open any more and the content has gone.

    A recipient that the operator took out while the attempt was under way keeps its event, so that nothing is hidden:
    what really happened is told, even if it came too late to be stopped.
    """
    connection.executemany(
        "UPDATE recipient SET state = CASE WHEN state = 'held' AND ?1 = 'queued' THEN 'held' ELSE ?1 END,"
        " attempts = ?2, next_attempt = ?3, warned = ?4, status = ?5, answer = ?6"
        " WHERE message = ?7 AND n = ?8 AND state IN ('queued', 'held')",
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
            for settlement in settlements
        ],
    )
    ledger.write(connection, now, [settlement.event for settlement in settlements])
    return drop_content(connection, message)


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
    connection.executemany(
        "UPDATE recipient SET state = 'delivered', attempts = attempts + 1, status = '2.0.0', answer = ''"
        " WHERE message = ? AND n = ? AND state IN ('queued', 'held')",
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
    return [message for message in {message for message, _, _, _ in items} if drop_content(connection, message)]


def drop_content(connection: sqlite3.Connection, message: int) -> bool:
    """Let the content go when no recipient is open any more; True when it went."""
    return (
        connection.execute(
            "DELETE FROM content WHERE message = ?1 AND NOT EXISTS"
            " (SELECT 1 FROM recipient WHERE message = ?1 AND state IN ('queued', 'held'))",
            (message,),
        ).rowcount
        > 0
    )


_ACCEPTED = "(SELECT accepted FROM message WHERE id = recipient.message)"
_OPEN = "(state = 'queued' OR state = 'held')"


def postpone(connection: sqlite3.Connection, seconds: float, new_time: tuple[float, float], latest: float) -> None:
    """The wall clock has jumped by ``seconds``: what waits goes on waiting as long as it would have.

    What was accepted in ``new_time`` (from, to) was accepted by the new clock already and stays as it is.  No next
    attempt of what was tried already is later than ``latest``.
    """
    connection.execute(
        "UPDATE recipient SET next_attempt = next_attempt + ?1, since = since + ?1"  # noqa: S608
        f" WHERE {_OPEN} AND {_ACCEPTED} NOT BETWEEN ?2 AND ?3",
        (seconds, *new_time),
    )
    connection.execute(
        f"UPDATE recipient SET next_attempt = ?1 WHERE {_OPEN} AND attempts > 0 AND next_attempt > ?1",  # noqa: S608
        (latest,),
    )


def local_waiting(connection: sqlite3.Connection, now: float, limit: int) -> list[QueuedMessage]:
    """Messages with recipients in own mailboxes that are due, oldest first."""
    return _messages(
        connection,
        "SELECT message, n FROM recipient WHERE state = 'queued' AND destination = '' AND next_attempt <= ?"
        " ORDER BY next_attempt LIMIT ?",
        (now, limit),
    )


def remote_waiting(connection: sqlite3.Connection, now: float, destination: str, limit: int) -> list[QueuedMessage]:
    """Messages with recipients at ``destination`` that are due, oldest first, at most ``limit`` recipients."""
    return _messages(
        connection,
        "SELECT message, n FROM recipient WHERE state = 'queued' AND destination = ? AND next_attempt <= ?"
        " ORDER BY next_attempt, message LIMIT ?",
        (destination, now, limit),
    )


def of(connection: sqlite3.Connection, message: int, numbers: Sequence[int]) -> QueuedMessage | None:
    """One message with these of its recipients, in whatever state they are."""
    marks = ",".join("?" * len(numbers))
    found = _messages(
        connection,
        f"SELECT message, n FROM recipient WHERE message = ? AND n IN ({marks})",  # noqa: S608
        (message, *numbers),
    )
    return found[0] if found else None


def destinations(connection: sqlite3.Connection) -> list[tuple[str, float]]:
    """Domains that mail waits for ("" is the own mailboxes), each with the time of its earliest attempt.

    Steps through the index from one destination to the next, so a million recipients of one domain cost one step.
    """
    return connection.execute(
        "WITH RECURSIVE step (destination) AS ("
        " SELECT min(destination) FROM recipient WHERE state = 'queued'"
        " UNION ALL"
        " SELECT (SELECT min(destination) FROM recipient WHERE state = 'queued' AND destination > step.destination)"
        " FROM step WHERE destination IS NOT NULL)"
        " SELECT destination,"
        " (SELECT min(next_attempt) FROM recipient WHERE state = 'queued' AND destination = step.destination)"
        " FROM step WHERE destination IS NOT NULL"
    ).fetchall()


def still_queued(connection: sqlite3.Connection, message: int) -> dict[int, float]:
    """The recipients that are queued at this moment, each with its ``since``: the operator may have held some."""
    return dict(connection.execute("SELECT n, since FROM recipient WHERE message = ? AND state = 'queued'", (message,)))


def recipients_by_minute(connection: sqlite3.Connection, account: str, since: float) -> dict[int, int]:
    """How many recipients the account has written to, by minute since 1970; ``since`` in seconds since 1970."""
    return dict(
        connection.execute(
            "SELECT message.id / 60000000, count(*) FROM message JOIN recipient ON recipient.message = message.id"
            " WHERE account = ? AND account <> '' AND message.id > ? GROUP BY 1",
            (account, int(since * 1_000_000)),
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


def _messages(connection: sqlite3.Connection, query: str, arguments: Iterable[object]) -> list[QueuedMessage]:
    wanted: dict[int, list[int]] = {}
    for message, n in connection.execute(query, tuple(arguments)):
        wanted.setdefault(message, []).append(n)
    found = []
    rows = connection.execute
    for message, numbers in wanted.items():
        row = connection.execute(
            "SELECT accepted, sender, message_id, size, lines, body, smtputf8, ret, envid, account, client, protocol"
            " FROM message WHERE id = ?",
            (message,),
        ).fetchone()
        marks = ",".join("?" * len(numbers))
        recipients = tuple(
            QueuedRecipient(
                n=n,
                address=Address.parse(address),
                original=Address.parse(original),
                sender=optional_address(rewritten),
                mailbox=mailbox,
                name=name,
                notify=tuple(notify.split(",")) if notify else (),
                orcpt=orcpt,
                attempts=attempts,
                since=since,
                warned=bool(warned),
            )
            for n, address, original, rewritten, mailbox, name, notify, orcpt, attempts, since, warned in rows(
                "SELECT n, address, original, sender, mailbox, name, notify, orcpt, attempts, since, warned"  # noqa: S608
                f" FROM recipient WHERE message = ? AND n IN ({marks}) ORDER BY n",
                (message, *numbers),
            )
        )
        accepted, sender, message_id, size, lines, body, smtputf8, ret, envid, account, client, protocol = row
        envelope = Envelope(optional_address(sender), body, bool(smtputf8), ret, envid, size)
        found.append(
            QueuedMessage(message, accepted, envelope, message_id, account, client, protocol, size, lines, recipients)
        )
    return found


def reschedule(
    connection: sqlite3.Connection, shifts: Sequence[tuple[int, float]], expire: float, since_attempts: int
) -> None:
    """Apply changed queue settings to mail that waits.

    ``shifts`` gives for each number of attempts so far by how many seconds the next attempt moves; the last one, from
    ``since_attempts`` attempts on, holds for all higher numbers.  No attempt is later than the expiry.
    """
    for attempts, seconds in shifts:
        comparison = ">=" if attempts == since_attempts else "="
        connection.execute(
            "UPDATE recipient SET next_attempt = next_attempt + ?"  # noqa: S608
            f" WHERE state = 'queued' AND attempts {comparison} ?",
            (seconds, attempts),
        )
    connection.execute(
        "UPDATE recipient SET next_attempt = since + ?1 WHERE state = 'queued' AND next_attempt > since + ?1", (expire,)
    )


def resume(connection: sqlite3.Connection, now: float, jump: float, retry: Sequence[float], expire: float) -> None:
    """At the start: what waits does so by the present settings and the present clock.

    The clock may have been wrong before, or is now.  Nothing has waited since before it came or since the future, and
    what came more than ``jump`` seconds in the future came just now.  No next attempt is further away than ``retry``
    has it, nor later than the expiry.
    """
    connection.execute(
        f"UPDATE recipient SET since = ?1 WHERE {_OPEN} AND attempts > 0 AND since > ?1",  # noqa: S608
        (now,),
    )
    connection.execute(
        f"UPDATE recipient SET since = {_ACCEPTED}"  # noqa: S608
        f" WHERE {_OPEN} AND {_ACCEPTED} <= ?1 AND since < {_ACCEPTED}",
        (now,),
    )
    connection.execute(
        f"UPDATE recipient SET since = since - {_ACCEPTED} + ?1, next_attempt = next_attempt - {_ACCEPTED} + ?1"  # noqa: S608
        # What a start before this one has moved stays where it is, though its message still comes from the future.
        f" WHERE {_OPEN} AND attempts = 0 AND since > ?1 AND {_ACCEPTED} > ?1 + ?2",
        (now, jump),
    )
    for attempts, seconds in enumerate(retry, 1):
        comparison = ">=" if attempts == len(retry) else "="
        connection.execute(
            "UPDATE recipient SET next_attempt = ?1"  # noqa: S608
            f" WHERE state = 'queued' AND attempts {comparison} ?2 AND next_attempt > ?1",
            (now + seconds, attempts),
        )
    connection.execute(
        "UPDATE recipient SET next_attempt = since + ?1 WHERE state = 'queued' AND next_attempt > since + ?1", (expire,)
    )
