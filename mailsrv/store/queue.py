"""The queue as the operator sees and changes it; what the server itself asks of it is in ``mailsrv.store.message``.

Plain functions on a connection; the caller holds a transaction (``mailsrv.store.connection``).  A change is in force in
a running server once it is committed, but an attempt that is under way is not called back: what it led to is told in
the ledger even of a recipient that was removed meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from mailsrv.store import ledger, queue_id, schema
from mailsrv.store import message as spooled
from mailsrv.store.history import RecipientState
from mailsrv.store.ledger import Event

HEADER = 64 * 1024  # octets of a header block that are shown

# SQLite uses the index of open recipients only where its condition stands in the query; IN would not be seen as that.
_LIST = (
    "SELECT message.id, accepted, message.sender, message_id, size, account,"
    " n, address, original, mailbox, name, state, attempts, next_attempt, status, answer"
    " FROM message JOIN recipient ON recipient.message = message.id"
    " WHERE message.id IN (SELECT message FROM recipient WHERE (state = 'queued' OR state = 'held') {also})"
    " ORDER BY message.id, n"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A message with recipients that are still open, and with its others too.  ``accepted`` is seconds since 1970.

    ``account`` has sent it, "" for mail from outside; ``held`` is why it waits for the operator, "" when it does not.
    """

    id: int
    accepted: float
    sender: str
    message_id: str
    size: int
    account: str
    held: str
    recipients: tuple[RecipientState, ...]


def entries(connection: sqlite3.Connection, held: bool = False) -> Iterator[Entry]:
    """Messages in the queue, oldest first; ``held``: only those with recipients that wait for the operator."""
    rows = connection.execute(_LIST.format(also="AND state = 'held'" if held else ""))
    for (id, *facts), group in groupby(rows, key=lambda row: tuple(row[:6])):
        accepted, sender, message_id, size, account = facts
        recipients = tuple(RecipientState(*row[6:]) for row in group)
        waits = any(recipient.state == schema.HELD for recipient in recipients)
        why = _why_held(connection, id) if waits else ""
        yield Entry(id, accepted, sender, message_id, size, account, why, recipients)


def _why_held(connection: sqlite3.Connection, message: int) -> str:
    row = connection.execute(
        "SELECT reason FROM event WHERE message = ? AND kind = 'held' ORDER BY id DESC LIMIT 1", (message,)
    ).fetchone()
    return row[0] if row else ""


def held(connection: sqlite3.Connection, account: str | None = None) -> list[int]:
    """The messages that are held, oldest first; ``account``: those that it has sent."""
    return [
        message
        for (message,) in connection.execute(
            "SELECT id FROM message WHERE id IN (SELECT message FROM recipient"
            " WHERE (state = 'queued' OR state = 'held') AND state = 'held')"
            " AND (?1 IS NULL OR (account = ?1 AND account <> '')) ORDER BY id",
            (account,),
        )
    ]


@dataclass(frozen=True, slots=True)
class Load:
    """How many recipients are queued, and since when the first of them (seconds since 1970, 0 for none)."""

    queued: int
    oldest: float


def load(connection: sqlite3.Connection) -> Load:
    """What the whole queue amounts to."""
    return Load(
        *connection.execute(
            "SELECT count(*), coalesce(min(since), 0) FROM recipient"
            " WHERE (state = 'queued' OR state = 'held') AND state = 'queued'"
        ).fetchone()
    )


def open_recipients(connection: sqlite3.Connection, message: int) -> dict[str, int] | None:
    """How many recipients are queued and how many held; None when the message is not known, or not any more."""
    if connection.execute("SELECT 1 FROM message WHERE id = ?", (message,)).fetchone() is None:
        return None
    counted = dict.fromkeys(schema.OPEN, 0)
    counted.update(
        connection.execute(
            "SELECT state, count(*) FROM recipient WHERE message = ? AND state IN ('queued', 'held') GROUP BY state",
            (message,),
        )
    )
    return counted


def header(connection: sqlite3.Connection, message: int) -> tuple[bytes, str]:
    """The header block, at most HEADER octets of it, and "".

    When the content is a file: the headers that stand in front of it, and the file's name in ``spool/``; both are empty
    when the message is done and its content gone.
    """
    row = connection.execute(
        "SELECT prefix, data IS NULL, substr(data, 1, ?) FROM content WHERE message = ?", (HEADER, message)
    ).fetchone()
    if row is None:
        return b"", ""
    prefix, filed, start = row
    if filed:
        return prefix, queue_id.text(message)
    return prefix + header_block(start or b""), ""


def header_block(start: bytes) -> bytes:
    """What stands before the first empty line, at most HEADER octets."""
    start = start[:HEADER]
    if start.startswith(b"\r\n"):
        return b""
    block, end, _ = start.partition(b"\r\n\r\n")
    return block + end[:2]


def retry(connection: sqlite3.Connection, at: float, message: int) -> int:
    """Make the queued recipients of ``message`` due at ``at``; how many they are."""
    count = connection.execute(
        "UPDATE recipient SET next_attempt = min(next_attempt, ?) WHERE message = ? AND state = 'queued'",
        (at, message),
    ).rowcount
    if count:
        ledger.write(connection, at, [Event(ledger.RETRIED, message, reason="the operator asked for an attempt now")])
    return count


def retry_all(connection: sqlite3.Connection, at: float) -> int:
    """Make everything that is queued due at ``at``; how many messages that is."""
    messages = connection.execute(
        "SELECT DISTINCT message FROM recipient WHERE (state = 'queued' OR state = 'held') AND state = 'queued'"
    ).fetchall()
    connection.execute(
        "UPDATE recipient SET next_attempt = ?1"
        " WHERE (state = 'queued' OR state = 'held') AND state = 'queued' AND next_attempt > ?1",
        (at,),
    )
    reason = "the operator asked for an attempt of everything now"
    ledger.write(connection, at, (Event(ledger.RETRIED, message, reason=reason) for (message,) in messages))
    return len(messages)


def hold(connection: sqlite3.Connection, at: float, message: int) -> int:
    """Make no more attempts until the operator releases the message; how many recipients that concerns."""
    count = connection.execute(
        "UPDATE recipient SET state = 'held' WHERE message = ? AND state = 'queued'", (message,)
    ).rowcount
    if count:
        ledger.write(connection, at, [Event(ledger.HELD, message, reason="the operator stopped the attempts")])
    return count


def release(connection: sqlite3.Connection, at: float, message: int) -> int:
    """Let held recipients go on, due at ``at``; how many they are.

    Expiry counts from now on: the time in which nothing was tried is not the recipient's fault.  What its author wants
    to be sent later (RFC 4865) and was never tried keeps that time.
    """
    when = "CASE WHEN attempts = 0 THEN max(next_attempt, ?1) ELSE ?1 END"
    count = connection.execute(
        f"UPDATE recipient SET state = 'queued', next_attempt = {when}, since = {when}"  # noqa: S608 the line above
        " WHERE message = ?2 AND state = 'held'",
        (at, message),
    ).rowcount
    if count:
        ledger.write(connection, at, [Event(ledger.RELEASED, message, reason="the operator let the attempts go on")])
    return count


@dataclass(frozen=True, slots=True)
class Removal:
    """``recipients`` were taken out; ``spool_file`` is to be unlinked after the commit, "" when there is none."""

    recipients: int
    spool_file: str


def remove(connection: sqlite3.Connection, at: float, message: int) -> Removal:
    """Take ``message`` out of the queue: no more attempts, no bounce; the content goes, the ledger keeps the rest."""
    rows = connection.execute(
        "SELECT n, address FROM recipient WHERE message = ? AND state IN ('queued', 'held')", (message,)
    ).fetchall()
    connection.execute(
        "UPDATE recipient SET state = 'removed' WHERE message = ? AND state IN ('queued', 'held')", (message,)
    )
    ledger.write(
        connection,
        at,
        [
            Event(
                ledger.REMOVED,
                message,
                n,
                address,
                reason="the operator took it out of the queue; nobody was told",
                rule="mailsrv queue remove",
            )
            for n, address in rows
        ],
    )
    filed = connection.execute("SELECT 1 FROM content WHERE message = ? AND data IS NULL", (message,)).fetchone()
    gone = spooled.drop_content(connection, message)
    return Removal(len(rows), queue_id.text(message) if filed and gone else "")
