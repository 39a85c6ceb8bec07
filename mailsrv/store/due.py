"""What waits for its time, as the queue runner asks for it: who has mail, for where, and what is due.

Plain functions on a connection.  Whoever sends shares the queue with others, so it is kept by lanes
(``Arrival.lane``): the index ``recipient_open`` leads from lane to lane, within a lane from destination to destination,
and there by time; ``recipient_due`` leads through all mail for elsewhere by time.  Each function costs what it answers,
or a stated number of steps, however much waits: none reads the table from end to end, and none sorts.  Own mailboxes
have the lane "" and the destination "".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Final, NamedTuple

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.store import message as spooled
from mailsrv.store.message import Acceptance, QueuedMessage, QueuedRecipient

STEPS: Final = 500  # destinations that ``of_lane`` passes by in one call
TOGETHER: Final = 100  # recipients of one message that are taken at once (RFC 5321 4.5.3.1.8: what any server takes)

_OWN: Final = "state = 'queued' AND lane = '' AND destination = ''"  # in own mailboxes


class Pair(NamedTuple):
    """One lane's mail for one destination."""

    lane: str
    destination: str


def local_waiting(connection: sqlite3.Connection, now: float, limit: int) -> list[QueuedMessage]:
    """Messages with recipients in own mailboxes that are due, oldest first."""
    rows = connection.execute(
        f"SELECT message, n FROM recipient WHERE {_OWN} AND next_attempt <= ? ORDER BY next_attempt LIMIT ?",  # noqa: S608
        (now, limit),
    )
    return _messages(connection, rows)


class Wanted(NamedTuple):
    """Mail of a pair: how many messages, without which recipients, and whether their contents are wanted with them."""

    pair: Pair
    messages: int
    known: frozenset[tuple[int, int]]
    contents: bool


class Found(NamedTuple):
    """What there is, whether there is more, and contents by message, as ``mailsrv.store.message.content`` has them."""

    messages: list[QueuedMessage]
    more: bool
    contents: dict[int, tuple[bytes, bytes | None]]


def waiting_of(connection: sqlite3.Connection, now: float, wanted: Sequence[Wanted], octets: int) -> list[Found]:
    """``waiting`` for several pairs, with contents as long as they have no more than ``octets`` together."""
    found = []
    for pair, number, known, with_contents in wanted:
        messages, more = waiting(connection, now, pair, number, known)
        contents: dict[int, tuple[bytes, bytes | None]] = {}
        for queued in messages if with_contents else ():
            if queued.size <= octets and (content := spooled.content(connection, queued.id)) is not None:
                contents[queued.id] = content
                octets -= queued.size
        found.append(Found(messages, more, contents))
    return found


def waiting(
    connection: sqlite3.Connection, now: float, pair: Pair, messages: int, known: frozenset[tuple[int, int]]
) -> tuple[list[QueuedMessage], bool]:
    """The oldest messages of ``pair`` that are due, at most so many; and whether there are more.

    ``known`` are recipients (message, n) that are left out.  A message has at most TOGETHER recipients here; those that
    are left over come as a message of their own.
    """
    rows = connection.execute(
        "SELECT message, n FROM recipient WHERE state = 'queued' AND lane = ? AND destination = ? AND next_attempt <= ?"
        " ORDER BY next_attempt, message, n",
        (pair.lane, pair.destination, now),
    )
    taken: list[tuple[int, int]] = []
    last, count, together, more = 0, 0, 0, False
    with closing(rows):  # a statement that is not read to its end would hold on to what it sees
        for message, n in rows:
            if (message, n) in known:
                continue
            if message != last or together == TOGETHER:
                more = count == messages
                if more:
                    break
                last, count, together = message, count + 1, 0
            together += 1
            taken.append((message, n))
    return _messages(connection, taken), more


def lanes(connection: sqlite3.Connection, after: str, limit: int) -> list[str]:
    """Lanes with mail in the queue, at most ``limit``, from the one behind ``after`` on.  So "" is never among them."""
    return [
        lane
        for (lane,) in connection.execute(
            "WITH RECURSIVE step (lane) AS ("
            " SELECT min(lane) FROM recipient WHERE state = 'queued' AND lane > ?1"
            " UNION ALL"
            " SELECT (SELECT min(lane) FROM recipient WHERE state = 'queued' AND lane > step.lane)"
            " FROM step WHERE lane IS NOT NULL)"
            " SELECT lane FROM step WHERE lane IS NOT NULL LIMIT ?2",
            (after, limit),
        )
    ]


def of_lane(
    connection: sqlite3.Connection, now: float, lane: str, after: str, limit: int
) -> tuple[list[Pair], str | None]:
    """Destinations elsewhere for which mail of ``lane`` is due, at most ``limit``, from the one behind ``after`` on.

    With them the name to go on behind, None at the end.  After STEPS destinations that is where it stops, even if
    nothing is due for them.
    """
    found: list[Pair] = []
    last = after
    count = 0
    steps = connection.execute(
        "WITH RECURSIVE step (destination) AS ("
        " SELECT min(destination) FROM recipient WHERE state = 'queued' AND lane = ?1 AND destination > ?2"
        " UNION ALL"
        " SELECT (SELECT min(destination) FROM recipient"
        "  WHERE state = 'queued' AND lane = ?1 AND destination > step.destination)"
        " FROM step WHERE destination IS NOT NULL)"
        " SELECT destination, EXISTS (SELECT 1 FROM recipient WHERE state = 'queued' AND lane = ?1"
        "  AND destination = step.destination AND next_attempt <= ?3)"
        " FROM step WHERE destination IS NOT NULL LIMIT ?4",
        (lane, after, now, STEPS),
    )
    with closing(steps):
        for destination, is_due in steps:
            last, count = destination, count + 1
            if is_due:
                found.append(Pair(lane, destination))
                if len(found) == limit:
                    return found, last
    return found, last if count == STEPS else None


def became_due(connection: sqlite3.Connection, since: float, now: float, limit: int) -> list[Pair] | None:
    """Pairs with mail whose time came after ``since`` and until ``now``; None for more than ``limit`` elsewhere."""
    rows = connection.execute(
        "SELECT lane, destination FROM recipient INDEXED BY recipient_due"
        " WHERE state = 'queued' AND mailbox = '' AND next_attempt > ?1 AND next_attempt <= ?2"
        " ORDER BY next_attempt LIMIT ?3",
        (since, now, limit + 1),
    ).fetchall()
    if len(rows) > limit:
        return None
    own = connection.execute(
        f"SELECT lane, destination FROM recipient WHERE {_OWN} AND next_attempt > ? AND next_attempt <= ? LIMIT 1",  # noqa: S608
        (since, now),
    )
    return list(dict.fromkeys(Pair(*row) for row in (*rows, *own)))


def next_due(connection: sqlite3.Connection, now: float) -> float | None:
    """When the next attempt after ``now`` is due; None when there is none."""
    own = connection.execute(
        f"SELECT min(next_attempt) FROM recipient WHERE {_OWN} AND next_attempt > ?",  # noqa: S608
        (now,),
    )
    elsewhere = connection.execute(
        "SELECT min(next_attempt) FROM recipient INDEXED BY recipient_due"
        " WHERE state = 'queued' AND mailbox = '' AND next_attempt > ?",
        (now,),
    )
    return min((at for (at,) in (*own, *elsewhere) if at is not None), default=None)


def still_queued(connection: sqlite3.Connection, message: int) -> set[int]:
    """The recipients that are queued at this moment: the operator may have held or removed some."""
    return {
        n for (n,) in connection.execute("SELECT n FROM recipient WHERE message = ? AND state = 'queued'", (message,))
    }


def elsewhere(acceptance: Acceptance) -> list[tuple[Pair, QueuedMessage]]:
    """What ``waiting`` would find of a message that has just been accepted, by destination, without own mailboxes.

    One transaction has one sender, and forwarded mail another than the rest: what differs in that comes apart.
    """
    arrival = acceptance.arrival
    if all(final.mailbox for final in arrival.recipients):
        return []
    due = acceptance.due
    envelope = arrival.envelope
    if envelope.size != arrival.size:
        said = (envelope.sender, envelope.body, envelope.smtputf8, envelope.ret, envelope.envid)
        envelope = Envelope(*said, arrival.size)
    together: dict[tuple[str, Address | None], list[QueuedRecipient]] = {}
    for n, final in enumerate(arrival.recipients):
        if final.destination:
            addressed = (n, final.address, final.original, final.sender, "", "", final.notify, final.orcpt)
            recipient = QueuedRecipient(*addressed, attempts=0, since=due, warned=False, due=due)
            together.setdefault((final.destination, final.sender), []).append(recipient)
    found = []
    for (destination, _), recipients in together.items():
        for start in range(0, len(recipients), TOGETHER):
            queued = QueuedMessage(
                arrival.id,
                acceptance.now,
                envelope,
                arrival.message_id,
                arrival.account,
                arrival.client,
                arrival.protocol,
                arrival.size,
                arrival.lines,
                tuple(recipients[start : start + TOGETHER]),
                len(arrival.prefix),
            )
            found.append((Pair(arrival.lane, destination), queued))
    return found


def of(connection: sqlite3.Connection, message: int, numbers: Sequence[int]) -> QueuedMessage | None:
    """One message with these of its recipients, in whatever state they are."""
    found = _messages(connection, [(message, n) for n in numbers])
    return found[0] if found else None


def _messages(connection: sqlite3.Connection, rows: Iterable[tuple[int, int]]) -> list[QueuedMessage]:
    """The messages of these recipients in the order of ``rows``, each once, or for every TOGETHER recipients."""
    wanted: dict[int, list[int]] = {}
    for message, n in rows:
        wanted.setdefault(message, []).append(n)
    return [found for message, numbers in wanted.items() for found in _message(connection, message, numbers)]


def _message(connection: sqlite3.Connection, message: int, numbers: Sequence[int]) -> list[QueuedMessage]:
    row = connection.execute(
        "SELECT accepted, sender, message_id, size, lines, body, smtputf8, ret, envid, account, client, protocol,"
        " (SELECT length(prefix) FROM content WHERE message = id) FROM message WHERE id = ?",
        (message,),
    ).fetchone()
    if row is None:
        return []
    accepted, sender, message_id, size, lines, body, smtputf8, ret, envid, account, client, protocol, head = row
    envelope = Envelope(_address(sender), body, bool(smtputf8), ret, envid, size)
    recipients = _recipients(connection, message, sorted(numbers))
    return [
        QueuedMessage(
            *(message, accepted, envelope, message_id, account, client, protocol, size, lines),
            tuple(recipients[start : start + TOGETHER]),
            head or 0,
        )
        for start in range(0, len(recipients), TOGETHER)
    ]


def _recipients(connection: sqlite3.Connection, message: int, numbers: Sequence[int]) -> list[QueuedRecipient]:
    marks = ",".join("?" * len(numbers))
    return [
        QueuedRecipient(
            n=n,
            address=Address.parse(address),
            original=Address.parse(original),
            sender=_address(rewritten),
            mailbox=mailbox,
            name=name,
            notify=tuple(notify.split(",")) if notify else (),
            orcpt=orcpt,
            attempts=attempts,
            since=since,
            warned=bool(warned),
            due=due,
        )
        for n, address, original, rewritten, mailbox, name, notify, orcpt, attempts, since, warned, due in (
            connection.execute(
                "SELECT n, address, original, sender, mailbox, name, notify, orcpt, attempts, since, warned,"  # noqa: S608
                f" next_attempt FROM recipient WHERE message = ? AND n IN ({marks}) ORDER BY n",
                (message, *numbers),
            )
        )
    ]


def _address(text: str) -> Address | None:
    """A stored address again; None for the null reverse-path.  Stored text was canonical, so it parses."""
    return Address.parse(text) if text else None
