"""The ledger as a log: what was committed since the last look, a line for each event.

The log is read back from the ledger, so the two cannot disagree, and what the operator's tool did shows too.  A storm
of events cannot fill the disk with lines, nor keep the server busy with them: beyond LINES at once, and PER_S in the
long run, the rest is counted, and the ledger has it all.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from mailsrv.store import queue_id
from mailsrv.store.database import Database

log = Logger()

LINES = 200
PER_S = 50.0

_UNSEEN = "SELECT id, kind, message, address, sender, client, status, reason, answer, remote FROM event WHERE id > ?"
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Tail:
    """Follows the ledger from the moment at which it is made.  ``seconds`` is a monotonic clock."""

    def __init__(self, database: Database, connection: sqlite3.Connection, seconds: Callable[[], float]) -> None:
        self._database = database
        self._seconds = seconds
        self._last: int = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
        self._allowance = float(LINES)
        self._allowed_at = seconds()

    async def look(self) -> None:
        """Log what is new."""
        now = self._seconds()
        self._allowance = min(self._allowance + (now - self._allowed_at) * PER_S, float(LINES))
        self._allowed_at = now
        rows, newest = await self._database.read(_unseen, self._last, int(self._allowance))
        self._allowance -= len(rows)
        for row in rows:
            log.info("{line}", line=_line(*row[1:]))
        told = rows[-1][0] if rows else self._last
        if newest > told:
            log.info("... and {more} more events; the ledger has them.", more=newest - told)
        # Not always forward: when all is old and forgotten, the ledger begins again with the first number.
        self._last = newest


def _unseen(connection: sqlite3.Connection, last: int, most: int) -> tuple[list[Any], int]:
    """The first events behind ``last``, and the id of the newest of all."""
    rows = connection.execute(f"{_UNSEEN} ORDER BY id LIMIT ?", (last, most)).fetchall()
    newest: int = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
    return rows, newest


def _line(
    kind: str,
    message: int | None,
    address: str,
    sender: str,
    client: str,
    status: str,
    reason: str,
    answer: str,
    remote: str,
) -> str:
    said = [queue_id.text(message)] if message is not None else []
    said.append(kind)
    for name, value in (("to", address), ("from", sender), ("client", client), ("by", remote)):
        if value:
            said.append(f"{name}={value}")
    if status:
        said.append(status)
    said.append(reason)
    if answer:
        said.append(f"({answer})")
    return _CONTROLS.sub("?", " ".join(said))
