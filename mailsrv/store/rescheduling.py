"""All that waits, moved in time: at a jump of the clock, for new settings, at a start.

Plain functions on a connection, as in ``mailsrv.store.message``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_OPEN = "(state = 'queued' OR state = 'held')"


class Move(NamedTuple):
    """A jump of the clock by ``seconds``; times from ``begin`` to ``end`` are by the clock after it (since 1970)."""

    seconds: float
    begin: float
    end: float


def shift(moves: Sequence[Move], since: float) -> float:
    """By how many seconds the times of a recipient move that waits from ``since``; ``moves`` are in their order.

    It began to wait by the clock after the last of them within whose time ``since`` lies: only those behind that one
    concern it.
    """
    seconds = 0.0
    for move in reversed(moves):
        if move.begin <= since <= move.end:
            break
        seconds += move.seconds
    return seconds


def postpone(connection: sqlite3.Connection, moves: Sequence[Move], latest: float) -> None:
    """The wall clock has jumped: what waits moves by its ``shift``, and so goes on waiting as long as it would have.

    No next attempt of what was tried already is later than ``latest``.
    """
    cases, seconds = "", 0.0
    parameters: list[float] = []
    for move in reversed(moves):
        n = len(parameters)
        cases += f" WHEN since BETWEEN ?{n + 1} AND ?{n + 2} THEN ?{n + 3}"
        parameters += [move.begin, move.end, seconds]
        seconds += move.seconds
    by = f"CASE{cases} ELSE ?{len(parameters) + 1} END"
    connection.execute(
        f"UPDATE recipient SET next_attempt = next_attempt + {by}, since = since + {by} WHERE {_OPEN}",  # noqa: S608
        (*parameters, seconds),
    )
    connection.execute(
        f"UPDATE recipient SET next_attempt = ?1 WHERE {_OPEN} AND attempts > 0 AND next_attempt > ?1",  # noqa: S608
        (latest,),
    )


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


class Place(NamedTuple):
    """A recipient, in the order of the index ``recipient_open``."""

    state: str
    lane: str
    destination: str
    next_attempt: float
    message: int
    n: int


BEGIN: Final = Place("held", "", "", -1e18, 0, 0)


class _Waiting(NamedTuple):
    place: Place
    attempts: int
    since: float
    accepted: float


def resume(
    connection: sqlite3.Connection,
    after: Place,
    rows: int,
    now: float,
    jump: float,
    retry: Sequence[float],
    expire: float,
) -> Place | None:
    """At the start: what waits does so by the present settings and the present clock.  So many rows behind ``after``;
    where to go on, None at the end.

    The clock may have been wrong before, or is now.  Nothing has waited since before it came or since the future, and
    what came more than ``jump`` seconds in the future came just now.  No next attempt is further away than ``retry``
    has it, nor later than the expiry.

    A row that was looked at is right, whatever happens before the others are: looking again, at the next start, changes
    it only if the clock went back once more.  Nothing gets a later time here than it had, so none is passed over.
    """
    changed, last, count = [], after, 0
    for waiting in _waiting(connection, after, rows):
        last, count = waiting.place, count + 1
        times = _resumed(waiting, now, jump, retry, expire)
        if times != (waiting.since, waiting.place.next_attempt):
            changed.append((*times, waiting.place.message, waiting.place.n))
    connection.executemany("UPDATE recipient SET since = ?, next_attempt = ? WHERE message = ? AND n = ?", changed)
    if count == rows:
        return last
    return BEGIN._replace(state="queued") if after.state == "held" else None


def _waiting(connection: sqlite3.Connection, after: Place, rows: int) -> Iterator[_Waiting]:
    found = connection.execute(
        "SELECT lane, destination, next_attempt, message, n, attempts, since,"  # noqa: S608
        " (SELECT accepted FROM message WHERE id = recipient.message) FROM recipient INDEXED BY recipient_open"
        f" WHERE {_OPEN} AND state = ?1 AND (lane, destination, next_attempt, message, n) > (?2, ?3, ?4, ?5, ?6)"
        " ORDER BY lane, destination, next_attempt, message, n LIMIT ?7",
        (*after, rows),
    ).fetchall()
    for lane, destination, next_attempt, message, n, attempts, since, accepted in found:
        yield _Waiting(Place(after.state, lane, destination, next_attempt, message, n), attempts, since, accepted)


def _resumed(waiting: _Waiting, now: float, jump: float, retry: Sequence[float], expire: float) -> tuple[float, float]:
    """``since`` and the next attempt, by the present settings and the present clock."""
    place, attempts, since, accepted = waiting
    next_attempt = place.next_attempt
    if attempts and since > now:
        since = now
    if since < accepted <= now:
        since = accepted
    # What a start before this one has moved stays where it is, though its message still comes from the future.
    if not attempts and since > now and accepted > now + jump:
        since += now - accepted
        next_attempt += now - accepted
    if place.state == "queued":
        if attempts:
            next_attempt = min(next_attempt, now + retry[min(attempts, len(retry)) - 1])
        next_attempt = min(next_attempt, since + expire)
    return since, next_attempt
