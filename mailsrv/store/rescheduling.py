"""All that waits, moved in time at once: at a jump of the clock, for new settings, at a start.

Plain functions on a connection, as in ``mailsrv.store.message``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

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
