"""What the ledger knows about a message or an address, for ``mailsrv why`` and ``mailsrv queue show``.

A key is what a person has at hand: a queue id, a Message-ID, the address of a sender, recipient or account, or the IP
address of a client.  It need not say which, all are tried.  Everything comes newest first and bounded, but the events
of one message come in the order in which they happened.

Indexes answer the queries, whatever the size of the ledger; only clients, and strangers who were refused, are looked
for from the newest row backwards.
"""

from __future__ import annotations

import ipaddress
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mailsrv.mail.address import Address, AddressError
from mailsrv.store import queue_id
from mailsrv.store.ledger import Event


@dataclass(frozen=True, slots=True)
class Record:
    """An event as it was written down, at ``at`` seconds since 1970.  ``id`` ascends with the order of events."""

    id: int
    at: float
    event: Event


@dataclass(frozen=True, slots=True)
class RecipientState:
    """A recipient row; ``schema`` says what the columns hold."""

    n: int
    address: str
    original: str
    mailbox: str
    name: str
    state: str
    attempts: int
    next_attempt: float
    status: str
    answer: str


@dataclass(frozen=True, slots=True)
class MessageHistory:
    """A message with its recipients and events in order; deletions through POP3 are among the events.

    Where a recipient was asked for, ``recipients`` and ``events`` are that recipient's alone.
    """

    id: int
    accepted: float
    sender: str
    message_id: str
    size: int
    account: str
    client: str
    helo: str
    protocol: str
    recipients: tuple[RecipientState, ...]
    events: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class History:
    """``loose`` are events without a message; ``more`` says that older messages or events were left out.

    ``since`` is the time of the oldest thing in the ledger, None when it is empty.
    """

    messages: tuple[MessageHistory, ...]
    loose: tuple[Record, ...]
    more: bool
    since: float | None


_MESSAGE = "SELECT id, accepted, sender, message_id, size, account, client, helo, protocol FROM message WHERE id = ?"
_RECIPIENTS = (
    "SELECT n, address, original, mailbox, name, state, attempts, next_attempt, status, answer"
    " FROM recipient WHERE message = ? ORDER BY n"
)
_EVENT = "SELECT id, at, kind, message, n, address, sender, client, status, reason, rule, answer, remote, detail"
# The conditions repeat those of the partial indexes, or SQLite would not use them.
_BY_SENDER = "SELECT id FROM message WHERE sender = ? ORDER BY id DESC LIMIT ?"
_BY_ACCOUNT = "SELECT id FROM message WHERE account = ? AND account <> '' ORDER BY id DESC LIMIT ?"
_BY_MESSAGE_ID = "SELECT id FROM message WHERE message_id = ? ORDER BY id DESC LIMIT ?"
_BY_CLIENT = "SELECT id FROM message WHERE client = ? ORDER BY id DESC LIMIT ?"
_BY_RECIPIENT = "SELECT DISTINCT message FROM recipient WHERE address = ? ORDER BY message DESC LIMIT ?"
_BY_ORIGINAL = (
    "SELECT DISTINCT message FROM recipient WHERE original = ? AND original <> address ORDER BY message DESC LIMIT ?"
)
_LOOSE = (
    f"{_EVENT} FROM event WHERE message IS NULL AND address = ? AND kind <> 'deleted' ORDER BY id DESC LIMIT ?",
    f"{_EVENT} FROM event WHERE message IS NULL AND address = ? AND kind = 'deleted' ORDER BY id DESC LIMIT ?",
    f"{_EVENT} FROM event WHERE message IS NULL AND sender = ? AND sender <> '' ORDER BY at DESC LIMIT ?",
)
_LOOSE_CLIENT = f"{_EVENT} FROM event WHERE message IS NULL AND client = ? ORDER BY at DESC LIMIT ?"


def history(connection: sqlite3.Connection, key: str, limit: int = 20) -> History:
    """What is known under ``key``: at most ``limit`` messages, and as many events without a message.

    The caller holds a transaction, so that all queries see one state.
    """
    key = key.strip()
    if key.startswith("<") and key.endswith(">"):
        key = key[1:-1]
    if not key:
        return History((), (), False, _oldest(connection))
    addresses, client = _spellings(key), _client(key)

    whole = _ids(connection, _BY_MESSAGE_ID, (key,), limit)
    whole |= _ids(connection, _BY_SENDER, addresses, limit) | _ids(connection, _BY_ACCOUNT, addresses, limit)
    whole |= _ids(connection, _BY_CLIENT, client, limit)
    number = queue_id.number(key)
    if number is not None:
        whole |= {row[0] for row in connection.execute("SELECT id FROM message WHERE id = ?", (number,))}
    partly = _ids(connection, _BY_RECIPIENT, addresses, limit) | _ids(connection, _BY_ORIGINAL, addresses, limit)

    found = sorted(whole | partly, reverse=True)
    messages = [
        told
        for id in found[:limit]
        if (told := message(connection, id, None if id in whole else frozenset(addresses))) is not None
    ]

    told_of = {record.id for told in messages for record in told.events}
    loose = {
        record.id: record
        for query, keys in (*((query, addresses) for query in _LOOSE), (_LOOSE_CLIENT, client))
        for value in keys
        for record in _records(connection, query, (value, limit + 1))
        if record.id not in told_of
    }
    newest = sorted(loose.values(), key=lambda record: record.id, reverse=True)
    more = len(found) > limit or len(newest) > limit
    return History(tuple(messages), tuple(newest[:limit]), more, _oldest(connection))


def message(connection: sqlite3.Connection, id: int, addresses: frozenset[str] | None = None) -> MessageHistory | None:
    """All that is known of the message ``id``, or what concerns the recipients ``addresses``; None: it is unknown."""
    found = connection.execute(_MESSAGE, (id,)).fetchone()
    if found is None:
        return None
    row: tuple[int, float, str, str, int, str, str, str, str] = found
    recipients = [RecipientState(*values) for values in connection.execute(_RECIPIENTS, (id,))]
    records = _records(connection, f"{_EVENT} FROM event WHERE message = ?", (id,))
    if addresses is not None:
        recipients = [each for each in recipients if each.address in addresses or each.original in addresses]
        numbers = {None, *(each.n for each in recipients)}
        records = [record for record in records if record.event.n in numbers]
    records += _deletions(connection, id, row[1], recipients)
    records.sort(key=lambda record: record.id)
    return MessageHistory(*row, tuple(recipients), tuple(records))


def unique(name: str) -> str:
    """What stays the same of a file name in a Maildir, whatever is done to the message."""
    return name.partition(":")[0].partition(",")[0]


def _deletions(
    connection: sqlite3.Connection, id: int, accepted: float, recipients: Iterable[RecipientState]
) -> list[Record]:
    """Deletions through POP3 of the copies in own mailboxes, as events of the message."""
    copies = {(each.mailbox, unique(each.name)): each.n for each in recipients if each.mailbox and each.name}
    return [
        replace(record, event=replace(record.event, message=id, n=n))
        for mailbox in {mailbox for mailbox, _ in copies}
        for record in _records(
            connection,
            f"{_EVENT} FROM event WHERE message IS NULL AND address = ? AND kind = 'deleted' AND at >= ?",
            (mailbox, accepted),
        )
        if (n := copies.get((mailbox, unique(record.event.detail)))) is not None
    ]


def _spellings(key: str) -> tuple[str, ...]:
    """The ways in which an address may be written down: as its sender wrote it, or as an account."""
    try:
        address = Address.parse(key)
    except AddressError:
        return (key,)  # a login may have been tried under any name
    return tuple(dict.fromkeys((key, str(address), address.key, key.lower())))


def _client(key: str) -> tuple[str, ...]:
    try:
        return (str(ipaddress.ip_address(key.removeprefix("[").removesuffix("]").removeprefix("IPv6:"))),)
    except ValueError:
        return ()


def _ids(connection: sqlite3.Connection, query: str, keys: Iterable[str], limit: int) -> set[int]:
    """One more than ``limit``, to see that there are more."""
    return {row[0] for key in keys for row in connection.execute(query, (key, limit + 1))}


def _records(connection: sqlite3.Connection, query: str, arguments: Sequence[object]) -> list[Record]:
    return [Record(id, at, Event(*fields)) for id, at, *fields in connection.execute(query, tuple(arguments))]


def _oldest(connection: sqlite3.Connection) -> float | None:
    times = [
        *connection.execute("SELECT accepted FROM message ORDER BY id LIMIT 1"),
        *connection.execute("SELECT at FROM event WHERE message IS NULL ORDER BY at LIMIT 1"),
    ]
    return min((row[0] for row in times), default=None)
