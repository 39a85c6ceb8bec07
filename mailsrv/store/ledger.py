"""The ledger: one row for each decision, written in the transaction of the change that it tells of.

An event says what was decided (``kind``), about which message and recipient, why in plain words (``reason``), which
setting, record or RFC decided (``rule``), and what the other side said (``answer``).  ``remote`` is which other side:
``name [address]:port`` and how the channel was encrypted.  ``mailsrv.store.history`` reads the ledger back, ``verify``
counts it against the queue, ``prune`` forgets what is old and done.

===========  =========================================  ==========================================================
kind         tells                                      besides message, n, address, status, reason and rule fills
===========  =========================================  ==========================================================
accepted     250 after DATA, or a report of our own;    sender, client; detail: queue id of the message that a
             n is None, it is of the whole message      report is about
delivered    in the mailbox, or the next hop took it    answer, remote; detail: file name in the Maildir
deferred     an attempt failed, another will be made    answer, remote
bounced      failed for good, and the sender was told   answer, remote; detail: queue id of the report
dropped      failed for good, ``rule`` forbids telling  answer, remote
warned       the sender was told of the delay           detail: queue id of the report
held         the operator stopped the attempts, or a    of the whole message: n is None
             submission is unusual (rule)
released     the operator let them go on                of the whole message: n is None
retried      the operator asked for one now             of the whole message: n is None
removed      the operator took the recipient out
refused      a command was refused before acceptance    sender, client; detail: the command (MAIL, RCPT, DATA ...)
observed     a check would have refused, but only        sender, client; detail: the command; of a blocklist that
             observes; or a blocklist is out of order    is ignored: address: its name
connection   a client was turned away at connecting     client
login        a login failed, or came too soon (rule)    client; address: the name that was tried; detail: mechanism
deleted      a message was deleted through POP3         client; address: the account; detail: file name in the Maildir
config       a new configuration, or one refused        detail: the file
===========  =========================================  ==========================================================

From ``refused`` on the kinds are without a message.  Strings are stored as they are; whoever shows them keeps control
characters away from terminals.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from mailsrv.store import queue_id, rows, schema

ACCEPTED = "accepted"
DELIVERED = schema.DELIVERED
DEFERRED = "deferred"
BOUNCED = schema.BOUNCED
DROPPED = schema.DROPPED
WARNED = "warned"
HELD = schema.HELD
RELEASED = "released"
RETRIED = "retried"
REMOVED = schema.REMOVED
REFUSED = "refused"
OBSERVED = "observed"
CONNECTION = "connection"
LOGIN = "login"
DELETED = "deleted"
CONFIG = "config"

KINDS = (
    *(ACCEPTED, DELIVERED, DEFERRED, BOUNCED, DROPPED, WARNED, HELD, RELEASED, RETRIED, REMOVED),
    *(REFUSED, OBSERVED, CONNECTION, LOGIN, DELETED, CONFIG),
)

GAPS = 1000  # of one kind that are named; beyond it they are only counted as "more"

_INSERT = (
    "INSERT INTO event (at, kind, message, n, address, sender, client, status, reason, rule, answer, remote, detail)"
    " VALUES {rows}"
)


@dataclass(frozen=True, slots=True)
class Event:
    """One decision; the table above says which kind fills what.

    ``message`` is the queue id as a number and None when there is no message (yet); ``n`` the recipient's number within
    it and None when the event concerns the whole message.
    """

    kind: str
    message: int | None = None
    n: int | None = None
    address: str = ""
    sender: str = ""
    client: str = ""
    status: str = ""
    reason: str = ""
    rule: str = ""
    answer: str = ""
    remote: str = ""
    detail: str = ""


def write(connection: sqlite3.Connection, at: float, events: Iterable[Event]) -> None:
    """Append ``events``, all of the time ``at`` (seconds since 1970), to the caller's transaction."""
    rows.execute(
        connection,
        _INSERT,
        [
            (
                at,
                event.kind,
                event.message,
                event.n,
                event.address,
                event.sender,
                event.client,
                event.status,
                event.reason,
                event.rule,
                event.answer,
                event.remote,
                event.detail,
            )
            for event in events
        ],
    )


@dataclass(frozen=True, slots=True)
class Balance:
    """What became of all recipients that the ledger knows; ``gaps`` has a sentence for each thing that cannot be.

    The promise kept is ``accepted == delivered + queued + held + bounced + dropped + removed`` and no gap.
    """

    accepted: int
    delivered: int
    queued: int
    held: int
    bounced: int
    dropped: int
    removed: int
    gaps: list[str] = field(default_factory=list)


# Each query names a message and what else its sentence needs; together they say that messages, contents, recipients and
# events tell one story.  They walk tables in the order of their keys and ask indexes, so a million rows take seconds.
_MISFITS: tuple[tuple[str, str], ...] = (
    (
        "{id}: the message has no recipients",
        "SELECT id FROM message WHERE NOT EXISTS (SELECT 1 FROM recipient WHERE message = id)",
    ),
    (
        "{id}: recipients are missing, {0} of {1} are there",
        "SELECT message, count(*), max(n) + 1 FROM recipient GROUP BY message HAVING count(*) <> max(n) + 1",
    ),
    (
        "{id}: there are recipients but no message",
        "SELECT DISTINCT message FROM recipient WHERE NOT EXISTS (SELECT 1 FROM message WHERE id = recipient.message)",
    ),
    (
        "{id}: there are events but no message",
        "SELECT DISTINCT message FROM event"
        " WHERE message IS NOT NULL AND NOT EXISTS (SELECT 1 FROM message WHERE id = event.message)",
    ),
    (
        "{id}: no event tells of its acceptance",
        "SELECT id FROM message"
        " WHERE NOT EXISTS (SELECT 1 FROM event WHERE message = message.id AND kind = 'accepted')",
    ),
    (
        "{id} to {0}: is in the state {1}, which does not exist",
        "SELECT message, address, state FROM recipient"
        " WHERE state NOT IN ('queued', 'held', 'delivered', 'bounced', 'dropped', 'removed')",
    ),
    (
        "{id} to {0}: is {1}, but the content is gone",
        "SELECT message, address, state FROM recipient WHERE (state = 'queued' OR state = 'held')"
        " AND NOT EXISTS (SELECT 1 FROM content WHERE message = recipient.message)",
    ),
    (
        "{id}: nobody waits for the message, but its content is still there",
        "SELECT message FROM content WHERE NOT EXISTS"
        " (SELECT 1 FROM recipient WHERE message = content.message AND state IN ('queued', 'held'))",
    ),
    (
        "{id} to {0}: is {1}, but no event tells of it",
        "SELECT message, address, state FROM recipient WHERE state IN ('delivered', 'bounced', 'dropped', 'removed')"
        " AND NOT EXISTS (SELECT 1 FROM event WHERE message = recipient.message AND kind = state AND n = recipient.n)",
    ),
    (
        "{id}: an event says {0}, but there is no recipient with the number {1}",
        "SELECT message, kind, n FROM event WHERE message IS NOT NULL"
        " AND (n IS NOT NULL OR kind IN ('delivered', 'bounced', 'dropped', 'removed'))"
        " AND NOT EXISTS (SELECT 1 FROM recipient WHERE message = event.message AND n = event.n)",
    ),
    (
        # One that was removed while an attempt was under way rightly has the event of that attempt too.
        "{id} to {0}: is {1}, but an event says {2}",
        "SELECT event.message, recipient.address, state, kind FROM event"
        " JOIN recipient ON recipient.message = event.message AND recipient.n = event.n"
        " WHERE kind IN ('delivered', 'bounced', 'dropped', 'removed') AND state NOT IN (kind, 'removed')",
    ),
)

# Only asked for when there are more events than there should be, as it has to sort them.
_TWICE = (
    "SELECT message, kind, count(*) FROM event WHERE message IS NOT NULL"
    " AND kind IN ('accepted', 'delivered', 'bounced', 'dropped', 'removed')"
    " GROUP BY message, n, kind HAVING count(*) > 1"
)


def verify(
    connection: sqlite3.Connection,
    spool_files: set[str] | None,
    progress: Callable[[int, int], None] = lambda done, steps: None,
) -> Balance:
    """Count what was accepted against what became of it.

    ``spool_files`` are the names in ``spool/``, listed while the transaction is open; None: not looked at.  The
    caller holds a transaction, as the queries have to see one state; with a running server a gap about a file is only
    real when it is there twice.
    """
    states: dict[str, int] = dict(connection.execute("SELECT state, count(*) FROM recipient GROUP BY state"))
    gaps: list[str] = []
    for done, (sentence, query) in enumerate(_MISFITS):
        progress(done, len(_MISFITS))
        gaps += _named(sentence, connection.execute(query))
    if spool_files is not None:
        gaps += _named("{id}: the file spool/{name} with its content is gone", _unfiled(connection, spool_files))
    gaps += _told_twice(connection, states)
    return Balance(
        accepted=sum(states.values()),
        delivered=states.get(schema.DELIVERED, 0),
        queued=states.get(schema.QUEUED, 0),
        held=states.get(schema.HELD, 0),
        bounced=states.get(schema.BOUNCED, 0),
        dropped=states.get(schema.DROPPED, 0),
        removed=states.get(schema.REMOVED, 0),
        gaps=gaps,
    )


def _named(sentence: str, misfits: Iterable[tuple[int, *tuple[object, ...]]]) -> Iterator[str]:
    for count, (message, *facts) in enumerate(misfits):
        if count == GAPS:
            yield "there are more of this kind: " + sentence.partition(": ")[2].format(*facts, name="...")
            return
        name = queue_id.text(message)
        yield sentence.format(*facts, id=name, name=name)


def _unfiled(connection: sqlite3.Connection, spool_files: set[str]) -> Iterator[tuple[int]]:
    """Messages whose content should be a file and is not."""
    for (message,) in connection.execute("SELECT message FROM content WHERE data IS NULL"):
        if queue_id.text(message) not in spool_files:
            yield (message,)


def _told_twice(connection: sqlite3.Connection, states: dict[str, int]) -> Iterator[str]:
    """Events of a kind that comes once for each message or recipient, and came twice."""
    told: dict[str, int] = dict(
        connection.execute("SELECT kind, count(*) FROM event WHERE message IS NOT NULL GROUP BY kind")
    )
    messages = connection.execute("SELECT count(*) FROM message").fetchone()[0]
    if told.get(ACCEPTED, 0) > messages or any(told.get(state, 0) > states.get(state, 0) for state in schema.FINAL):
        yield from _named("{id}: {1} events say {0} of the same", connection.execute(_TWICE))


def counts(connection: sqlite3.Connection, since: float) -> dict[str, int]:
    """How many events of each kind were written since ``since`` (seconds since 1970)."""
    found: dict[str, int] = {}
    # From the newest backwards, so that the rest of the ledger is not read.
    for kind, at in connection.execute("SELECT kind, at FROM event ORDER BY id DESC"):
        if at < since:
            break
        found[kind] = found.get(kind, 0) + 1
    return found


def prune(connection: sqlite3.Connection, before: float, at_once: int = 2000, now: float = math.inf) -> int:
    """Forget what is done and was last heard of before ``before`` (seconds since 1970); how many rows went.

    A message goes whole, with recipients and events, and never while a recipient is open; then events without a message
    go, and the counts of causes that were not seen since.  About ``at_once`` rows go in one call, so that the writer
    soon does other work; call again until it answers 0.  What came after ``now``, before the clock was set back, stays.
    """
    gone = 0
    done: list[tuple[int]] = []
    # Oldest first, as ids ascend with acceptance; those passed over are the few that are still in the queue.
    for message, accepted, open_or_recent, parts in connection.execute(
        "SELECT id, accepted, EXISTS (SELECT 1 FROM recipient WHERE message = id AND state IN ('queued', 'held'))"
        " OR EXISTS (SELECT 1 FROM event WHERE message = message.id AND at >= ?),"
        " 1 + (SELECT count(*) FROM recipient WHERE message = id)"
        " + (SELECT count(*) FROM event WHERE message = message.id)"
        " FROM message WHERE accepted <= ? ORDER BY id",
        (before, now),
    ):
        if accepted >= before or gone >= at_once:
            break
        if not open_or_recent:
            done.append((message,))
            gone += parts
    for table, key in (("event", "message"), ("recipient", "message"), ("content", "message"), ("message", "id")):
        connection.executemany(f"DELETE FROM {table} WHERE {key} = ?", done)  # noqa: S608 names from the line above
    connection.execute("DELETE FROM notice WHERE seen < ?", (before,))
    if gone < at_once:
        gone += connection.execute(
            "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE message IS NULL AND at < ? ORDER BY at LIMIT ?)",
            (before, at_once - gone),
        ).rowcount
    return gone
